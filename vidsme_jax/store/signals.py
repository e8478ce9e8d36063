"""Signals on disk: parts of Parquet, one row per clip; a finished clip is kept."""

import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vidsme_jax.base import (
    PROFILE_ORDERS,
    AuditError,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
)
from vidsme_jax.store.parts import Kind, Parts

FORMAT = 1  # Raised by hand when numbers or columns change.

_ORDERS = len(PROFILE_ORDERS)
# Of arrays that are not (2, rows).
_SHAPES = {"frame": (-1,), "renyi": (2, -1, _ORDERS)}
_SHAPES |= {"modified": (2, -1, 3), "mean_renyi": (2, 2, _ORDERS)}
_KIND = Kind(
    noun="signals",
    format=FORMAT,
    schema=pa.schema(
        [
            ("key", pa.string()),
            ("content_hash", pa.string()),
            ("file_size", pa.int64()),
            ("file_mtime_ns", pa.int64()),
            ("frame_indices", pa.list_(pa.int64())),
            ("flow_variance", pa.float64()),
            ("brightness_std", pa.float64()),
            ("warnings", pa.list_(pa.string())),
            ("frame", pa.list_(pa.int16())),
            *((name, pa.list_(pa.float32())) for name in TokenSignals._fields),
        ]
    ),
    remembered=(
        *("key", "content_hash", "file_size", "file_mtime_ns"),
        *("flow_variance", "brightness_std"),
    ),
    remedy="delete it and its clips are scored again",
)


class Finished(NamedTuple):
    """What is remembered of a clip that has signals.

    Attributes:
      part: The number of its part.
      content_hash: Of the file.
      stamp: As `ScoredClip.stamp`.
      motion: Its statistics.
    """

    part: int
    content_hash: str
    stamp: tuple[int, int]
    motion: MotionStatistics


class Signals:
    """The folder `signals/` of a work directory.

    Its parts are read once, when it is opened. If a clip was scored again, its latest
    signals count.

    Attributes:
      folder: Of the parts.
      finished: Every clip that has signals, by key.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        process: int = 0,
        processes: int = 1,
    ):
        """Opens the folder; see `Parts` for arguments and errors."""
        self.folder = folder
        self.finished: dict[str, Finished] = {}
        self._settings, self._processes = settings, processes
        self._parts = Parts(folder, settings, _KIND, self._remember, process, processes)

    def write(self, clips: Iterable[ScoredClip]) -> None:
        """Writes one part.

        Raises:
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        rows = [_row(clip) for clip in clips]
        self._parts.write(pa.Table.from_pylist(rows, schema=_KIND.schema))

    def reopened(self) -> "Signals":
        """Returns the folder as it is now, with what other processes have written."""
        return self if self._processes == 1 else Signals(self.folder, self._settings)

    def statistics(self) -> dict[str, MotionStatistics]:
        """Returns the motion statistics of every finished clip, by key."""
        return {key: clip.motion for key, clip in self.finished.items()}

    def read(self, keys: Collection[str]) -> Iterator[ScoredClip]:
        """Yields the clips of the given keys that are finished, part by part.

        Raises:
          AuditError: A part is damaged.
        """
        wanted: dict[int, set[str]] = {}
        for key in keys:
            if key in self.finished:
                wanted.setdefault(self.finished[key].part, set()).add(key)
        for number in sorted(wanted):
            for row in self._parts.read(number).to_batches(max_chunksize=1):
                if row.column("key")[0].as_py() in wanted[number]:
                    yield _clip(row)

    def _remember(self, number: int, table: pa.Table) -> None:
        columns = (table.column(name).to_pylist() for name in _KIND.remembered)
        for key, content_hash, size, changed, phi, b in zip(*columns, strict=True):
            motion = MotionStatistics(phi, b)
            self.finished[key] = Finished(number, content_hash, (size, changed), motion)


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of the signals in a folder, empty if it has none.

    Raises:
      AuditError: They are damaged, or of another format.
    """
    found = _KIND.record(folder).read()
    if found and found.get("format") != FORMAT:
        raise AuditError([_KIND.other_format(found, folder)])
    return found


def clear(workdir: pathlib.Path) -> None:
    """Deletes what an earlier run left in a work directory."""
    for name in ("signals", "figures"):
        shutil.rmtree(workdir / name, ignore_errors=True)


def _row(clip: ScoredClip) -> dict[str, Any]:
    signals = {
        name: None if value is None else np.asarray(value, np.float32).ravel()
        for name, value in zip(TokenSignals._fields, clip.signals, strict=True)
    }
    return {
        "key": clip.key,
        "content_hash": clip.content_hash,
        "file_size": clip.stamp[0],
        "file_mtime_ns": clip.stamp[1],
        "frame_indices": list(clip.frame_indices),
        **vars(clip.motion),
        "warnings": list(clip.warnings),
        "frame": clip.frame,
        **signals,
    }


def _clip(batch: pa.RecordBatch) -> ScoredClip:
    def plain(name: str) -> Any:
        return batch.column(name)[0].as_py()

    def array(name: str) -> Any:
        value = batch.column(name)[0]
        if not value.is_valid:
            return None
        values = value.values.to_numpy(zero_copy_only=False)
        return values.reshape(_SHAPES.get(name, (2, -1)))

    return ScoredClip(
        key=plain("key"),
        content_hash=plain("content_hash"),
        signals=TokenSignals(*map(array, TokenSignals._fields)),
        frame=array("frame"),
        frame_indices=tuple(plain("frame_indices")),
        motion=MotionStatistics(plain("flow_variance"), plain("brightness_std")),
        warnings=tuple(plain("warnings")),
        stamp=(plain("file_size"), plain("file_mtime_ns")),
    )
