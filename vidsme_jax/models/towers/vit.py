"""The CLIP [1] and SigLIP [2] vision towers, up to the layer whose features are used.

CLIP has a class token and a norm before its layers, SigLIP neither.

Axes: `frames`, `patches` (row-major), `tokens` = patches and the class token if the
tower has one, `embed`.

[1] Radford et al., 2021. https://arxiv.org/abs/2103.00020
[2] Zhai et al., 2023. https://arxiv.org/abs/2303.15343
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vidsme_jax.checkpoints.fields import EPS_RANGE, MAX_SIDE, Fields
from vidsme_jax.checkpoints.layouts import PATCHES
from vidsme_jax.checkpoints.loading import Rule, dense, norm
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention

_IGNORED = {
    "vocab_size": "of the text tower, which is not used",
    "vision_use_head": "the head is not used",
}
# The defaults of both kinds in transformers.
_SIZES = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
_SIZES |= {"num_attention_heads": 12, "image_size": 224}
# For each kind `model_type`, `hidden_act`, and the defaults of patch size and epsilon.
_KINDS = {
    "clip": ("clip_vision_model", "quick_gelu", 32, 1e-5),
    "siglip": ("siglip_vision_model", "gelu_pytorch_tanh", 16, 1e-6),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VitConfig:
    """Hyperparameters of one tower; names follow the published `config.json`."""

    kind: str  # "clip" or "siglip".
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float
    dtype: DTypeLike

    @property
    def grid(self) -> int:
        """The patches along one side of a frame; pixels beyond the last are dropped."""
        return self.image_size // self.patch_size

    @property
    def extra(self) -> int:
        """The tokens before the patches: the class token, if there is one."""
        return int(self.kind == "clip")


def read_config(fields: Fields, kind: str, dtype: DTypeLike) -> VitConfig:
    """Reads a `vision_config`; absent keys take transformers' defaults.

    Args:
      fields: The config.
      kind: "clip" or "siglip".
      dtype: The type of parameters and activations.
    """
    name, activation, patch, eps = _KINDS[kind]
    fields.expect("model_type", name)
    fields.expect("hidden_act", activation)
    fields.expect("num_channels", 3)
    sizes = {
        key: fields.size(key, default, MAX_SIDE if key == "image_size" else None)
        for key, default in _SIZES.items()
    }
    patch_size = fields.size("patch_size", patch, MAX_SIDE)
    eps = fields.number("layer_norm_eps", eps, *EPS_RANGE)
    if patch_size > sizes["image_size"]:
        fields.problems.append(
            f"{fields.where}: patch_size {patch_size} is above image_size "
            f"{sizes['image_size']}"
        )
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if hidden % heads:
        fields.problems.append(
            f"{fields.where}: hidden_size {hidden} is not a multiple of "
            f"num_attention_heads {heads}"
        )
    fields.close(_IGNORED)
    return VitConfig(
        kind=kind, patch_size=patch_size, layer_norm_eps=eps, dtype=dtype, **sizes
    )


def activate(x: Float[Array, "*batch size"], kind: str) -> Float[Array, "*batch size"]:
    """Returns CLIP's quick GELU, x * sigmoid(1.702 x), or SigLIP's tanh GELU."""
    if kind == "clip":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=True)


class Attention(nnx.Module):
    """Full self-attention over the tokens of one frame."""

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        self.heads = config.num_attention_heads
        sizes = (config.hidden_size, config.hidden_size)
        kind: dict[str, Any] = dict(bias=True, dtype=config.dtype, rngs=rngs)
        self.q_proj = layers.linear(*sizes, **kind)
        self.k_proj = layers.linear(*sizes, **kind)
        self.v_proj = layers.linear(*sizes, **kind)
        self.out_proj = layers.linear(*sizes, **kind)

    def __call__(
        self, x: Float[Array, "frames tokens embed"]
    ) -> Float[Array, "frames tokens embed"]:
        q, k, v = (
            p(x).reshape(*x.shape[:2], self.heads, -1)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = attention(q, k, v, causal=False, split="batch")
        return self.out_proj(out.reshape(x.shape))


class Layer(nnx.Module):
    """A pre-norm block: attention, then two dense layers."""

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
        c, dtype = config, config.dtype
        eps = c.layer_norm_eps
        self.kind = c.kind
        self.layer_norm1 = layers.LayerNorm(c.hidden_size, eps=eps, dtype=dtype)
        self.layer_norm2 = layers.LayerNorm(c.hidden_size, eps=eps, dtype=dtype)
        self.self_attn = Attention(c, rngs=rngs)
        sizes = c.hidden_size, c.intermediate_size
        self.fc1 = layers.linear(*sizes, bias=True, dtype=dtype, rngs=rngs)
        self.fc2 = layers.linear(*sizes[::-1], bias=True, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "frames tokens embed"]
    ) -> Float[Array, "frames tokens embed"]:
        x = x + self.self_attn(self.layer_norm1(x))
        with jax.named_scope("mlp"):
            return x + self.fc2(activate(self.fc1(self.layer_norm2(x)), self.kind))


class Vit(nnx.Module):
    """Maps frames to patch features: the first `depth` layers, no last norm or head."""

    def __init__(self, config: VitConfig, *, depth: int, rngs: nnx.Rngs):
        c = self.config = config
        self.clip = c.kind == "clip"
        size, dtype = c.hidden_size, c.dtype
        self.patch_embedding = layers.linear(
            3 * c.patch_size**2, size, bias=not self.clip, dtype=dtype, rngs=rngs
        )
        if self.clip:
            self.class_embedding = nnx.Param(jnp.zeros((size,), dtype))
            self.pre_norm = layers.LayerNorm(size, eps=c.layer_norm_eps, dtype=dtype)
        self.position_embedding = layers.Embedding(
            c.grid**2 + self.clip, size, dtype=dtype, rngs=rngs
        )
        self.layers = layers.stack(lambda rngs: Layer(c, rngs=rngs), depth, rngs)

    def __call__(
        self, pixels: Float[Array, "frames 3 size size"]
    ) -> Float[Array, "frames patches embed"]:
        """Returns the features of the patches after layer `depth`."""
        return self.tokens(pixels)[:, self.config.extra :]

    def tokens(
        self, pixels: Float[Array, "frames 3 size size"]
    ) -> Float[Array, "frames tokens embed"]:
        """Returns the features of all tokens, the class token's first."""
        c = self.config
        x = self.patch_embedding(tiles(pixels, c.patch_size, c.dtype))
        places = self.position_embedding.weight[...][None]
        if not self.clip:
            return layers.run_stack(self.layers, x + places)
        first = jnp.broadcast_to(self.class_embedding[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1)
        return layers.run_stack(self.layers, self.pre_norm(x + places))


def tiles(
    pixels: Float[Array, "frames 3 size size"], patch: int, dtype: DTypeLike
) -> Float[Array, "frames patches tile"]:
    """Cuts frames into patches, each flattened as (channel, row, column).

    Pixels beyond the last whole patch of a side are dropped.
    """
    grid = pixels.shape[-1] // patch
    whole = pixels[:, :, : grid * patch, : grid * patch].astype(dtype)
    cut = whole.reshape(-1, 3, grid, patch, grid, patch).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, grid**2, 3 * patch**2)


