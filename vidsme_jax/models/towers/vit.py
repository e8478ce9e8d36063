"""What the CLIP and SigLIP towers share: patches, full attention, pre-norm blocks.

Axes: `frames`, `patches` (row-major), `tokens` = patches and a class token where the
tower has one, `embed`.
"""

import dataclasses

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention

IGNORED = {
    "vocab_size": "of the text tower, which is not here",
    "projection_dim": "of the contrastive head, which is not here",
    "vision_use_head": "the head is not used",
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
            "patches",
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
        pairs.append(Rule(rf"{pattern}\.weight", f"{target}/kernel", "linear"))
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
