"""Writing prepared corpora: clip by clip aside, then shard by shard into a version.

A clip that is ready waits in a file of its own in `staged/`; when all are, each shard
that changes is written to `unfinished/`, and those that do not are linked there. Every
file is renamed into place whole, so that a run that is killed loses the clips in hand
and no other; `unfinished/` becomes the next version, and what led to it is deleted:
the version before it too, or, if somebody reads it then, by the next run.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from vidsme_jax.base import AuditError, ClipError, Item
from vidsme_jax.data.reading import ABSENT, Stamp, stamp
from vidsme_jax.prepared import dataset, layout, records
from vidsme_jax.prepared.layout import Entry, Row, Shard, Variant
from vidsme_jax.store import files
from vidsme_jax.store.lock import locked, unread
from vidsme_jax.store.records import damaged

_CLIPS_PER_SHARD = 64  # When the folder is made; the number of shards then stays.
_STAGED = re.compile("([0-9a-f]{64})-([0-9a-f]{64})")  # Digest and source.
_PASSING = ("preprocess", "process")  # Stages whose failures may be of the moment.


@contextlib.contextmanager
def opened(root: pathlib.Path, variant: Variant, num_clips: int) -> Iterator["Writer"]:
    """Opens a variant of a prepared corpus for writing; one writer at a time.

    Args:
      root: The folder of the prepared corpora.
      variant: How clips are prepared.
      num_clips: Of the corpus; decides the number of shards of a new folder.

    Raises:
      AuditError: The folder has other settings, or another run is writing to it.
    """
    folder = variant.folder(root)
    with locked(folder, "another run is preparing it"):
        if not layout.record(folder).read():
            shards = min(max(-(-num_clips // _CLIPS_PER_SHARD), 1), layout.MOST_SHARDS)
            layout.write_settings(folder, variant, shards)
        yield Writer(folder, variant, layout.check_settings(folder, variant))


class Writer:
    """Adds clips to a variant of a prepared corpus; see `opened`."""

    def __init__(self, folder: pathlib.Path, variant: Variant, num_shards: int):
        """Finds what earlier runs have left."""
        self._folder, self._variant, self._num_shards = folder, variant, num_shards
        self._features = dataset.features(variant)
        self._staged_folder = folder / "staged"
        self._unfinished = folder / "unfinished"
        self._versions = layout.versions(folder)
        self._shards = [self._whole(shard) for shard in range(num_shards)]
        self._known: dict[str, tuple[str, Stamp]] = {}  # Digest by key.
        self._good: set[str] = set()
        self._stamps: dict[str, Stamp] = {}  # By key.
        for _, entries in self._shards:
            for entry in entries:
                self._remember(entry)
        self._staged: dict[str, pathlib.Path] = {}  # By digest.
        self._files: dict[str, set[pathlib.Path]] = {}  # All of a digest: equal videos.
        self._sources: dict[str, str] = {}  # Digest by source.
        for place in (self._unfinished, *self._staged_folder.glob("*")):
            files.sweep(place)
        for kind in ("failed", "clip"):  # In the order of their worth.
            for path in self._staged_folder.glob(f"*/*.{kind}"):
                name = _STAGED.fullmatch(path.stem)
                if not name or not path.is_file():
                    continue
                if kind == "failed" and _failure(None, path)[0] in _PASSING:
                    path.unlink()  # It is tried again.
                else:
                    digest, source = name.groups()
                    self._staged[digest], self._sources[source] = path, digest
                    self._files.setdefault(digest, set()).add(path)

    def _whole(self, number: int) -> tuple[Shard | None, tuple[Entry, ...]]:
        """Returns the newest whole state of a shard, if any."""
        for folder in (self._unfinished, *self._versions[::-1]):
            shard = Shard(folder, number, self._num_shards)
            try:
                return shard, shard.read()
            except ValueError as error:
                if folder != self._unfinished:
                    logging.warning("%s: %s; preparing its clips again", folder, error)
        return None, ()

    def _remember(self, entry: Entry) -> None:
        if not entry.stage:
            self._good.add(entry.digest)
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
        if now == ABSENT and before is not None and digest in self._good:
            self._stamps[key] = before
            return digest
        return digest if now == before else self._sources.get(_source(key, now))

    def has(self, digest: str) -> bool:
        """Returns whether a clip with this content is already stored."""
        return digest in self._good or digest in self._staged

    def add(self, key: str, example: Mapping[str, Any]) -> str:
        """Stores a clip (see `dataset.encode`); returns its digest."""
        data = self._features.serialize_example(dict(example))
        digest = layout.digest_of(example["content_hash"], key)
        return self._stage(key, digest, data, "clip")

    def fail(self, key: str, content: str, error: ClipError) -> str:
        """Stores why a clip cannot be prepared; returns its digest.

        Args:
          key: Of the clip.
          content: The content hash, "" if it cannot be read.
          error: The cause.
        """
        absent = hashlib.sha256(b"absent\0" + _encoded(key)).hexdigest()
        digest = layout.digest_of(content, key) if content else absent
        data = json.dumps({"stage": error.stage, "cause": error.cause}).encode()
        return self._stage(key, digest, data, "failed")

    def _stage(self, key: str, digest: str, data: bytes, kind: str) -> str:
        folder = self._staged_folder / digest[:2]
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{digest}-{_source(key, self._stamps[key])}.{kind}"
        files.write_atomically(file, data)
        self._files.setdefault(digest, set()).add(file)
        if kind == "clip" or digest not in self._staged:
            self._staged[digest] = file
        return digest

    # ------------------------------------------------------------ shard by shard

    def finish(
        self, items: Sequence[Item], digests: Mapping[str, str], workers: int
    ) -> dict[str, ClipError]:
        """Makes the next version, if anything is new.

        Args:
          items: Of the corpus; they replace what was stored as rows of their clips.
          digests: Of every clip, by key.
          workers: Threads.

        Returns:
          What failed, now or before, by digest.
        """
        count = self._num_shards
        rows: list[dict[str, list[Row]]] = [{} for _ in range(count)]
        for place, item in enumerate(items):
            digest = digests[item.clip]
            row = Row(place, self._stamps[item.clip], item)
            rows[layout.shard_of(digest, count)].setdefault(digest, []).append(row)
        staged: list[list[str]] = [[] for _ in range(count)]
        for digest in self._staged:
            staged[layout.shard_of(digest, count)].append(digest)
        failed: dict[str, ClipError] = {}
        changed, lengths = False, []
        pool = concurrent.futures.ThreadPoolExecutor(workers)
        try:
            pack = functools.partial(self._pack, digests)
            for entries, differs in pool.map(pack, range(count), rows, staged):
                bad = {
                    e.digest: ClipError(e.stage, e.cause) for e in entries if e.stage
                }
                changed, failed = changed or differs, failed | bad
                lengths.append(len(entries) - len(bad))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if changed or dataset.counts(self._versions[-1]) != lengths:
            self._publish(lengths)
        for old in layout.versions(self._folder)[:-1]:
            _delete(old)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        for folder in (*self._staged_folder.glob("*"), self._staged_folder):
            with contextlib.suppress(OSError):  # Not there, or not empty.
                folder.rmdir()
        return failed

    def _pack(
        self,
        digests: Mapping[str, str],
        number: int,
        rows: Mapping[str, Sequence[Row]],
        staged: Sequence[str],
    ) -> tuple[list[Entry], bool]:
        """Writes a shard to `unfinished/`; returns whether it differs from before."""
        before, known = self._shards[number]
        home = before and before.folder
        old = {entry.digest: entry for entry in known}
        # Of a clip that was prepared nothing is better; one that failed is tried again.
        fresh = {d: self._staged[d] for d in staged if d not in old or old[d].stage}
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
                failure = _failure(old.get(digest), fresh.get(digest))
                entries.append(Entry(digest, tuple(its), *failure))
        self._unfinished.mkdir(exist_ok=True)
        shard = Shard(self._unfinished, number, self._num_shards)
        if before is None or fresh or _content(entries) != _content(known):
            records.write(shard.records, records.merged(entries, before, known, fresh))
        elif home != self._unfinished:
            files.link(before.records, shard.records)
        same = list(known) == entries
        if not (same and home == self._unfinished):
            shard.write(entries)
        for digest in staged:  # But for those of another corpus: its run was killed.
            if digest not in fresh or digest in rows:
                for file in self._files[digest]:
                    file.unlink(missing_ok=True)
        return entries, not (same and home in self._versions[-1:])

    def _publish(self, lengths: Sequence[int]) -> None:
        """Renames `unfinished/` to the next version."""
        before = [int(path.name.split(".")[1]) for path in self._versions]
        version = f"1.{max(before, default=-1) + 1}.0"
        shards = self._unfinished.glob("*.array_record-*")
        size = sum(path.stat().st_size for path in shards)
        dataset.describe(self._unfinished, version, self._variant, lengths, size)
        os.replace(self._unfinished, self._folder / version)


def _delete(version: pathlib.Path) -> None:
    """Deletes a version that has been replaced, unless somebody reads it."""
    with unread(version / layout.INFO) as free:
        if free and version.is_symlink():
            version.unlink()
        elif free:
            shutil.rmtree(version)
        else:
            logging.info("%s is being read; the next run deletes it", version)


def _source(key: str, stamp: Stamp) -> str:
    """Names a file as it was: its key, size and time of change."""
    return hashlib.sha256(_encoded(f"{key}\0{stamp}")).hexdigest()


def _encoded(key: str) -> bytes:
    """Returns the bytes of a key; names that are not UTF-8 have surrogates in it."""
    return key.encode("utf-8", "surrogatepass")


def _failure(old: Entry | None, fresh: pathlib.Path | None) -> tuple[str, str]:
    """Returns the stage and the cause, ("", "") of what is prepared."""
    if fresh is None:
        return (old.stage, old.cause) if old else ("", "")
    if fresh.suffix == ".clip":
        return "", ""
    try:
        failure = json.loads(fresh.read_bytes())
        return str(failure["stage"]), str(failure["cause"])
    except (ValueError, TypeError, KeyError) as error:
        raise AuditError([damaged(fresh, error, records.REMEDY)]) from error


def _content(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Returns what the records of a shard depend on."""
    return [(entry.digest, entry.text()) for entry in entries if not entry.stage]
