"""Signals on disk: parts of Parquet, one row per clip and text; what is there is kept.

The rows of the video have the text "". All rows of one clip that are written together
are in one part, so that they are finished together or not at all.
"""

import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Set
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vidsme_jax.base import (
    PROFILE_ORDERS,
    SLICES,
    Asked,
    AuditError,
    MotionStatistics,
    ScoredClip,
    ScoredText,
    TokenSignals,
)
from vidsme_jax.store.parts import Kind, Parts
from vidsme_jax.store.texts import restored

FORMAT = 2  # Raised by hand when numbers or columns change.
SECOND, BLANK = "second", "blank"  # What rows may hold beside slices; see `Held`.

_VIDEO = ""  # Stands where other rows have the key of their text.
_ORDERS = len(PROFILE_ORDERS)
# Of arrays that are not (2, rows).
_SHAPES = {name: (-1,) for name in ("frame", "slice", "tokens", "blank")}
_SHAPES |= {"renyi": (2, -1, _ORDERS), "mean_renyi": (2, 2, _ORDERS)}
_SHAPES |= {"modified": (2, -1, 3)}
# Of arrays with a place a row, those that are always there, of a video and of a text.
_ALWAYS = ("renyi", "varentropy", "gap", "log_prob")
_OF_VIDEO, _OF_TEXT = ("frame", *_ALWAYS), ("tokens", "slice", *_ALWAYS)
_AT_TIMES = ("modified", "renyi_half_clamped", "rank", "blank")
_KIND = Kind(
    noun="signals",
    format=FORMAT,
    schema=pa.schema(
        [
            ("key", pa.string()),
            ("text", pa.string()),
            ("holds", pa.list_(pa.string())),
            ("content_hash", pa.string()),
            ("file_size", pa.int64()),
            ("file_mtime_ns", pa.int64()),
            ("frame_indices", pa.list_(pa.int64())),
            ("flow_variance", pa.float64()),
            ("brightness_std", pa.float64()),
            ("warnings", pa.list_(pa.string())),
            ("question", pa.string()),
            ("candidates", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("ended", pa.string()),
            ("ids", pa.list_(pa.int32())),
            ("tokens", pa.list_(pa.int32())),
            ("slice", pa.list_(pa.int8())),
            ("frame", pa.list_(pa.int16())),
            ("blank", pa.list_(pa.float32())),
            *((name, pa.list_(pa.float32())) for name in TokenSignals._fields),
        ]
    ),
    remembered=(
        *("key", "text", "holds", "content_hash", "file_size", "file_mtime_ns"),
        *("flow_variance", "brightness_std"),
    ),
    remedy="delete it and its clips are scored again",
)


class Held(NamedTuple):
    """Where rows are, and what they hold.

    Attributes:
      part: The number of their part.
      holds: `SECOND` if the head's second pass ran; of a text also its slices, and
        `BLANK` if it was scored about a grey video too.
    """

    part: int
    holds: frozenset[str]


class Finished(NamedTuple):
    """What is remembered of a clip that has signals.

    Attributes:
      content_hash: Of the file.
      stamp: As `ScoredClip.stamp`.
      motion: Its statistics.
      video: Its own rows, if they are there.
      texts: Those about it, by key.
    """

    content_hash: str
    stamp: tuple[int, int]
    motion: MotionStatistics
    video: Held | None
    texts: dict[str, Held]

    @property
    def parts(self) -> tuple[int, ...]:
        """Returns the numbers of the parts that have a row of it, ascending."""
        held = [*self.texts.values(), *([self.video] if self.video else [])]
        return tuple(sorted({each.part for each in held}))


class Signals:
    """The folder `signals/` of a work directory.

    Its parts are read once, when it is opened. If rows were computed again, the latest
    count; of a clip that has changed, those of the file as it was last.

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

    def write(
        self, clips: Iterable[ScoredClip], slices: Collection[str] = SLICES
    ) -> None:
        """Writes one part.

        Args:
          clips: With the video's rows, texts or both.
          slices: Of each text; it may have no row in one of them.

        Raises:
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        self._parts.write(row for clip in clips for row in _rows(clip, slices))

    def reopened(self) -> "Signals":
        """Returns the folder as it is now, with what other processes have written."""
        return self if self._processes == 1 else Signals(self.folder, self._settings)

    def holds(self, *, video: bool) -> frozenset[str]:
        """Returns all that any rows hold, of a video or of a text; see `Held`."""
        held = (
            each
            for clip in self.finished.values()
            for each in ([clip.video] if video else clip.texts.values())
        )
        return frozenset().union(*(each.holds for each in held if each))

    def keep(self, video: Set[str] | None, text: Set[str] | None) -> None:
        """Forgets rows that do not hold so much; the parts stay as they are.

        They were computed for other scores, and then a clip failed. With None no row of
        the kind is forgotten.
        """
        kept = {}
        for key, clip in self.finished.items():
            has_video = clip.video is not None and clip.video.holds >= (video or set())
            its = clip.video if has_video else None
            texts = {k: x for k, x in clip.texts.items() if x.holds >= (text or set())}
            if its or texts:
                kept[key] = clip._replace(video=its, texts=texts)
        self.finished = kept

    def forget(
        self, key: str, *, video: bool = True, texts: Collection[str] | None = None
    ) -> None:
        """Forgets rows of a clip, of which nothing may be stored; the parts stay.

        Args:
          key: Of the clip.
          video: Whether the video's rows.
          texts: Which texts' rows, by key; None: all.
        """
        known = self.finished.pop(key, None)
        if known is None:
            return
        left = {} if texts is None else known.texts
        left = {k: x for k, x in left.items() if k not in (texts or ())}
        known = known._replace(video=None if video else known.video, texts=left)
        if known.video or known.texts:
            self.finished[key] = known

    def read(self, keys: Collection[str]) -> Iterator[ScoredClip]:
        """Yields each clip of the given keys that is finished, with all its texts.

        Clips whose rows are in the same parts follow one another.

        Raises:
          AuditError: A part is damaged.
        """
        wanted: dict[tuple[int, ...], set[str]] = {}
        for key in keys:
            if key in self.finished:
                wanted.setdefault(self.finished[key].parts, set()).add(key)
        tables: dict[int, pa.Table] = {}
        for numbers, its in sorted(wanted.items()):
            # Of most clips the rows are in the parts of the one before.
            tables = {k: tables.get(k) or self._parts.read(k) for k in numbers}
            places: dict[str, list[tuple[int, int]]] = {}  # In the order of the rows.
            for number, table in tables.items():
                for row, stored in enumerate(table.column("key").to_pylist()):
                    if (key := restored(stored)) in its:
                        places.setdefault(key, []).append((number, row))
            for key, found in places.items():
                rows = [tables[n].slice(row, 1).to_batches()[0] for n, row in found]
                try:
                    clip = _clip(self.finished[key], rows)
                except (ValueError, TypeError) as error:
                    raise self._parts.damage(found[-1][0], error) from error
                yield clip

    def _remember(self, number: int, table: pa.Table) -> None:
        columns = (table.column(name).to_pylist() for name in _KIND.remembered)
        for stored, text, holds, content_hash, size, changed, phi, b in zip(
            *columns, strict=True
        ):
            key, text = restored(stored), restored(text)
            before, held = self.finished.get(key), Held(number, frozenset(holds))
            video, texts = None, {}
            if before is not None and before.content_hash == content_hash:
                video, texts = before.video, before.texts
            if text == _VIDEO:
                video = held
            else:
                texts = texts | {text: held}
            motion = MotionStatistics(phi, b)
            self.finished[key] = Finished(
                content_hash, (size, changed), motion, video, texts
            )


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of the signals in a folder, empty if it has none.

    Raises:
      AuditError: They are damaged, or of another format.
    """
    found = _KIND.record(folder).read()
    if found and found.get("format") != FORMAT:
        raise AuditError([_KIND.other_format(found, folder)])
    return found


def differences(folder: pathlib.Path, some: dict[str, Any]) -> list[str]:
    """Returns a sentence for each of some settings that the signals there differ in.

    Raises:
      AuditError: They are damaged, or of another format.
    """
    if not (before := recorded(folder)):
        return []
    known = {key: before.get(key) for key in some}
    return _KIND.record(folder).differences(known, some, folder)


def clear(workdir: pathlib.Path) -> None:
    """Deletes what an earlier run left in a work directory.

    Of a folder that is a link the link goes, and what it names stays.

    Raises:
      OSError: It cannot be deleted.
    """
    for name in ("signals", "signals-reference", "answers", "figures"):
        folder = workdir / name
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def _rows(clip: ScoredClip, slices: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of the table: of the video, then of each text."""
    about = {
        "key": clip.key,
        "content_hash": clip.content_hash,
        "file_size": clip.stamp[0],
        "file_mtime_ns": clip.stamp[1],
        "frame_indices": list(clip.frame_indices),
        **vars(clip.motion),
        "warnings": list(clip.warnings),
    }
    if clip.signals is not None:
        yield about | {
            "text": _VIDEO,
            "holds": _passes(clip.signals),
            "slice": np.full(len(clip.frame), SLICES.index("video"), np.int8),
            "frame": clip.frame,
            **_columns(clip.signals),
        }
    for text in clip.texts:
        blank = [] if text.blank is None else [BLANK]
        yield about | {
            "text": text.asked.key,
            "holds": [x for x in slices if x in _slices_of(text)]
            + _passes(text.signals)
            + blank,
            "question": text.asked.question,
            "candidates": list(text.asked.candidates),
            "answer": text.asked.answer,
            "ended": text.asked.ended,
            "ids": list(text.asked.ids),
            "tokens": text.tokens,
            "slice": text.slice,
            "blank": text.blank,
            **_columns(text.signals),
        }


def _slices_of(text: ScoredText) -> tuple[str, ...]:
    """Returns the slices that a text has: without an answer there is no response."""
    return ("instruction", "response") if text.asked.ended else ("instruction",)


def _passes(signals: TokenSignals) -> list[str]:
    return [] if signals.modified is None else [SECOND]


def _columns(signals: TokenSignals) -> dict[str, Any]:
    return {
        name: None if value is None else np.asarray(value, np.float32).ravel()
        for name, value in zip(TokenSignals._fields, signals, strict=True)
    }


def _clip(known: Finished, rows: list[pa.RecordBatch]) -> ScoredClip:
    """Joins the rows of a clip, of which the latest of a text come last."""
    video, texts = None, {}
    for row in rows:
        text = _plain(row, "text")
        if text == _VIDEO:
            video = row if known.video else None
        elif text in known.texts:  # Else it was forgotten.
            texts[text] = row
    for row in texts.values():
        _check(row, _OF_TEXT)
    if video is not None:
        _check(video, _OF_VIDEO)
    first = next(iter(texts.values())) if video is None else video
    frame = np.zeros(0, np.int16) if video is None else _array(video, "frame")
    return ScoredClip(
        key=_plain(first, "key"),
        content_hash=known.content_hash,
        signals=None if video is None else _signals(video),
        frame=frame,
        frame_indices=tuple(_plain(first, "frame_indices")),
        motion=known.motion,
        warnings=tuple(_plain(first, "warnings")),
        stamp=known.stamp,
        texts=tuple(_text(row) for row in texts.values()),
    )


def _text(row: pa.RecordBatch) -> ScoredText:
    asked = Asked(
        key=_plain(row, "text"),
        question=_plain(row, "question"),
        candidates=tuple(_plain(row, "candidates")),
        answer=_plain(row, "answer"),
        ended=_plain(row, "ended"),
        ids=tuple(_plain(row, "ids")),
    )
    return ScoredText(
        asked=asked,
        tokens=_array(row, "tokens"),
        slice=_array(row, "slice"),
        signals=_signals(row),
        blank=_array(row, "blank"),
    )


def _signals(row: pa.RecordBatch) -> TokenSignals:
    return TokenSignals(*(_array(row, name) for name in TokenSignals._fields))


def _check(row: pa.RecordBatch, always: tuple[str, ...]) -> None:
    """Checks that the arrays of a row fit together.

    Raises:
      ValueError: One of them is missing, or is not as long as the others.
    """
    arrays = {name: _array(row, name) for name in always + _AT_TIMES}
    lengths = set()
    for name, array in arrays.items():
        if array is not None:
            lengths.add(array.shape[0] if array.ndim == 1 else array.shape[1])
        elif name in always:
            raise ValueError(f"a row has no {name}")
    if len(lengths) > 1:
        raise ValueError(f"a row has arrays of {sorted(lengths)} places")


def _plain(row: pa.RecordBatch, name: str) -> Any:
    value = row.column(name)[0].as_py()
    if isinstance(value, str):
        return restored(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [restored(text) for text in value]
    return value


def _array(row: pa.RecordBatch, name: str) -> Any:
    value = row.column(name)[0]
    if not value.is_valid:
        return None
    if value.values.null_count:
        raise ValueError(f"{name} has places without a value")
    values = value.values.to_numpy(zero_copy_only=False)
    return values.reshape(_SHAPES.get(name, (2, -1)))
