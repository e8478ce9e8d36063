"""Attention of several texts about one video, whose keys they share.

A text sees its video and its own earlier rows, and no other text. That is two calls:
all texts of a trunk (the rows of segment 0) at once to the trunk's keys, and each text
to its own keys. Each call also returns the logarithm of its softmax's sum, which gives
the weights of the two results [1]. Neither a mask of texts by video nor a copy of the
video's keys is made.

Axes: `texts`, `text` rows each; `trunks`, `keys` each; `batch`, `queries`; `heads`,
`kv_heads`, `head_dim`. Texts follow one another as their trunks do, equally many each.

[1] Dao et al., 2022. FlashAttention. https://arxiv.org/abs/2205.14135
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from vidsme_jax import parallel
from vidsme_jax.models import attention
from vidsme_jax.models.attention import Keys, Queries

_CHUNK = 256  # Queries whose scores exist at the same time.
_LARGE_CHUNK = 1024  # The same on a CPU, where heads are computed one by one.

# Of each row its segment (causal), else how many keys each element sees.
_Seen = Int[Array, "batch queries"] | Int[Array, " batch"]


class Part(NamedTuple):
    """The result of attention to a part of the keys.

    Attributes:
      out: The weighted values.
      log_sum: The logarithm of the sum of exponentials of the scores, in nats.
    """

    out: Queries
    log_sum: Float[Array, "batch queries heads"]


def attention_of_texts(
    q: Float[Array, "texts text heads head_dim"],
    k: Float[Array, "texts text kv_heads head_dim"],
    v: Float[Array, "texts text kv_heads head_dim"],
    segment: Int[Array, "texts text"],
    trunk_k: Float[Array, "trunks keys kv_heads head_dim"],
    trunk_v: Float[Array, "trunks keys kv_heads head_dim"],
    shared: Int[Array, " trunks"],
    *,
    implementation: str | None = None,
) -> Float[Array, "texts text heads head_dim"]:
    """Attends from text rows to their trunk and their own text; softmax in float32.

    Args:
      q: Queries; `heads` is a multiple of `kv_heads`.
      k: The texts' own keys.
      v: The texts' own values.
      segment: The text that a row belongs to; a row sees itself and earlier rows of
        its segment.
      trunk_k: The trunks' keys; `texts` is a multiple of `trunks`.
      trunk_v: The trunks' values.
      shared: How many of its trunk's keys a text sees, at least 1.
      implementation: One of `KERNELS`; None takes what `attention.kernel` returns.

    Raises:
      ValueError: There is no such implementation.
    """
    name = implementation or attention.kernel(q.dtype, q.shape[-1])
    if name not in KERNELS:
        raise ValueError(f"Unknown implementation {name!r}; known: {list(KERNELS)}.")
    one = functools.partial(_both, KERNELS[name])
    mesh = parallel.grid()
    with jax.named_scope("attention"):
        if mesh is None:
            return one(segment, shared, q, k, v, trunk_k, trunk_v)
        rows, heads = PartitionSpec("data"), PartitionSpec("data", None, "model")
        one = parallel.by_shard(one, (rows, rows, *(heads,) * 5), heads)
        one = functools.partial(one, segment, shared)
        return attention.by_device(
            one, q, (k, v, trunk_k, trunk_v), mesh.shape["model"]
        )


def _both(
    kernel: Callable[..., Part], segment: Array, shared: Array, q: Array, *keys: Array
) -> Array:
    """Attends to the trunks and to the texts themselves, and merges the two."""
    k, v, trunk_k, trunk_v = keys
    queries = q.reshape(len(trunk_k), -1, *q.shape[2:])
    far = kernel(queries, trunk_k, trunk_v, shared, causal=False)
    far = Part(*(x.reshape(*q.shape[:2], *x.shape[2:]) for x in far))
    return _merged(far, kernel(q, k, v, segment, causal=True)).astype(q.dtype)


def _merged(first: Part, second: Part) -> Queries:
    """Returns the average of two parts weighted by their sums, in float32."""
    share = jax.nn.sigmoid(first.log_sum - second.log_sum)[..., None]
    wide = (x.out.astype(jnp.float32) for x in (first, second))
    return share * next(wide) + (1 - share) * next(wide)


def cudnn(q: Queries, k: Keys, v: Keys, seen: _Seen, *, causal: bool) -> Part:
    """Runs cuDNN's fused kernel, on NVIDIA GPUs.

    Args:
      q: Queries.
      k: Keys.
      v: Values.
      seen: If causal, the segment of each row, (batch, queries): a query sees itself
        and earlier rows of its segment. Else how many keys are seen, (batch,).
      causal: See `seen`.
    """
    # `jax.nn.dot_product_attention` rounds the sums to the values' type: in bfloat16
    # the weights of the two parts would be wrong by up to 5 %.
    from jax._src.cudnn import fused_attention_stablehlo as fused

    options: dict[str, Any] = {"scale": q.shape[-1] ** -0.5, "return_residual": True}
    if causal:
        options["mask"] = seen[:, None, :, None] == seen[:, None, None]
        options["mask_type"] = fused.MaskType.CAUSAL
    else:
        options["q_seqlen"] = jnp.full(len(q), q.shape[1], jnp.int32)
        options["kv_seqlen"] = seen.astype(jnp.int32)
        options["mask_type"] = fused.MaskType.PADDING
    found: Any = fused.dot_product_attention(q, k, v, **options)
    out, log_sum = found
    return Part(out, log_sum.swapaxes(1, 2))


def splash(q: Queries, k: Keys, v: Keys, seen: _Seen, *, causal: bool) -> Part:
    """Runs jax's TPU kernel; see `cudnn` for the arguments."""
    ids = seen, seen
    if not causal:
        behind = jnp.arange(k.shape[1])[None] >= seen[:, None]
        ids = jnp.zeros(q.shape[:2], jnp.int32), behind.astype(jnp.int32)
    return Part(*attention.splash_parts(q, k, v, ids, causal=causal))


