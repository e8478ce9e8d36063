"""The Perception Encoder [1]: PerceptionLM's vision tower, in timm's form.

Learnt positions and a class token, where the tower has one, are added to the patches;
a norm; pre-norm layers whose queries and keys of patches turn by their column and row;
each half of a layer is scaled channel by channel before it is added. The class token
does not turn and is left out after the last layer.

Axes: `frames`, `patches` (row-major), `tokens` = the class token, if there is one, and
patches, `embed`, `heads`, `head_dim`.

[1] Bolya et al., 2025. https://arxiv.org/abs/2504.13181
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.checkpoints.layouts import PATCHES
from vidsme_jax.checkpoints.loading import Rule, dense, norm
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention
from vidsme_jax.models.perception_lm.tower_config import PeConfig
from vidsme_jax.models.towers.vit import tiles

_EPS = 1e-5  # Of every norm.
Tables = Float[np.ndarray, "tokens head_dim"]  # Cosines, or sines.


def rope_tables(config: PeConfig) -> tuple[Tables, Tables]:
    """Returns cosines and sines of what turns each token, in float32.

    A patch at (row, column) of the grid has the angles (column + offset) w^j and (row +
    offset) w^j, j from 0 to head_dim / 4 - 1, with w = temperature^(-4 / head_dim), on
    a grid that is stretched to `ref_feat_shape`. Each turns two neighbours of a head.
    """
    c, one = config, np.float32
    count = c.head_dim // 4
    bands = 1 / one(c.rope_temperature) ** (np.arange(count, dtype=one) / one(count))
    steps = np.arange(c.grid, dtype=one) + one(c.rope_grid_offset)
    rows, columns = (steps / one(c.grid) * one(size) for size in c.ref_feat_shape)
    places = np.meshgrid(rows, columns, indexing="ij")
    if c.rope_grid_indexing == "xy":
        places = places[::-1]
    angles = np.stack(places, axis=-1)[..., None] * bands
    angles = np.repeat(angles.reshape(c.grid**2, 2 * count), 2, axis=-1)
    if c.class_token:
        angles = np.concatenate([np.zeros_like(angles[:1]), angles])
    return np.cos(angles), np.sin(angles)


def turn(
    x: Float[Array, "frames tokens heads head_dim"],
    cos: Float[Array, "tokens head_dim"],
    sin: Float[Array, "tokens head_dim"],
) -> Float[Array, "frames tokens heads head_dim"]:
    """Rotates pairs of neighbours, in float32."""
    wide = x.astype(jnp.float32)
    pairs = wide.reshape(*x.shape[:-1], -1, 2)
    beside = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
    turned = wide * cos[None, :, None] + beside * sin[None, :, None]
    return turned.astype(x.dtype)


class Attention(nnx.Module):
    """Full self-attention over the tokens of one frame."""

    def __init__(self, config: PeConfig, *, rngs: nnx.Rngs):
        self.heads, size = config.num_heads, config.embed_dim
        kind: dict[str, Any] = dict(bias=True, dtype=config.dtype, rngs=rngs)
        self.qkv = layers.linear(size, 3 * size, **kind)
        self.proj = layers.linear(size, size, **kind)

    def __call__(
        self,
        x: Float[Array, "frames tokens embed"],
        cos: Float[Array, "tokens head_dim"],
        sin: Float[Array, "tokens head_dim"],
    ) -> Float[Array, "frames tokens embed"]:
        parts = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)
        q, k, v = (parts[:, :, part] for part in range(3))
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        out = attention(q, k, v, causal=False, split="batch")
        return self.proj(out.reshape(x.shape))


class Layer(nnx.Module):
    """A pre-norm block: attention, then two dense layers, each scaled by channel."""

    def __init__(self, config: PeConfig, *, rngs: nnx.Rngs):
        c, size = config, config.embed_dim
        self.norm1 = layers.LayerNorm(size, eps=_EPS, dtype=c.dtype)
        self.norm2 = layers.LayerNorm(size, eps=_EPS, dtype=c.dtype)
        self.attn = Attention(c, rngs=rngs)
        kind: dict[str, Any] = dict(bias=True, dtype=c.dtype, rngs=rngs)
        self.fc1 = layers.linear(size, c.mlp_size, **kind)
        self.fc2 = layers.linear(c.mlp_size, size, **kind)
        self.scaled = c.layer_scale
        if c.layer_scale:
            self.gamma_1 = nnx.Param(jnp.ones((size,), c.dtype))
            self.gamma_2 = nnx.Param(jnp.ones((size,), c.dtype))

    def __call__(
        self,
        x: Float[Array, "frames tokens embed"],
        cos: Float[Array, "tokens head_dim"],
        sin: Float[Array, "tokens head_dim"],
    ) -> Float[Array, "frames tokens embed"]:
        out = self.attn(self.norm1(x), cos, sin)
        x = x + (self.gamma_1[...][None, None] * out if self.scaled else out)
        with jax.named_scope("mlp"):
            wide = jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False)
            out = self.fc2(wide)
            return x + (self.gamma_2[...][None, None] * out if self.scaled else out)


class Pe(nnx.Module):
    """Frames to features of their patches."""

    def __init__(self, config: PeConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        size, dtype = c.embed_dim, c.dtype
        self.patch_embed = layers.linear(
            3 * c.patch_size**2, size, bias=False, dtype=dtype, rngs=rngs
        )
        if c.class_token:
            self.cls_token = nnx.Param(jnp.zeros((1, 1, size), dtype))
        tokens = c.grid**2 + c.class_token
        self.pos_embed = nnx.Param(jnp.zeros((1, tokens, size), dtype))
        self.norm_pre = layers.LayerNorm(size, eps=_EPS, dtype=dtype)
        self.layers = layers.stack(lambda rngs: Layer(c, rngs=rngs), c.depth, rngs)
        if c.post_norm:
            self.norm = layers.LayerNorm(size, eps=_EPS, dtype=dtype)

    def __call__(
        self, pixels: Float[Array, "frames 3 size size"]
    ) -> Float[Array, "frames patches embed"]:
        """Returns the features of the patches after the last layer."""
        c = self.config
        x = self.patch_embed(tiles(pixels, c.patch_size, c.dtype))
        if c.class_token:
            first = jnp.broadcast_to(self.cls_token[...], (len(x), 1, x.shape[-1]))
            x = jnp.concatenate([first, x], axis=1)
        x = self.norm_pre(x + self.pos_embed[...])
        cos, sin = map(jnp.asarray, rope_tables(c))
        x = layers.run_stack(self.layers, x, cos, sin)
        if c.post_norm:
            x = self.norm(x)
        return x[:, int(c.class_token) :]


def rules(prefix: str, path: str, config: PeConfig) -> list[Rule]:
    """Returns the rules of the tower's tensors; `prefix` is a pattern."""
    block, layer = rf"{prefix}blocks\.(\d+)\.", f"{path}/layers"
    patches = rf"{prefix}patch_embed\.proj\.weight"
    out = [Rule(patches, f"{path}/patch_embed/kernel", PATCHES)]
    out.append(Rule(rf"{prefix}pos_embed", f"{path}/pos_embed"))
    if config.class_token:
        out.append(Rule(rf"{prefix}cls_token", f"{path}/cls_token"))
    out += norm(rf"{prefix}norm_pre", f"{path}/norm_pre")
    if config.post_norm:
        out += norm(rf"{prefix}norm", f"{path}/norm")
    for name in ("norm1", "norm2"):
        out += norm(block + name, f"{layer}/{name}")
    for name in ("qkv", "proj"):
        out += dense(rf"{block}attn\.{name}", f"{layer}/attn/{name}")
    for name in ("fc1", "fc2"):
        out += dense(rf"{block}mlp\.{name}", f"{layer}/{name}")
    if config.layer_scale:
        for name in ("gamma_1", "gamma_2"):
            out.append(Rule(block + name, f"{layer}/{name}"))
    return out


def ignored(prefix: str) -> dict[str, str]:
    """Patterns of a tower's tensors that no parameter is filled from, with reasons."""
    pooled = "of the pooled output, which is not used"
    return {
        prefix + r"attn_pool\..*": pooled,
        prefix + r"fc_norm\..*": pooled,
        prefix + r"rope\..*": "follows from the config",
    }
