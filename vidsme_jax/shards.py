"""Signals on disk: one Parquet file per batch, one row per clip.

A shard is written under a temporary name, synced and renamed, so that it is either
whole or not there; a finished clip is never computed again. `run.json` beside the
shards holds the settings that the signals depend on: a run with others is refused.
"""

import json
import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from typing import Any

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
from vidsme_jax.storage import write_atomically

_ORDERS = len(PROFILE_ORDERS)
_WIDTH = {"renyi": _ORDERS, "modified": 3}  # Per row.
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("content_hash", pa.string()),
        ("num_rows", pa.int32()),
        ("num_frames", pa.int32()),
        ("frame_indices", pa.list_(pa.int64())),
        ("flow_variance", pa.float64()),
        ("brightness_std", pa.float64()),
        ("warnings", pa.list_(pa.string())),
        *((name, pa.list_(pa.float32())) for name in TokenSignals._fields),
    ]
)


class Shards:
    """The folder `signals/` of a work directory."""

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
          AuditError: The folder holds signals of other settings; names each.
        """
        self.folder, self.settings = folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / "run.json"
        settings = json.loads(json.dumps(settings))
        if record.exists():
            _compare(recorded(folder), settings, folder)
        else:
            write_atomically(record, json.dumps(settings, indent=2).encode())
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        # Each process has numbers of its own, all above those that are there.
        numbers = (int(part.stem[5:]) for part in self._parts())
        self._next = 1 + max(numbers, default=-1) + process
        self._stride = processes

    def write(self, clips: Iterable[ScoredClip]) -> None:
        """Writes one shard."""
        table = pa.Table.from_pylist([_row(clip) for clip in clips], schema=_SCHEMA)
        number, self._next = self._next, self._next + self._stride
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        path = self.folder / f"part-{number:06}.parquet"
        write_atomically(path, sink.getvalue().to_pybytes())

    def reopened(self) -> "Shards":
        """Returns the folder as it is now, with what other processes have written."""
        return self if self._stride == 1 else Shards(self.folder, self.settings)

    def statistics(self) -> dict[str, MotionStatistics]:
        """Returns the motion statistics of every finished clip, by path."""
        found = {}
        for part in self._parts():
            table = self._table(part, ["path", "flow_variance", "brightness_std"])
            columns = (column.to_pylist() for column in table.columns)
            for path, flow_variance, brightness_std in zip(*columns, strict=True):
                found[path] = MotionStatistics(flow_variance, brightness_std)
        return found

    def read(self, paths: Collection[str]) -> Iterator[ScoredClip]:
        """Yields the clips of the given paths, shard by shard."""
        for part in self._parts():
            table = self._table(part, ["path"])
            if not set(table.column("path").to_pylist()).isdisjoint(paths):
                for row in self._table(part, None).to_batches(max_chunksize=1):
                    if row.column("path")[0].as_py() in paths:
                        yield _clip(row)

    def _parts(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob("part-*.parquet"))

    def _table(self, part: pathlib.Path, columns: list[str] | None) -> pa.Table:
        try:
            return pq.read_table(part, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise AuditError(
                [f"{part}: damaged ({error}); delete it and its clips are scored again"]
            ) from error


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of the signals in a folder, empty if it has none."""
    record = folder / "run.json"
    return json.loads(record.read_text()) if record.exists() else {}


def clear(workdir: pathlib.Path) -> None:
    """Deletes what an earlier run left in a work directory."""
    for name in ("signals", "figures"):
        shutil.rmtree(workdir / name, ignore_errors=True)


def _compare(before: dict[str, Any], now: dict[str, Any], folder: pathlib.Path) -> None:
    problems = [
        f"{folder}: its signals were computed with {key} = {before.get(key)!r}, this "
        f"run has {now.get(key)!r}; take another --workdir, or --config.overwrite=true"
        for key in sorted(set(before) | set(now))
        if before.get(key) != now.get(key)
    ]
    if problems:
        raise AuditError(problems)


def _row(clip: ScoredClip) -> dict[str, Any]:
    signals = {
        name: None if value is None else np.asarray(value, np.float32).ravel()
        for name, value in zip(TokenSignals._fields, clip.signals, strict=True)
    }
    return {
        "path": clip.path,
        "content_hash": clip.content_hash,
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
    )
