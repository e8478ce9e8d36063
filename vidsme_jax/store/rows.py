"""Signals as rows of a table, one a video and one a text about it."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vidsme_jax.base import (
    PROFILE_ORDERS,
    SLICES,
    Asked,
    MotionStatistics,
    ScoredClip,
    ScoredText,
    TokenSignals,
)
from vidsme_jax.store import traits
from vidsme_jax.store.texts import restored

SECOND, BLANK = "second", "blank"  # What rows may hold apart from slices; see `Held`.
VIDEO = ""  # Stands where other rows have the key of their text.

_ORDERS = len(PROFILE_ORDERS)
# Of arrays that are not (2, rows).
_SHAPES = {name: (-1,) for name in ("frame", "slice", "tokens", "blank")}
_SHAPES |= {"renyi": (2, -1, _ORDERS), "mean_renyi": (2, 2, _ORDERS)}
_SHAPES |= {"modified": (2, -1, 3)}
# Of arrays with a place a row, those that are always there, of a video and of a text.
_ALWAYS = ("renyi", "varentropy", "gap", "log_prob")
_OF_VIDEO, _OF_TEXT = ("frame", *_ALWAYS), ("tokens", "slice", *_ALWAYS)
_AT_TIMES = ("modified", "renyi_half_clamped", "rank", "blank")

SCHEMA = pa.schema(
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
        *traits.FIELDS,
    ]
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


def of_clip(clip: ScoredClip, slices: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of the table: of the video, then of each text.

    The first has the traits.
    """
    its = traits.columns_of(clip.traits)
    nothing = traits.columns_of(None)
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
            "text": VIDEO,
            "holds": _passes(clip.signals),
            "slice": np.full(len(clip.frame), SLICES.index("video"), np.int8),
            "frame": clip.frame,
            **_columns(clip.signals),
            **its,
        }
        its = nothing
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
            **its,
        }
        its = nothing


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


def joined(known: Finished, rows: list[pa.RecordBatch]) -> ScoredClip:
    """Joins the rows of a clip, of which the latest of a text come last."""
    video, texts = None, {}
    for row in rows:
        text = _plain(row, "text")
        if text == VIDEO:
            video = row if known.video else None
        elif text in known.texts:  # Else it was forgotten.
            texts[text] = row
    for row in texts.values():
        _check(row, _OF_TEXT)
    if video is not None:
        _check(video, _OF_VIDEO)
    first = next(iter(texts.values())) if video is None else video
    indices = tuple(_plain(first, "frame_indices"))
    found = [
        traits.traits_of(row, len(indices))
        for row in rows[::-1]
        if _plain(row, "content_hash") == known.content_hash
    ]
    frame = np.zeros(0, np.int16) if video is None else _array(video, "frame")
    return ScoredClip(
        key=_plain(first, "key"),
        content_hash=known.content_hash,
        signals=None if video is None else _signals(video),
        frame=frame,
        frame_indices=indices,
        motion=known.motion,
        warnings=tuple(_plain(first, "warnings")),
        stamp=known.stamp,
        texts=tuple(_text(row) for row in texts.values()),
        traits=next((each for each in found if each is not None), None),
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
