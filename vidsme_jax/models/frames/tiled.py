"""The forward pass of models whose tower takes frames of any size, as tiles."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidsme_jax import parallel
from vidsme_jax.models.decoder import Visual
from vidsme_jax.models.frames.modeling import VideoModel
from vidsme_jax.models.tiles import Tiles, Windows
from vidsme_jax.models.towers.grid_vit import normalise


class TiledModel(VideoModel):
    """The module of such a model; a family's derives from it and defines `encode`."""

    def encode(
        self,
        tiles: Float[Array, "items patches tile"],
        grid: Int[Array, "items 2"],
        windows: Windows | None,
    ) -> list[Float[Array, "items rows embed"]]:
        """Returns the visual rows of normalised tiles, and those of deeper layers."""
        raise NotImplementedError

    def see(self, pixels: Tiles) -> Visual:
        """Returns the visual rows of each group of frames, padded as its tiles are."""
        values, grid, windows = jax.tree.map(jnp.asarray, pixels)
        clips, views, groups = values.shape[:3]
        mean, std = self.config.image_mean, self.config.image_std

        def run(tiles, grid, windows):
            # Items that fill up a mesh are all zeros: one row of theirs is looked at.
            grid = jnp.maximum(grid, 1)
            if windows is not None:
                lengths = jnp.maximum(windows.lengths, 1)
                windows = windows._replace(lengths=lengths)
            return self.encode(normalise(tiles, mean, std), grid, windows)

        own = jax.tree.map(
            lambda x: jnp.repeat(x, views * groups, axis=0), (grid, windows)
        )
        found = parallel.each(run, values.reshape(-1, *values.shape[3:]), *own)
        rows, *deep = (
            parallel.spread(x.reshape(clips, views, -1, x.shape[-1]), "data")
            for x in found
        )
        return Visual(rows, tuple(deep))
