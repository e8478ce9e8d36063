"""The CLIP vision tower, up to the layer whose features are used.

Axes: `frames`, `patches` (row-major), `tokens` = 1 + patches, `embed`.

Radford et al., 2021. https://arxiv.org/abs/2103.00020
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention

IGNORED = {
    "vocab_size": "of the text tower, which is not here",
    "projection_dim": "of the contrastive head, which is not here",
    "vision_use_head": "the head is not used",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipVitConfig:
    """Hyperparameters of one tower; names follow the published `config.json`."""

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
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @classmethod
    def from_fields(cls, fields: Fields, dtype: DTypeLike) -> "ClipVitConfig":
        """Reads a `vision_config`; absent keys take transformers' defaults."""
        fields.expect("model_type", "clip_vision_model")
        fields.expect("hidden_act", "quick_gelu")
        fields.expect("num_channels", 3)
        config = cls(
            hidden_size=fields.size("hidden_size", 768),
            intermediate_size=fields.size("intermediate_size", 3072),
            num_hidden_layers=fields.size("num_hidden_layers", 12),
            num_attention_heads=fields.size("num_attention_heads", 12),
            image_size=fields.size("image_size", 224),
            patch_size=fields.size("patch_size", 32),
            layer_norm_eps=fields.take("layer_norm_eps", float, 1e-5),
            dtype=dtype,
        )
        fields.close(IGNORED)
        return config


class Attention(nnx.Module):
    """Full self-attention over the tokens of one frame."""

    def __init__(self, config: ClipVitConfig, *, rngs: nnx.Rngs):
        self.heads = config.num_attention_heads
        size = config.hidden_size
        make = lambda: layers.linear(  # noqa: E731
            size, size, bias=True, dtype=config.dtype, rngs=rngs
        )
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            make() for _ in range(4)
        )

    def __call__(
        self, x: Float[Array, "frames tokens embed"]
    ) -> Float[Array, "frames tokens embed"]:
        q, k, v = (
            p(x).reshape(*x.shape[:2], self.heads, -1)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attention(q, k, v, causal=False).reshape(x.shape))


class Layer(nnx.Module):
    """A pre-norm block with quick GELU, x * sigmoid(1.702 x)."""

    def __init__(self, config: ClipVitConfig, *, rngs: nnx.Rngs):
        c, dtype = config, config.dtype
        eps = c.layer_norm_eps
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
        h = self.fc1(self.layer_norm2(x))
        return x + self.fc2(h * jax.nn.sigmoid(1.702 * h))


class ClipVit(nnx.Module):
    """Frames to patch features: the first `depth` layers, no final norm, no CLS."""

    def __init__(self, config: ClipVitConfig, *, depth: int, rngs: nnx.Rngs):
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
        self.layers = layers.stack(lambda rngs: Layer(c, rngs=rngs), depth, rngs)

    def __call__(
        self, pixels: Float[Array, "frames 3 size size"]
    ) -> Float[Array, "frames patches embed"]:
        """Returns the features after layer `depth`, CLS dropped."""
        c = self.config
        frames, patch, grid = pixels.shape[0], c.patch_size, c.grid
        kept = pixels[:, :, : grid * patch, : grid * patch].astype(c.dtype)
        tiles = kept.reshape(frames, 3, grid, patch, grid, patch)
        tiles = tiles.transpose(0, 2, 4, 1, 3, 5).reshape(frames, grid**2, -1)
        patches = self.patch_embedding(tiles)
        first = jnp.broadcast_to(
            self.class_embedding[...], (frames, 1, self.config.hidden_size)
        )
        x = jnp.concatenate([first, patches], axis=1)
        x = self.pre_norm(x + self.position_embedding.weight[...][None])
        return layers.run_stack(self.layers, x)[:, 1:]


def rules(prefix: str, path: str) -> list[Rule]:
    """Where the tower's tensors go; `prefix` is a pattern, `path` of the parameters."""
    block = rf"{prefix}encoder\.layers\.(\d+)\."
    pairs = [
        Rule(rf"{prefix}embeddings\.class_embedding", f"{path}/class_embedding"),
        Rule(
            rf"{prefix}embeddings\.patch_embedding\.weight",
            f"{path}/patch_embedding/kernel",
            "patches",
        ),
        Rule(
            rf"{prefix}embeddings\.position_embedding\.weight",
            f"{path}/position_embedding/weight",
        ),
    ]
    for part in ("weight", "bias"):
        pairs.append(Rule(rf"{prefix}pre_layrnorm\.{part}", f"{path}/pre_norm/{part}"))
        for norm in ("layer_norm1", "layer_norm2"):
            pairs.append(
                Rule(rf"{block}{norm}\.{part}", f"{path}/layers/{norm}/{part}")
            )
    dense = [f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")]
    for name in [*dense, "mlp.fc1", "mlp.fc2"]:
        target = f"{path}/layers/{name.replace('.', '/').removeprefix('mlp/')}"
        pattern = block + name.replace(".", r"\.")
        pairs.append(Rule(rf"{pattern}\.weight", f"{target}/kernel", "linear"))
        pairs.append(Rule(rf"{pattern}\.bias", f"{target}/bias"))
    return pairs
