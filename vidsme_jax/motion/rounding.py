"""Sums and products of float32 with their rounding errors, as pairs of float32."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Parts = tuple[Array, ...]  # Value, rest, high half and low half of a number.


def add(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns the rounded sum and its exact error (Knuth's two-sum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def split(x: Array) -> tuple[Array, Array]:
    """Splits into halves with so few digits that their products are exact.

    Bits are masked, since the usual multiplication by 4097 fails where a compiler fuses
    it with the subtraction that follows.
    """
    bits = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000)
    high = lax.bitcast_convert_type(bits, jnp.float32)
    return high, x - high


def cross(a: Parts, b: Parts, c: Parts, d: Parts) -> Array:
    """Returns a b - c d of numbers that are (value, rest, high half, low half)."""

    def product(a: Parts, b: Parts) -> tuple[Array, Array]:
        value = a[0] * b[0]
        error = ((a[2] * b[2] - value) + a[2] * b[3] + a[3] * b[2]) + a[3] * b[3]
        return value, error + (a[0] * b[1] + a[1] * b[0])

    (ab, ab_rest), (cd, cd_rest) = product(a, b), product(c, d)
    value, error = add(ab, -cd)
    return value + (error + (ab_rest - cd_rest))
