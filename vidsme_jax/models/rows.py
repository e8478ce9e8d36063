"""The rows of the decoder: layouts of text and video, built in NumPy on the host.

A family's `lay_out` builds the `Rows` of one direction of one sample with a `Builder`:
segment 0, the prompt's start and the video, and a segment for each text about it. A row
sees earlier rows of its own segment and all of segment 0, so that the video's rows are
computed once for any number of texts. Reversing or shuffling the frames permutes
`feature` only: text, separators and positions are unchanged. `batches` turns the rows
of several samples into the arrays that the device reads.

Axes: `rows` of the decoder; `axes` of a position, 1 (RoPE) or 3 (M-RoPE: time, height,
width); `kept`, the rows whose next-token distribution is used; `means`, averages of
distributions.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int8, Int16, Int32

from vidsme_jax.base import SLICES

MAX_FRAMES = int(np.iinfo(np.int16).max)  # `Rows.frame` is an int16.
VIDEO_MEAN, SEQUENCE_MEAN = 0, 1  # Indices along `means`.
_NUM_MEANS = 2
NONE = -1
BEHIND = -1  # The segment of a row after segment 0 that no text sees.

Order = Int[np.ndarray, " frames"]  # The frame at each place.


class Text(NamedTuple):
    """The token ids around a video.

    Attributes:
      before: The tokens before the video.
      after: The tokens between the video and the answer. In the prompt alone: the first
        token after the video if the tokenizer adds no BOS token, else empty.
      answer: The model's answer, or the expected one, with the token that ends it.
      frames: The tokens after the rows of each frame (or of each group of frames with a
        text of its own), up to the next one or the end of the video. Empty if the rows
        of all frames follow one another.
    """

    before: tuple[int, ...]
    after: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    frames: tuple[tuple[int, ...], ...] = ()


class Shown(NamedTuple):
    """The part of a clip that a model is shown.

    Attributes:
      num_frames: 1 to `MAX_FRAMES`.
      times: The times of the frames in seconds, for models that read them as text;
        empty if they are unknown or not read.
      duration: The clip's duration in seconds; 0 if it is unknown.
      grid: Visual rows down and across a frame, for models whose clips differ in them
        (`tiles`); zeros if it is unknown.
      kept: For models that omit visual rows: a byte for each row, 1 if it is shown,
        else 0, frame after frame; empty if all are shown.

    Example:
      >>> Shown(3).seconds, Shown(2, (0.0, 0.5), 1.0).seconds
      ((0.0, 1.0, 2.0), (0.0, 0.5))
    """

    num_frames: int
    times: tuple[float, ...] = ()
    duration: float = 0.0
    grid: tuple[int, int] = (0, 0)
    kept: bytes = b""

    @property
    def seconds(self) -> tuple[float, ...]:
        """The times; those of one frame a second if they are unknown."""
        return self.times or tuple(map(float, range(self.num_frames)))

    @property
    def length(self) -> float:
        """The duration; that of one frame a second if it is unknown."""
        return self.duration or float(self.num_frames)


class Rows(NamedTuple):
    """The rows of one direction of one sample.

    Attributes:
      feature: The index of the row's visual feature; -1: the embedding of `token`.
      token: The token id if `feature` is -1, else 0.
      position: The position for the rotary embedding.
      segment: 0: the prompt's start and the video; k: the k-th text, from 1; -1: after
        segment 0, where no text sees it. Segments follow one another in the order 0,
        -1, 1, 2, ...
      kept: Indices of rows along `kept`; those of the video, then of the texts. A row
        may occur several times.
      target: The class whose log p is scored; -1: the row's own argmax.
      slice: An index into `SLICES`; -1: the row belongs to none and is not stored.
      text: The segment of the token that the row predicts; 0 for the video's rows.
      frame: The frame that the row shows; -1 if none.
      means: Whether the row counts in the mean over the video (`VIDEO_MEAN`), and in
        that over the video and the first text row (`SEQUENCE_MEAN`), which the paper's
        release takes if the tokenizer adds no BOS token. A row of no slice may count.
    """

    feature: Int32[np.ndarray, " rows"]
    token: Int32[np.ndarray, " rows"]
    position: Int32[np.ndarray, "rows axes"]
    segment: Int16[np.ndarray, " rows"]
    kept: Int32[np.ndarray, " kept"]
    target: Int32[np.ndarray, " kept"]
    slice: Int8[np.ndarray, " kept"]
    text: Int16[np.ndarray, " kept"]
    frame: Int16[np.ndarray, " kept"]
    means: Bool[np.ndarray, "kept means"]

    @property
    def shared(self) -> int:
        """The number of rows of segment 0, which all texts see."""
        return int((self.segment == 0).sum())

    @property
    def trunk(self) -> "Rows":
        """The rows without those of the texts."""
        of_row, of_kept = self.segment <= 0, self.text == 0
        return Rows(
            *(column[of_row] for column in self[:4]),
            *(column[of_kept] for column in self[4:]),
        )


class Builder:
    """Appends blocks of rows, whose positions follow one another.

    A block of text has one position a row, the same on all axes. A block of video has
    positions relative to its start; the next block begins after the largest one, as in
    M-RoPE [1]. `ask` begins a segment at the position after segment 0; only `ask` may
    follow it.

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
        # For each block: features, tokens, positions, segments.
        self._blocks: list[tuple[np.ndarray, ...]] = []
        self._video: list[tuple[np.ndarray, np.ndarray]] = []  # Rows, their frames.
        self._after = 0  # Rows of segment -1.
        # For each predicted piece of text: slice, segment, first row, tokens.
        self._spans: list[tuple[str, int, int, np.ndarray]] = []
        self._segments = 0

    def text(self, tokens: Sequence[int]) -> None:
        """Appends text to segment 0, such as that before the video."""
        self._text(tokens, 0, 0)

    def after(self, tokens: Sequence[int]) -> None:
        """Appends text after segment 0 that no other segment sees."""
        self._text(tokens, BEHIND, 0)
        self._after += len(tokens)

    def ask(self, text: Text) -> None:
        """Appends a segment: the instruction and the response of one text."""
        self._segments += 1
        start = 0
        for name, tokens in (("instruction", text.after), ("response", text.answer)):
            ids = np.asarray(tokens, np.int32)
            self._spans.append((name, self._segments, self._rows, ids))
            self._text(tokens, self._segments, start)
            start += len(ids)

    def video(
        self,
        features: Sequence[int] | Int[np.ndarray, " rows"],
        frame: int | Int[np.ndarray, " rows"],
        at: Int[np.ndarray, "rows axes"] | None = None,
    ) -> None:
        """Appends visual rows to segment 0.

        Args:
          features: The indices of their features.
          frame: The frame of all rows, or of each; -1: none, such as for a separator
            after the last frame.
          at: Their positions relative to the block's start; by default 0, 1, 2, ... on
            all axes.
        """
        taken = np.asarray(features, np.int32)
        count = len(taken)
        at = self._steps(count) if at is None else np.asarray(at, np.int32)
        places = np.arange(self._rows, self._rows + count, dtype=np.int32)
        frames = np.broadcast_to(np.asarray(frame, np.int16), count)
        self._video.append((places, frames))
        self._append(taken, np.zeros(count, np.int32), at, 0)

    def build(self, slices: Iterable[str]) -> Rows:
        """Returns the rows, keeping those that belong to `slices`.

        With "video", the first row of segment -1, if any, is kept too: it belongs to no
        slice and counts in `SEQUENCE_MEAN`. A token of text is predicted by the row
        before it, the first token of a segment by the last row of segment 0.
        """
        feature, token, position, segment = (
            np.concatenate(parts) for parts in zip(*self._blocks, strict=True)
        )
        shared = int((segment == 0).sum())
        nothing = np.zeros(0, np.int32)
        kept = [_keep(nothing, "", 0)]
        if "video" in slices:
            rows, frames = (
                np.concatenate(parts) for parts in zip(*self._video, strict=True)
            )
            kept.append(_keep(rows, "video", 0, frames, means=(True, True)))
            first = np.arange(shared, shared + min(self._after, 1), dtype=np.int32)
            kept.append(_keep(first, "", 0, means=(False, True)))
        for name, number, start, ids in self._spans:
            if name in slices and len(ids):
                rows = np.arange(start - 1, start - 1 + len(ids), dtype=np.int32)
                if segment[start - 1] != number:
                    rows[0] = shared - 1
                kept.append(_keep(rows, name, number, target=ids))
        columns = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        return Rows(feature, token, position, segment, *columns)

    def _steps(self, count: int, start: int = 0) -> Int32[np.ndarray, "rows axes"]:
        steps = np.arange(start, start + count, dtype=np.int32)
        return np.repeat(steps[:, None], self._axes, axis=1)

    def _text(self, tokens: Sequence[int], segment: int, start: int) -> None:
        ids = np.asarray(tokens, np.int32)
        none = np.full(len(ids), NONE, np.int32)
        self._append(none, ids, self._steps(len(ids), start), segment)

    def _append(
        self,
        feature: Int32[np.ndarray, " rows"],
        token: Int32[np.ndarray, " rows"],
        at: Int32[np.ndarray, "rows axes"],
        segment: int,
    ) -> None:
        count = len(feature)
        segments = np.full(count, segment, np.int16)
        self._blocks.append((feature, token, self._start + at, segments))
        self._rows += count
        if count and segment == 0:
            self._start += int(at.max()) + 1


