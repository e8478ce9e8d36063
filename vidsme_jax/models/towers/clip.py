"""The CLIP vision tower, up to the layer whose features are used.

Axes: `frames`, `patches` (row-major), `embed`.

Radford et al., 2021. https://arxiv.org/abs/2103.00020
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.models import layers
from vidsme_jax.models.towers import vit
from vidsme_jax.models.towers.vit import VitConfig


class ClipVit(nnx.Module):
    """Frames to patch features: the first `depth` layers, no final norm, no CLS."""

    def __init__(self, config: VitConfig, *, depth: int, rngs: nnx.Rngs):
        c = self.config = config
        self.patch_embedding = layers.linear(
            3 * c.patch_size**2, c.hidden_size, bias=False, dtype=c.dtype, rngs=rngs
        )
        self.class_embedding = nnx.Param(jnp.zeros((c.hidden_size,), c.dtype))
        self.position_embedding = layers.Embedding(
            c.grid**2 + 1, c.hidden_size, dtype=c.dtype, rngs=rngs
        )
        eps = c.layer_norm_eps
        # The checkpoint spells it "pre_layrnorm".
        self.pre_norm = layers.LayerNorm(c.hidden_size, eps=eps, dtype=c.dtype)
        self.layers = layers.stack(lambda rngs: vit.Layer(c, rngs=rngs), depth, rngs)

    def __call__(
        self, pixels: Float[Array, "frames 3 size size"]
    ) -> Float[Array, "frames patches embed"]:
        """Returns the features after layer `depth`, CLS dropped."""
        patches = self.patch_embedding(vit.tiles(pixels, self.config))
        first = jnp.broadcast_to(
            self.class_embedding[...], (len(patches), 1, self.config.hidden_size)
        )
        x = jnp.concatenate([first, patches], axis=1)
        x = self.pre_norm(x + self.position_embedding.weight[...][None])
        return layers.run_stack(self.layers, x)[:, 1:]


def rules(prefix: str, path: str) -> list[Rule]:
    """Where the tower's tensors go; `prefix` is a pattern, `path` of the parameters."""
    pairs = vit.rules(prefix, path)
    pairs.append(
        Rule(rf"{prefix}embeddings\.class_embedding", f"{path}/class_embedding")
    )
    for part in ("weight", "bias"):
        pairs.append(Rule(rf"{prefix}pre_layrnorm\.{part}", f"{path}/pre_norm/{part}"))
    return pairs
