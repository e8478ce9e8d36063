"""Clips of one sample as a batch has them, whether or not the model cuts tiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidsme_jax.models.rows import Rows
from vidsme_jax.models.tiles import Room
from vidsme_jax.run.stacking import place


def placed(
    model: Any,
    directions: Sequence[Rows],
    pixels: np.ndarray,
    views: Sequence[np.ndarray],
    room: Room | None = None,
) -> tuple[list[list[Rows]], Any]:
    """Returns what `batches.stack` takes first: rows and pixels of one clip.

    Args:
      model: Whose `prepare` made the pixels.
      directions: The rows of each direction.
      pixels: Of the frames.
      views: Orders in which the tower sees them.
      room: In place of the model's own choice.
    """
    if model.tiling is None:
        return [list(directions)], np.stack([pixels[view] for view in views])[None]
    grid = pixels.shape[1:3]
    room = room or model.tiling.room(grid)
    tiles = model.tiling.stack([pixels], [views], len(pixels), room)
    return [[place(rows, grid, room) for rows in directions]], tiles
