"""The one attention call of every model: never the whole T x T matrix at once.

Axes: `batch`, `queries`, `keys`, `heads`, `kv_heads`, `head_dim`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vidsme_jax import parallel

_CHUNK = 256  # Queries whose scores exist at the same time.
_STRIPS = 16  # Causal: each strip of queries sees only the keys up to its own end.
_LANES = 128  # Of a TPU's vector unit: blocks are multiples of it.
_BLOCK = 512  # Queries, and keys, that a TPU kernel takes at once.


def attention(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    *,
    causal: bool,
    split: str = "heads",
) -> Float[Array, "batch queries heads head_dim"]:
    """Scaled dot-product attention, grouped if heads > kv_heads; softmax in float32.

    In 16-bit types it is cuDNN's fused kernel on an NVIDIA GPU and splash attention on
    a TPU; elsewhere queries are taken in chunks of 256. Causal attention expects as
    many queries as keys.

    Args:
      q: Queries; there are as many heads as kv_heads or a multiple.
      k: Keys.
      v: Values.
      causal: Whether a query sees only the keys up to its own place.
      split: What a mesh of devices has spread over its axis `model`: "heads", or
        "batch", which is then over both axes.

    [1] Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    [2] Ainslie et al., 2023. GQA. https://arxiv.org/abs/2305.13245
    """
    mesh = parallel.grid()
    one = functools.partial(_on_one_device, causal=causal)
    if mesh is None:
        return one(q, k, v)
    if split == "batch":
        spec = PartitionSpec(("data", "model"))
        return parallel.by_shard(one, (spec,) * 3, spec)(q, k, v)
    spec = PartitionSpec("data", None, "model")
    one = parallel.by_shard(one, (spec,) * 3, spec)
    return _dealt(one, q, k, v, mesh.shape["model"])


def _dealt(attend, q, k, v, devices: int):
    """Repeats and pads heads so that each device gets whole groups of equal size.

    A key head that several devices share is repeated and its queries are dealt out;
    what does not come out even is filled with zeros, which reach no other head.
    """
    batch, queries, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    groups, copies = heads // kv_heads, -(-devices // kv_heads)
    q = _padded(q.reshape(batch, queries, kv_heads, groups, head_dim), 3, copies)
    group = q.shape[3] // copies
    q = q.reshape(batch, queries, kv_heads * copies, group, head_dim)
    q = _padded(q, 2, devices)
    k, v = (_padded(jnp.repeat(x, copies, axis=2), 2, devices) for x in (k, v))
    out = attend(q.reshape(batch, queries, -1, head_dim), k, v)
    out = out.reshape(batch, queries, -1, group, head_dim)[:, :, : kv_heads * copies]
    out = out.reshape(batch, queries, kv_heads, -1, head_dim)[:, :, :, :groups]
    return out.reshape(batch, queries, heads, head_dim)


def _padded(x: Array, axis: int, multiple: int) -> Array:
    """Fills an axis up with zeros."""
    fill = [(0, 0)] * x.ndim
    fill[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, fill)


def implementation(dtype: DTypeLike, head_dim: int) -> str:
    """Returns the kernel of the device that the trace is for.

    Returns:
      "cudnn", "splash" or "chunked".
    """
    if jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16):
        kind = parallel.platform()
        if kind == "nvidia" and head_dim in range(8, 129, 8):
            return "cudnn"
        if kind == "tpu":
            return "splash"
    return "chunked"


def _on_one_device(q, k, v, *, causal: bool):
    """Runs the kernel of the device that the trace is for."""
    chosen = implementation(q.dtype, q.shape[-1])
    if chosen == "cudnn":
        return jax.nn.dot_product_attention(
            q, k, v, is_causal=causal, implementation="cudnn"
        )
    return (splash if chosen == "splash" else chunked)(q, k, v, causal=causal)


def splash(q, k, v, *, causal: bool, interpret: bool = False):
    """The TPU kernel that jax brings, which keeps scores on the chip.

    Rows are padded to its blocks; padding keys stand behind the last query, or belong
    to a segment of their own.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    queries, heads, head_dim = q.shape[1:]
    sizes = [-(-x.shape[1] // _LANES) * _LANES for x in (q, k)]
    # A few rows are one block, many are whole blocks.
    sizes = [n if n <= 2 * _BLOCK else -(-n // _BLOCK) * _BLOCK for n in sizes]
    blocks = [n if n <= 2 * _BLOCK else _BLOCK for n in sizes]
    rows, columns = sizes
    q = q * jnp.asarray(head_dim**-0.5, q.dtype)
    q = jnp.pad(q, ((0, 0), (0, rows - queries), (0, 0), (0, 0)))
    fill = ((0, 0), (0, columns - k.shape[1]), (0, 0), (0, 0))
    segments: Any = None
    if not causal and columns > k.shape[1]:
        ids = [(jnp.arange(n) >= k.shape[1]).astype(jnp.int32) for n in (rows, columns)]
        # Padding queries see padding keys, so that no row is empty.
        segments = kernels.SegmentIds(ids[0], ids[1])
    k, v = (jnp.pad(x, fill) for x in (k, v))
    mask = (kernels.CausalMask if causal else kernels.FullMask)((rows, columns))
    kernel = kernels.make_splash_mha(
        kernels.MultiHeadMask([mask] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=blocks[0], block_kv=blocks[1], block_kv_compute=blocks[1]
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out: Any = jax.vmap(lambda q, k, v: kernel(q, k, v, segments))(q, k, v)
    return out.swapaxes(1, 2)[:, :queries]


def chunked(q, k, v, *, causal: bool):
    """Attention in plain operations, a chunk of queries after another."""
    queries = q.shape[1]
    if not causal:
        return _by_chunks(q, k, v, None)
    # A strip is a loop over at least two chunks: straight-line strips would be free to
    # run side by side, with all their scores in memory at once.
    strip = _CHUNK * max(2, -(-queries // (_CHUNK * _STRIPS)))
    parts = []
    for start in range(0, queries, strip):
        stop = min(start + strip, queries)
        parts.append(_by_chunks(q[:, start:stop], k[:, :stop], v[:, :stop], start))
    return jnp.concatenate(parts, axis=1)


def _by_chunks(q, k, v, first: int | None):
    """Attends in chunks of queries; `first` is the position of query 0 if causal."""
    batch, queries, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    q = q.reshape(batch, queries, kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch * kv_heads, -1, queries, head_dim)
    k, v = (x.swapaxes(1, 2).reshape(batch * kv_heads, -1, head_dim) for x in (k, v))
    count = -(-queries // _CHUNK)
    size = -(-queries // count)
    q = jnp.pad(q, ((0, 0), (0, 0), (0, count * size - queries), (0, 0)))
    chunks = jnp.moveaxis(q.reshape(*q.shape[:2], count, size, head_dim), 2, 0)
    starts = jnp.arange(count, dtype=jnp.int32) * size

    def step(chunk):
        start, queries_of_chunk = chunk
        return _chunk(queries_of_chunk, k, v, None if first is None else first + start)

    out = jnp.moveaxis(jax.lax.map(step, (starts, chunks)), 0, 2)
    out = out.reshape(batch, heads, count * size, head_dim)[:, :, :queries]
    return out.swapaxes(1, 2)


def _chunk(q, k, v, start):
    """Softmax attention of a few queries (heads, groups, queries, head_dim)."""

    def one(head):
        q, k, v = head
        return _head(q, k, v, start)

    # On a CPU one head after another: its scores then stay in the cache.
    if parallel.platform() == "cpu":
        return jax.lax.map(one, (q, k, v))
    return jax.vmap(one)((q, k, v))


def _head(q, k, v, start):
    """Of one key head: queries (groups, queries, head_dim), keys (keys, head_dim)."""
    precision = "highest" if q.dtype == jnp.float32 else None
    scores = jnp.einsum(
        "gqh,sh->gqs", q, k, precision=precision, preferred_element_type=jnp.float32
    )
    scores = scores * q.shape[-1] ** -0.5
    if start is not None:
        rows = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) + start
        columns = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
        scores = jnp.where(columns <= rows, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    out = jnp.einsum(
        "gqs,sh->gqh",
        weights,
        v,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    return out.astype(q.dtype)