def rules(prefix: str, path: str, kind: str) -> list[Rule]:
    """Returns the rules that fill the parameters at `path` of a tower.

    `prefix` is a pattern of the names of the tower's tensors.
    """
    embeddings, block = rf"{prefix}embeddings\.", rf"{prefix}encoder\.layers\.(\d+)\."
    patches, places = f"{path}/patch_embedding", f"{path}/position_embedding"
    out = [
        Rule(rf"{embeddings}patch_embedding\.weight", f"{patches}/kernel", PATCHES),
        Rule(rf"{embeddings}position_embedding\.weight", f"{places}/weight"),
    ]
    if kind == "clip":
        out.append(Rule(rf"{embeddings}class_embedding", f"{path}/class_embedding"))
        # The spelling of the checkpoints.
        out += norm(rf"{prefix}pre_layrnorm", f"{path}/pre_norm")
    else:
        out.append(Rule(rf"{embeddings}patch_embedding\.bias", f"{patches}/bias"))
    for name in ("layer_norm1", "layer_norm2"):
        out += norm(block + name, f"{path}/layers/{name}")
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        out += dense(rf"{block}self_attn\.{name}", f"{path}/layers/self_attn/{name}")
    for name in ("fc1", "fc2"):
        out += dense(rf"{block}mlp\.{name}", f"{path}/layers/{name}")
    return out


def ignored(prefix: str, depth: int, num_layers: int) -> dict[str, str]:
    """Returns patterns of a tower's unused tensors, with the reasons.

    `depth` layers are run, of `num_layers` that a file may have; see `rules`.
    """
    after = "after the layer whose features are used"
    out = {
        prefix + r"post_layernorm\..*": after,
        prefix + r"head\..*": after,
        prefix + r"embeddings\.position_ids": "0, 1, 2, ...",
    }
    for layer in range(depth, num_layers):
        out[rf"{prefix}encoder\.layers\.{layer}\..*"] = after
    return out
