"""The attention call of every model; the T x T matrix never exists as a whole.

Axes: `batch`, `queries`, `keys`, `heads`, `kv_heads` and, for each of them, `groups`
of heads; `head_dim`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from vidsme_jax import parallel
from vidsme_jax.models import gradients

_CHUNK = 256  # Queries whose scores exist at the same time.
_LARGE_CHUNK = 1024  # The same on a CPU, where every query sees all keys.
_STRIPS = 16  # Causal: each strip of queries sees only the keys up to its own end.
_LANES = 128  # Lanes of a TPU's vector unit; block sizes are multiples of it.
_BLOCK = 512  # Queries, and keys, that a TPU kernel takes at once.

Queries = Float[Array, "batch queries heads head_dim"]
Keys = Float[Array, "batch keys kv_heads head_dim"]  # Keys, or values.
Lengths = Int[Array, " batch"]  # How many keys the queries see.
_Chunk = Float[Array, "kv_heads groups queries head_dim"]


def attention(
    q: Queries,
    k: Keys,
    v: Keys,
    *,
    causal: bool,
    lengths: Lengths | None = None,
    split: str = "heads",
    implementation: str | None = None,
) -> Queries:
    """Computes softmax(q k^T / sqrt(head_dim)) v, with the softmax in float32.

    Args:
      q: Queries; `heads` is a multiple of `kv_heads` (grouped-query attention).
      k: Keys; as many as queries if causal.
      v: Values.
      causal: Whether a query sees only the keys up to its own position.
      lengths: How many keys are seen, at least 1; None: all. Not allowed if causal.
      split: What a mesh of devices splits over its axis `model`: "heads", or "batch",
        which is then split over both axes.
      implementation: One of `KERNELS`; None takes what `kernel` returns.

    Raises:
      ValueError: There is no such implementation, or lengths are given with `causal`.

    [1] Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    [2] Ainslie et al., 2023. GQA. https://arxiv.org/abs/2305.13245
    """
    name = implementation or kernel(q.dtype, q.shape[-1])
    if name not in KERNELS:
        raise ValueError(f"Unknown implementation {name!r}; known: {list(KERNELS)}.")
    if causal and lengths is not None:
        raise ValueError("lengths are given; with causal attention they must be None.")
    one = functools.partial(KERNELS[name], causal=causal)
    seen = () if lengths is None else (lengths,)
    mesh = parallel.grid()
    with jax.named_scope("attention"):
        if mesh is None:
            return one(q, k, v, *seen)
        if split == "batch":
            spec = PartitionSpec(("data", "model"))
            one = parallel.by_shard(one, (spec,) * (3 + len(seen)), spec)
            return one(q, k, v, *seen)
        spec = PartitionSpec("data", None, "model")
        specs = (spec,) * 3 + (PartitionSpec("data"),) * len(seen)
        one = parallel.by_shard(one, specs, spec)

        def attend(q: Queries, *keys: Keys) -> Queries:
            return one(q, *keys, *seen)

        return by_device(attend, q, (k, v), mesh.shape["model"])


def kernel(dtype: DTypeLike, head_dim: int) -> str:
    """Returns which of `KERNELS` runs on the device that the current trace is for.

    Outside a trace that is this process's first device. In 16-bit types it is cuDNN's
    fused kernel on an NVIDIA GPU, up to the head size that jax allows there, and splash
    attention on a TPU; elsewhere queries are computed in chunks of 256. An accelerator
    without a fused kernel is logged once, with the reason.
    """
    return _chosen(jnp.dtype(dtype).name, head_dim, parallel.platform())


@functools.lru_cache(maxsize=64)
def _chosen(dtype: str, head_dim: int, platform: str) -> str:
    """Chooses the kernel; logs a slow choice once for each combination."""
    if dtype not in ("bfloat16", "float16"):
        reason = f"no fused kernel takes {dtype}"
    elif platform == "tpu":
        return "splash"
    elif platform == "nvidia":
        reason = _refusal(dtype, head_dim)
    else:
        reason = "jax has no fused kernel for this device"
    if not reason:
        return "cudnn"
    if platform != "cpu":
        logging.warning(
            "attention with heads of %d in %s: %s; it runs in chunks of plain "
            "operations, which on an H100 reach 25 TFLOP/s where cuDNN's kernel "
            "reaches 400 to 600",
            head_dim,
            dtype,
            reason,
        )
    return "chunked"


def _refusal(dtype: str, head_dim: int) -> str:
    """Returns why jax would not run cuDNN's kernel on this process's GPU, or ""."""
    shape = jax.ShapeDtypeStruct((1, 128, 1, head_dim), dtype)
    try:
        jax.eval_shape(functools.partial(cudnn, causal=True), *[shape] * 3)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    return ""


def by_device(
    attend: Callable[..., Array],
    q: Queries,
    keys: Sequence[Float[Array, "_ _ kv_heads head_dim"]],
    devices: int,
) -> Queries:
    """Repeats and pads heads so that each device gets whole groups of equal size.

    A key head that several devices share is repeated and its queries are distributed
    over them; uneven groups are padded with zeros, which reach no other head. `attend`
    takes queries and the arrays of `keys`; `devices` are those of the axis `model`.
    """
    batch, queries, heads, head_dim = q.shape
    kv_heads = keys[0].shape[2]
    groups, copies = heads // kv_heads, -(-devices // kv_heads)
    q = _padded(q.reshape(batch, queries, kv_heads, groups, head_dim), 3, copies)
    group = q.shape[3] // copies
    q = q.reshape(batch, queries, kv_heads * copies, group, head_dim)
    q = _padded(q, 2, devices)
    padded = (_padded(jnp.repeat(x, copies, axis=2), 2, devices) for x in keys)
    out = attend(q.reshape(batch, queries, -1, head_dim), *padded)
    out = out.reshape(batch, queries, -1, group, head_dim)[:, :, : kv_heads * copies]
    out = out.reshape(batch, queries, kv_heads, -1, head_dim)[:, :, :, :groups]
    return out.reshape(batch, queries, heads, head_dim)


def _padded(x: Array, axis: int, multiple: int) -> Array:
    """Pads an axis with zeros to a multiple."""
    fill = [(0, 0)] * x.ndim
    fill[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, fill)


def cudnn(
    q: Queries, k: Keys, v: Keys, lengths: Lengths | None = None, *, causal: bool
) -> Queries:
    """Runs cuDNN's fused kernel, on NVIDIA GPUs; see `attention` for the arguments."""
    if q.shape[1] % 2 or k.shape[1] % 2:
        return _odd_rows(causal, q, k, v, lengths)
    return _fused(q, k, v, lengths, causal=causal)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _odd_rows(
    causal: bool, q: Queries, k: Keys, v: Keys, lengths: Lengths | None
) -> Queries:
    """Attends over an odd number of rows, for which jax has no gradient.

    The gradient is computed with an added row that no other sees.
    """
    return _fused(q, k, v, lengths, causal=causal)


