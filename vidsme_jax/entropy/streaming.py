r"""The streaming head: hidden states to `TokenSignals`, with the logits of a few rows.

Axes: `batch` (clips x directions), `rows` (video tokens), `embed`, `vocab`, `orders`.

A few rows at a time (`rows_at_once`) are multiplied with the output layer, and their
logits are scanned in blocks of the vocabulary. Per row the state holds the maximum
logit m, the next value below it, and sums over every class *except the argmax* of
functions of $y_v = x_v - m$ [1]. With $A = \sum e^y$ and so on,

$$H_1 = \log(1+A) - \frac{\sum y e^y}{1+A}, \qquad
  H_q = \log(1+A) - \frac{1}{q-1} \log\Big(1 +
        \frac{\sum e^y (e^{(q-1) y} - 1)}{1+A}\Big),$$

$H_{1/2} = 2\log(1 + \sum e^{y/2}) - \log(1+A)$ and $H_\infty = \log(1+A)$. For q >= 1
all terms of H have one sign, so peaked distributions and q near 1 lose no digits.
`merge` joins the states of two disjoint sets of classes and is associative: the same
function serves blocks and the shards of a vocabulary that is split over devices
(`Classes`): a device sends the few sums of a row, never its logits.

What is not a function of these sums needs the normalised probabilities and takes a
second pass over the same logits (`second_pass`), run only when a chosen score asks for
it: the modified entropies, the release's clamped Renyi-1/2, and the profile of the mean
distribution.

[1] The same max-shift as in the online softmax of Milakov and Gimelshein, 2018,
    https://arxiv.org/abs/1805.02867, here with the maximal class kept out of the sums.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vidsme_jax.base import NODES, TokenSignals

_POWERS = tuple(node - 1.0 for node in NODES[1:])  # q - 1 at the nodes above Shannon.
_VOID = -200.0  # y of a class that is not there: e^y = y e^y = 0 in float32.
_LAST = 2**31 - 1  # Beyond every class.
_CLAMP = 1e-10  # The release's lower bound of a probability.
_NEAR_SHANNON = 0.2  # Up to this q - 1 a power sum is taken with expm1.
# Rows whose logits exist at the same time: on a CPU, and at most on a device.
_FEW_ROWS, _MOST_ROWS = 128, 1024
# Numbers in a block of logits: on a CPU (the best of 2^14 to 2^20), on a device (enough
# that starting a kernel costs little; not measured yet).
_SMALL_BLOCK, _LARGE_BLOCK = 2**18, 2**25
_SMALLEST = 128  # Classes of a block.


@dataclasses.dataclass(frozen=True)
class Classes:
    """Which classes a head's rows stand for, and the memory for their logits.

    Attributes:
      count: Of the whole vocabulary; rows beyond it are padding. None takes all rows.
      axis: The mesh axis over which the vocabulary is split, in the order of its
        devices, inside a `shard_map`.
      memory: Bytes that logits may take on a device, None for a CPU's default.
    """

    count: int | None = None
    axis: str | None = None
    memory: int | None = None


_WHOLE = Classes()


class HeadState(NamedTuple):
    """Sums over a set of classes but its argmax; every leaf float32 (winner int32)."""

    top: Float[Array, "*rows"]  # The largest logit, m.
    winner: Int[Array, "*rows"]  # Its class (the first on ties).
    below: Float[Array, "*rows"]  # The largest logit less than m, -inf if none.
    total: Float[Array, "*rows"]  # sum e^y
    first: Float[Array, "*rows"]  # sum y e^y
    second: Float[Array, "*rows"]  # sum y^2 e^y
    half: Float[Array, "*rows"]  # sum e^(y/2)
    powers: Float[Array, "*rows 12"]  # sum e^y expm1((q-1) y) / (q-1)


def block_state(
    logits: Float[Array, "*rows block"],
    offset: Int[Array, ""],
    valid: Bool[Array, " block"],
) -> HeadState:
    """Returns the state of one block of classes.

    Args:
      logits: Float32.
      offset: The class of the block's first column.
      valid: False for columns to leave out (those of a previous block).
    """
    columns = _columns(logits)
    valid = jnp.broadcast_to(valid, logits.shape)
    logits = jnp.where(valid, logits, -jnp.inf)
    top = jnp.max(logits, axis=-1)
    # The first of the largest: two plain reductions cost less than an argmax.
    column = jnp.min(jnp.where(logits == top[..., None], columns, _LAST), axis=-1)
    others = (columns != column[..., None]) & valid
    y = jnp.maximum(jnp.where(others, logits - top[..., None], _VOID), _VOID)
    lower = jnp.where(logits < top[..., None], logits, -jnp.inf)
    exp = jnp.exp(y)
    total = functools.partial(_sum, y > _VOID)
    mass = total(exp)

    def power(t: float):
        if t <= _NEAR_SHANNON:
            return total(exp * jnp.expm1(t * y)) / t
        return (total(jnp.exp((1.0 + t) * y)) - mass) / t  # Cheaper, and exact enough.

    return HeadState(
        top=top,
        winner=column + offset,
        below=jnp.max(lower, axis=-1),
        total=mass,
        first=total(y * exp),
        second=total(y * y * exp),
        half=total(jnp.exp(0.5 * y)),
        powers=jnp.stack([power(t) for t in _POWERS], axis=-1),
    )


def _sum(there: Array, values: Array) -> Array:
    """Sums over classes, leaving some out.

    XLA's CPU compiler is several times slower at the sum of a bare product.
    """
    return jnp.sum(jnp.where(there, values, 0.0), axis=-1)


def merge(a: HeadState, b: HeadState) -> HeadState:
    """Joins the states of two disjoint sets of classes; associative.

    On equal maxima the argmax is that of `a`.
    """
    swap = b.top > a.top
    hi, lo = (
        jax.tree.map(lambda x, y: jnp.where(_like(swap, x), x, y), first, second)
        for first, second in ((b, a), (a, b))
    )
    d = jnp.where(jnp.isfinite(lo.top), lo.top - hi.top, _VOID)
    scale, mass = jnp.exp(d), lo.total + 1.0
    powers = _powers(d)
    shift = jnp.expm1(d[..., None] * powers) / powers
    lo_powers = (1.0 + powers * shift) * lo.powers + shift * mass[..., None]
    return HeadState(
        top=hi.top,
        winner=hi.winner,
        below=jnp.maximum(hi.below, jnp.where(d == 0.0, lo.below, lo.top)),
        total=hi.total + scale * mass,
        first=hi.first + scale * (lo.first + d * mass),
        second=hi.second + scale * (lo.second + 2.0 * d * lo.first + d * d * mass),
        half=hi.half + jnp.exp(0.5 * d) * (lo.half + 1.0),
        powers=hi.powers + scale[..., None] * lo_powers,
    )


def renyi_profile(state: HeadState) -> Float[Array, "*rows 15"]:
    """Returns the Renyi entropies at `base.PROFILE_ORDERS`, in nats."""
    log_total = jnp.log1p(state.total)
    norm = 1.0 + state.total
    shannon = log_total - state.first / norm
    powers = _powers(norm)
    tail = jnp.log1p(powers * state.powers / norm[..., None]) / powers
    half = 2.0 * jnp.log1p(state.half) - log_total
    low = jnp.stack([half, shannon], axis=-1)
    return jnp.concatenate(
        [low, log_total[..., None] - tail, log_total[..., None]], axis=-1
    )


def first_pass(
    logits: Float[Array, "*rows vocab"], classes: Classes = _WHOLE
) -> HeadState:
    """Scans the logits of a few rows once, over all devices' classes.

    Args:
      logits: Float32, of the classes that this device has.
      classes: Which these are.
    """
    rows = logits.shape[:-1]

    def step(state: HeadState, block):
        return merge(state, block_state(*block))

    state = _scan(step, _empty(rows), logits, classes)
    return _merge_shards(state, classes)


def second_pass(
    logits: Float[Array, "batch rows vocab"],
    state: HeadState,
    weights: Float[Array, "batch means rows"],
    average: Float[Array, "batch means vocab"],
    classes: Classes = _WHOLE,
) -> tuple[
    Float[Array, "batch rows 3"],
    Float[Array, "batch rows"],
    Float[Array, "batch means vocab"],
]:
    """Scans the same logits again with the normalised probabilities.

    Args:
      logits: As in `first_pass`.
      state: What `first_pass` returned.
      weights: Of the rows in each mean distribution.
      average: What earlier rows gave to the mean distributions.
      classes: As in `first_pass`.

    Returns:
      The modified entropies (Shannon-like, 1/2, 2) with the argmax as target, the
      Renyi-1/2 of the probabilities clamped at 1e-10, and `average` with these rows.
    """
    log_norm = state.top + jnp.log1p(state.total)

    def step(carry, block):
        sums, average = carry
        logits, offset, valid = block
        there = jnp.broadcast_to(valid, logits.shape)
        p = jnp.where(there, jnp.exp(logits - log_norm[..., None]), 0.0)
        is_target = offset + _columns(logits) == state.winner[..., None]
        rest = jnp.where(is_target, 0.0, p)
        total = functools.partial(_sum, there)
        sums = sums + jnp.stack(
            [
                total(-rest * jnp.log1p(-rest)),
                total(rest * rest / (1.0 + jnp.sqrt(1.0 - rest))),
                total(rest * rest),
                total(jnp.sqrt(jnp.maximum(p, _CLAMP))),
            ],
            axis=-1,
        )
        here = jnp.einsum("btv,bmt->bmv", p, weights, precision="highest")
        begin = offset - _offset(average, classes)
        here = here + _block(average, begin, logits.shape[-1])
        return sums, jax.lax.dynamic_update_slice_in_dim(average, here, begin, -1)

    zeros = jnp.zeros((*logits.shape[:-1], 4), jnp.float32)
    sums, average = _scan(step, (zeros, average), logits, classes)
    if classes.axis is not None:
        sums = jax.lax.psum(sums, classes.axis)
    return _modified(sums[..., :3], state), 2.0 * jnp.log(sums[..., 3]), average


def token_signals(
    hidden: Float[Array, "batch rows embed"],
    head: Float[Array, "vocab embed"],
    masks: Bool[Array, "batch means rows"],
    *,
    second: bool,
    classes: Classes = _WHOLE,
) -> TokenSignals:
    """Returns everything the model reveals about the rows; see `base.TokenSignals`.

    Args:
      hidden: After the decoder's last norm.
      head: The weights of the output layer, one row a class.
      masks: The rows that count in each mean distribution; the signals of padding rows
        mean nothing.
      second: Whether to run the second pass.
      classes: What `head` holds of the vocabulary.
    """
    batch, rows, _ = hidden.shape
    counted = masks.astype(jnp.float32)
    weights = counted / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1.0)
    size = min(rows, max(1, rows_at_once(head.shape[0], classes.memory) // batch))
    count = -(-rows // size)
    size = -(-rows // count)
    fill = [(0, 0), (0, count * size - rows), (0, 0)]

    def split(x):
        padded = jnp.pad(x, fill).reshape(batch, count, size, -1)
        return padded.swapaxes(0, 1)

    def step(average, chunk):
        hidden, weights = chunk
        logits = jnp.einsum(
            "btd,vd->btv",
            hidden,
            head,
            precision="highest" if head.dtype == jnp.float32 else None,
            preferred_element_type=jnp.float32,
        )
        state = first_pass(logits, classes)
        signals = _of_state(state)
        if second:
            modified, clamped, average = second_pass(
                logits, state, weights.swapaxes(1, 2), average, classes
            )
            signals = signals._replace(modified=modified, renyi_half_clamped=clamped)
        return average, signals

    average = jnp.zeros((*masks.shape[:2], second * head.shape[0]), jnp.float32)
    chunks = (split(hidden), split(weights.swapaxes(1, 2)))
    average, signals = jax.lax.scan(step, average, chunks)
    signals = jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(batch, count * size, *x.shape[3:])[:, :rows],
        signals,
    )
    if not second:
        return signals
    # A mean of probabilities; as logits its logarithms are normalised already.
    mean = first_pass(jnp.log(jnp.maximum(average, 1e-37)), classes)
    return signals._replace(mean_renyi=renyi_profile(mean))


def _of_state(state: HeadState) -> TokenSignals:
    """What the first pass gives."""
    renyi = renyi_profile(state)
    norm = 1.0 + state.total
    varentropy = jnp.maximum(
        state.second / norm - jnp.square(state.first / norm), jnp.zeros_like(norm)
    )
    gap = jnp.where(jnp.isfinite(state.below), state.top - state.below, 0.0)
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


def rows_at_once(vocab: int, memory: int | None = None) -> int:
    """Returns of how many rows the logits exist at the same time.

    Enough that reading the output layer anew for each group of rows costs less than
    multiplying with it: on a CPU 128, on a device 1024 where half of `memory` holds
    their logits.
    """
    if memory is None:
        return _FEW_ROWS
    return min(max(memory // (2 * 4 * vocab), 1), _MOST_ROWS)


def block_size(rows: int, vocab: int, memory: int | None = None) -> int:
    """Returns how many classes to scan at once, a power of two (or all of a few).

    A block and each of its temporaries (some 16 on a CPU) take 1 MiB there; on a
    device 128 MiB, or a 32nd of `memory` if that is less.
    """
    numbers = _SMALL_BLOCK if memory is None else min(memory // 128, _LARGE_BLOCK)
    return min(vocab, 1 << (max(numbers // rows, _SMALLEST).bit_length() - 1))


def _scan(step, state, logits, classes: Classes):
    """Folds `step(state, (logits, offset, valid))` over blocks of the vocabulary."""
    vocab = logits.shape[-1]
    size = block_size(logits[..., 0].size, vocab, classes.memory)
    count = vocab if classes.count is None else classes.count
    first = _offset(logits, classes)

    def body(carry, start: Int[Array, ""]):
        # The last block is moved back to end with the vocabulary; `valid` leaves out
        # what the block before has counted, and padding.
        begin = jnp.minimum(start, vocab - size)
        here = begin + jnp.arange(size, dtype=jnp.int32)
        valid = (here >= start) & (first + here < count)
        block = _block(logits, begin, size)
        return step(carry, (block, first + begin, valid)), None

    starts = jnp.arange(0, vocab, size, dtype=jnp.int32)
    return jax.lax.scan(body, state, starts)[0]


def _block(x: Array, begin: Int[Array, ""], size: int):
    """Some columns."""
    return jax.lax.dynamic_slice_in_dim(x, begin, size, axis=-1)


def _offset(x: Array, classes: Classes) -> Int[Array, ""]:
    """The class of the first column that this device has."""
    if classes.axis is None:
        return jnp.zeros((), jnp.int32)
    return jax.lax.axis_index(classes.axis) * x.shape[-1]


def _merge_shards(state: HeadState, classes: Classes) -> HeadState:
    """Joins the states of all devices along the axis, the same on each of them."""
    if classes.axis is None:
        return state
    parts = jax.lax.all_gather(state, classes.axis)
    shards = (HeadState(*one) for one in zip(*parts, strict=True))
    return functools.reduce(merge, shards)


def _empty(shape: tuple[int, ...]) -> HeadState:
    """The state of no class: merging it with another gives the other."""
    void = jnp.full(shape, -jnp.inf, jnp.float32)
    zero = jnp.zeros(shape, jnp.float32)
    return HeadState(
        top=void,
        winner=jnp.zeros(shape, jnp.int32),
        below=void,
        total=zero - 1.0,  # Its argmax is not there either: A + 1 = 0.
        first=zero,
        second=zero,
        half=zero - 1.0,
        powers=jnp.zeros((*shape, len(_POWERS)), jnp.float32),
    )


def _columns(x):
    """The index of each column, in the shape of `x`."""
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def _powers(x):
    """The 12 values q - 1 above Shannon, as a trailing axis beside those of `x`."""
    return jnp.asarray(_POWERS, jnp.float32).reshape((1,) * x.ndim + (-1,))


def _like(flag, x):
    return flag.reshape(flag.shape + (1,) * (x.ndim - flag.ndim))
