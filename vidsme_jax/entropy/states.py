r"""Sums over the classes of a row from which its entropies follow, and their merging.

Per row the state holds the maximum logit m, the next value below it, and sums over
every class *except the argmax* of functions of $y_v = x_v - m$. With $A = \sum e^y$ and
so on,

$$H_1 = \log(1+A) - \frac{\sum y e^y}{1+A}, \qquad
  H_q = \log(1+A) - \frac{1}{q-1} \log\Big(1 +
        \frac{\sum e^y (e^{(q-1) y} - 1)}{1+A}\Big),$$

$H_{1/2} = 2\log(1 + \sum e^{y/2}) - \log(1+A)$ and $H_\infty = \log(1+A)$. For q >= 1
all terms of H have one sign, so peaked distributions and q near 1 lose no digits.
`merge` joins the states of two disjoint sets of classes and is associative.
"""

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidsme_jax.base import NODES

# The logit of a class that is not there. Finite, so that no difference is a NaN; e^y of
# it, and every product of that with a power of y, is 0 in float32.
ABSENT = -1e30
_POWERS = tuple(node - 1.0 for node in NODES[1:])  # q - 1 at the nodes above Shannon.
_NEAR_SHANNON = 0.2  # Up to this q - 1 a power sum is taken with expm1.
_FARTHEST = -200.0  # e^d and d^2 e^d of any lower difference of maxima are 0 as well.
_LAST = 2**31 - 1  # Beyond every class.


class Extremes(NamedTuple):
    """The largest logits of a set of classes."""

    top: Float[Array, "*rows"]  # The largest logit, m.
    winner: Int[Array, "*rows"]  # Its class (the first on ties).
    below: Float[Array, "*rows"]  # The largest logit less than m, -inf if none.


class HeadState(NamedTuple):
    """Sums over a set of classes but its argmax; every leaf float32 (winner int32)."""

    top: Float[Array, "*rows"]  # As in `Extremes`, and the next two.
    winner: Int[Array, "*rows"]
    below: Float[Array, "*rows"]
    total: Float[Array, "*rows"]  # sum e^y
    first: Float[Array, "*rows"]  # sum y e^y
    second: Float[Array, "*rows"]  # sum y^2 e^y
    half: Float[Array, "*rows"]  # sum e^(y/2)
    powers: Float[Array, "*rows 12"]  # sum e^y expm1((q-1) y) / (q-1)


def extremes(logits: Float[Array, "..."], axis: int) -> Extremes:
    """Returns the largest logits along `axis`; along the last in one reduction."""
    columns = jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis % logits.ndim)
    if axis == -1:
        values = (logits, columns, jnp.full_like(logits, -jnp.inf))
        void = (jnp.float32(-jnp.inf), jnp.int32(_LAST), jnp.float32(-jnp.inf))

        def join(a: Sequence[Array], b: Sequence[Array]) -> tuple[Array, ...]:
            return tuple(higher(Extremes(*a), Extremes(*b)))

        found: Any = jax.lax.reduce(values, void, join, (logits.ndim - 1,))
        return Extremes(*found)
    top = jnp.max(logits, axis, keepdims=True)
    winner = jnp.min(jnp.where(logits == top, columns, _LAST), axis)
    below = jnp.max(jnp.where(logits == top, -jnp.inf, logits), axis)
    return Extremes(jnp.squeeze(top, axis), winner, below)


def higher(a: Extremes, b: Extremes) -> Extremes:
    """Joins the largest logits of two sets of classes, which may overlap."""
    first = (a.top > b.top) | ((a.top == b.top) & (a.winner < b.winner))
    lower = jnp.where(a.top == b.top, -jnp.inf, jnp.minimum(a.top, b.top))
    return Extremes(
        top=jnp.maximum(a.top, b.top),
        winner=jnp.where(first, a.winner, b.winner),
        below=jnp.maximum(jnp.maximum(a.below, b.below), lower),
    )


def sums(
    y: Float[Array, "..."], axis: int, *further: Float[Array, "..."]
) -> tuple[Float[Array, "*rows"], ...]:
    """Returns the sums of a state along `axis`, as `of_sums` takes them.

    Args:
      y: Logits less the row's largest; of the argmax itself `ABSENT` or about it.
      axis: Of the classes.
      *further: Terms whose sums are returned after those of the state.
    """
    exp = jnp.exp(y)
    terms = [exp, y * exp, y * (y * exp), jnp.exp(0.5 * y)]
    for t in _POWERS:
        # The exponential of the second form is cheaper, and exact enough.
        near = t <= _NEAR_SHANNON
        terms.append(exp * jnp.expm1(t * y) if near else jnp.exp((1.0 + t) * y))
    return total([*terms, *further], axis)


def total(terms: list[Array], axis: int) -> tuple[Array, ...]:
    """Sums several arrays along `axis`.

    Where that is counted from the last, as for an accelerator, in one reduction: its
    compiler makes one kernel of it, which computes the terms from what it reads and
    writes none of them to memory.
    """
    if axis >= 0:
        return tuple(jnp.sum(term, axis) for term in terms)
    zeros = (jnp.float32(0.0),) * len(terms)

    def add(a: Sequence[Array], b: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    found: Any = jax.lax.reduce(tuple(terms), zeros, add, (terms[0].ndim + axis,))
    return tuple(found)


def of_sums(extremes: Extremes, sums: tuple[Float[Array, "*rows"], ...]) -> HeadState:
    """Builds a state from the extremes and the sums."""
    mass, first, second, half, *powers = sums
    powers = [
        (x if t <= _NEAR_SHANNON else x - mass) / t
        for t, x in zip(_POWERS, powers, strict=True)
    ]
    return HeadState(*extremes, mass, first, second, half, jnp.stack(powers, axis=-1))


def merge(a: HeadState, b: HeadState) -> HeadState:
    """Joins the states of two disjoint sets of classes; associative.

    On equal maxima the argmax is that of `a`.
    """
    swap = b.top > a.top

    def choose(x: Array, y: Array) -> Array:
        return jnp.where(_like(swap, x), x, y)

    hi, lo = (jax.tree.map(choose, *pair) for pair in ((b, a), (a, b)))
    d = jnp.maximum(lo.top - hi.top, _FARTHEST)
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


def _powers(x: Array) -> Array:
    """Returns the 12 values q - 1 above Shannon, on an axis after those of `x`."""
    return jnp.asarray(_POWERS, jnp.float32).reshape((1,) * x.ndim + (-1,))


def _like(flag: Array, x: Array) -> Array:
    return flag.reshape(flag.shape + (1,) * (x.ndim - flag.ndim))