def chunked(q: Queries, k: Keys, v: Keys, seen: _Seen, *, causal: bool) -> Part:
    """Attends in plain operations; see `cudnn` for the arguments."""
    batch, queries, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    on_cpu = parallel.platform() == "cpu"
    count = -(-queries // (_LARGE_CHUNK if on_cpu else _CHUNK))
    size = -(-queries // count)
    q = jnp.pad(q, [(0, 0), (0, count * size - queries), (0, 0), (0, 0)])
    q = q.reshape(batch, count, size, kv_heads, -1, head_dim)
    q = q.transpose(1, 0, 3, 4, 2, 5)
    k, v = (x.swapaxes(1, 2) for x in (k, v))
    starts = jnp.arange(count, dtype=jnp.int32) * size

    def step(chunk: tuple[Int[Array, ""], Array]) -> tuple[Array, Array]:
        start, queries_of_chunk = chunk
        one = functools.partial(_item, start=start, causal=causal)
        items = queries_of_chunk, k, v, seen
        return jax.lax.map(one, items) if on_cpu else jax.vmap(one)(items)

    out, log_sum = jax.lax.map(step, (starts, q))
    out = jnp.moveaxis(out, (0, 4), (1, 2)).reshape(batch, -1, heads, head_dim)
    log_sum = jnp.moveaxis(log_sum, (0, 4), (1, 2)).reshape(batch, -1, heads)
    return Part(out[:, :queries], log_sum[:, :queries])


KERNELS = {"cudnn": cudnn, "splash": splash, "chunked": chunked}


def _item(
    item: tuple[Array, ...], start: Int[Array, ""], causal: bool
) -> tuple[Array, Array]:
    """Attends for one element of a batch, from position `start` on.

    Its queries are (kv_heads, groups, queries, head_dim), its keys and values
    (kv_heads, keys, head_dim); its part of `seen` follows.
    """
    q, k, v, seen = item
    rows, columns = start + jnp.arange(q.shape[2]), jnp.arange(k.shape[1])
    if causal:
        segments = seen.at[rows].get(mode="clip")
        visible = (segments[:, None] == seen[None]) & (columns[None] <= rows[:, None])
    else:
        visible = jnp.broadcast_to(columns < seen, (len(rows), len(columns)))
    one = functools.partial(_head, visible=visible)
    on_cpu = parallel.platform() == "cpu"
    return jax.lax.map(one, (q, k, v)) if on_cpu else jax.vmap(one)((q, k, v))


def _head(
    head: tuple[Array, ...], visible: Bool[Array, "queries keys"]
) -> tuple[Float[Array, "groups queries head_dim"], Float[Array, "groups queries"]]:
    """Attends for one key head: queries, keys and values as in `_item`."""
    q, k, v = head
    kind: dict[str, Any] = {"preferred_element_type": jnp.float32}
    kind["precision"] = "highest" if q.dtype == jnp.float32 else None
    scores = jnp.einsum("gqh,sh->gqs", q, k, **kind) * q.shape[-1] ** -0.5
    scores = jnp.where(visible[None], scores, -jnp.inf)
    most = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - most)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = (weights / total).astype(q.dtype)
    out = jnp.einsum("gqs,sh->gqh", weights, v, **kind)
    return out, (most + jnp.log(total))[..., 0]
