r"""The streaming head: hidden states and head weights to `TokenSignals`, never logits.

Axes: `batch` (clips x directions), `rows` (video tokens), `embed`, `vocab`, `orders`.

The vocabulary is scanned in blocks. Per row the state holds the maximum logit m, the
next value below it, and sums over every class *except the argmax* of functions of
$y_v = x_v - m$ [1]. With $A = \sum e^y$ and so on,

$$H_1 = \log(1+A) - \frac{\sum y e^y}{1+A}, \qquad
  H_q = \log(1+A) - \frac{1}{q-1} \log\Big(1 +
        \frac{\sum e^y (e^{(q-1) y} - 1)}{1+A}\Big),$$

$H_{1/2} = 2\log(1 + \sum e^{y/2}) - \log(1+A)$ and $H_\infty = \log(1+A)$. For q >= 1
all terms of H have one sign, so peaked distributions and q near 1 lose no digits.
`merge` joins the states of two disjoint sets of classes and is associative: the same
function serves blocks and the shards of a vocabulary that is split over devices
(`Classes`): a device sends the few sums of a row, never its logits.

What is not a function of these sums needs the normalised probabilities and takes a
second pass (`second_pass`), run only when a chosen score asks for it: the modified
entropies, the release's clamped Renyi-1/2, and the profile of the mean distribution.

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
_SHARE, _SMALLEST = 128, 128  # See `block_size`.
_COPIES = 3  # Arrays of a block's size that exist at the same time.


@dataclasses.dataclass(frozen=True)
class Classes:
    """Which classes a head's rows stand for, and how many are taken at once.

    Attributes:
      count: Of the whole vocabulary; rows beyond it are padding. None takes all rows.
      axis: The mesh axis over which the vocabulary is split, in the order of its
        devices, inside a `shard_map`.
      memory: Bytes that a block of logits may take; see `block_size`.
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
    return HeadState(
        top=top,
        winner=column + offset,
        below=jnp.max(lower, axis=-1),
        total=total(exp),
        first=total(y * exp),
        second=total(y * y * exp),
        half=total(jnp.exp(0.5 * y)),
        powers=jnp.stack([total(exp * jnp.expm1(t * y)) / t for t in _POWERS], axis=-1),
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
    hidden: Float[Array, "*rows embed"],
    head: Float[Array, "vocab embed"],
    classes: Classes = _WHOLE,
) -> HeadState:
    """Scans the vocabulary once."""

    def step(state: HeadState, block):
        return merge(state, block_state(*block))

    state = _scan(step, _empty(hidden.shape[:-1]), hidden, head, classes)
    return _merge_shards(state, classes)


