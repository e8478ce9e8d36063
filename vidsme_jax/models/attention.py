"""The one attention call of every model: never the whole T x T matrix at once.

Axes: `batch`, `queries`, `keys`, `heads`, `kv_heads`, `head_dim`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_CHUNK = 256  # Queries whose scores exist at the same time.
_STRIPS = 16  # Causal: each strip of queries sees only the keys up to its own end.


def attention(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads head_dim"],
    *,
    causal: bool,
) -> Float[Array, "batch queries heads head_dim"]:
    """Scaled dot-product attention, grouped if heads > kv_heads; softmax in float32.

    On an NVIDIA GPU in 16-bit types it is cuDNN's fused kernel; elsewhere queries are
    taken in chunks of 256. Causal attention expects as many queries as keys.

    [1] Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    [2] Ainslie et al., 2023. GQA. https://arxiv.org/abs/2305.13245
    """
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    if jax.default_backend() == "gpu" and half and q.shape[-1] in range(8, 129, 8):
        return jax.nn.dot_product_attention(
            q, k, v, is_causal=causal, implementation="cudnn"
        )
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
        return _head(*head, start)

    # On a CPU one head after another: its scores then stay in the cache.
    if jax.default_backend() == "cpu":
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
    return jnp.einsum("gqs,sh->gqh", weights, v, precision=precision)
