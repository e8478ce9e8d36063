"""What the CLIP and SigLIP towers share: patches, full attention, pre-norm blocks.

Axes: `frames`, `patches` (row-major), `tokens` = patches and a class token where the
tower has one, `embed`.
"""

import dataclasses

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vidsme_jax.checkpoints import layouts
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention

_IGNORED = {
    "vocab_size": "of the text tower, which is not here",
    "vision_use_head": "the head is not used",
}
# Of each kind: `model_type`, `hidden_act`, transformers' defaults that differ.
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
        """Patches along one side of a frame; pixels beyond the last are left out."""
        return self.image_size // self.patch_size


def read_config(fields: Fields, kind: str, dtype: DTypeLike) -> VitConfig:
    """Reads a `vision_config`; absent keys take transformers' defaults.

    Args:
      fields: Of the config.
      kind: "clip" or "siglip".
      dtype: Of parameters and activations.
    """
    name, activation, patch, eps = _KINDS[kind]
    fields.expect("model_type", name)
    fields.expect("hidden_act", activation)
    fields.expect("num_channels", 3)
    config = VitConfig(
        kind=kind,
        hidden_size=fields.size("hidden_size", 768),
        intermediate_size=fields.size("intermediate_size", 3072),
        num_hidden_layers=fields.size("num_hidden_layers", 12),
        num_attention_heads=fields.size("num_attention_heads", 12),
        image_size=fields.size("image_size", 224),
        patch_size=fields.size("patch_size", patch),
        layer_norm_eps=fields.take("layer_norm_eps", float, eps),
        dtype=dtype,
    )
    fields.close(_IGNORED)
    return config


def activate(x: Float[Array, "*batch size"], kind: str) -> Float[Array, "*batch size"]:
    """CLIP's quick GELU, x * sigmoid(1.702 x), or SigLIP's tanh approximation."""
    if kind == "clip":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=True)


class Attention(nnx.Module):
    """Full self-attention over the tokens of one frame."""

    def __init__(self, config: VitConfig, *, rngs: nnx.Rngs):
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


def tiles(
    pixels: Float[Array, "frames 3 size size"], config: VitConfig
) -> Float[Array, "frames patches tile"]:
    """Cuts frames into patches, each flattened as (channel, row, column)."""
    patch, grid = config.patch_size, config.grid
    kept = pixels[:, :, : grid * patch, : grid * patch].astype(config.dtype)
    cut = kept.reshape(-1, 3, grid, patch, grid, patch).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, grid**2, 3 * patch**2)


def rules(prefix: str, path: str) -> list[Rule]:
    """Where the tensors go that both towers have; `prefix` is a pattern."""
    block = rf"{prefix}encoder\.layers\.(\d+)\."
    pairs = [
        Rule(
            rf"{prefix}embeddings\.patch_embedding\.weight",
            f"{path}/patch_embedding/kernel",
            layouts.PATCHES,
        ),
        Rule(
            rf"{prefix}embeddings\.position_embedding\.weight",
            f"{path}/position_embedding/weight",
        ),
    ]
    for norm in ("layer_norm1", "layer_norm2"):
        for part in ("weight", "bias"):
            pairs.append(
                Rule(rf"{block}{norm}\.{part}", f"{path}/layers/{norm}/{part}")
            )
    dense = [f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")]
    for name in [*dense, "mlp.fc1", "mlp.fc2"]:
        target = f"{path}/layers/{name.replace('.', '/').removeprefix('mlp/')}"
        pattern = block + name.replace(".", r"\.")
        pairs.append(Rule(rf"{pattern}\.weight", f"{target}/kernel", layouts.LINEAR))
        pairs.append(Rule(rf"{pattern}\.bias", f"{target}/bias"))
    return pairs


def ignored(prefix: str, depth: int, num_layers: int) -> dict[str, str]:
    """Patterns of a tower's tensors that no parameter is filled from, with reasons.

    Args:
      prefix: Pattern of the tower's names.
      depth: Layers that are run.
      num_layers: Layers that a file may hold.
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