def second_pass(
    hidden: Float[Array, "batch rows embed"],
    head: Float[Array, "vocab embed"],
    state: HeadState,
    masks: Bool[Array, "batch means rows"],
    classes: Classes = _WHOLE,
) -> tuple[
    Float[Array, "batch rows 3"],
    Float[Array, "batch rows"],
    Float[Array, "batch means 15"],
]:
    """Scans the vocabulary again with the normalised probabilities.

    Args:
      hidden: As in `first_pass`.
      head: As in `first_pass`.
      state: What `first_pass` returned.
      masks: The rows that count in each mean distribution.
      classes: What `head` holds of the vocabulary.

    Returns:
      The modified entropies (Shannon-like, 1/2, 2) with the argmax as target, the
      Renyi-1/2 of the probabilities clamped at 1e-10, and the Renyi profile of each
      mean distribution over rows.
    """
    log_norm = state.top + jnp.log1p(state.total)
    counted = masks.astype(jnp.float32)
    weights = counted / jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1.0)

    def step(carry, block):
        sums, mean = carry
        logits, offset, valid = block
        there = jnp.broadcast_to(valid, logits.shape)
        p = jnp.where(there, jnp.exp(logits - log_norm[..., None]), 0.0)
        is_target = offset + _columns(logits) == state.winner[..., None]
        rest = jnp.where(is_target, 0.0, p)
        log_rest = jnp.log1p(-rest)
        total = functools.partial(_sum, there)
        sums = sums + jnp.stack(
            [
                total(-rest * log_rest),
                total(rest * -jnp.expm1(0.5 * log_rest)),
                total(rest * rest),
                total(jnp.sqrt(jnp.maximum(p, _CLAMP))),
            ],
            axis=-1,
        )
        # A mean of probabilities; as logits its logarithms are normalised already.
        average = jnp.einsum("btv,bmt->bmv", p, weights, precision="highest")
        log_average = jnp.log(jnp.maximum(average, 1e-37))
        return sums, merge(mean, block_state(log_average, offset, valid))

    zeros = jnp.zeros((*hidden.shape[:-1], 4), jnp.float32)
    empty = _empty(masks.shape[:2])
    sums, mean = _scan(step, (zeros, empty), hidden, head, classes)
    mean = _merge_shards(mean, classes)
    if classes.axis is not None:
        sums = jax.lax.psum(sums, classes.axis)
    modified = _modified(sums[..., :3], state)
    return modified, 2.0 * jnp.log(sums[..., 3]), renyi_profile(mean)


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
    state = first_pass(hidden, head, classes)
    renyi = renyi_profile(state)
    norm = 1.0 + state.total
    varentropy = jnp.maximum(
        state.second / norm - jnp.square(state.first / norm), jnp.zeros_like(norm)
    )
    gap = jnp.where(jnp.isfinite(state.below), state.top - state.below, 0.0)
    signals = TokenSignals(renyi, varentropy, gap, -renyi[..., -1])
    if not second:
        return signals
    modified, clamped, mean = second_pass(hidden, head, state, masks, classes)
    return signals._replace(
        modified=modified, renyi_half_clamped=clamped, mean_renyi=mean
    )


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


def block_size(rows: int, vocab: int, embed: int, memory: int | None = None) -> int:
    """Returns how many classes to take at once, a power of two (or all of a few).

    A block of float32 logits, with the weights behind it and their copy, stays near a
    128th of the bytes that all logits would take (on a CPU some 16 temporaries of its
    size come on top); or, where `memory` says so, near that many bytes with the
    temporaries. More than an eighth of the vocabulary at once gains nothing.
    """
    if memory is None:
        fitting = rows * vocab // (_SHARE * (rows + 2 * embed))
    else:
        fitting = min(memory // (4 * (_COPIES * rows + embed)), vocab // 8)
    return min(vocab, 1 << (max(fitting, _SMALLEST).bit_length() - 1))


def _scan(step, state, hidden, head, classes: Classes):
    """Folds `step(state, (logits, offset, valid))` over blocks of the vocabulary."""
    vocab = head.shape[0]
    size = block_size(hidden[..., 0].size, vocab, head.shape[1], classes.memory)
    count = vocab if classes.count is None else classes.count
    zero = jnp.zeros((), jnp.int32)
    first = zero if classes.axis is None else jax.lax.axis_index(classes.axis) * vocab

    def body(carry, start: Int[Array, ""]):
        # The last block is moved back to end with the vocabulary; `valid` leaves out
        # what the block before has counted, and padding.
        begin = jnp.minimum(start, vocab - size)
        block = jax.lax.dynamic_slice_in_dim(head, begin, size)
        logits = jnp.einsum(
            "...d,vd->...v",
            hidden,
            block,
            precision="highest" if head.dtype == jnp.float32 else None,
            preferred_element_type=jnp.float32,
        )
        here = begin + jnp.arange(size, dtype=jnp.int32)
        valid = (here >= start) & (first + here < count)
        return step(carry, (logits, first + begin, valid)), None

    starts = jnp.arange(0, vocab, size, dtype=jnp.int32)
    return jax.lax.scan(body, state, starts)[0]


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