def _keep(
    rows: Int32[np.ndarray, " kept"],
    name: str,
    text: int,
    frames: Int16[np.ndarray, " kept"] | None = None,
    target: Int32[np.ndarray, " kept"] | None = None,
    means: tuple[bool, ...] = (False,) * _NUM_MEANS,
) -> tuple[np.ndarray, ...]:
    """Returns the columns of kept rows, in the order of `Rows`."""
    count = len(rows)
    place = SLICES.index(name) if name else NONE
    return (
        rows,
        np.full(count, NONE, np.int32) if target is None else target,
        np.full(count, place, np.int8),
        np.full(count, text, np.int16),
        np.full(count, NONE, np.int16) if frames is None else frames,
        np.tile(np.array(means), (count, 1)),
    )


def joined(rows: Rows) -> Rows:
    """Moves a sample's only text into segment 0: one causal sequence, as in training.

    Raises:
      ValueError: There are several texts, or there is a row of segment -1.
    """
    if rows.segment.min() < 0 or rows.segment.max() > 1:
        raise ValueError("There must be one text at most, and no row of segment -1.")
    return rows._replace(
        segment=np.zeros_like(rows.segment), text=np.zeros_like(rows.text)
    )


def second_order(name: str, length: int) -> Order:
    """Returns the order of the frames that the natural one is compared with.

    Args:
      name: "reversed", or "shuffled:SEED": one permutation for every clip of this
        length, never the natural order if there is another.
      length: Frames of the clip, at least 1.

    Example:
      >>> second_order("reversed", 3).tolist()
      [2, 1, 0]
    """
    kind, _, seed = name.partition(":")
    natural = np.arange(length, dtype=np.int32)
    if kind == "reversed" or length == 1:
        return natural[::-1]
    rng = np.random.default_rng([int(seed), length])
    while True:
        order = rng.permutation(natural)
        if (order != natural).any():
            return order
