"""Signals on disk: one Parquet file per batch, one row per clip.

A shard is written under a temporary name, synced and renamed, so that it is either
whole or not there; a finished clip is never computed again. Every shard, and `run.json`
beside them, holds the settings that the signals depend on: a run with others is
refused, and so is a shard that came from another run.
"""

import concurrent.futures
import contextlib
import fcntl
import json
import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.base import (
    PROFILE_ORDERS,
    AuditError,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
)
from vidsme_jax.store.files import write_atomically

_SETTINGS = b"vidsme_jax.settings"  # Of a shard's metadata.
_READERS = 8  # Threads that look through the shards when a folder is opened.
_ORDERS = len(PROFILE_ORDERS)
_WIDTH = {"renyi": _ORDERS, "modified": 3}  # Per row.
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("content_hash", pa.string()),
        ("file_size", pa.int64()),
        ("file_mtime_ns", pa.int64()),
        ("num_rows", pa.int32()),
        ("num_frames", pa.int32()),
        ("frame_indices", pa.list_(pa.int64())),
        ("flow_variance", pa.float64()),
        ("brightness_std", pa.float64()),
        ("warnings", pa.list_(pa.string())),
        *((name, pa.list_(pa.float32())) for name in TokenSignals._fields),
    ]
)
_REMEMBERED = (
    *("path", "content_hash", "file_size", "file_mtime_ns"),
    *("flow_variance", "brightness_std"),
)


class Finished(NamedTuple):
    """What is remembered of a clip that has signals.

    Attributes:
      part: The number of its shard.
      content_hash: Of the file.
      stamp: As `ScoredClip.stamp`.
      motion: Its statistics.
    """

    part: int
    content_hash: str
    stamp: tuple[int, int]
    motion: MotionStatistics


class Shards:
    """The folder `signals/` of a work directory.

    Shards are looked through once, when the folder is opened. Of a clip that was scored
    again the latest signals count.

    Attributes:
      folder: Of the shards.
      finished: Every clip that has signals, by path.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        process: int = 0,
        processes: int = 1,
    ):
        """Opens the folder, making it if absent.

        Args:
          folder: Of the shards.
          settings: JSON-ready; what the signals depend on.
          process: The place of this process among those that write to the folder; all
            open it before one of them writes.
          processes: How many they are.

        Raises:
          AuditError: The folder holds signals of other settings, or damaged shards;
            names each.
          OSError: The folder cannot be made or written.
        """
        self.folder = folder
        self.finished: dict[str, Finished] = {}
        self._settings = json.dumps(settings, sort_keys=True)
        self._next, self._stride = process, processes
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        record = folder / "run.json"
        problems = _differences(recorded(folder), json.loads(self._settings), folder)
        if record.exists() and problems:
            raise AuditError(problems)
        self._look_through()
        if not record.exists():
            write_atomically(record, json.dumps(settings, indent=2).encode())

    def write(self, clips: Iterable[ScoredClip]) -> None:
        """Writes one shard.

        Raises:
          OSError: It cannot be written; the shards that are there stay as they are.
        """
        table = pa.Table.from_pylist([_row(clip) for clip in clips], schema=_SCHEMA)
        table = table.replace_schema_metadata({_SETTINGS: self._settings.encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        number = self._next
        write_atomically(self._part(number), sink.getvalue().to_pybytes())
        self._next += self._stride
        self._remember(number, table)

    def reopened(self) -> "Shards":
        """Returns the folder as it is now, with what other processes have written."""
        if self._stride == 1:
            return self
        return Shards(self.folder, json.loads(self._settings))

    def statistics(self) -> dict[str, MotionStatistics]:
        """Returns the motion statistics of every finished clip, by path."""
        return {path: clip.motion for path, clip in self.finished.items()}

    def read(self, paths: Collection[str]) -> Iterator[ScoredClip]:
        """Yields the clips of the given paths that are finished, shard by shard.

        Raises:
          AuditError: A shard is damaged.
        """
        wanted: dict[int, set[str]] = {}
        for path in paths:
            if path in self.finished:
                wanted.setdefault(self.finished[path].part, set()).add(path)
        for number in sorted(wanted):
            table = _read(self._part(number), None)
            for row in table.to_batches(max_chunksize=1):
                if row.column("path")[0].as_py() in wanted[number]:
                    yield _clip(row)

    def _part(self, number: int) -> pathlib.Path:
        return self.folder / f"part-{number:06}.parquet"

    def _look_through(self) -> None:
        """Remembers what every shard has, and checks whose it is."""
        settings, problems = json.loads(self._settings), []

        def look(part: pathlib.Path) -> pa.Table | list[str]:
            try:
                table = _read(part, list(_REMEMBERED))
            except AuditError as error:
                return error.problems
            written = (table.schema.metadata or {}).get(_SETTINGS, b"{}")
            if written == self._settings.encode():
                return table
            try:
                before = dict(json.loads(written))
            except (ValueError, TypeError):
                return [_damaged(part, "its settings are not readable")]
            return _differences(before, settings, part)

        parts = {
            int(part.stem[5:]): part
            for part in self.folder.glob("part-*.parquet")
            if part.stem[5:].isdecimal()
        }
        numbers = sorted(parts)
        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            looked = pool.map(look, [parts[number] for number in numbers])
            for number, found in zip(numbers, looked, strict=True):
                if isinstance(found, list):
                    problems += found
                else:
                    self._remember(number, found)
        if problems:
            raise AuditError(problems)
        # Each process has numbers of its own, all above those that are there.
        self._next += max(numbers, default=-1) + 1

    def _remember(self, number: int, table: pa.Table) -> None:
        columns = (table.column(name).to_pylist() for name in _REMEMBERED)
        for path, content_hash, size, changed, phi, b in zip(*columns, strict=True):
            motion = MotionStatistics(phi, b)
            self.finished[path] = Finished(
                number, content_hash, (size, changed), motion
            )


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes out of a work directory; a process that dies lets go.

    Raises:
      AuditError: Another process is in it.
      OSError: The folder cannot be made or written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AuditError(
                [f"{workdir}: another run is writing to it; take another --workdir"]
            ) from error
        except OSError:  # Some network file systems have no locks.
            pass
        yield


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of the signals in a folder, empty if it has none.

    Raises:
      AuditError: They are damaged.
    """
    record = folder / "run.json"
    try:
        return dict(json.loads(record.read_text())) if record.exists() else {}
    except (ValueError, TypeError) as error:
        raise AuditError(
            [f"{record}: damaged ({error}); delete it, the shards have its content too"]
        ) from error


