"""The one attention call of every model: never the whole T x T matrix at once.

Axes: `batch`, `queries`, `keys`, `heads`, `kv_heads`, `head_dim`.
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
_LANES = 128  # Of a TPU's vector unit: blocks are multiples of it.
_BLOCK = 512  # Queries, and keys, that a TPU kernel takes at once.


def attention(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    *,
    causal: bool,
    lengths: Int[Array, " batch"] | None = None,
    split: str = "heads",
    implementation: str | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Scaled dot-product attention, grouped if heads > kv_heads; softmax in float32.

    Args:
      q: Queries; there are as many heads as kv_heads or a multiple.
      k: Keys; as many as queries if causal.
      v: Values.
      causal: Whether a query sees only the keys up to its own place.
      lengths: How many keys are seen, at least 1, if not all; not if causal.
      split: What a mesh of devices has spread over its axis `model`: "heads", or
        "batch", which is then over both axes.
      implementation: One of `KERNELS`; None takes what `kernel` returns.

    Raises:
      ValueError: There is no such implementation, or lengths are given to a causal one.

    [1] Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    [2] Ainslie et al., 2023. GQA. https://arxiv.org/abs/2305.13245
    """
    name = implementation or kernel(q.dtype, q.shape[-1])
    if name not in KERNELS:
        raise ValueError(f"Unknown implementation {name!r}; known: {list(KERNELS)}.")
    if causal and lengths is not None:
        raise ValueError("Lengths are of keys that all queries see.")
    one = functools.partial(KERNELS[name], causal=causal)
    own = () if lengths is None else (lengths,)
    mesh = parallel.grid()
    with jax.named_scope("attention"):
        if mesh is None:
            return one(q, k, v, *own)
        if split == "batch":
            spec = PartitionSpec(("data", "model"))
            return parallel.by_shard(one, (spec,) * (3 + len(own)), spec)(q, k, v, *own)
        spec = PartitionSpec("data", None, "model")
        specs = (spec,) * 3 + (PartitionSpec("data"),) * len(own)
        one = parallel.by_shard(one, specs, spec)

        def attend(q, *keys):
            return one(q, *keys, *own)

        return dealt(attend, q, (k, v), mesh.shape["model"])


def kernel(dtype: DTypeLike, head_dim: int) -> str:
    """Returns which of `KERNELS` runs on the device that the present trace is for.

    Outside a trace that is this process's first device. In 16-bit types it is cuDNN's
    fused kernel on an NVIDIA GPU, up to the head size that jax allows there, and splash
    attention on a TPU; elsewhere queries are taken in chunks of 256. An accelerator
    that is left with the chunks is logged once, with the reason.

    Args:
      dtype: Of queries, keys and values.
      head_dim: Size of a head.
    """
    return _chosen(jnp.dtype(dtype).name, head_dim, parallel.platform())


@functools.lru_cache(maxsize=64)
def _chosen(dtype: str, head_dim: int, platform: str) -> str:
    """Chooses the kernel, and logs once for each case what is slow."""
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


def dealt(
    attend: Callable[..., Array],
    q: Float[Array, "batch queries heads head_dim"],
    keys: Sequence[Float[Array, "_ _ kv_heads head_dim"]],
    devices: int,
) -> Float[Array, "batch queries heads head_dim"]:
    """Repeats and pads heads so that each device gets whole groups of equal size.

    A key head that several devices share is repeated and its queries are dealt out;
    what does not come out even is filled with zeros, which reach no other head.

    Args:
      attend: Takes queries and what is in `keys`.
      q: Queries.
      keys: Keys and values.
      devices: Along the axis `model`.
    """
    batch, queries, heads, head_dim = q.shape
    kv_heads = keys[0].shape[2]
    groups, copies = heads // kv_heads, -(-devices // kv_heads)
    q = _padded(q.reshape(batch, queries, kv_heads, groups, head_dim), 3, copies)
    group = q.shape[3] // copies
    q = q.reshape(batch, queries, kv_heads * copies, group, head_dim)
    q = _padded(q, 2, devices)
    own = (_padded(jnp.repeat(x, copies, axis=2), 2, devices) for x in keys)
    out = attend(q.reshape(batch, queries, -1, head_dim), *own)
    out = out.reshape(batch, queries, -1, group, head_dim)[:, :, : kv_heads * copies]
    out = out.reshape(batch, queries, kv_heads, -1, head_dim)[:, :, :, :groups]
    return out.reshape(batch, queries, heads, head_dim)


def _padded(x: Array, axis: int, multiple: int) -> Array:
    """Fills an axis up with zeros."""
    fill = [(0, 0)] * x.ndim
    fill[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, fill)


def cudnn(q, k, v, lengths=None, *, causal: bool):
    """CuDNN's fused kernel, on NVIDIA GPUs."""
    if q.shape[1] % 2 or k.shape[1] % 2:
        return _odd_rows(causal, q, k, v, lengths)
    return _fused(q, k, v, lengths, causal=causal)


