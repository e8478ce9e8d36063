"""The axis of classes: which of them a device holds, where they lie, how it scans them.

Axes: as in `streaming`.
"""

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.experimental import layout
from jaxtyping import Array, Int

from vidsme_jax.entropy import states
from vidsme_jax.entropy.states import Extremes, HeadState

_Sums = TypeVar("_Sums", Array, list[Array])

_BLOCK = 4096 * 160  # Numbers in a block of logits on a CPU: 2.5 MiB.


@dataclasses.dataclass(frozen=True)
class VocabularyShard:
    """The part of the vocabulary that a device holds, and how its logits lie.

    Attributes:
      count: Of the whole vocabulary; rows beyond it are padding. None takes all rows.
      axis: The mesh axis over which the vocabulary is split, in the order of its
        devices, inside a `shard_map`.
      dimension: The axis of logits that classes are: the first on a CPU, else the last.
    """

    count: int | None = None
    axis: str | None = None
    dimension: int = 0


def product(hidden: Array, head: Array, shard: VocabularyShard) -> Array:
    """Returns logits in float32, with the classes along `shard.dimension`."""
    precision = "highest" if head.dtype == jnp.float32 else None
    multiply = functools.partial(
        jnp.einsum, precision=precision, preferred_element_type=jnp.float32
    )
    if shard.dimension == 0:
        return multiply("vd,btd->vbt", head, hidden)
    logits = multiply("btd,vd->btv", hidden, head)
    # Without it the sums of the second pass may transpose all logits.
    return layout.with_layout_constraint(logits, layout.Layout((0, 1, 2)))


def only_real(logits: Array, shard: VocabularyShard) -> Array:
    """Takes away the logits of padding."""
    held = logits.shape[shard.dimension]
    size = 1 if shard.axis is None else jax.lax.axis_size(shard.axis)
    if shard.count is None or shard.count == held * size:
        return logits
    axis = shard.dimension % logits.ndim
    column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis)
    real = column + offset(logits, shard) < shard.count
    return jnp.where(real, logits, states.ABSENT)


def put(logits: Array, winner: Array, value: Array) -> Array:
    """Overwrites one logit of each row, that of a class."""
    index = (*jnp.indices(winner.shape, jnp.int32), winner)
    return logits.at[index].set(value, mode="promise_in_bounds", unique_indices=True)


def others(block: Array, begin: Array, top: Extremes, shard: VocabularyShard) -> Array:
    """Leaves the largest logit of each row out of a block, on a CPU."""
    if shard.dimension != 0:
        return block
    columns = jax.lax.broadcasted_iota(jnp.int32, block.shape, 0)
    return jnp.where(columns == top.winner[None] - begin, states.ABSENT, block)


def absent(logits: Array, shard: VocabularyShard) -> Array:
    """Counts the classes of this device that are padding, or left out as largest."""
    held = logits.shape[shard.dimension]
    if shard.count is None:
        return jnp.float32(1.0)
    real = jnp.clip(shard.count - offset(logits, shard), 0, held)
    return (held - jnp.maximum(real, 1) + 1).astype(jnp.float32)


def block_size(rows: int, vocab: int) -> int:
    """Returns how many classes of `rows` rows a CPU scans at once, a power of two."""
    return min(vocab, 1 << (max(_BLOCK // rows, 1).bit_length() - 1))


def scan(
    step: Callable[..., Any], carry: Any = None, *, x: Array, dimension: int
) -> Any:
    """Folds `step(carry, block, begin)` over blocks of classes, on a CPU more than one.

    The first block gets `carry` as given, and its result sets the carry's shape.
    """
    vocab = x.shape[dimension]
    if dimension != 0:
        return step(carry, x, jnp.int32(0))
    size = block_size(x[0].size, vocab)

    def body(carry: Any, begin: Int[Array, ""]) -> tuple[Any, None]:
        block = jax.lax.dynamic_slice_in_dim(x, begin, size, 0)
        return step(carry, block, begin), None

    carry = step(carry, x[:size], jnp.int32(0))
    whole = vocab // size
    starts = jnp.arange(size, whole * size, size, dtype=jnp.int32)
    carry, _ = jax.lax.scan(body, carry, starts)
    rest = whole * size
    return carry if rest == vocab else step(carry, x[rest:], jnp.int32(rest))


def offset(logits: Array, shard: VocabularyShard) -> Int[Array, ""]:
    """Returns the class of the first column that this device has."""
    if shard.axis is None:
        return jnp.zeros((), jnp.int32)
    return jax.lax.axis_index(shard.axis) * logits.shape[shard.dimension]


def added(x: _Sums, shard: VocabularyShard) -> _Sums:
    """Returns the sum of an array, or of each in a list, over all devices' classes."""
    if shard.axis is None:
        return x
    return cast(_Sums, jax.lax.psum(x, shard.axis))


def merge_shards(state: HeadState, shard: VocabularyShard) -> HeadState:
    """Joins the states of all devices along the axis, the same on each of them."""
    if shard.axis is None:
        return state
    parts = cast(HeadState, jax.lax.all_gather(state, shard.axis))
    shards = (HeadState(*one) for one in zip(*parts, strict=True))
    return functools.reduce(states.merge, shards)
