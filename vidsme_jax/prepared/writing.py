"""Writes prepared corpora: stages clips, then packs them into shards of a version.

Prepared clips wait in `staged/` (see `staging.py`); when all are staged, each changed
shard is written, and the others are copied. All writes are atomic, so that a killed run
loses only the clips in progress. Finally the shards become the next version
(`folder_versions.py`, `bucket_versions.py`), and the staged clips are deleted.
"""

import concurrent.futures
import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
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

_CLIPS_PER_SHARD = 64  # For a new variant, whose number of shards is then fixed.
_TRANSIENT = ("preprocess", "process")  # Stages whose failures may be transient.
_WORTH = (SAME, FAILED, CLIP)  # Kinds of staged clips, the best last.

Spread = Callable[[Callable[[Packing], None], Sequence[Packing]], None]


@contextlib.contextmanager
def opened(
    root: Place, variant: Variant, num_clips: int
) -> Generator["Writer", None, None]:
    """Opens a variant of a prepared corpus for writing.

    A folder has one writer at a time. A bucket may have several: the first to finish
    publishes the next version, and the others fail and must be started again.

    Args:
      root: The folder or bucket of the prepared corpora.
      variant: How clips are prepared.
      num_clips: Of the corpus; determines the number of shards of a new variant.

    Raises:
      AuditError: The folder has other settings, or another run is writing to it; or
        the bucket cannot be used.
      OSError: The folder cannot be written, or the bucket cannot be reached.
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
      staging: Holds the staged clips.
      num_shards: Of the variant.
      homes: The folder of the newest intact state of each shard, "" without one.
    """

    def __init__(self, versions: FolderVersions | BucketVersions, staging: Staging):
        """Reads the shards and staged clips of earlier runs."""
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
        self._names: dict[str, set[str]] = {}  # By digest, of all equal videos.
        self._sources: dict[str, str] = {}  # Digest by source.
        staging.sweep()
        self.refresh(retry=True)

    def refresh(self, *, retry: bool = False) -> None:
        """Reads the clips staged so far, by this and other processes.

        Args:
          retry: Whether transient failures are deleted, so that they are tried again.
        """
        found = self.staging.names()
        for staged in sorted(found, key=lambda each: _WORTH.index(each.kind)):
            if staged.kind == SAME and not self.has(staged.digest):
                if retry:  # The clip that it equals is gone.
                    self.staging.delete([staged.name])
                continue
            if retry and staged.kind == FAILED:
                if self.staging.failure(staged.name)[0] in _TRANSIENT:
                    self.staging.delete([staged.name])
                    continue
            self._take(staged)

    def _take(self, staged: Staged) -> None:
        """Indexes a staged clip."""
        digest = staged.digest
        self._sources[staged.source] = digest
        self._names.setdefault(digest, set()).add(staged.name)
        before = self._staged.get(digest)
        worth = -1 if before is None else _WORTH.index(before.kind)
        if staged.kind != SAME and _WORTH.index(staged.kind) >= worth:
            self._staged[digest] = staged

    def _remember(self, entry: Entry) -> None:
        """Indexes an entry of a shard, unless its failure is to be tried again."""
        if not entry.stage:
            self._prepared.add(entry.digest)
        elif entry.stage in _TRANSIENT or all(r.stamp == ABSENT for r in entry.rows):
            return  # Also if its file was missing.
        for row in entry.rows:
            self._known[row.item.clip] = entry.digest, row.stamp

    # ------------------------------------------------------------- clip by clip

    def digest_of(self, key: str) -> str | None:
        """Returns the digest of a clip that was prepared or failed before, or None.

        Its file is not read; it must be unchanged, or deleted after it was prepared.
        Must be called for every clip first: it records the stamp of the file, so that
        the next run detects later changes.
        """
        now = self._stamps[key] = stamp(key)
        digest, before = self._known.get(key, (None, None))
        if now == ABSENT and before is not None and digest in self._prepared:
            self._stamps[key] = before
            return digest
        return digest if now == before else self.staged(key)

    def staged(self, key: str) -> str | None:
        """Returns the digest of a clip if it is staged, after `digest_of`."""
        return self._sources.get(source_of(key, self._stamps[key]))

    def stamp_of(self, key: str) -> Stamp:
        """Returns the stamp of a clip's file at the call of `digest_of`."""
        return self._stamps[key]

    def has(self, digest: str) -> bool:
        """Returns whether a clip with this digest is prepared or staged."""
        return digest in self._prepared or digest in self._staged

    def add(self, key: str, example: Mapping[str, Any]) -> str:
        """Stores a clip (see `dataset.encode`); returns its digest."""
        staged = self.staging.add(key, self._stamps[key], example)
        self._take(staged)
        return staged.digest

    def fail(self, key: str, content: str, error: ClipError) -> str:
        """Stores why a clip cannot be prepared; returns its digest.

        `content` is the content hash, "" if the file cannot be read.
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
        """Publishes the next version, if anything has changed.

        Args:
          items: Of the corpus; they replace the stored rows of their clips.
          digests: Of every clip, by key.
          workers: Threads.
          spread: Calls a function with each of several arguments, which can be sent to
            other processes; None does so on threads.

        Returns:
          The failures of this and earlier runs, by digest.
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
        """Returns the packing of a shard."""
        before = self._shards[number]
        old = {entry.digest: entry for entry in before.entries}
        # A prepared clip is never replaced; a failed one is.
        fresh = {
            digest: self._staged[digest]
            for digest in staged
            if digest in self._staged and (digest not in old or old[digest].stage)
        }
        entries = []
        for digest in sorted({*old, *fresh}):
            named = rows.get(digest)
            if named is None and digest in old:  # Without rows whose file has changed.
                named = [
                    row
                    for row in old[digest].rows
                    if digests.get(row.item.clip, digest) == digest
                ]
            if named:  # Others have no rows, or are staged for another corpus.
                failure = self._failure(old.get(digest), fresh.get(digest))
                entries.append(Entry(digest, tuple(named), *failure))
        # Clips staged by a killed run of another corpus are kept.
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
        """Returns the stage and the cause; ("", "") for a prepared clip."""
        if fresh is None:
            return (old.stage, old.cause) if old else ("", "")
        return ("", "") if fresh.kind == CLIP else self.staging.failure(fresh.name)


def _on_threads(workers: int) -> Spread:
    """Returns a `Spread` on threads, which stops at the first error."""

    def spread(work: Callable[[Packing], None], given: Sequence[Packing]) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(workers)
        try:
            for _ in pool.map(work, given):
                pass
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return spread


def _content(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Returns the data that determine the records of a shard."""
    return [(entry.digest, entry.text()) for entry in entries if not entry.stage]
