"""Which decoder row shows what: layouts of text and video, made in NumPy on the host.

A family's `lay_out` builds the `Rows` of one direction of one clip with a `Builder`.
Reversing or shuffling the frames permutes `feature` only: text, separators and
positions stay where they are. `stack` pads the directions of several clips to one shape
and turns them into the arrays that the device reads.

Axes: `rows` of the decoder; `axes` of a position, 1 (RoPE) or 3 (M-RoPE: time, height,
width); `kept`, the rows whose next-token distribution is wanted; `means`, averages of
distributions; `clips`; `directions`; `text`, the text rows of a clip.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int, Int8, Int16, Int32

SLICES = ("video", "instruction", "response")
VIDEO_MEAN, SEQUENCE_MEAN = 0, 1  # Places along `means`.
_NUM_MEANS = 2
_NONE = -1

Order = Int[np.ndarray, " frames"]  # The frame that stands at each place.


class Text(NamedTuple):
    """The token ids around a video.

    Attributes:
      before: In front of the video.
      after: Behind it: the question. For the video's rows alone it is the first token
        behind the video if the tokenizer adds no token in front of a text, else empty.
      answer: What the model said, or should say.
    """

    before: tuple[int, ...]
    after: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()


class Shown(NamedTuple):
    """What a tower is shown of one clip; `num_frames` is at least 1."""

    num_frames: int


class Rows(NamedTuple):
    """One direction of one clip with one text.

    Attributes:
      feature: The visual row that stands here; -1: the embedding of `token`.
      token: The token id where `feature` is -1, else 0.
      position: For the rotary embedding.
      kept: Indices of rows.
      target: The class whose log p counts; -1: the row's own argmax.
      slice: An index into `SLICES`; -1: the row belongs to none and is not stored.
      frame: The frame that the row shows, -1 where it shows none.
      means: Whether the row counts in the mean over the video (`VIDEO_MEAN`), and in
        that over the video and the first text row (`SEQUENCE_MEAN`), which the paper's
        release takes where the tokenizer adds no token in front of a text. A row of no
        slice may count.
    """

    feature: Int32[np.ndarray, " rows"]
    token: Int32[np.ndarray, " rows"]
    position: Int32[np.ndarray, "rows axes"]
    kept: Int32[np.ndarray, " kept"]
    target: Int32[np.ndarray, " kept"]
    slice: Int8[np.ndarray, " kept"]
    frame: Int16[np.ndarray, " kept"]
    means: Bool[np.ndarray, "kept means"]


class Batch(NamedTuple):
    """Clips of one shape, ready for the device.

    Attributes:
      pixels: From the family's `prepare`: (clips, views, frames, ...).
      text: The token ids of the text rows.
      source: What a row takes: a text row below the length of `text`, from there on a
        visual row.
      position: See `Rows`.
      kept: See `Rows`.
      target: See `Rows`.
      means: See `Rows`.
    """

    pixels: Array | np.ndarray
    text: Int32[Array | np.ndarray, "clips text"]
    source: Int32[Array | np.ndarray, "clips directions rows"]
    position: Int32[Array | np.ndarray, "clips directions rows axes"]
    kept: Int32[Array | np.ndarray, "clips directions kept"]
    target: Int32[Array | np.ndarray, "clips directions kept"]
    means: Bool[Array | np.ndarray, "clips directions kept means"]


class Builder:
    """Appends blocks of rows, whose positions follow one another.

    A block of text takes one position a row, on all axes alike. A block of video says
    where its rows stand relative to its start; what follows begins behind the largest
    position, as in M-RoPE [1].

    Example:
      >>> builder = Builder()
      >>> builder.text((5, 6))
      >>> builder.video([0, 1], frame=0)
      >>> builder.build(("video",)).feature.tolist()
      [-1, -1, 0, 1]

    [1] Wang et al., 2024. Qwen2-VL. https://arxiv.org/abs/2409.12191
    """

    def __init__(self, axes: int = 1):
        """Starts with no rows; `axes` is 1 or 3."""
        self._axes, self._start, self._rows = axes, 0, 0
        # Of each block: features, tokens, positions.
        self._blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._video: list[tuple[np.ndarray, np.ndarray]] = []  # Rows, their frames.
        self._spans: dict[str, tuple[int, np.ndarray]] = {}  # Start, tokens.

    def text(self, tokens: Sequence[int], slice: str = "") -> None:
        """Appends text, which is predicted in `slice` if one is named."""
        ids = np.asarray(tokens, np.int32)
        if slice:
            self._spans[slice] = self._rows, ids
        steps = np.arange(len(ids), dtype=np.int32)
        at = np.repeat(steps[:, None], self._axes, axis=1)
        self._append(np.full(len(ids), _NONE, np.int32), ids, at)

    def video(
        self,
        features: Sequence[int] | Int[np.ndarray, " rows"],
        frame: int,
        at: Int[np.ndarray, "rows axes"] | None = None,
    ) -> None:
        """Appends visual rows.

        Args:
          features: Which ones.
          frame: That they show; -1: none, such as a separator behind the last frame.
          at: Their positions relative to the block's start; by default 0, 1, 2, ... on
            all axes.
        """
        taken = np.asarray(features, np.int32)
        count = len(taken)
        if at is None:
            steps = np.arange(count, dtype=np.int32)
            at = np.repeat(steps[:, None], self._axes, axis=1)
        places = np.arange(self._rows, self._rows + count, dtype=np.int32)
        self._video.append((places, np.full(count, frame, np.int16)))
        self._append(taken, np.zeros(count, np.int32), np.asarray(at, np.int32))

    def build(self, slices: Iterable[str]) -> Rows:
        """Returns the rows; those of `slices` are kept.

        With "video", the first row behind the video is kept too, if there is one: it
        belongs to no slice and counts in `SEQUENCE_MEAN`. A token of text is predicted
        by the row in front of it.
        """
        feature, token, position = (
            np.concatenate(parts) for parts in zip(*self._blocks, strict=True)
        )
        kept: list[tuple[np.ndarray, ...]] = []
        if "video" in slices:
            rows, frames = (
                np.concatenate(parts) for parts in zip(*self._video, strict=True)
            )
            kept.append(_keep(rows, "video", frames, means=(True, True)))
            behind = rows[-1] + 1
            if behind < self._rows:
                text = np.array([behind], np.int32)
                kept.append(_keep(text, "", means=(False, True)))
        for name, (start, ids) in self._spans.items():
            if name in slices and len(ids):
                rows = np.arange(start - 1, start - 1 + len(ids), dtype=np.int32)
                kept.append(_keep(rows, name, target=ids))
        columns = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        return Rows(feature, token, position, *columns)

    def _append(self, feature, token, at) -> None:
        self._blocks.append((feature, token, self._start + at))
        self._rows += len(feature)
        if len(feature):
            self._start += int(at.max()) + 1


def _keep(rows, slice, frames=None, target=None, means=(False,) * _NUM_MEANS):
    """Returns the columns of kept rows, in the order of `Rows`."""
    count = len(rows)
    place = SLICES.index(slice) if slice else _NONE
    return (
        rows,
        np.full(count, _NONE, np.int32) if target is None else target,
        np.full(count, place, np.int8),
        np.full(count, _NONE, np.int16) if frames is None else frames,
        np.tile(np.array(means), (count, 1)),
    )


def pad(rows: Rows, num_rows: int, num_kept: int) -> Rows:
    """Pads behind the last row, which is causal, so that nothing needs a mask.

    Padding is token 0 at position 0; kept padding is the first row, of no slice.
    """
    lengths = (num_rows,) * 3 + (num_kept,) * 5
    fills = (_NONE, 0, 0, 0, _NONE, _NONE, _NONE, False)
    columns = []
    for column, length, fill in zip(rows, lengths, fills, strict=True):
        padded = np.full((length, *column.shape[1:]), fill, column.dtype)
        padded[: len(column)] = column
        columns.append(padded)
    return Rows(*columns)


class Shape(NamedTuple):
    """The padded shape of a clip: a function of the clip and its own text."""

    rows: int
    kept: int
    text: int

    @classmethod
    def of(cls, rows: Rows) -> "Shape":
        """Returns the shape that these rows fill."""
        text = int((rows.feature == _NONE).sum())
        return cls(len(rows.feature), len(rows.kept), text)


def stack(clips: Sequence[Sequence[Rows]], pixels: np.ndarray, shape: Shape) -> Batch:
    """Returns clips of one shape as the arrays that the device reads.

    Args:
      clips: Of each the rows of each direction; the text is the same in all of them.
      pixels: (clips, views, frames, ...).
      shape: That each is padded to.
    """
    size = len(clips), len(clips[0])
    text = np.zeros((size[0], shape.text), np.int32)
    source = np.zeros((*size, shape.rows), np.int32)
    padded = []
    for k, directions in enumerate(clips):
        for d, rows in enumerate(directions):
            is_text = rows.feature == _NONE
            count = int(is_text.sum())
            text[k, :count] = rows.token[is_text]
            own = np.where(is_text, np.cumsum(is_text) - 1, shape.text + rows.feature)
            source[k, d, : len(own)] = own
            padded.append(pad(rows, shape.rows, shape.kept))

    def column(name: str) -> np.ndarray:
        values = np.stack([getattr(rows, name) for rows in padded])
        return values.reshape(*size, *values.shape[1:])

    names = ("position", "kept", "target", "means")
    return Batch(pixels, text, source, *map(column, names))


def second_order(against: str, length: int) -> Order:
    """Returns the order of the frames that the natural one is compared with.

    Args:
      against: "reversed", or "shuffled:SEED": one permutation for every clip of this
        length, never the natural order where there is another.
      length: Frames of the clip, at least 1.
    """
    kind, _, seed = against.partition(":")
    natural = np.arange(length, dtype=np.int32)
    if kind == "reversed" or length == 1:
        return natural[::-1]
    rng = np.random.default_rng([int(seed), length])
    while True:
        order = rng.permutation(natural)
        if (order != natural).any():
            return order
