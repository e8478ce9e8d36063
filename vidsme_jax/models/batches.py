"""Rows of several samples, padded to one shape, as the arrays that the device reads.

Axes: `clips`; `directions`; `rows` of a trunk (segments 0 and -1) or of texts; `axes`
of a position; `kept` rows; `means`, averages of distributions; `text`, the text rows of
a clip's trunk; `texts`, an item for the texts of each clip.
"""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from jaxtyping import Array, Bool, Int32

from vidsme_jax.base import SLICES
from vidsme_jax.models.rows import BEHIND, NONE, Rows
from vidsme_jax.models.tiles import Tiles

# The shapes of texts: rows, and the texts that they hold. Few, so that a corpus needs
# few programs, and such that a fifth is padding if clips have one to eight texts of 5
# to 200 tokens. Beyond the last, both grow by half.
_TEXT_SHAPES = ((128, 4), (384, 8), (576, 8), (768, 8), (960, 8), (1344, 8))


class Texts(NamedTuple):
    """The texts of a batch: those of a clip follow one another, then padding.

    Attributes:
      token: Token ids.
      position: See `Rows`.
      segment: The text of each row within its clip, from 1; 0: padding.
      kept: Indices of rows: first those of the padded trunk, then those of these texts.
      target: The class whose log p is scored.
      means: Whether a row counts in each average: over the instruction and over the
        response of the first text, then of the second, and so on.
    """

    token: Int32[Array | np.ndarray, "texts rows"]
    position: Int32[Array | np.ndarray, "texts rows axes"]
    segment: Int32[Array | np.ndarray, "texts rows"]
    kept: Int32[Array | np.ndarray, "texts kept"]
    target: Int32[Array | np.ndarray, "texts kept"]
    means: Bool[Array | np.ndarray, "texts kept means"]


class Batch(NamedTuple):
    """Samples of one shape, ready for the device.

    Attributes:
      pixels: (clips, views, frames, ...) from the family's `prepare`, or `tiles.Tiles`.
      text: The token ids of the trunk's text rows.
      source: The index of each row's embedding among those of `text`, then the visual
        rows.
      position: See `Rows`.
      kept: See `Rows`; only of the trunk, as the next two.
      target: See `Rows`.
      means: See `Rows`.
      shared: The number of rows of the trunk that texts see.
      texts: The texts about the clips; None if there are none. There may be a multiple
        of the clips: then equally many, in order, belong to each clip.
      blank: The same texts about a grey video, natural order; its `kept` is empty. None
        if it is not scored.
    """

    pixels: Array | np.ndarray | Tiles
    text: Int32[Array | np.ndarray, "clips text"]
    source: Int32[Array | np.ndarray, "clips directions rows"]
    position: Int32[Array | np.ndarray, "clips directions rows axes"]
    kept: Int32[Array | np.ndarray, "clips directions kept"]
    target: Int32[Array | np.ndarray, "clips directions kept"]
    means: Bool[Array | np.ndarray, "clips directions kept means"]
    shared: Int32[Array | np.ndarray, " clips"]
    texts: Texts | None = None
    blank: Optional["Batch"] = None


def pad(rows: Rows, num_rows: int, num_kept: int) -> Rows:
    """Pads after the last row; attention is causal, so that no mask is needed.

    A padding row is token 0 at position 0, which no text sees; a padding entry of
    `kept` is the first row, of no slice.
    """
    lengths = (num_rows,) * 4 + (num_kept,) * 6
    fills = (NONE, 0, 0, BEHIND, 0, NONE, NONE, 0, NONE, False)
    columns = []
    for column, length, fill in zip(rows, lengths, fills, strict=True):
        padded = np.full((length, *column.shape[1:]), fill, column.dtype)
        padded[: len(column)] = column
        columns.append(padded)
    return Rows(*columns)


class Shape(NamedTuple):
    """The padded shape of a clip's trunk: a function of the clip and its prompt."""

    rows: int
    kept: int
    text: int

    @classmethod
    def of(cls, rows: Rows) -> "Shape":
        """Returns the shape that holds these rows without those of texts."""
        trunk = rows.trunk
        text = int((trunk.feature == NONE).sum())
        return cls(len(trunk.feature), len(trunk.kept), text)


