"""How many operations a second a device can do: what is known, or measured."""

import time

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def matrix_rate(dtype: DTypeLike, *, size: int, repeats: int = 5) -> float:
    """Measures operations per second of a large matrix product on the first device.

    Operands are random: zeros and ones draw less power, and a GPU is faster on them. On
    a CPU the result is in float32, which is faster of 16-bit operands.
    """
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    precision = "highest" if jnp.dtype(dtype) == jnp.float32 else None
    wide = jnp.float32 if jax.default_backend() == "cpu" else None
    multiply = jax.jit(
        lambda a: jnp.dot(a, a, precision=precision, preferred_element_type=wide)
    )
    multiply(a).block_until_ready()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / sorted(times)[len(times) // 2]
