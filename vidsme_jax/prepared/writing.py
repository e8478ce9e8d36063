"""Writing prepared corpora: clip by clip aside, then shard by shard into a version.

A clip that is ready waits in `staged/` (see `staging.py`); when all are, each shard
that changes is written, and those that do not are taken over. What is written is whole
or not there, so that a run that is killed loses the clips in hand and no other. At last
all becomes the next version (`folder_versions.py`, `bucket_versions.py`), and what led to it is deleted.
"""

import concurrent.futures
import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vidsme_jax.base import ClipError, Item
from vidsme_jax.data.reading import ABSENT, Stamp, stamp
from vidsme_jax.prepared import layout
from vidsme_jax.prepared.bucket_versions import BucketVersions
from vidsme_jax.prepared.folder_versions import FolderVersions
from vidsme_jax.prepared.layout import Entry, Place, Row, Variant
from vidsme_jax.prepared.packing import Packing, State
from vidsme_jax.prepared.staging import CLIP, FAILED, SAME, Staged, Staging, source_of
from vidsme_jax.store.buckets import Bucket
from vidsme_jax.store.lock import locked

_CLIPS_PER_SHARD = 64  # When the folder is made; the number of shards then stays.
_PASSING = ("preprocess", "process")  # Stages whose failures may be of the moment.
_WORTH = (SAME, FAILED, CLIP)  # Of what is staged, rising.

Spread = Callable[[Callable[[Packing], None], Sequence[Packing]], None]