class TextShape(NamedTuple):
    """The padded shape of the texts of one clip: a function of these texts alone."""

    rows: int
    kept: int
    texts: int

    @classmethod
    def of(cls, rows: Rows) -> "TextShape | None":
        """Returns the smallest shape that holds the texts; None if there are none.

        With instructions all rows are kept; with responses alone half of them, if that
        is enough.

        Example:
          >>> from vidsme_jax.models.rows import Builder, Text
          >>> builder = Builder()
          >>> builder.video([0, 1], frame=0)
          >>> builder.ask(Text((), (5,) * 100, (6,) * 30))
          >>> TextShape.of(builder.build(("response",)))
          TextShape(rows=384, kept=192, texts=8)
        """
        needed, texts = int((rows.segment > 0).sum()), int(rows.segment.max(initial=0))
        if not texts:
            return None
        found = [shape for shape in _TEXT_SHAPES if needed <= shape[0]]
        found = [shape for shape in found if texts <= shape[1]]
        size, most = found[0] if found else _TEXT_SHAPES[-1]
        while needed > size or texts > most:
            size, most = size * 3 // 2, most * 3 // 2
        asked = rows.text > 0
        instructs = (rows.slice[asked] == SLICES.index("instruction")).any()
        kept = size if instructs or asked.sum() > size // 2 else size // 2
        return cls(size, kept, most)


def stack(
    clips: Sequence[Sequence[Rows]],
    pixels: np.ndarray | Tiles,
    shape: Shape,
    texts: TextShape | None = None,
    blank: Batch | None = None,
) -> Batch:
    """Returns samples of one shape as the arrays that the device reads.

    Args:
      clips: The rows of each direction of each clip; directions have the same text.
      pixels: See `Batch`.
      shape: The shape that each trunk is padded to.
      texts: The shape that the texts are padded to; None omits them.
      blank: See `Batch`.
    """
    size = len(clips), len(clips[0])
    text = np.zeros((size[0], shape.text), np.int32)
    source = np.zeros((*size, shape.rows), np.int32)
    padded = []
    for k, directions in enumerate(clips):
        for d, rows in enumerate(directions):
            trunk = rows.trunk
            is_text = trunk.feature == NONE
            count = int(is_text.sum())
            text[k, :count] = trunk.token[is_text]
            at = np.where(is_text, np.cumsum(is_text) - 1, shape.text + trunk.feature)
            source[k, d, : len(at)] = at
            padded.append(pad(trunk, shape.rows, shape.kept))

    def column(name: str) -> np.ndarray:
        values = np.stack([getattr(rows, name) for rows in padded])
        return values.reshape(*size, *values.shape[1:])

    natural = [directions[0] for directions in clips]
    return Batch(
        pixels=pixels,
        text=text,
        source=source,
        position=column("position"),
        kept=column("kept"),
        target=column("target"),
        means=column("means"),
        shared=np.array([rows.shared for rows in natural], np.int32),
        texts=None if texts is None else stack_texts(natural, shape.rows, texts),
        blank=blank,
    )


def stack_texts(clips: Sequence[Rows], trunk: int, shape: TextShape) -> Texts:
    """Returns the texts of several samples in natural order, padded to one shape.

    `trunk` is the number of rows that trunks are padded to.
    """
    count = len(clips)
    axes = clips[0].position.shape[1]
    out = Texts(
        token=np.zeros((count, shape.rows), np.int32),
        position=np.zeros((count, shape.rows, axes), np.int32),
        segment=np.zeros((count, shape.rows), np.int32),
        kept=np.zeros((count, shape.kept), np.int32),
        target=np.zeros((count, shape.kept), np.int32),
        means=np.zeros((count, shape.kept, 2 * shape.texts), bool),
    )
    for k, rows in enumerate(clips):
        of_text, kept = rows.segment > 0, rows.text > 0
        size, wanted = int(of_text.sum()), int(kept.sum())
        out.token[k, :size] = rows.token[of_text]
        out.position[k, :size] = rows.position[of_text]
        out.segment[k, :size] = rows.segment[of_text]
        first = len(rows.segment) - size
        places = rows.kept[kept]
        places = np.where(places < first, places, places - first + trunk)
        out.kept[k, :wanted] = places
        out.target[k, :wanted] = rows.target[kept]
        response = rows.slice[kept] == SLICES.index("response")
        average = 2 * (rows.text[kept].astype(int) - 1) + response
        out.means[k, np.arange(wanted), average] = True
    return out