def _odd(causal: bool, q, k, v, lengths) -> Array:
    """Attends over an odd number of rows, of which jax knows no gradient.

    Where one is wanted, a row is added that no other sees.
    """
    return _fused(q, k, v, lengths, causal=causal)


def _odd_forward(causal: bool, q, k, v, lengths):
    def even(q, k, v):
        seen, queries = lengths, q.shape[1]
        if seen is None and not causal:
            seen = jnp.full(len(k), k.shape[1], jnp.int32)
        q, k, v = (_padded(x, 1, 2) for x in (q, k, v))
        return _fused(q, k, v, seen, causal=causal)[:, :queries]

    return jax.vjp(even, q, k, v)


def _odd_backward(causal: bool, back: Callable[..., Any], found: Array):
    return (*back(found), None)


_odd_rows = jax.custom_vjp(_odd, nondiff_argnums=(0,))
_odd_rows.defvjp(_odd_forward, _odd_backward)


def _fused(q, k, v, lengths=None, *, causal: bool):
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        is_causal=causal,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )


def splash(q, k, v, lengths=None, *, causal: bool):
    """The TPU kernel that jax brings, which keeps scores on the chip."""
    if lengths is None:
        return _splash(q, k, v, causal=causal)
    behind = jnp.arange(k.shape[1], dtype=jnp.int32)[None] >= lengths[:, None]
    ids = jnp.zeros(q.shape[:2], jnp.int32), behind.astype(jnp.int32)
    return splash_parts(q, k, v, ids, causal=causal)[0]


def splash_parts(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    ids: tuple[Int[Array, "batch queries"], Int[Array, "batch keys"]],
    *,
    causal: bool,
) -> tuple[
    Float[Array, "batch queries heads head_dim"], Float[Array, "batch queries heads"]
]:
    """Returns what `splash` does, and the logarithms of the softmax's sums.

    Args:
      q: Queries.
      k: Keys.
      v: Values.
      ids: Of queries and of keys, not negative; a query sees keys of its own id.
      causal: See `attention`.
    """
    return _splash(q, k, v, ids, causal=causal)


def _splash(q, k, v, ids: tuple[Array, Array] | None = None, *, causal: bool) -> Any:
    """Runs the kernel, with the sums if there are ids.

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
    # Padding queries see padding keys, so that no row is empty.
    segments: Any = None
    if ids is not None:
        own = zip(ids, sizes, strict=True)
        own = [_filled(x.astype(jnp.int32), n) for x, n in own]
        segments = kernels.SegmentIds(*own)
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
    if ids is None:
        return out.swapaxes(1, 2)[:, :queries]
    out, (sums,) = out
    return tuple(x.swapaxes(1, 2)[:, :queries] for x in (out, sums))


def _filled(ids: Array, length: int) -> Array:
    """Fills ids up with one that no row has."""
    fill = [(0, 0), (0, length - ids.shape[1])]
    return jnp.pad(ids, fill, constant_values=jnp.iinfo(jnp.int32).max)


def chunked(q, k, v, lengths=None, *, causal: bool):
    """Attention in plain operations, a chunk of queries after another."""
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


def _by_chunks(q, k, v, first: int | None, most: int, lengths=None):
    """Attends in chunks of at most `most` queries; `first` is query 0's position."""
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
    own = () if lengths is None else (jnp.repeat(lengths, kv_heads),)

    def step(chunk):
        start, queries_of_chunk = chunk
        start = None if first is None else first + start
        return _chunk(queries_of_chunk, k, v, *own, start=start)

    out = jnp.moveaxis(jax.lax.map(step, (starts, chunks)), 0, 2)
    out = out.reshape(batch, heads, count * size, head_dim)[:, :, :queries]
    return out.swapaxes(1, 2)


def _chunk(q, k, v, *lengths, start):
    """Softmax attention of a few queries (heads, groups, queries, head_dim)."""
    one = functools.partial(_head, start=start)
    # On a CPU one head after another: its scores then stay in the cache.
    if parallel.platform() == "cpu" and not gradients.are_wanted():
        return jax.lax.map(one, (q, k, v, *lengths))
    return jax.vmap(one)((q, k, v, *lengths))


def _head(head, start):
    """Of one key head: queries (groups, queries, head_dim), keys (keys, head_dim)."""
    q, k, v, *length = head
    precision = "highest" if q.dtype == jnp.float32 else None
    scores = jnp.einsum(
        "gqh,sh->gqs", q, k, precision=precision, preferred_element_type=jnp.float32
    )
    scores = scores * q.shape[-1] ** -0.5
    if start is not None:
        rows = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) + start
        columns = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
        scores = jnp.where(columns <= rows, scores, -jnp.inf)
    for seen in length:
        columns = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
        scores = jnp.where(columns < seen, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    out = jnp.einsum(
        "gqs,sh->gqh",
        weights,
        v,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    return out.astype(q.dtype)
