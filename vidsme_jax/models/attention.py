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
    groups = heads // k.shape[2]
    q = q.reshape(batch, queries, k.shape[2], groups, head_dim)
    if queries <= _CHUNK:
        out = _chunk(q, k, v, first)
        return out.reshape(batch, queries, heads, head_dim)
    padding = -queries % _CHUNK
    padded = jnp.pad(q, ((0, 0), (0, padding), (0, 0), (0, 0), (0, 0)))
    chunks = padded.reshape(batch, -1, _CHUNK, *q.shape[2:]).swapaxes(0, 1)
    starts = jnp.arange(chunks.shape[0], dtype=jnp.int32) * _CHUNK

    def step(chunk):
        start, queries_of_chunk = chunk
        return _chunk(queries_of_chunk, k, v, None if first is None else first + start)

    out = jax.lax.map(step, (starts, chunks)).swapaxes(0, 1)
    return out.reshape(batch, -1, heads, head_dim)[:, :queries]


def _chunk(q, k, v, start):
    """Softmax attention of a few queries (batch, queries, kv_heads, groups, dim)."""
    precision = "highest" if q.dtype == jnp.float32 else None
    scores = jnp.einsum(
        "bqkgh,bskh->bkgqs",
        q,
        k,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    scores = scores * q.shape[-1] ** -0.5
    if start is not None:
        rows = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 3) + start
        columns = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 4)
        scores = jnp.where(columns <= rows, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    return jnp.einsum("bkgqs,bskh->bqkgh", weights, v, precision=precision)
