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

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vidsme_jax.base import TokenSignals
from vidsme_jax.entropy import states, vocabulary
from vidsme_jax.entropy.states import Extremes, HeadState
from vidsme_jax.entropy.vocabulary import VocabularyShard

_CLAMP = 1e-10  # The release's lower bound of a probability.
# Rows whose logits exist at the same time: on a CPU, and at most on a device.
_FEW_ROWS, _MOST_ROWS = 160, 4096
# Mean distributions that an accelerator sums up as it reads the logits. Of more, as
# texts have them, the compiler would write each one's terms to memory.
_FEW_MEANS = 2
_LANES = 16  # Numbers in a CPU's vector register.
_WHOLE = VocabularyShard()


class Found(NamedTuple):
    """What the first pass finds of the targets.

    Attributes:
      logit: Of the target.
      rank: See `base.TokenSignals`.
    """

    logit: Float[Array, "batch rows"]
    rank: Float[Array, "batch rows"]


def first_pass(
    logits: Float[Array, "..."],
    shard: VocabularyShard = _WHOLE,
    targets: Int[Array, "batch rows"] | None = None,
) -> tuple[Float[Array, "..."], Extremes, HeadState, Found | None]:
    """Scans the logits of a few rows over all devices' classes.

    Args:
      logits: Float32, of the classes that this device has, which are the axis
        `shard.dimension`.
      shard: Which these are.
      targets: See `token_signals`.

    Returns:
      The logits for `second_pass`, what the largest of each row was (its class counted
      from this device's first), the state of the whole vocabulary, and what was found
      of the targets.
    """
    scan = functools.partial(vocabulary.scan, x=logits, dimension=shard.dimension)

    def highest(found: Extremes | None, block: Array, begin: Array) -> Extremes:
        here = states.extremes(block, shard.dimension)
        here = here._replace(winner=here.winner + begin)
        return here if found is None else states.higher(found, here)

    top = scan(highest)
    wanted = None if targets is None else _logit_of(targets, logits, top, shard)
    # The scan above ends before the logits change; otherwise they would be copied.
    logits, top, wanted = jax.lax.optimization_barrier((logits, top, wanted))
    if shard.dimension != 0:  # The argmax is removed in place.
        logits = vocabulary.put(
            logits, top.winner, jnp.full_like(top.top, states.ABSENT)
        )

    def add(found: Any, block: Array, begin: Array) -> Any:
        block = vocabulary.others(block, begin, top, shard)
        y = block - jnp.expand_dims(top.top, shard.dimension)
        above = [] if wanted is None else [_above(block, wanted, shard.dimension)]
        here = states.sums(y, shard.dimension, *above)
        return here if found is None else jax.tree.map(jnp.add, found, here)

    sums = vocabulary.scan(add, x=logits, dimension=shard.dimension)
    here = top._replace(winner=top.winner + vocabulary.offset(logits, shard))
    if wanted is None:
        state = vocabulary.merge_shards(states.of_sums(here, sums), shard)
        return logits, top, state, None
    *sums, above = sums
    state = vocabulary.merge_shards(states.of_sums(here, tuple(sums)), shard)
    # The target has met itself once, which is half a place.
    above = above + _above(top.top, wanted)
    above = vocabulary.added(above, shard)
    return logits, top, state, Found(wanted, 0.5 + above)


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
    # Without it the compiler may store the exponentials that both passes need.
    logits, state = jax.lax.optimization_barrier((logits, state))
    each = functools.partial(jnp.expand_dims, axis=dimension)
    norm = 1.0 + state.total

    def add(found: Any, block: Array, begin: Array) -> Any:
        block = vocabulary.others(block, begin, top, shard)
        p = jnp.exp(block - each(state.top)) * each(1.0 / norm)
        here = states.total(_of_probability(p), dimension)
        return here if found is None else jax.tree.map(jnp.add, found, here)

    sums = vocabulary.scan(add, x=logits, dimension=dimension)
    # The class that this device left out counts too, unless it is the target itself.
    p = jnp.exp(top.top - state.top) / norm
    target = top.winner + vocabulary.offset(logits, shard) == state.winner
    *here, _ = _of_probability(jnp.where(target, 0.0, p))
    there = top.top > states.ABSENT
    clamped = jnp.where(there, jnp.sqrt(jnp.maximum(p, _CLAMP)), 0.0)
    # The classes that were not there have been counted with the clamp's lower bound.
    clamped = clamped - vocabulary.absent(logits, shard) * _CLAMP**0.5
    sums = [x + y for x, y in zip(sums, (*here, clamped), strict=True)]
    logits, sums = jax.lax.optimization_barrier((logits, sums))
    if shard.dimension != 0:
        logits = vocabulary.put(logits, top.winner, top.top)
    sums = vocabulary.added(sums, shard)

    share = weights / norm[:, None]

    def collect(average: Array, block: Array, begin: Array) -> Array:
        p = jnp.exp(block - each(state.top))
        if dimension == 0:
            here = jnp.einsum("vbt,bmt->vbm", p, share, precision="highest")
        elif share.shape[1] > _FEW_MEANS:  # A product: probabilities exist, as logits.
            here = jnp.einsum("btv,bmt->bmv", p, share, precision="highest")
        else:
            means = range(share.shape[1])
            here = states.total([p * share[:, m, :, None] for m in means], -2)
            here = jnp.stack(here, axis=1)
        length = block.shape[dimension]
        here = here + jax.lax.dynamic_slice_in_dim(average, begin, length, dimension)
        return jax.lax.dynamic_update_slice_in_dim(average, here, begin, dimension)

    average = vocabulary.scan(collect, average, x=logits, dimension=dimension)
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
    targets: Int[Array, "batch rows"] | None = None,
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
      targets: The class of each row whose log p and rank are wanted, below
        `shard.count`; -1: the row's own argmax. Without them it is the argmax of every
        row, and there are no ranks. The modified entropies have the argmax as target
        even then: scores of texts do not use them.
    """
    shard = dataclasses.replace(shard, dimension=0 if memory is None else -1)
    batch, rows, _ = hidden.shape
    vocab = head.shape[0]
    counted = masks.astype(jnp.float32)
    weights = counted / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1.0)
    count, size = chunks(batch, rows, vocab, memory)
    fill = [(0, 0), (0, count * size - rows), (0, 0)]

    def split(x: Array) -> Array:
        return jnp.pad(x, fill).reshape(batch, count, size, -1).swapaxes(0, 1)

    def step(average: Any, chunk: Any) -> tuple[Any, Any]:
        hidden, weights, targets = chunk
        if targets is not None:
            targets = targets[..., 0]
        with jax.named_scope("logits"):
            logits = vocabulary.only_real(
                vocabulary.product(hidden, head, shard), shard
            )
        with jax.named_scope("first_pass"):
            logits, top, state, found = first_pass(logits, shard, targets)
            signals = _of_state(state, found)
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
    wanted = None if targets is None else split(targets[..., None])
    parts = (split(hidden), split(weights.swapaxes(1, 2)), wanted)
    average, signals = jax.lax.scan(step, average, parts)

    def joined(x: Array) -> Array:
        return x.swapaxes(0, 1).reshape(batch, count * size, *x.shape[3:])[:, :rows]

    signals = jax.tree.map(joined, signals)
    if not second:
        return signals
    # A mean of probabilities; as logits its logarithms are normalised already.
    with jax.named_scope("mean"):
        logits = vocabulary.only_real(jnp.log(jnp.maximum(average, 1e-37)), shard)
        mean = states.renyi_profile(first_pass(logits, shard)[2])
    return signals._replace(mean_renyi=mean)


def chunks(
    batch: int, rows: int, vocab: int, memory: int | None = None
) -> tuple[int, int]:
    """Returns into how many chunks the rows are split, and the rows of one.

    The fewest chunks that the memory allows: the output layer is read once for each.
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

    Enough that reading the output layer for each group of rows costs less than
    multiplying with it: on a CPU 160, on a device 4096 where half of `memory` holds
    their logits.
    """
    if memory is None:
        return _FEW_ROWS
    return min(max(memory // (2 * 4 * vocab), 1), _MOST_ROWS)


def _of_probability(p: Array) -> list[Array]:
    """Returns the terms of the second pass; not for the target, so that p <= 1/2."""
    return [
        -p * jnp.log1p(-p),
        p * p / (1.0 + jnp.sqrt(1.0 - p)),
        p * p,
        jnp.sqrt(jnp.maximum(p, _CLAMP)),
    ]


def _logit_of(
    targets: Int[Array, "batch rows"],
    logits: Float[Array, "..."],
    top: Extremes,
    shard: VocabularyShard,
) -> Float[Array, "batch rows"]:
    """Returns the logit of each target, or of the argmax; the same on all devices."""
    axis = shard.dimension % logits.ndim
    place = targets - vocabulary.offset(logits, shard)
    there = (place >= 0) & (place < logits.shape[axis])
    logit = jnp.take_along_axis(
        logits, jnp.expand_dims(jnp.where(there, place, 0), axis), axis
    )
    logit: Array = jnp.squeeze(logit, axis)
    highest = top.top
    if shard.axis is not None:
        logit = vocabulary.added(jnp.where(there, logit, 0.0), shard)
        highest = jax.lax.pmax(highest, shard.axis)
    return jnp.where(targets < 0, highest, logit)


def _above(
    logits: Float[Array, "..."], wanted: Float[Array, "batch rows"], axis: int = 0
) -> Float[Array, "..."]:
    """Returns what a class adds to the target's rank: 1 if larger, 1/2 if equal.

    Sums of halves are exact in float32.
    """
    if logits.ndim > wanted.ndim:
        wanted = jnp.expand_dims(wanted, axis)
    equal = jnp.where(logits == wanted, 0.5, 0.0)
    return jnp.where(logits > wanted, 1.0, equal).astype(jnp.float32)


def _of_state(state: HeadState, found: Found | None = None) -> TokenSignals:
    """Returns the signals of the first pass."""
    renyi = states.renyi_profile(state)
    norm = 1.0 + state.total
    varentropy = jnp.maximum(
        state.second / norm - jnp.square(state.first / norm), jnp.zeros_like(norm)
    )
    gap = jnp.where(state.below > states.ABSENT, state.top - state.below, 0.0)
    if found is None:
        return TokenSignals(renyi, varentropy, gap, -renyi[..., -1])
    log_prob = (found.logit - state.top) - renyi[..., -1]
    return TokenSignals(renyi, varentropy, gap, log_prob, rank=found.rank)


def _modified(
    sums: Float[Array, "*rows 3"], state: HeadState
) -> Float[Array, "*rows 3"]:
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
