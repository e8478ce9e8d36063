"""Writing prepared corpora: clip by clip aside, then shard by shard into a version.

A clip that is ready waits in a file of its own in `staged/`; when all are, each shard
that changes is written to `unfinished/`, and those that do not are linked there. Every
file is renamed into place whole, so that a run that is killed loses the clips in hand
and no other; `unfinished/` becomes the next version, and what led to it is deleted.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)

from vidsme_jax.base import AuditError, ClipError, Item
from vidsme_jax.data.reading import ABSENT, Stamp, stamp
from vidsme_jax.prepared import builder, layout
from vidsme_jax.prepared.layout import Entry, Variant
from vidsme_jax.store.files import write_atomically
from vidsme_jax.store.lock import locked
from vidsme_jax.store.parts import damaged

_CLIPS_PER_SHARD = 64  # When the folder is made; the number of shards then stays.
_MOST_SHARDS = 4096


@dataclasses.dataclass(frozen=True)
class _Shard:
    """What is whole of a shard: its entries, and the folder that holds it, if any."""

    folder: pathlib.Path | None = None
    entries: tuple[Entry, ...] = ()


class Writer:
    """Adds clips to a variant of a prepared corpus; one writer at a time.

    A context manager, which holds the lock.
    """

    def __init__(self, root: pathlib.Path, variant: Variant, num_clips: int):
        """Finds what earlier runs have left.

        Args:
          root: The folder of the prepared corpora.
          variant: How clips are prepared.
          num_clips: Of the corpus; decides the number of shards of a new folder.

        Raises:
          AuditError: The folder has other settings, or another run is writing to it.
        """
        self.folder = variant.folder(root)
        self._variant, self._features = variant, builder.features(variant)
        if not layout.record(self.folder).read():
            wanted = -(-num_clips // _CLIPS_PER_SHARD)
            shards = min(max(wanted, 1), _MOST_SHARDS)
            layout.write_settings(self.folder, variant, shards)
        self._num_shards = layout.check_settings(self.folder, variant)
        self._held = contextlib.ExitStack()
        self._held.enter_context(locked(self.folder, "another run is preparing it"))
        self._staged_folder = self.folder / "staged"
        self._unfinished = self.folder / "unfinished"
        self._versions = layout.versions(self.folder)
        self._shards = [self._whole(shard) for shard in range(self._num_shards)]
        self._known: dict[str, tuple[str, Stamp]] = {}  # Digest by key.
        self._good: set[str] = set()
        self._stamps: dict[str, Stamp] = {}  # By key.
        for shard in self._shards:
            for entry in shard.entries:
                self._remember(entry)
        self._staged: dict[str, pathlib.Path] = {}  # By digest.
        self._sources: dict[str, str] = {}  # Digest by source.
        for leftover in self._staged_folder.glob("*/*.tmp"):
            leftover.unlink()
        for kind in ("failed", "clip"):  # In the order of their worth.
            for path in self._staged_folder.glob(f"*/*.{kind}"):
                digest, source = path.stem.split("-")
                self._staged[digest], self._sources[source] = path, digest

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _whole(self, shard: int) -> _Shard:
        """The newest whole state of a shard."""
        for folder in (self._unfinished, *self._versions[::-1]):
            try:
                found = layout.read_index(folder, shard, self._num_shards)
                return _Shard(folder, tuple(found))
            except ValueError as error:
                if folder != self._unfinished:
                    logging.warning("%s: %s; preparing its clips again", folder, error)
        return _Shard()

    def _remember(self, entry: Entry) -> None:
        files = json.loads(entry.files)
        if not entry.stage:
            self._good.add(entry.digest)
        if not entry.stage or (files and entry.stage != "preprocess"):
            # Other failures may have been of the moment.
            for row in json.loads(entry.rows):
                before = tuple(files.get(row["clip"], ABSENT))
                self._known[row["clip"]] = entry.digest, before

    # ------------------------------------------------------------- clip by clip

    def digest_of(self, key: str) -> str | None:
        """Returns the digest of a clip that was prepared or has failed before.

        Its file is not read; it must not have changed since. Every clip is asked for
        first, so that a change from then on is noticed next time.
        """
        now = self._stamps[key] = stamp(key)
        digest, before = self._known.get(key, (None, None))
        return digest if now == before else self._sources.get(_source(key, now))

    def has(self, digest: str) -> bool:
        """Returns whether a clip with this content is already stored."""
        return digest in self._good or digest in self._staged

    def add(self, key: str, example: Mapping[str, Any]) -> str:
        """Stores a clip (see `builder.encode`); returns its digest."""
        data = self._features.serialize_example(dict(example))
        return self._stage(key, example["content_hash"], data, "clip")

    def fail(self, key: str, content: str, error: ClipError) -> str:
        """Stores why a clip cannot be prepared; returns its digest.

        Args:
          key: Of the clip.
          content: The content hash, "" if it cannot be read.
          error: The cause.
        """
        digest = content or hashlib.sha256(b"absent\0" + os.fsencode(key)).hexdigest()
        data = json.dumps({"stage": error.stage, "cause": error.cause}).encode()
        return self._stage(key, digest, data, "failed")

    def _stage(self, key: str, digest: str, data: bytes, kind: str) -> str:
        folder = self._staged_folder / digest[:2]
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{digest}-{_source(key, self._stamps[key])}.{kind}"
        write_atomically(file, data)
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
        rows: list[dict[str, list]] = [{} for _ in range(self._num_shards)]
        for place, item in enumerate(items):
            digest = digests[item.clip]
            shard = layout.shard_of(digest, self._num_shards)
            rows[shard].setdefault(digest, []).append((place, item))
        staged: list[list[str]] = [[] for _ in range(self._num_shards)]
        for digest in self._staged:
            staged[layout.shard_of(digest, self._num_shards)].append(digest)
        failed: dict[str, ClipError] = {}
        changed, lengths = False, []
        pool = concurrent.futures.ThreadPoolExecutor(workers)
        try:
            for entries, differs in pool.map(
                lambda shard: self._pack(shard, rows[shard], staged[shard], digests),
                range(self._num_shards),
            ):
                changed = changed or differs
                lengths.append(sum(not entry.stage for entry in entries))
                failed |= {
                    e.digest: ClipError(e.stage, e.cause) for e in entries if e.stage
                }
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if changed or builder.counts(self._versions[-1]) != lengths:
            self._publish(lengths)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        for folder in (*self._staged_folder.glob("*"), self._staged_folder):
            with contextlib.suppress(OSError):  # Not there, or not empty.
                folder.rmdir()
        return failed

    def _pack(
        self,
        shard: int,
        rows: Mapping[str, Sequence[tuple[int, Item]]],
        staged: Sequence[str],
        digests: Mapping[str, str],
    ) -> tuple[list[Entry], bool]:
        """Writes a shard to `unfinished/`; returns whether it differs from before."""
        before = self._shards[shard]
        old = {entry.digest: entry for entry in before.entries}
        # Of a clip that was prepared nothing is better; one that failed is tried again.
        fresh = {d: self._staged[d] for d in staged if d not in old or old[d].stage}
        entries = []
        for digest in sorted({*old, *fresh}):
            its = old.get(digest), fresh.get(digest), rows.get(digest)
            entry = self._entry(digest, *its, digests)
            if entry is not None:
                entries.append(entry)
        self._unfinished.mkdir(exist_ok=True)
        records, _ = layout.shard_files(self._unfinished, shard, self._num_shards)
        if (
            before.folder is None
            or fresh
            or _content(entries) != _content(before.entries)
        ):
            partial = records.with_name(records.name + ".tmp")
            _write_records(partial, self._records(shard, entries, before, fresh))
            os.replace(partial, records)
        elif before.folder != self._unfinished:
            source, _ = layout.shard_files(before.folder, shard, self._num_shards)
            records.unlink(missing_ok=True)
            _link(source, records)
        same = before.folder is not None and list(before.entries) == entries
        if not (same and before.folder == self._unfinished):
            layout.write_index(self._unfinished, shard, self._num_shards, entries)
        for digest in staged:  # But for those of another corpus: its run was killed.
            if digest not in fresh or digest in rows:
                self._staged[digest].unlink(missing_ok=True)
        return entries, not (same and before.folder in self._versions)

    def _entry(
        self,
        digest: str,
        old: Entry | None,
        fresh: pathlib.Path | None,
        rows: Sequence[tuple[int, Item]] | None,
        digests: Mapping[str, str],
    ) -> Entry | None:
        """The new state of a clip in the index; None if nothing names it any more."""
        if rows is not None:
            text = layout.rows_text([item for _, item in rows])
            places = [place for place, _ in rows]
            stamps = {item.clip: self._stamps[item.clip] for _, item in rows}
            files = {key: it for key, it in stamps.items() if it != ABSENT}
        elif old is not None:
            pairs = zip(json.loads(old.places), json.loads(old.rows), strict=True)
            kept = [
                (place, row)
                for place, row in pairs
                if digests.get(row["clip"], digest) == digest
            ]
            if not kept:
                return None
            text = layout.dump([row for _, row in kept])
            places = [place for place, _ in kept]
            keys = {row["clip"] for _, row in kept}
            files = {k: s for k, s in json.loads(old.files).items() if k in keys}
        else:
            return None  # Staged for another corpus.
        if fresh is None:
            assert old is not None
            failure = {"stage": old.stage, "cause": old.cause}
        elif fresh.suffix == ".failed":
            failure = json.loads(fresh.read_text())
        else:
            failure = {}
        return Entry(digest, text, layout.dump(places), layout.dump(files), **failure)

    def _records(
        self,
        shard: int,
        entries: Sequence[Entry],
        before: _Shard,
        fresh: Mapping[str, pathlib.Path],
    ) -> Iterator[bytes]:
        """Yields the records of a shard, one in memory at a time."""
        path, reader = pathlib.Path(), None
        if before.folder is not None:
            path, _ = layout.shard_files(before.folder, shard, self._num_shards)
            reader = array_record_module.ArrayRecordReader(str(path))
        good = [entry.digest for entry in before.entries if not entry.stage]
        places = {digest: place for place, digest in enumerate(good)}
        try:
            for entry in entries:
                if not entry.stage:
                    if entry.digest in fresh:
                        record = fresh[entry.digest].read_bytes()
                    else:
                        record = _record(reader, places[entry.digest], path)
                    example = builder.parsed(record)
                    stored = example.features.feature["rows"].bytes_list
                    stored.value[:] = [entry.rows.encode()]
                    yield example.SerializeToString(deterministic=True)
        finally:
            if reader is not None:
                reader.close()

    def _publish(self, lengths: Sequence[int]) -> None:
        """Renames `unfinished/` to the next version and deletes those before."""
        for leftover in self._unfinished.glob("*.tmp"):
            leftover.unlink()
        before = [int(path.name.split(".")[1]) for path in self._versions]
        version = f"1.{max(before, default=-1) + 1}.0"
        records = self._unfinished.glob("*.array_record-*")
        size = sum(path.stat().st_size for path in records)
        builder.describe(self._unfinished, version, self._variant, lengths, size)
        os.replace(self._unfinished, self.folder / version)
        for old in self._versions:
            shutil.rmtree(old)


def _source(key: str, stamp: Stamp) -> str:
    """Names a file as it was: its key, size and time of change."""
    return hashlib.sha256(f"{key}\0{stamp}".encode()).hexdigest()


def _content(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """What the records of a shard depend on."""
    return [(entry.digest, entry.rows) for entry in entries if not entry.stage]


def _record(reader: Any, place: int, path: pathlib.Path) -> bytes:
    try:
        return reader.read([place])[0]
    except (RuntimeError, IndexError) as error:
        remedy = "delete it and its clips are prepared again"
        raise AuditError([damaged(path, error, remedy)]) from error


def _write_records(path: pathlib.Path, records: Iterator[bytes]) -> None:
    # Pictures do not get smaller, and a group of one makes every record quick to find.
    writer = array_record_module.ArrayRecordWriter(
        str(path), "group_size:1,uncompressed"
    )
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # A file system without links.
        partial = target.with_name(target.name + ".tmp")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