def _odd_forward(
    causal: bool, q: Queries, k: Keys, v: Keys, lengths: Lengths | None
) -> tuple[Queries, Callable[[Array], tuple[Array, ...]]]:
    def even(q: Queries, k: Keys, v: Keys) -> Queries:
        seen, queries = lengths, q.shape[1]
        if seen is None and not causal:
            seen = jnp.full(len(k), k.shape[1], jnp.int32)
        q, k, v = (_padded(x, 1, 2) for x in (q, k, v))
        return _fused(q, k, v, seen, causal=causal)[:, :queries]

    return jax.vjp(even, q, k, v)


def _odd_backward(
    causal: bool, backward: Callable[[Array], tuple[Array, ...]], of_out: Queries
) -> tuple[Array | None, ...]:
    return (*backward(of_out), None)


_odd_rows.defvjp(_odd_forward, _odd_backward)


def _fused(
    q: Queries, k: Keys, v: Keys, lengths: Lengths | None = None, *, causal: bool
) -> Queries:
    return jax.nn.dot_product_attention(
        *(q, k, v),
        is_causal=causal,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )


def splash(
    q: Queries, k: Keys, v: Keys, lengths: Lengths | None = None, *, causal: bool
) -> Queries:
    """Runs jax's TPU kernel, which keeps scores on the chip; see `attention`."""
    if lengths is None:
        return splash_parts(q, k, v, None, causal=causal)[0]
    behind = jnp.arange(k.shape[1], dtype=jnp.int32)[None] >= lengths[:, None]
    ids = jnp.zeros(q.shape[:2], jnp.int32), behind.astype(jnp.int32)
    return splash_parts(q, k, v, ids, causal=causal)[0]


