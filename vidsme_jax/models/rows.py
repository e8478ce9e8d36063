"""Which decoder row shows what: layouts of text and video, made in NumPy on the host.

A family's `lay_out` builds the `Rows` of one direction of one sample with a `Builder`:
segment 0, the prompt's start and the video, and a segment for each text asked about it.
A row sees earlier rows of its own segment and all of segment 0, so that the video's
rows are computed once however many texts there are. Reversing or shuffling the frames
permutes `feature` only: text, separators and positions stay where they are. `batches`
turns the rows of several samples into what the device reads.

Axes: `rows` of the decoder; `axes` of a position, 1 (RoPE) or 3 (M-RoPE: time, height,
width); `kept`, the rows whose next-token distribution is wanted; `means`, averages of
distributions.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int8, Int16, Int32

from vidsme_jax.base import SLICES

MAX_FRAMES = int(np.iinfo(np.int16).max)  # Of a clip: `Rows.frame` is an int16.
VIDEO_MEAN, SEQUENCE_MEAN = 0, 1  # Places along `means`.
_NUM_MEANS = 2
NONE = -1
BEHIND = -1  # The segment of a row behind segment 0 that no text sees.

Order = Int[np.ndarray, " frames"]  # The frame that stands at each place.


class Text(NamedTuple):
    """The token ids around a video.

    Attributes:
      before: In front of the video.
      after: Between the video and the answer. Of the prompt alone it is the first token
        behind the video if the tokenizer adds no token in front of a text, else empty.
      answer: What the model said, or should say, up to the token that ends its turn.
      frames: Behind the rows of each frame, or of each group of frames that has a text
        of its own: what stands in front of the next one, or closes the video. Empty
        where the rows of all frames follow one another.
    """

    before: tuple[int, ...]
    after: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    frames: tuple[tuple[int, ...], ...] = ()


class Shown(NamedTuple):
    """What a model is shown of one clip.

    Attributes:
      num_frames: 1 to `MAX_FRAMES`.
      times: Of the frames, in seconds, for models that read them as text; empty where
        they are not known, or not read.
      duration: Of the clip, in seconds; 0 where it is not known.
      grid: Visual rows down and across a frame, of models whose clips differ in them
        (`tiles`); zeros where it is not known.
      kept: Which visual rows the model is shown, a byte each, 1 or 0, frame after
        frame, of models that leave some out; empty where it is shown all.

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
        """The times; before a clip is known, of one frame a second."""
        return self.times or tuple(map(float, range(self.num_frames)))

    @property
    def length(self) -> float:
        """The duration; before a clip is known, of one frame a second."""
        return self.duration or float(self.num_frames)


class Rows(NamedTuple):
    """One direction of one sample.

    Attributes:
      feature: The visual row that stands here; -1: the embedding of `token`.
      token: The token id where `feature` is -1, else 0.
      position: For the rotary embedding.
      segment: 0: the prompt's start and the video; k: the k-th text, from 1; -1: behind
        segment 0, where no text sees it. Segments follow one another in this order: 0,
        -1, 1, 2, ...
      kept: Indices of rows; those of the video, then those of the texts. A row may be
        kept several times.
      target: The class whose log p counts; -1: the row's own argmax.
      slice: An index into `SLICES`; -1: the row belongs to none and is not stored.
      text: The segment of the token that the row predicts; 0 of the video's rows.
      frame: The frame that the row shows, -1 where it shows none.
      means: Whether the row counts in the mean over the video (`VIDEO_MEAN`), and in
        that over the video and the first text row (`SEQUENCE_MEAN`), which the paper's
        release takes where the tokenizer adds no token in front of a text. A row of no
        slice may count.
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
        """Rows of segment 0, which all texts see."""
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

    A block of text takes one position a row, on all axes alike. A block of video says
    where its rows stand relative to its start; what follows begins behind the largest
    position, as in M-RoPE [1]. `ask` begins a segment, at the position behind segment
    0; nothing else may follow it.

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
        # Of each block: features, tokens, positions, segments.
        self._blocks: list[tuple[np.ndarray, ...]] = []
        self._video: list[tuple[np.ndarray, np.ndarray]] = []  # Rows, their frames.
        self._behind = 0  # Rows of segment -1.
        # Of each predicted piece of text: its slice, segment, first row and tokens.
        self._spans: list[tuple[str, int, int, np.ndarray]] = []
        self._segments = 0

    def text(self, tokens: Sequence[int]) -> None:
        """Appends text to segment 0, such as that in front of the video."""
        self._text(tokens, 0, 0)

    def behind(self, tokens: Sequence[int]) -> None:
        """Appends text behind segment 0 that no other segment sees."""
        self._text(tokens, BEHIND, 0)
        self._behind += len(tokens)

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
          features: Which ones.
          frame: That they show, or each of them; -1: none, such as a separator behind
            the last frame.
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
        """Returns the rows; those of `slices` are kept.

        With "video", the first row behind the video is kept too, if it is there without
        a text: it belongs to no slice and counts in `SEQUENCE_MEAN`. A token of text is
        predicted by the row in front of it; the first of a segment by the last row of
        segment 0.
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
            first = np.arange(shared, shared + min(self._behind, 1), dtype=np.int32)
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

    def _append(self, feature, token, at, segment: int) -> None:
        count = len(feature)
        segments = np.full(count, segment, np.int16)
        self._blocks.append((feature, token, self._start + at, segments))
        self._rows += count
        if count and segment == 0:
            self._start += int(at.max()) + 1


def _keep(rows, slice, text, frames=None, target=None, means=(False,) * _NUM_MEANS):
    """Returns the columns of kept rows, in the order of `Rows`."""
    count = len(rows)
    place = SLICES.index(slice) if slice else NONE
    return (
        rows,
        np.full(count, NONE, np.int32) if target is None else target,
        np.full(count, place, np.int8),
        np.full(count, text, np.int16),
        np.full(count, NONE, np.int16) if frames is None else frames,
        np.tile(np.array(means), (count, 1)),
    )


def joined(rows: Rows) -> Rows:
    """Puts the only text of a sample in segment 0: one causal sequence, as in training.

    Raises:
      ValueError: There are several texts, or a row stands behind segment 0.
    """
    if rows.segment.min() < 0 or rows.segment.max() > 1:
        raise ValueError("Only one text, without a row behind the video, is joined.")
    return rows._replace(
        segment=np.zeros_like(rows.segment), text=np.zeros_like(rows.text)
    )


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