@contextlib.contextmanager
def opened(root: Place, variant: Variant, num_clips: int) -> Iterator["Writer"]:
    """Opens a variant of a prepared corpus for writing.

    One writer at a time is in a folder. In a bucket there may be several: the first
    that is ready makes the next version, and the others are told to begin again.

    Args:
      root: The folder or bucket of the prepared corpora.
      variant: How clips are prepared.
      num_clips: Of the corpus; decides the number of shards of a new variant.

    Raises:
      AuditError: The folder has other settings, or another run is writing to it; or
        the bucket cannot be used.
      OSError: The folder cannot be written, or the bucket not be reached.
    """
    shards = min(max(-(-num_clips // _CLIPS_PER_SHARD), 1), layout.MOST_SHARDS)
    folder = variant.folder(root)
    if isinstance(folder, Bucket):
        folder.check()
        with tempfile.TemporaryDirectory(prefix="vidsme-") as work:
            versions = BucketVersions(folder, variant, shards, pathlib.Path(work))
            yield Writer(versions, Staging(layout.subfolder(folder, "staged"), variant))
        return
    with locked(folder, "another run is preparing it"):
        versions = FolderVersions(folder, variant, shards)
        yield Writer(versions, Staging(layout.subfolder(folder, "staged"), variant))


class Writer:
    """Adds clips to a variant of a prepared corpus; see `opened`.

    Attributes:
      staging: Where clips wait.
      num_shards: Of the variant.
      homes: The name of the folder in which each shard is whole, "" of one that is not.
    """

    def __init__(self, versions: FolderVersions | BucketVersions, staging: Staging):
        """Finds what earlier runs have left."""
        self.staging, self._versions = staging, versions
        self.num_shards = versions.num_shards
        self._shards: list[State] = versions.states()
        self.homes = tuple(state.home for state in self._shards)
        self._known: dict[str, tuple[str, Stamp]] = {}  # Digest by key.
        self._prepared: set[str] = set()
        self._stamps: dict[str, Stamp] = {}  # By key.
        for state in self._shards:
            for entry in state.entries:
                self._remember(entry)
        self._staged: dict[str, Staged] = {}  # By digest.
        self._names: dict[str, set[str]] = {}  # All of a digest: equal videos.
        self._sources: dict[str, str] = {}  # Digest by source.
        staging.sweep()
        self.refresh(retry=True)

    def refresh(self, *, retry: bool = False) -> None:
        """Finds what is staged by now, by this and by other processes.

        Args:
          retry: Whether failures of the moment are forgotten, and tried again.
        """
        found = self.staging.names()
        for staged in sorted(found, key=lambda each: _WORTH.index(each.kind)):
            if staged.kind == SAME and not self.has(staged.digest):
                if retry:  # What it was the same as is gone.
                    self.staging.delete([staged.name])
                continue
            if retry and staged.kind == FAILED:
                if self.staging.failure(staged.name)[0] in _PASSING:
                    self.staging.delete([staged.name])
                    continue
            self._take(staged)

    def _take(self, staged: Staged) -> None:
        """Remembers what is staged."""
        digest = staged.digest
        self._sources[staged.source] = digest
        self._names.setdefault(digest, set()).add(staged.name)
        before = self._staged.get(digest)
        worth = -1 if before is None else _WORTH.index(before.kind)
        if staged.kind != SAME and _WORTH.index(staged.kind) >= worth:
            self._staged[digest] = staged

    def _remember(self, entry: Entry) -> None:
        if not entry.stage:
            self._prepared.add(entry.digest)
        elif entry.stage in _PASSING or all(r.stamp == ABSENT for r in entry.rows):
            return  # What is absent is looked for again.
        for row in entry.rows:
            self._known[row.item.clip] = entry.digest, row.stamp

    # ------------------------------------------------------------- clip by clip

    def digest_of(self, key: str) -> str | None:
        """Returns the digest of a clip that was prepared or has failed before.

        Its file is not read; it must not have changed since, though it may be gone.
        Every clip is asked for first, so that a change from then on is noticed next
        time.
        """
        now = self._stamps[key] = stamp(key)
        digest, before = self._known.get(key, (None, None))
        if now == ABSENT and before is not None and digest in self._prepared:
            self._stamps[key] = before
            return digest
        return digest if now == before else self.staged(key)

    def staged(self, key: str) -> str | None:
        """Returns the digest of a clip, asked for before, that is staged by now."""
        return self._sources.get(source_of(key, self._stamps[key]))

    def stamp_of(self, key: str) -> Stamp:
        """Returns what the file of a clip was like when its digest was asked for."""
        return self._stamps[key]

    def has(self, digest: str) -> bool:
        """Returns whether a clip with this content is already stored."""
        return digest in self._prepared or digest in self._staged

    def add(self, key: str, example: Mapping[str, Any]) -> str:
        """Stores a clip (see `dataset.encode`); returns its digest."""
        staged = self.staging.add(key, self._stamps[key], example)
        self._take(staged)
        return staged.digest

    def fail(self, key: str, content: str, error: ClipError) -> str:
        """Stores why a clip cannot be prepared; returns its digest.

        Args:
          key: Of the clip.
          content: The content hash, "" if it cannot be read.
          error: The cause.
        """
        staged = self.staging.fail(key, self._stamps[key], content, error)
        self._take(staged)
        return staged.digest

    # ------------------------------------------------------------ shard by shard

    def finish(
        self,
        items: Sequence[Item],
        digests: Mapping[str, str],
        workers: int,
        spread: Spread | None = None,
    ) -> dict[str, ClipError]:
        """Makes the next version, if anything is new.

        Args:
          items: Of the corpus; they replace what was stored as rows of their clips.
          digests: Of every clip, by key.
          workers: Threads.
          spread: Calls a function with each of some arguments, all of which can be
            sent to other processes; None does so on threads.

        Returns:
          What failed, now or before, by digest.
        """
        count = self.num_shards
        rows: list[dict[str, list[Row]]] = [{} for _ in range(count)]
        for place, item in enumerate(items):
            digest = digests[item.clip]
            row = Row(place, self._stamps[item.clip], item)
            rows[layout.shard_of(digest, count)].setdefault(digest, []).append(row)
        staged: list[list[str]] = [[] for _ in range(count)]
        for digest in self._names:
            staged[layout.shard_of(digest, count)].append(digest)
        packings = [
            self._packing(digests, number, rows[number], staged[number])
            for number in range(count)
        ]
        entries = [entry for packing in packings for entry in packing.entries]
        lengths = [sum(not e.stage for e in packing.entries) for packing in packings]
        with self._versions.packing(packings, lengths, self.staging) as pack:
            if pack is not None:
                (spread or _on_threads(workers))(pack, packings)
        return {e.digest: ClipError(e.stage, e.cause) for e in entries if e.stage}

    def _packing(
        self,
        digests: Mapping[str, str],
        number: int,
        rows: Mapping[str, Sequence[Row]],
        staged: Sequence[str],
    ) -> Packing:
        """Returns what is to be done for a shard."""
        before = self._shards[number]
        old = {entry.digest: entry for entry in before.entries}
        # Of a clip that was prepared nothing is better; one that failed is tried again.
        fresh = {
            digest: self._staged[digest]
            for digest in staged
            if digest in self._staged and (digest not in old or old[digest].stage)
        }
        entries = []
        for digest in sorted({*old, *fresh}):
            its = rows.get(digest)
            if its is None and digest in old:  # But for what is another clip's by now.
                its = [
                    row
                    for row in old[digest].rows
                    if digests.get(row.item.clip, digest) == digest
                ]
            if its:  # Others are named by nothing, or staged for another corpus.
                failure = self._failure(old.get(digest), fresh.get(digest))
                entries.append(Entry(digest, tuple(its), *failure))
        # But for those of another corpus: its run was killed.
        used = [d for d in staged if d not in fresh or d in rows]
        content, known = _content(entries), _content(before.entries)
        return Packing(
            number=number,
            before=before,
            entries=tuple(entries),
            fresh={d: each.name for d, each in fresh.items() if each.kind == CLIP},
            rewrite=not before.home or bool(fresh) or content != known,
            used=tuple(name for d in used for name in sorted(self._names[d])),
        )

    def _failure(self, old: Entry | None, fresh: Staged | None) -> tuple[str, str]:
        """Returns the stage and the cause, ("", "") of what is prepared."""
        if fresh is None:
            return (old.stage, old.cause) if old else ("", "")
        return ("", "") if fresh.kind == CLIP else self.staging.failure(fresh.name)


def _on_threads(workers: int) -> Spread:
    """Returns what calls a function on threads; the first error ends it."""

    def spread(work: Callable[[Packing], None], given: Sequence[Packing]) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(workers)
        try:
            for _ in pool.map(work, given):
                pass
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return spread


def _content(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Returns what the records of a shard depend on."""
    return [(entry.digest, entry.text()) for entry in entries if not entry.stage]
