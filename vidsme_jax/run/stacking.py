"""From samples to the batch that a device reads: padded to one shape, in NumPy."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import Asked
from vidsme_jax.models.batches import Batch, Shape, TextShape, stack, stack_texts
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Order, Rows, Shown, Text, second_order

_ROWS = 64  # Text that differs from clip to clip is padded to a multiple of so many.
_GREY = 128  # Of the video that stands in place of a clip.


class Tokenised(NamedTuple):
    """A text about a clip, with its tokens."""

    asked: Asked
    text: Text


class Input(NamedTuple):
    """One sample, ready for the model.

    Attributes:
      key: Returned with its results.
      frames: At the model's input size.
      texts: Asked about it.
      video: Whether the signals of the video's rows are wanted.
      shown: Of the clip, with its times for a model that reads them as text.
    """

    key: Any
    frames: UInt8[np.ndarray, "frames height width 3"]
    texts: tuple[Tokenised, ...] = ()
    video: bool = True
    shown: Shown | None = None


class Padded(NamedTuple):
    """The padded shape of a sample, a function of the sample alone.

    Attributes:
      num_frames: That the clip is padded to.
      video: Whether the video's rows are kept.
      texts: Of the texts; None if there are none.
      more: Rows of text beside the frames beyond those that the prompt has around a
        clip whose times are not known.
    """

    num_frames: int
    video: bool = True
    texts: TextShape | None = None
    more: int = 0


class Group(NamedTuple):
    """Samples of one padded shape, which make a batch."""

    shape: Padded
    clips: Sequence[Input]


class Stacker:
    """Makes batches of one model's samples.

    Where the model's frames are independent a clip is padded to a power of two, at most
    `num_frames`, else batches hold clips of equal length.
    """

    def __init__(
        self,
        model: Model,
        *,
        num_frames: int,
        slices: Sequence[str],
        against: str | None = "reversed",
        grey: int = 0,
    ):
        """Lays nothing out yet.

        Args:
          model: That reads the batches.
          num_frames: The most frames of a clip.
          slices: Whose rows are kept.
          against: The order of the second direction, see `second_order`; None: there is
            the natural one alone.
          grey: Trunks of a grey video, about which texts are asked too; 0: none.
        """
        self._model = model
        self._num_frames, self._slices = num_frames, slices
        self._against, self._grey = against, grey
        self._trunks = functools.lru_cache(maxsize=256)(self._lay_out_trunks)
        self._grey_frames: dict[int, np.ndarray] = {}

    def shape(self, clip: Input) -> Padded:
        """Returns the padded shape of a sample."""
        texts = text_shape(self._model, clip.texts, self._slices)
        length = self.padded(len(clip.frames))
        own = Shape.of(self._trunks(self._shown(clip), clip.video)[0])
        usual = Shape.of(self._trunks(Shown(length), clip.video)[0])
        more = max(own.rows - usual.rows, own.text - usual.text, 0)
        return Padded(length, clip.video, texts, -(-more // _ROWS) * _ROWS)

    def padded(self, length: int) -> int:
        """Returns how many frames a clip is padded to."""
        if len(self._model.views(second_order("reversed", length))) > 1:
            return length
        return min(1 << (length - 1).bit_length(), self._num_frames)

    def trunk(self, shape: Padded) -> Shape:
        """Returns the padded shape of the trunks of such samples."""
        usual = Shape.of(self._trunks(Shown(shape.num_frames), shape.video)[0])
        return usual._replace(
            rows=usual.rows + shape.more, text=usual.text + shape.more
        )

    def batch(self, group: Group, size: int) -> tuple[Batch, list[Rows]]:
        """Stacks samples, padding each to the group's shape and the batch with copies.

        Args:
          group: Samples; none stand for one black clip.
          size: Of the batch.

        Returns:
          The batch, and the rows of each sample in natural order.
        """
        length, video, texts, _ = group.shape
        clips = group.clips or [self._empty(length)]
        views = [self.views(len(clip.frames)) for clip in clips]
        frames = length, *clips[0].frames.shape[1:]
        pixels = np.zeros((size, len(views[0]), *frames), np.uint8)
        own = [min(k, len(clips) - 1) for k in range(size)]
        for k, which in enumerate(own):
            shown = clips[which].frames
            for view, order in enumerate(views[which]):
                pixels[k, view, : len(shown)] = shown[order]
        rows = [self._directions(clip, video) for clip in clips]
        blank = None
        if self._grey and texts is not None:
            blank = self._about_grey([clips[k] for k in own], length, texts)
        whole = self.trunk(group.shape)
        batch = stack([rows[k] for k in own], pixels, whole, texts, blank)
        return batch, [directions[0] for directions in rows[: len(group.clips)]]

    def _orders(self, length: int) -> list[Order]:
        """Returns the order of the frames in each direction."""
        natural = np.arange(length)
        if self._against is None:
            return [natural]
        return [natural, second_order(self._against, length)]

    def views(self, length: int) -> tuple[Order, ...]:
        """Returns the orders in which the tower sees a clip."""
        return self._model.views(self._orders(length)[-1])[: len(self._orders(length))]

    def _directions(self, clip: Input, video: bool) -> list[Rows]:
        """Returns the rows of a sample in each direction, texts in the natural one."""
        shown = self._shown(clip)
        trunks = self._trunks(shown, video)
        if not clip.texts:
            return trunks
        order = self._orders(shown.num_frames)[0]
        return [self._rows(shown, clip.texts, video, order), *trunks[1:]]

    def _shown(self, clip: Input) -> Shown:
        """Returns what the model is shown of a clip."""
        if clip.shown is None or not self._model.timed:
            return Shown(len(clip.frames))
        return clip.shown

    def _lay_out_trunks(self, shown: Shown, video: bool) -> list[Rows]:
        """Returns the rows of a clip in each direction."""
        orders = self._orders(shown.num_frames)
        return [self._rows(shown, (), video, order) for order in orders]

    def _rows(
        self, shown: Shown, texts: Sequence[Tokenised], video: bool, order: Order
    ) -> Rows:
        slices = [x for x in self._slices if video or x != "video"]
        asked, prompt = [x.text for x in texts], self._model.tokenise(None, shown)
        return self._model.lay_out(shown, prompt, order, asked, slices)

    def _about_grey(
        self, clips: Sequence[Input], length: int, texts: TextShape
    ) -> Batch:
        """Returns the clips' texts about a grey video of so many frames."""
        order, shown = np.arange(length), Shown(length)
        rows = [self._rows(shown, clip.texts, False, order) for clip in clips]
        if length not in self._grey_frames:
            grey = np.full((length, 8, 8, 3), _GREY, np.uint8)
            self._grey_frames[length] = self._model.prepare(grey)
        pixels = np.stack([self._grey_frames[length][None]] * self._grey)
        shape = Shape.of(rows[0])
        batch = stack([rows[:1]] * self._grey, pixels, shape)
        return batch._replace(texts=stack_texts(rows, shape.rows, texts))

    def _empty(self, length: int) -> Input:
        """Returns what an empty batch of a grid of several processes holds."""
        return Input(None, self._model.prepare(np.zeros((length, 8, 8, 3), np.uint8)))


def room(model: Model, num_frames: int) -> int:
    """Returns `Padded.more` that holds clips of any duration below 100 hours."""
    return -(-2 * (num_frames + 8) // _ROWS) * _ROWS if model.timed else 0


def text_shape(
    model: Model, texts: Sequence[Tokenised], slices: Sequence[str]
) -> TextShape | None:
    """Returns the padded shape of texts that are asked of one clip."""
    if not texts:
        return None
    asked, kept = [each.text for each in texts], [x for x in slices if x != "video"]
    order = np.arange(1)
    return TextShape.of(model.lay_out(Shown(1), model.tokenise(), order, asked, kept))
