r"""The streaming head: hidden states to `TokenSignals`, with the logits of a few rows.

Axes: `batch` (clips x directions), `rows` (video tokens), `embed`, `vocab`, `orders`.

A few rows at a time are multiplied with the output layer, and their logits are scanned:
once for the largest one [1], once for the sums of `states`, which leave it out. The
states of the shards of a vocabulary that is split over devices (`VocabularyShard`) are
merged: a device sends the few sums of a row, never its logits.

What is not a function of these sums needs the normalised probabilities and scans the
same logits again (`second_pass`), only when a chosen score asks for it: the modified
entropies, the release's clamped Renyi-1/2, and the profile of the mean distribution.

Where the logits lie and how they are scanned depends on the device. On a CPU classes
are the first axis: sums over them then run along rows in vector registers, and the
product reads the output layer as it is stored. A block of classes stays in the cache.
An accelerator has rows first and takes all classes at once: its compiler fuses a scan
into one kernel that reads each logit once. The largest logit of a row is overwritten
there, where it lies, which spares every scan a mask.

[1] Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867, do both in one scan,
    which costs an exponential more for each sum.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float, Int

from vidsme_jax.base import TokenSignals
from vidsme_jax.entropy import states
from vidsme_jax.entropy.states import Extremes, HeadState

_CLAMP = 1e-10  # The release's lower bound of a probability.
# Rows whose logits exist at the same time: on a CPU, and at most on a device.
_FEW_ROWS, _MOST_ROWS = 160, 4096
_LANES = 16  # Numbers in a CPU's vector register.
_BLOCK = 4096 * _FEW_ROWS  # Numbers in a block of logits on a CPU: 2.5 MiB.


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


_WHOLE = VocabularyShard()


def first_pass(
    logits: Float[Array, "..."], shard: VocabularyShard = _WHOLE
) -> tuple[Float[Array, "..."], Extremes, HeadState]:
    """Scans the logits of a few rows over all devices' classes.

    Args:
      logits: Float32, of the classes that this device has, which are the axis
        `shard.dimension`.
      shard: Which these are.

    Returns:
      The logits for `second_pass`, what the largest of each row was (its class counted
      from this device's first), and the state of the whole vocabulary.
    """
    scan = functools.partial(_scan, x=logits, dimension=shard.dimension)

    def highest(found: Extremes | None, block: Array, begin: Array) -> Extremes:
        here = states.extremes(block, shard.dimension)
        here = here._replace(winner=here.winner + begin)
        return here if found is None else states.higher(found, here)

    top = scan(highest)
    # The scan above is over before the logits change: else they would be copied.
    logits, top = jax.lax.optimization_barrier((logits, top))
    if shard.dimension != 0:  # It is left out where it lies.
        logits = _put(logits, top.winner, jnp.full_like(top.top, states.ABSENT))

    def add(found, block: Array, begin: Array):
        block = _others(block, begin, top, shard)
        y = block - jnp.expand_dims(top.top, shard.dimension)
        here = states.sums(y, shard.dimension)
        return here if found is None else jax.tree.map(jnp.add, found, here)

    sums = _scan(add, x=logits, dimension=shard.dimension)
    here = top._replace(winner=top.winner + _offset(logits, shard))
    return logits, top, _merge_shards(states.of_sums(here, sums), shard)


def second_pass(
    logits: Float[Array, "..."],
    top: Extremes,
    state: HeadState,
    weights: Float[Array, "batch means rows"],
    average: Float[Array, "..."],
    shard: VocabularyShard = _WHOLE,
) -> tuple[Float[Array, "batch rows 3"], Float[Array, "batch rows"], Array]:
    """Scans the same logits again with the normalised probabilities.

    Args:
      logits: As `first_pass` returned them, and the next two.
      top: The largest logits of this device.
      state: Of the whole vocabulary.
      weights: Of the rows in each mean distribution.
      average: What earlier rows gave to the mean distributions; (batch, means, vocab),
        with the classes where they are in `logits`.
      shard: As in `first_pass`.

    Returns:
      The modified entropies (Shannon-like, 1/2, 2) with the argmax as target, the
      Renyi-1/2 of the probabilities clamped at 1e-10, and `average` with these rows.
    """
    dimension = shard.dimension
    # Else the compiler may write the exponentials that both passes need to memory.
    logits, state = jax.lax.optimization_barrier((logits, state))
    each = functools.partial(jnp.expand_dims, axis=dimension)
    norm = 1.0 + state.total

    def add(found, block: Array, begin: Array):
        block = _others(block, begin, top, shard)
        p = jnp.exp(block - each(state.top)) * each(1.0 / norm)
        here = states.total(_of_probability(p), dimension)
        return here if found is None else jax.tree.map(jnp.add, found, here)

    sums = _scan(add, x=logits, dimension=dimension)
    # The class that this device left out counts too, unless it is the target itself.
    p = jnp.exp(top.top - state.top) / norm
    target = top.winner + _offset(logits, shard) == state.winner
    *here, _ = _of_probability(jnp.where(target, 0.0, p))
    there = top.top > states.ABSENT
    clamped = jnp.where(there, jnp.sqrt(jnp.maximum(p, _CLAMP)), 0.0)
    # The classes that were not there have been counted with the clamp's lower bound.
    clamped = clamped - _absent(logits, shard) * _CLAMP**0.5
    sums = [x + y for x, y in zip(sums, (*here, clamped), strict=True)]
    logits, sums = jax.lax.optimization_barrier((logits, sums))
    if shard.dimension != 0:
        logits = _put(logits, top.winner, top.top)
    if shard.axis is not None:
        sums = jax.lax.psum(sums, shard.axis)

    share = weights / norm[:, None]

    def collect(average: Array, block: Array, begin: Array) -> Array:
        p = jnp.exp(block - each(state.top))
        if dimension == 0:
            here = jnp.einsum("vbt,bmt->vbm", p, share, precision="highest")
        else:
            means = range(share.shape[1])
            here = states.total([p * share[:, m, :, None] for m in means], -2)
            here = jnp.stack(here, axis=1)
        length = block.shape[dimension]
        here = here + jax.lax.dynamic_slice_in_dim(average, begin, length, dimension)
        return jax.lax.dynamic_update_slice_in_dim(average, here, begin, dimension)

    average = _scan(collect, average, x=logits, dimension=dimension)
    modified = _modified(jnp.stack(sums[:3], axis=-1), state)
    return modified, 2.0 * jnp.log(sums[3]), average


@jax.named_scope("head")
def token_signals(
    hidden: Float[Array, "batch rows embed"],
    head: Float[Array, "vocab embed"],
    masks: Bool[Array, "batch means rows"],
    *,
    second: bool,
    shard: VocabularyShard = _WHOLE,
    memory: int | None = None,
) -> TokenSignals:
    """Returns everything the model reveals about the rows; see `base.TokenSignals`.

    Args:
      hidden: After the decoder's last norm.
      head: The weights of the output layer, one row a class.
      masks: The rows that count in each mean distribution; the signals of padding rows
        mean nothing.
      second: Whether to run the second pass.
      shard: What `head` holds of the vocabulary; its `dimension` follows from `memory`.
      memory: Bytes that logits may take on a device, None on a CPU.
    """
    shard = dataclasses.replace(shard, dimension=0 if memory is None else -1)
    batch, rows, _ = hidden.shape
    vocab = head.shape[0]
    counted = masks.astype(jnp.float32)
    weights = counted / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1.0)
    count, size = chunks(batch, rows, vocab, memory)
    fill = [(0, 0), (0, count * size - rows), (0, 0)]

    def split(x):
        return jnp.pad(x, fill).reshape(batch, count, size, -1).swapaxes(0, 1)

    def step(average, chunk):
        hidden, weights = chunk
        with jax.named_scope("logits"):
            logits = _only_real(_product(hidden, head, shard), shard)
        with jax.named_scope("first_pass"):
            logits, top, state = first_pass(logits, shard)
            signals = _of_state(state)
        if second:
            with jax.named_scope("second_pass"):
                modified, clamped, average = second_pass(
                    logits, top, state, weights.swapaxes(1, 2), average, shard
                )
            signals = signals._replace(modified=modified, renyi_half_clamped=clamped)
        return average, signals

    means = masks.shape[:2]
    shape = (vocab, *means) if shard.dimension == 0 else (*means, vocab)
    average = jnp.zeros(shape if second else (), jnp.float32)
    parts = (split(hidden), split(weights.swapaxes(1, 2)))
    average, signals = jax.lax.scan(step, average, parts)
    signals = jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(batch, count * size, *x.shape[3:])[:, :rows],
        signals,
    )
    if not second:
        return signals
    # A mean of probabilities; as logits its logarithms are normalised already.
    with jax.named_scope("mean"):
        logits = _only_real(jnp.log(jnp.maximum(average, 1e-37)), shard)
        mean = states.renyi_profile(first_pass(logits, shard)[2])
    return signals._replace(mean_renyi=mean)


def chunks(
    batch: int, rows: int, vocab: int, memory: int | None = None
) -> tuple[int, int]:
    """Returns into how many chunks the rows are split, and the rows of one.

    The fewest chunks that the memory allows: the output layer is read anew for each.
    On a CPU the rows of a chunk, over the batch, fill vector registers.
    """
    most = max(1, rows_at_once(vocab, memory) // batch)
    fewest = -(-rows // most)
    if memory is not None:
        return fewest, -(-rows // fewest)
    lanes = min(_LANES // math.gcd(_LANES, batch), most)
    counts = range(fewest, 2 * fewest + 1)
    sizes = ((n, -(-rows // (n * lanes)) * lanes) for n in counts)
    allowed = (found for found in sizes if found[1] <= max(most, lanes))
    return min(allowed, key=math.prod)


def rows_at_once(vocab: int, memory: int | None = None) -> int:
    """Returns of how many rows the logits may exist at the same time.

    Enough that reading the output layer anew for each group of rows costs less than
    multiplying with it: on a CPU 160, on a device 4096 where half of `memory` holds
    their logits.
    """
    if memory is None:
        return _FEW_ROWS
    return min(max(memory // (2 * 4 * vocab), 1), _MOST_ROWS)


def _product(hidden, head, shard: VocabularyShard) -> Array:
    """Logits in float32, with the classes along `shard.dimension`."""
    precision = "highest" if head.dtype == jnp.float32 else None
    product = functools.partial(
        jnp.einsum, precision=precision, preferred_element_type=jnp.float32
    )
    if shard.dimension == 0:
        return product("vd,btd->vbt", head, hidden)
    logits = product("btd,vd->btv", hidden, head)
    # Else the sums over rows of the second pass may have all logits transposed.
    return with_layout_constraint(logits, Layout((0, 1, 2)))


def _only_real(logits: Array, shard: VocabularyShard) -> Array:
    """Takes away the logits of padding."""
    held = logits.shape[shard.dimension]
    size = 1 if shard.axis is None else jax.lax.axis_size(shard.axis)
    if shard.count is None or shard.count == held * size:
        return logits
    axis = shard.dimension % logits.ndim
    column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis)
    real = column + _offset(logits, shard) < shard.count
    return jnp.where(real, logits, states.ABSENT)


def _put(logits: Array, winner: Array, value: Array) -> Array:
    """Overwrites one logit of each row, that of a class."""
    index = (*jnp.indices(winner.shape, jnp.int32), winner)
    return logits.at[index].set(value, mode="promise_in_bounds", unique_indices=True)


def _others(block: Array, begin: Array, top: Extremes, shard: VocabularyShard) -> Array:
    """Leaves the largest logit of each row out of a block, on a CPU."""
    if shard.dimension != 0:
        return block
    columns = jax.lax.broadcasted_iota(jnp.int32, block.shape, 0)
    return jnp.where(columns == top.winner[None] - begin, states.ABSENT, block)


def _absent(logits: Array, shard: VocabularyShard) -> Array:
    """Counts the classes of this device that are padding, or left out as largest."""
    held = logits.shape[shard.dimension]
    if shard.count is None:
        return jnp.float32(1.0)
    real = jnp.clip(shard.count - _offset(logits, shard), 0, held)
    return (held - jnp.maximum(real, 1) + 1).astype(jnp.float32)


def _of_probability(p: Array) -> list[Array]:
    """The terms of the second pass for classes other than the target, so p <= 1/2."""
    return [
        -p * jnp.log1p(-p),
        p * p / (1.0 + jnp.sqrt(1.0 - p)),
        p * p,
        jnp.sqrt(jnp.maximum(p, _CLAMP)),
    ]


def _of_state(state: HeadState) -> TokenSignals:
    """What the first pass gives."""
    renyi = states.renyi_profile(state)
    norm = 1.0 + state.total
    varentropy = jnp.maximum(
        state.second / norm - jnp.square(state.first / norm), jnp.zeros_like(norm)
    )
    gap = jnp.where(state.below > states.ABSENT, state.top - state.below, 0.0)
    return TokenSignals(renyi, varentropy, gap, -renyi[..., -1])


def _modified(sums: Float[Array, "*rows 3"], state: HeadState):
    """Adds the target's own term to the sums over the other classes.

    Song and Mittal, 2021, https://arxiv.org/abs/2003.10595, eq. (4), and its Renyi form
    in Li et al., 2024, https://arxiv.org/abs/2411.02902.
    """
    missing = state.total / (1.0 + state.total)  # 1 - p_y without cancellation.
    log_p = -jnp.log1p(state.total)
    shannon = -missing * log_p + sums[..., 0]
    half = 2.0 * (missing * -jnp.expm1(0.5 * log_p) + sums[..., 1])
    two = missing * missing + sums[..., 2]
    return jnp.stack([shannon, half, two], axis=-1)


def block_size(rows: int, vocab: int) -> int:
    """Returns how many classes of so many rows a CPU scans at once, a power of two."""
    return min(vocab, 1 << (max(_BLOCK // rows, 1).bit_length() - 1))


def _scan(step: Callable[..., Any], carry: Any = None, *, x: Array, dimension: int):
    """Folds `step(carry, block, begin)` over blocks of classes, on a CPU more than one.

    The first block meets `carry` as it is given, and may give it its shape.
    """
    vocab = x.shape[dimension]
    if dimension != 0:
        return step(carry, x, jnp.int32(0))
    size = block_size(x[0].size, vocab)

    def body(carry, begin: Int[Array, ""]):
        block = jax.lax.dynamic_slice_in_dim(x, begin, size, 0)
        return step(carry, block, begin), None

    carry = step(carry, x[:size], jnp.int32(0))
    whole = vocab // size
    starts = jnp.arange(size, whole * size, size, dtype=jnp.int32)
    carry, _ = jax.lax.scan(body, carry, starts)
    rest = whole * size
    return carry if rest == vocab else step(carry, x[rest:], jnp.int32(rest))


def _offset(logits: Array, shard: VocabularyShard) -> Int[Array, ""]:
    """The class of the first column that this device has."""
    if shard.axis is None:
        return jnp.zeros((), jnp.int32)
    return jax.lax.axis_index(shard.axis) * logits.shape[shard.dimension]


def _merge_shards(state: HeadState, shard: VocabularyShard) -> HeadState:
    """Joins the states of all devices along the axis, the same on each of them."""
    if shard.axis is None:
        return state
    parts = jax.lax.all_gather(state, shard.axis)
    shards = (HeadState(*one) for one in zip(*parts, strict=True))
    return functools.reduce(states.merge, shards)
