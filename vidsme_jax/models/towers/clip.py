"""The CLIP vision tower, up to the layer whose features are used.

Axes: `frames`, `patches` (row-major), `embed`.

Radford et al., 2021. https://arxiv.org/abs/2103.00020
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.models import layers
from vidsme_jax.models.towers import vit
from vidsme_jax.models.towers.vit import VitConfig


def read_config(fields: Fields, dtype: DTypeLike) -> VitConfig:
    """Reads a `vision_config`; absent keys take transformers' defaults."""
    fields.expect("model_type", "clip_vision_model")
    fields.expect("hidden_act", "quick_gelu")
    fields.expect("num_channels", 3)
    config = VitConfig(
        kind="clip",
        hidden_size=fields.size("hidden_size", 768),
        intermediate_size=fields.size("intermediate_size", 3072),
        num_hidden_layers=fields.size("num_hidden_layers", 12),
        num_attention_heads=fields.size("num_attention_heads", 12),
        image_size=fields.size("image_size", 224),
        patch_size=fields.size("patch_size", 32),
        layer_norm_eps=fields.take("layer_norm_eps", float, 1e-5),
        dtype=dtype,
    )
    fields.close(vit.IGNORED)
    return config


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