def splash_parts(
    q: Queries,
    k: Keys,
    v: Keys,
    ids: tuple[Int[Array, "batch queries"], Int[Array, "batch keys"]] | None,
    *,
    causal: bool,
) -> tuple[Array, ...]:
    """Returns what `splash` does and, with `ids`, the logarithms of the softmax's sums.

    Rows are padded to the kernel's blocks; padding keys follow the last query, or
    belong to a segment of their own.

    Args:
      q: Queries.
      k: Keys.
      v: Values.
      ids: Segments of queries and of keys, not negative; a query sees only the keys of
        its own segment.
      causal: See `attention`.

    Returns:
      The result, (batch, queries, heads, head_dim), and the logarithms, (batch,
      queries, heads).
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    queries, heads, head_dim = q.shape[1:]
    sizes = [-(-x.shape[1] // _LANES) * _LANES for x in (q, k)]
    # A few rows are one block, many are whole blocks.
    sizes = [n if n <= 2 * _BLOCK else -(-n // _BLOCK) * _BLOCK for n in sizes]
    blocks = [n if n <= 2 * _BLOCK else _BLOCK for n in sizes]
    rows, columns = sizes
    # Padding queries see padding keys, so that no row is empty.
    segments = None
    if ids is not None:
        filled = map(_filled, (x.astype(jnp.int32) for x in ids), sizes)
        segments = kernels.SegmentIds(*filled)
    elif not causal and columns > k.shape[1]:
        places = [(jnp.arange(n) >= k.shape[1]).astype(jnp.int32) for n in sizes]
        segments = kernels.SegmentIds(*places)
    q = q * jnp.asarray(head_dim**-0.5, q.dtype)
    q = jnp.pad(q, ((0, 0), (0, rows - queries), (0, 0), (0, 0)))
    fill = ((0, 0), (0, columns - k.shape[1]), (0, 0), (0, 0))
    k, v = (jnp.pad(x, fill) for x in (k, v))
    mask = (kernels.CausalMask if causal else kernels.FullMask)((rows, columns))
    kernel = kernels.make_splash_mha(
        kernels.MultiHeadMask([mask] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=blocks[0], block_kv=blocks[1], block_kv_compute=blocks[1]
        ),
        head_shards=1,
        q_seq_shards=1,
        save_residuals=ids is not None,
    )
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    each = jax.vmap(kernel, in_axes=(0, 0, 0, None if ids is None else 0))
    out: Any = each(q, k, v, segments)
    parts = (out,) if ids is None else (out[0], *out[1])
    return tuple(x.swapaxes(1, 2)[:, :queries] for x in parts)


def _filled(ids: Int[Array, "batch rows"], length: int) -> Int[Array, "batch length"]:
    """Pads segments with one that no row has."""
    fill = [(0, 0), (0, length - ids.shape[1])]
    return jnp.pad(ids, fill, constant_values=jnp.iinfo(jnp.int32).max)


def chunked(
    q: Queries, k: Keys, v: Keys, lengths: Lengths | None = None, *, causal: bool
) -> Queries:
    """Attends in plain operations, one chunk of queries after another."""
    queries = q.shape[1]
    on_cpu = parallel.platform() == "cpu"
    if not causal:
        most = _LARGE_CHUNK if on_cpu else _CHUNK
        return _by_chunks(q, k, v, None, most, lengths)
    if on_cpu and queries <= 2 * _CHUNK:
        return _by_chunks(q, k, v, 0, queries)
    # A strip is a loop over at least two chunks: straight-line strips would be free to
    # run side by side, with all their scores in memory at once.
    strip = _CHUNK * max(2, -(-queries // (_CHUNK * _STRIPS)))
    parts = []
    for start in range(0, queries, strip):
        stop = min(start + strip, queries)
        strip_of = q[:, start:stop], k[:, :stop], v[:, :stop]
        parts.append(_by_chunks(*strip_of, start, _CHUNK))
    return jnp.concatenate(parts, axis=1)


KERNELS = {"cudnn": cudnn, "splash": splash, "chunked": chunked}


def _by_chunks(
    q: Queries,
    k: Keys,
    v: Keys,
    first: int | None,
    most: int,
    lengths: Lengths | None = None,
) -> Queries:
    """Attends in chunks of at most `most` queries.

    If causal, `first` is the position of query 0, else it is None.
    """
    batch, queries, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    q = q.reshape(batch, queries, kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch * kv_heads, -1, queries, head_dim)
    k, v = (x.swapaxes(1, 2).reshape(batch * kv_heads, -1, head_dim) for x in (k, v))
    count = -(-queries // most)
    size = -(-queries // count)
    q = jnp.pad(q, ((0, 0), (0, 0), (0, count * size - queries), (0, 0)))
    chunks = jnp.moveaxis(q.reshape(*q.shape[:2], count, size, head_dim), 2, 0)
    starts = jnp.arange(count, dtype=jnp.int32) * size
    seen = () if lengths is None else (jnp.repeat(lengths, kv_heads),)

    def step(chunk: tuple[Int[Array, ""], _Chunk]) -> _Chunk:
        start, queries_of_chunk = chunk
        start = None if first is None else first + start
        return _chunk(queries_of_chunk, k, v, *seen, start=start)

    out = jnp.moveaxis(jax.lax.map(step, (starts, chunks)), 0, 2)
    out = out.reshape(batch, heads, count * size, head_dim)[:, :, :queries]
    return out.swapaxes(1, 2)


def _chunk(
    q: _Chunk,
    k: Float[Array, "kv_heads keys head_dim"],
    v: Float[Array, "kv_heads keys head_dim"],
    *lengths: Int[Array, " kv_heads"],
    start: Int[Array, ""] | None,
) -> _Chunk:
    """Attends for one chunk of queries; `kv_heads` are those of the whole batch."""
    one = functools.partial(_head, start=start)
    # On a CPU one head after another: its scores then stay in the cache.
    if parallel.platform() == "cpu" and not gradients.are_wanted():
        return jax.lax.map(one, (q, k, v, *lengths))
    return jax.vmap(one)((q, k, v, *lengths))


def _head(
    head: tuple[Array, ...], start: Int[Array, ""] | None
) -> Float[Array, "groups queries head_dim"]:
    """Attends for one key head, from position `start` on; None: not causal.

    Its queries are (groups, queries, head_dim), its keys and values (keys, head_dim);
    the number of keys that are seen may follow.
    """
    q, k, v, *length = head
    product = functools.partial(
        jnp.einsum,
        precision="highest" if q.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )
    scores = product("gqh,sh->gqs", q, k) * q.shape[-1] ** -0.5
    if start is not None:
        rows = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) + start
        columns = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
        scores = jnp.where(columns <= rows, scores, -jnp.inf)
    for seen in length:
        columns = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
        scores = jnp.where(columns < seen, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    return product("gqs,sh->gqh", weights, v).astype(q.dtype)
