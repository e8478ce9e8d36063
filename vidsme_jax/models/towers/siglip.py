"""The SigLIP vision tower, up to the layer whose features are used.

Axes: `frames`, `patches` (row-major), `embed`.

Zhai et al., 2023. https://arxiv.org/abs/2303.15343
"""

from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.models import layers
from vidsme_jax.models.towers import vit
from vidsme_jax.models.towers.vit import VitConfig


class SiglipVit(nnx.Module):
    """Frames to patch features: the first `depth` layers, no final norm, no head."""

    def __init__(self, config: VitConfig, *, depth: int, rngs: nnx.Rngs):
        c = self.config = config
        self.patch_embedding = layers.linear(
            3 * c.patch_size**2, c.hidden_size, bias=True, dtype=c.dtype, rngs=rngs
        )
        self.position_embedding = layers.Embedding(
            c.grid**2, c.hidden_size, dtype=c.dtype, rngs=rngs
        )
        self.layers = layers.stack(lambda rngs: vit.Layer(c, rngs=rngs), depth, rngs)

    def __call__(
        self, pixels: Float[Array, "frames 3 size size"]
    ) -> Float[Array, "frames patches embed"]:
        """Returns the features after layer `depth`."""
        patches = self.patch_embedding(vit.tiles(pixels, self.config))
        x = patches + self.position_embedding.weight[...][None]
        return layers.run_stack(self.layers, x)


def rules(prefix: str, path: str) -> list[Rule]:
    """Where the tower's tensors go; `prefix` is a pattern, `path` of the parameters."""
    bias = Rule(
        rf"{prefix}embeddings\.patch_embedding\.bias", f"{path}/patch_embedding/bias"
    )
    return [*vit.rules(prefix, path), bias]
