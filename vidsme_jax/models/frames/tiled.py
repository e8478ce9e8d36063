"""The forward pass of models whose tower takes frames of any size, as tiles."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidsme_jax import parallel
from vidsme_jax.models.decoder import Visual
from vidsme_jax.models.frames.modeling import VideoModel
from vidsme_jax.models.tiles import Tiles
from vidsme_jax.models.towers.grid_vit import GridVit, Places, normalise


class TiledModel(VideoModel):
    """The module of such a model: a family's defines `tower` and `project`."""

    @property
    def tower(self) -> GridVit:
        """The tower."""
        raise NotImplementedError

    def project(
        self, features: list[Float[Array, "items patches features"]]
    ) -> list[Float[Array, "items rows embed"]]:
        """Returns the visual rows of what the tower gives, then those of its taps."""
        raise NotImplementedError

    def see(self, pixels: Tiles) -> Visual:
        """Returns the visual rows of each group of frames, padded as its tiles are."""
        values, grid, windows = jax.tree.map(jnp.asarray, pixels)
        clips, views, groups, patches, _ = values.shape
        mean, std = self.config.image_mean, self.config.image_std

        def run(tiles: Array, places: Places) -> list[Array]:
            # Items that fill up a mesh are all zeros: one key of theirs is looked at.
            places = places._replace(lengths=jnp.maximum(places.lengths, 1))
            if (own := places.windows) is not None:
                own = own._replace(lengths=jnp.maximum(own.lengths, 1))
                places = places._replace(windows=own)
            return self.project(self.tower(normalise(tiles, mean, std), places))

        # Alike for all groups of a clip.
        places = self.tower.places(grid, patches, windows)
        own = jax.tree.map(lambda x: jnp.repeat(x, views * groups, axis=0), places)
        found = parallel.each(run, values.reshape(-1, *values.shape[3:]), own)
        rows, *deep = (
            parallel.spread(x.reshape(clips, views, -1, x.shape[-1]), "data")
            for x in found
        )
        return Visual(rows, tuple(deep))
