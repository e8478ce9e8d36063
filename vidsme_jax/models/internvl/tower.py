"""InternViT [1]: a class token, learnt positions, scaled branches.

Two forms are published: of 300 million parameters, with layer norms and biased q, k, v;
of 6 billion, with root-mean-square norms, also of q and k over all heads at once.

Axes: `frames`, `patches` (row-major), `tokens` = class token and patches, `embed`.

[1] Chen et al., 2023. InternVL. https://arxiv.org/abs/2312.14238
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention
from vidsme_jax.models.towers.vit import tiles

_QK_EPS = 1e-6  # Of the norms of q and k, whatever the others have.


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVitConfig:
    """Hyperparameters of one tower; names follow the published `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float
    norm_type: str  # "layer_norm" or "rms_norm".
    attention_bias: bool  # Of q, k and v.
    use_qk_norm: bool
    use_mean_pooling: bool  # Then there is no norm after the last layer.
    dtype: DTypeLike

    @property
    def grid(self) -> int:
        """Patches along one side of a frame; pixels beyond the last are left out."""
        return self.image_size // self.patch_size


def _norm(config: InternVitConfig) -> layers.LayerNorm | layers.RmsNorm:
    kind = layers.LayerNorm if config.norm_type == "layer_norm" else layers.RmsNorm
    return kind(config.hidden_size, eps=config.layer_norm_eps, dtype=config.dtype)


class Attention(nnx.Module):
    """Full self-attention over the tokens of one frame."""

    def __init__(self, config: InternVitConfig, *, rngs: nnx.Rngs):
        c, size = config, config.hidden_size
        self.heads, self.normed = c.num_attention_heads, c.use_qk_norm
        kind: dict[str, Any] = dict(dtype=c.dtype, rngs=rngs)
        self.q_proj = layers.linear(size, size, bias=c.attention_bias, **kind)
        self.k_proj = layers.linear(size, size, bias=c.attention_bias, **kind)
        self.v_proj = layers.linear(size, size, bias=c.attention_bias, **kind)
        self.projection_layer = layers.linear(size, size, bias=True, **kind)
        if c.use_qk_norm:
            self.q_norm = layers.RmsNorm(size, eps=_QK_EPS, dtype=c.dtype)
            self.k_norm = layers.RmsNorm(size, eps=_QK_EPS, dtype=c.dtype)

    def __call__(
        self, x: Float[Array, "frames tokens embed"]
    ) -> Float[Array, "frames tokens embed"]:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.normed:
            q, k = self.q_norm(q), self.k_norm(k)
        heads = (y.reshape(*x.shape[:2], self.heads, -1) for y in (q, k, v))
        out = attention(*heads, causal=False, split="batch")
        return self.projection_layer(out.reshape(x.shape))


class Layer(nnx.Module):
    """A pre-norm block whose two branches are scaled, number by number."""

    def __init__(self, config: InternVitConfig, *, rngs: nnx.Rngs):
        c, dtype = config, config.dtype
        self.layernorm_before, self.layernorm_after = _norm(c), _norm(c)
        self.attention = Attention(c, rngs=rngs)
        sizes = c.hidden_size, c.intermediate_size
        self.fc1 = layers.linear(*sizes, bias=True, dtype=dtype, rngs=rngs)
        self.fc2 = layers.linear(*sizes[::-1], bias=True, dtype=dtype, rngs=rngs)
        self.lambda_1 = nnx.Param(jnp.ones((c.hidden_size,), dtype))
        self.lambda_2 = nnx.Param(jnp.ones((c.hidden_size,), dtype))

    def __call__(
        self, x: Float[Array, "frames tokens embed"]
    ) -> Float[Array, "frames tokens embed"]:
        first, second = self.lambda_1[...][None, None], self.lambda_2[...][None, None]
        x = x + first * self.attention(self.layernorm_before(x))
        with jax.named_scope("mlp"):
            wide = jax.nn.gelu(self.fc1(self.layernorm_after(x)), approximate=False)
            return x + second * self.fc2(wide)


class InternVit(nnx.Module):
    """Frames to the features of their patches."""

    def __init__(self, config: InternVitConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        size, dtype = c.hidden_size, c.dtype
        self.patch_embedding = layers.linear(
            3 * c.patch_size**2, size, bias=True, dtype=dtype, rngs=rngs
        )
        self.cls_token = nnx.Param(jnp.zeros((1, 1, size), dtype))
        self.position_embeddings = nnx.Param(jnp.zeros((1, c.grid**2 + 1, size), dtype))
        self.layers = layers.stack(
            lambda rngs: Layer(c, rngs=rngs), c.num_hidden_layers, rngs
        )
        if not c.use_mean_pooling:
            self.layernorm = layers.LayerNorm(size, eps=c.layer_norm_eps, dtype=dtype)

    def __call__(
        self, pixels: Float[Array, "frames 3 size size"]
    ) -> Float[Array, "frames patches embed"]:
        """Returns the features of the patches after the last layer."""
        c = self.config
        x = self.patch_embedding(tiles(pixels, c.patch_size, c.dtype))
        first = jnp.broadcast_to(self.cls_token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1) + self.position_embeddings[...]
        x = layers.run_stack(self.layers, x)[:, 1:]
        return x if c.use_mean_pooling else self.layernorm(x)
