"""Stacks samples into the batch that a device reads: padded to one shape, in NumPy."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from vidsme_jax.base import Asked, ClipError
from vidsme_jax.models.batches import Batch, Shape, TextShape, stack, stack_texts
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Order, Rows, Shown, Text, second_order
from vidsme_jax.models.tiles import Grid, Room, Tiles

_ROWS = 64  # Text that differs from clip to clip is padded to a multiple of this.
_GREY = 128  # Grey level of the video that replaces a clip.
_SIDE = 8  # Pixels of a frame, grey or black, before the model's own size.


class Tokenised(NamedTuple):
    """A text about a clip, with its tokens."""

    asked: Asked
    text: Text


class Input(NamedTuple):
    """One sample, ready for the model.

    Attributes:
      key: Returned with its results.
      frames: The result of the model's `prepare`.
      texts: Asked about it.
      video: Whether the signals of the video's rows are wanted.
      shown: The clip; see `seen`. May be left out if the model reads no times.
    """

    key: Any
    frames: UInt8[np.ndarray, "frames height width numbers"]
    texts: tuple[Tokenised, ...] = ()
    video: bool = True
    shown: Shown | None = None


class Padded(NamedTuple):
    """The padded shape of a sample, a function of the sample alone.

    Attributes:
      num_frames: The number of frames that the clip is padded to.
      video: Whether the video's rows are kept.
      texts: The shape of the texts; None if there are none.
      more: Rows of text between the frames beyond those that the prompt has around a
        clip whose times are not known.
      room: What frames are padded to where clips differ in size.
    """

    num_frames: int
    video: bool = True
    texts: TextShape | None = None
    more: int = 0
    room: Room | None = None


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
          model: The model that reads the batches.
          num_frames: The most frames of a clip.
          slices: The slices whose rows are kept.
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
        length, shown = self.padded(len(clip.frames)), self._shown(clip)
        tiling = self._model.tiling
        room = tiling.room(shown.grid) if tiling else None
        own = Shape.of(self._trunks(shown, clip.video)[0])
        usual = self.trunk(Padded(length, clip.video, room=room))
        more = max(own.rows - usual.rows, own.text - usual.text, 0)
        return Padded(length, clip.video, texts, -(-more // _ROWS) * _ROWS, room)

    def holds(self, clip: Input, shape: Padded) -> bool:
        """Returns whether a shape has room for the frames of a sample."""
        tiling = self._model.tiling
        if tiling is None or shape.room is None:
            return True
        return tiling.holds(shape.room, self._shown(clip).grid)

    def padded(self, length: int) -> int:
        """Returns how many frames a clip is padded to."""
        if len(self._model.views(second_order("reversed", length))) > 1:
            return length
        return min(1 << (length - 1).bit_length(), self._num_frames)

    def trunk(self, shape: Padded) -> Shape:
        """Returns the padded shape of the trunks of such samples."""
        # As many rows as have room, whichever way they lie.
        grid = (1, shape.room.rows) if shape.room else (0, 0)
        shown = Shown(shape.num_frames, grid=grid)
        usual = Shape.of(self._trunks(shown, shape.video)[0])
        return usual._replace(
            rows=usual.rows + shape.more, text=usual.text + shape.more
        )

    def batch(self, group: Group, size: int) -> tuple[Batch, list[Rows]]:
        """Stacks samples, padding each to the group's shape and the batch with copies.

        Args:
          group: Samples; an empty group is one black clip.
          size: The size of the batch.

        Returns:
          The batch, and the rows of each sample in natural order.
        """
        length, video, texts, _, room = group.shape
        clips = group.clips or [self._empty(length)]
        own = [min(k, len(clips) - 1) for k in range(size)]
        views = [self.views(len(clip.frames)) for clip in clips]
        pixels = self._pixels(
            [clips[k].frames for k in own], [views[k] for k in own], length, room
        )
        rows = [self._directions(clip, video) for clip in clips]
        blank = None
        if self._grey and texts is not None:
            blank = self._about_grey([clips[k] for k in own], length, texts)
        whole = self.trunk(group.shape)
        grids = (self._shown(clip).grid for clip in clips)
        placed = [
            [place(each, grid, room) for each in directions]
            for directions, grid in zip(rows, grids, strict=True)
        ]
        batch = stack([placed[k] for k in own], pixels, whole, texts, blank)
        return batch, [directions[0] for directions in rows[: len(group.clips)]]

    def _pixels(
        self,
        clips: Sequence[np.ndarray],
        views: Sequence[tuple[Int[np.ndarray, " _"], ...]],
        length: int,
        room: Room | None,
    ) -> np.ndarray | Tiles:
        """Returns the frames of clips in the orders that the tower sees."""
        if room is not None:
            assert self._model.tiling is not None
            return self._model.tiling.stack(clips, views, length, room)
        shape = len(clips), len(views[0]), length, *clips[0].shape[1:]
        pixels = np.zeros(shape, np.uint8)
        for k, shown in enumerate(clips):
            for view, order in enumerate(views[k]):
                pixels[k, view, : len(shown)] = shown[order]
        return pixels

    def _orders(self, length: int) -> list[Order]:
        """Returns the order of the frames in each direction."""
        natural = np.arange(length)
        if self._against is None or self._model.prune:
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
        known = clip.shown if self._model.timed or self._model.tiling else None
        return known or seen(self._model, clip.frames)

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
        """Returns the clips' texts about a grey video of `length` frames."""
        if length not in self._grey_frames:
            grey = np.full((length, _SIDE, _SIDE, 3), _GREY, np.uint8)
            self._grey_frames[length] = self._model.prepare(grey)
        frames, order = self._grey_frames[length], np.arange(length)
        shown = seen(self._model, frames)
        rows = [self._rows(shown, clip.texts, False, order) for clip in clips]
        room = self._model.tiling.room(shown.grid) if self._model.tiling else None
        pixels = self._pixels(
            [frames] * self._grey, [(order,)] * self._grey, length, room
        )
        shape = self.trunk(Padded(length, video=False, room=room))
        trunk = place(rows[0], shown.grid, room)
        batch = stack([[trunk]] * self._grey, pixels, shape)
        return batch._replace(texts=stack_texts(rows, shape.rows, texts))

    def _empty(self, length: int) -> Input:
        """Returns what an empty batch of a grid of several processes holds."""
        black = np.zeros((length, _SIDE, _SIDE, 3), np.uint8)
        return Input(None, self._model.prepare(black))


