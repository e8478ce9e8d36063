"""A vision transformer for frames of any size, as the tiles of `models.tiles`.

The patch's row and column rotate queries and keys (rotary embedding, half of the
frequencies each); some models also add a learned table, resampled to the frame's grid.
A patch attends to those of its own frame, or group of frames, and in some layers only
to those of its window.

| model | norm | dense layers | windows | table |
|---|---|---|---|---|
| Qwen2-VL [1] | layer | two, quick GELU | no | no |
| Qwen2.5-VL [2] | RMS | SwiGLU | in all but a few layers | no |
| Qwen3-VL [3] | layer | two, tanh GELU | no | yes |
| VideoLLaMA3 [4] | layer | two, tanh GELU | no | no |

Axes: `items`, groups of frames; `patches`, padded; `tile`; `embed`; `slots` of
`windows`; `half` of the size of a head.

[1] Wang et al., 2024. https://arxiv.org/abs/2409.12191
[2] Bai et al., 2025. https://arxiv.org/abs/2502.13923
[3] Bai et al., 2025. https://arxiv.org/abs/2511.21631
[4] Zhang et al., 2025. https://arxiv.org/abs/2501.13106
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from vidsme_jax import parallel
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.models import layers
from vidsme_jax.models.attention import attention
from vidsme_jax.models.rope import Tables, apply_rope
from vidsme_jax.models.tiles import Windows

_THETA = 10000.0  # The base of the rotary embedding.
_ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridVitConfig:
    """Hyperparameters of one tower.

    Attributes:
      hidden_size: The size of a patch's features.
      intermediate_size: The inner size of the dense layers.
      depth: The number of blocks.
      num_heads: The heads of the attention.
      patch_size: Pixels along a side of a patch.
      merge: Patches along a side of the block that becomes one visual row.
      group: Frames that are seen at once.
      activation: The activation of the dense layers.
      gated: Whether a third dense layer gates the first (SwiGLU).
      rms: Whether norms are root-mean-square norms, without bias.
      fused: Whether one dense layer gives queries, keys and values.
      patch_bias: Whether the first layer has a bias.
      table: Places along a side of the learned positions; 0: there are none.
      window: Visual rows along a side of a window; 0: there are none.
      whole: With windows, the blocks that see the whole frame.
      taps: The blocks whose features are returned in addition to the last one's.
      eps: The epsilon of the norms.
      dtype: The type of parameters and activations.
    """

    hidden_size: int
    intermediate_size: int
    depth: int
    num_heads: int
    patch_size: int
    merge: int
    group: int
    activation: str
    gated: bool = False
    rms: bool = False
    fused: bool = True
    patch_bias: bool = False
    table: int = 0
    window: int = 0
    whole: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    eps: float = 1e-6
    dtype: DTypeLike

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.hidden_size // self.num_heads

    @property
    def tile(self) -> int:
        """The numbers of a patch."""
        return 3 * self.group * self.patch_size**2

    def norm(self, size: int) -> layers.RmsNorm | layers.LayerNorm:
        """Makes a norm."""
        kind = layers.RmsNorm if self.rms else layers.LayerNorm
        return kind(size, eps=self.eps, dtype=self.dtype)

    def flops(self, rows: int) -> int:
        """Returns the operations for a group of frames with `rows` visual rows."""
        patches, d = rows * self.merge**2, self.hidden_size
        dense = 2 + self.gated
        block = 2 * patches * (4 * d**2 + dense * d * self.intermediate_size)
        full = 4 * patches**2 * d
        windowed = 4 * patches * (self.window * self.merge) ** 2 * d
        narrow = self.depth - len(self.whole) if self.window else 0
        attended = (self.depth - narrow) * full + narrow * min(windowed, full)
        return self.depth * block + attended + 2 * patches * self.tile * d


def read_rotation(fields: Fields) -> None:
    """Refuses a rotary embedding that differs from `rotation`."""
    given = fields.take("rope_parameters", dict, {})
    inner = Fields(given, f"{fields.where}.rope_parameters", fields.problems)
    inner.expect("rope_type", "axial", "default")
    inner.expect("rope_theta", _THETA)
    inner.close({})


def check_heads(fields: Fields, hidden: int, heads: int) -> None:
    """Refuses head sizes that `rotation` cannot split."""
    if hidden % heads or hidden // heads % 4:
        fields.problems.append(
            f"{fields.where}: a head of the tower has the size {hidden} / {heads}; "
            "expected a multiple of four, because rows and columns each rotate pairs"
        )


class Attention(nnx.Module):
    """Self-attention of the patches of a frame or of its windows."""

    def __init__(self, config: GridVitConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        size = c.hidden_size
        kind: dict[str, Any] = dict(bias=True, dtype=c.dtype, rngs=rngs)
        if c.fused:
            self.qkv = layers.linear(size, 3 * size, **kind)
        else:
            self.q_proj = layers.linear(size, size, **kind)
            self.k_proj = layers.linear(size, size, **kind)
            self.v_proj = layers.linear(size, size, **kind)
        self.out_proj = layers.linear(size, size, **kind)

    def __call__(
        self,
        x: Float[Array, "items patches embed"],
        cos: Tables,
        sin: Tables,
        lengths: Int[Array, " items"],
        windows: Windows | None,
    ) -> Float[Array, "items patches embed"]:
        c = self.config
        if c.fused:
            q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        heads = *x.shape[:2], c.num_heads, c.head_dim
        q, k, v = (part.reshape(heads) for part in (q, k, v))
        q, k = (
            apply_rope(part.astype(jnp.float32), cos, sin).astype(x.dtype)
            for part in (q, k)
        )
        if windows is None:
            out = attention(q, k, v, causal=False, split="batch", lengths=lengths)
        else:
            out = _in_windows(q, k, v, windows)
        return self.out_proj(out.reshape(x.shape))


def _in_windows(
    q: Float[Array, "items patches heads head_dim"],
    k: Float[Array, "items patches heads head_dim"],
    v: Float[Array, "items patches heads head_dim"],
    windows: Windows,
) -> Float[Array, "items patches heads head_dim"]:
    """Attends within windows, which are padded to equal size."""

    def run(
        q: Array, k: Array, v: Array, patches: Array, lengths: Array, slots: Array
    ) -> Float[Array, "items patches heads head_dim"]:
        items, _, heads, head_dim = q.shape
        flat = jnp.stack([q, k, v], axis=2).reshape(items, q.shape[1], -1)
        flat = layers.take_rows(flat, patches)
        cut = flat.reshape(lengths.size, -1, 3, heads, head_dim)
        out = attention(
            *(cut[:, :, part] for part in range(3)),
            causal=False,
            lengths=lengths.reshape(-1),
        )
        out = layers.take_rows(out.reshape(items, -1, heads * head_dim), slots)
        return out.reshape(q.shape)

    arrays = (q, k, v, *map(jnp.asarray, windows))
    if parallel.grid() is None:
        return run(*arrays)
    spec = PartitionSpec(("data", "model"))
    return parallel.by_shard(run, (spec,) * len(arrays), spec)(*arrays)


class Block(nnx.Module):
    """Attention, then dense layers, each after a norm."""

    def __init__(self, config: GridVitConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        self.norm1, self.norm2 = c.norm(c.hidden_size), c.norm(c.hidden_size)
        self.attn = Attention(c, rngs=rngs)
        sizes = c.hidden_size, c.intermediate_size
        kind: dict[str, Any] = dict(bias=True, dtype=c.dtype, rngs=rngs)
        if c.gated:
            self.gate_proj = layers.linear(*sizes, **kind)
        self.fc1 = layers.linear(*sizes, **kind)
        self.fc2 = layers.linear(*sizes[::-1], **kind)

    def __call__(
        self,
        x: Float[Array, "items patches embed"],
        cos: Tables,
        sin: Tables,
        lengths: Int[Array, " items"],
        windows: Windows | None,
    ) -> Float[Array, "items patches embed"]:
        x = x + self.attn(self.norm1(x), cos, sin, lengths, windows)
        with jax.named_scope("mlp"):
            h, activate = self.norm2(x), _ACTIVATIONS[self.config.activation]
            if not self.config.gated:
                return x + self.fc2(activate(self.fc1(h)))
            return x + self.fc2(activate(self.gate_proj(h)) * self.fc1(h))


class Places(NamedTuple):
    """The places of the patches of items.

    Attributes:
      cos: Cosines of the rotary embedding.
      sin: Sines of the rotary embedding.
      lengths: How many patches are not padding.
      table: The learned positions, if the tower has any.
      windows: The windows, if the tower has any.
    """

    cos: Tables
    sin: Tables
    lengths: Int[Array, " items"]
    table: Float[Array, "items patches embed"] | None = None
    windows: Windows | None = None


class GridVit(nnx.Module):
    """Maps patches to features: all blocks, without a last norm."""

    def __init__(self, config: GridVitConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        self.patch_embedding = layers.linear(
            c.tile, c.hidden_size, bias=c.patch_bias, dtype=c.dtype, rngs=rngs
        )
        if c.table:
            self.position_embedding = layers.Embedding(
                c.table**2, c.hidden_size, dtype=c.dtype, rngs=rngs
            )
        self.layers = layers.stack(lambda rngs: Block(c, rngs=rngs), c.depth, rngs)

    def places(
        self, grid: Int[Array, "items 2"], patches: int, windows: Windows | None = None
    ) -> Places:
        """Returns the places of patches; `grid` has the rows down and across items."""
        c = self.config
        with jax.named_scope("tower"):
            at = patch_places(grid, patches, c.merge)
            table = self._positions(at, grid).astype(c.dtype) if c.table else None
            lengths = jnp.prod(grid, axis=1) * c.merge**2
            return Places(*rotation(at, c.head_dim), lengths, table, windows)

    def __call__(
        self, tiles: Float[Array, "items patches tile"], places: Places
    ) -> list[Float[Array, "items patches embed"]]:
        """Returns the features after each of the taps, and after the last block."""
        c = self.config
        with jax.named_scope("tower"):
            x = self.patch_embedding(tiles.astype(c.dtype))
            if places.table is not None:
                x = x + places.table
            found, start = [], 0
            for stop in sorted({*self._ends(), c.depth}):
                windows = places.windows if stop - 1 not in c.whole else None
                span = None if (start, stop) == (0, c.depth) else (start, stop)
                args = x, places.cos, places.sin, places.lengths, windows
                x = layers.run_stack(self.layers, *args, span=span)
                if stop - 1 in c.taps:
                    found.append(x)
                start = stop
            return [*found, x]

    def _ends(self) -> Sequence[int]:
        """Returns the blocks before which the kind changes or features are taken."""
        c = self.config
        ends = [tap + 1 for tap in c.taps]
        for block in c.whole:
            ends += [block, block + 1]
        return [end for end in ends if end]

    def _positions(
        self, places: Int[Array, "items patches 2"], grid: Int[Array, "items 2"]
    ) -> Float[Array, "items patches embed"]:
        """Resamples the learned table bilinearly, corners on corners, in float32."""
        side, table = self.config.table, self.position_embedding.weight[...]
        last = jnp.maximum(grid * self.config.merge - 1, 1)[:, None]
        at = places.astype(jnp.float32) * (side - 1) / last.astype(jnp.float32)
        at = jnp.minimum(at, side - 1)  # For padding.
        below = jnp.floor(at)
        weight, below = at - below, below.astype(jnp.int32)
        above = jnp.minimum(below + 1, side - 1)
        total = jnp.zeros((*places.shape[:2], table.shape[-1]), jnp.float32)
        for row, by_row in ((below, 1 - weight), (above, weight)):
            for column, by_column in ((below, 1 - weight), (above, weight)):
                index = row[..., 0] * side + column[..., 1]
                share = (by_row[..., 0] * by_column[..., 1])[..., None]
                total += jnp.take(table, index, axis=0).astype(jnp.float32) * share
        return total


def patch_places(
    grid: Int[Array, "items 2"], patches: int, merge: int
) -> Int[Array, "items patches 2"]:
    """Returns the row and the column of each patch, block by block."""
    number = jnp.arange(patches, dtype=jnp.int32)
    block, within = number // merge**2, number % merge**2
    down, across = block[None] // grid[:, 1:], block[None] % grid[:, 1:]
    row = down * merge + (within // merge)[None]
    return jnp.stack([row, across * merge + (within % merge)[None]], axis=-1)


def rotation(
    places: Int[Array, "items patches 2"], head_dim: int
) -> tuple[Tables, Tables]:
    """Returns cosines and sines: a quarter of a head by the row, then by the column.

    The second half of a head repeats the first, because `apply_rope` rotates pairs.
    """
    exponents = np.arange(0, head_dim // 2, 2, dtype=np.float32)
    frequencies = 1 / np.float32(_THETA) ** (exponents / np.float32(head_dim // 2))
    wide = places.astype(jnp.float32)[..., None] * frequencies[None, None, None]
    angles = wide.reshape(*places.shape[:2], -1)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def normalise(
    tiles: UInt8[Array, "items patches tile"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Array, "items patches tile"]:
    """Scales to [0, 1], then to the tower's mean and deviation, in float32."""
    shape = 1, 1, tiles.shape[-1]
    wide = [np.resize(np.asarray(x, np.float32), shape) for x in (mean, std)]
    return (tiles.astype(jnp.float32) * jnp.float32(1 / 255) - wide[0]) / wide[1]