def clear(workdir: pathlib.Path) -> None:
    """Deletes what an earlier run left in a work directory."""
    for name in ("signals", "figures"):
        shutil.rmtree(workdir / name, ignore_errors=True)


def _differences(before: dict[str, Any], now: dict[str, Any], where: Any) -> list[str]:
    return [
        f"{where}: its signals were computed with {key} = {before.get(key)!r}, this "
        f"run has {now.get(key)!r}; take another --workdir, or --config.overwrite=true"
        for key in sorted(set(before) | set(now))
        if before.get(key) != now.get(key)
    ]


def _read(part: pathlib.Path, columns: list[str] | None) -> pa.Table:
    """Reads a shard, or says that it is damaged, which its check sums tell."""
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(_SCHEMA):
                raise ValueError("its columns are not those of signals")
            return file.read(columns, use_threads=False)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise AuditError([_damaged(part, cause)]) from error


def _damaged(part: pathlib.Path, cause: str) -> str:
    return f"{part}: damaged ({cause}); delete it and its clips are scored again"


def _row(clip: ScoredClip) -> dict[str, Any]:
    signals = {
        name: None if value is None else np.asarray(value, np.float32).ravel()
        for name, value in zip(TokenSignals._fields, clip.signals, strict=True)
    }
    return {
        "path": clip.path,
        "content_hash": clip.content_hash,
        "file_size": clip.stamp[0],
        "file_mtime_ns": clip.stamp[1],
        "num_rows": clip.num_rows,
        "num_frames": clip.num_frames,
        "frame_indices": list(clip.frame_indices),
        "flow_variance": clip.motion.flow_variance,
        "brightness_std": clip.motion.brightness_std,
        "warnings": list(clip.warnings),
        **signals,
    }


def _clip(batch: pa.RecordBatch) -> ScoredClip:
    def plain(name: str) -> Any:
        return batch.column(name)[0].as_py()

    rows = plain("num_rows")
    arrays = []
    for name in TokenSignals._fields:
        scalar = batch.column(name)[0]
        if not scalar.is_valid:
            arrays.append(None)
            continue
        value = scalar.values.to_numpy(zero_copy_only=False)
        width = (_WIDTH[name],) if name in _WIDTH else ()
        shape = (2, 2, _ORDERS) if name == "mean_renyi" else (2, rows, *width)
        arrays.append(value.reshape(shape))
    return ScoredClip(
        path=plain("path"),
        content_hash=plain("content_hash"),
        signals=TokenSignals(*arrays),
        num_rows=rows,
        num_frames=plain("num_frames"),
        frame_indices=tuple(plain("frame_indices")),
        motion=MotionStatistics(plain("flow_variance"), plain("brightness_std")),
        warnings=tuple(plain("warnings")),
        stamp=(plain("file_size"), plain("file_mtime_ns")),
    )