def seen(model: Model, frames: np.ndarray, shown: Shown | None = None) -> Shown:
    """Returns what a model is shown of a clip, with its grid and the rows it keeps.

    Args:
      model: The model that is shown the clip.
      frames: The result of its `prepare`.
      shown: Without these; by default the frames, whose times are not known.
    """
    shown = shown or Shown(len(frames))
    kept = model.prune(frames) if model.prune else b""
    return shown._replace(grid=frames.shape[1:3], kept=kept) if model.tiling else shown


def check_positions(model: Model, shown: Shown, size: str) -> None:
    """Refuses a clip that the model's positions do not hold.

    Args:
      model: The model that is shown the clip.
      shown: The result of `seen`.
      size: The size of its frames as decoded, for the message.

    Raises:
      ClipError: "preprocess", if rows or positions are too many.
    """
    count, most = shown.num_frames, model.max_rows
    laid_out = model.lay_out(shown, model.tokenise(None, shown), np.arange(count))
    rows, last = len(laid_out.feature), int(laid_out.position.max())
    if rows > most:
        remedy = "take fewer frames (config.video.num_frames)"
        if model.tiling and model.tiling.groups(count) == 1:
            remedy = "its processor's budget of pixels is more than it can be shown"
        raise ClipError(
            "preprocess",
            f"{count} frames of {size} pixels are {rows} rows with the text between "
            f"them; the model has {most} positions: {remedy}",
        )
    if last >= most:
        raise ClipError(
            "preprocess",
            f"its last frame is at position {last} of a clip of {shown.length:.0f} s; "
            f"the model has {most} positions",
        )


def place(rows: Rows, grid: Grid, room: Room | None) -> Rows:
    """Returns rows whose features are those of padded frames.

    Args:
      rows: The rows of one direction.
      grid: The grid of the clip.
      room: The room that its frames are padded to; None: they are not.
    """
    if room is None:
        return rows
    feature, own = rows.feature, grid[0] * grid[1]
    padded = feature // own * room.rows + feature % own
    return rows._replace(feature=np.where(feature < 0, feature, padded))


def room_for_times(model: Model, num_frames: int) -> int:
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
