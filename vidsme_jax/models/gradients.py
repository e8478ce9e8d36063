"""Differences of programs that compute gradients.

Such a program stores what each layer and each head computed. On a CPU, where other
programs loop over layers and heads, copying this into and out of the loop's arrays
takes longer than the loop saves: here all heads are in one product, and the loop over
layers is unrolled.
"""

import contextlib
import contextvars
import functools
from collections.abc import Generator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_wanted = contextvars.ContextVar("gradients_wanted", default=False)
_rematerialised = contextvars.ContextVar("gradients_rematerialised", default=False)

_Precision = jax.lax.Precision | None


@contextlib.contextmanager
def wanted(*, remat: bool = False) -> Generator[None, None, None]:
    """Makes traces within the context parts of a program that computes gradients.

    Args:
      remat: Whether stacks of layers store only their layers' inputs. The gradient then
        computes the rest of each layer a second time: a third more operations, for the
        memory of one layer in place of all.
    """
    tokens = _wanted.set(True), _rematerialised.set(remat)
    try:
        yield
    finally:
        for variable, token in zip((_wanted, _rematerialised), tokens, strict=True):
            variable.reset(token)


def rematerialised() -> bool:
    """Returns whether layers are computed a second time; see `wanted`."""
    return _rematerialised.get()


def are_wanted() -> bool:
    """Returns whether the current trace is within `wanted`."""
    return _wanted.get()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(
    x: Float[Array, "*rows inputs"],
    kernel: Float[Array, "inputs outputs"],
    precision: _Precision,
) -> Float[Array, "*rows outputs"]:
    """Returns a dense layer's product, in a form that is fast on a CPU.

    The product is in float32 and not fused with the operations that follow: XLA
    computes a float32 result of 16-bit operands twice as fast, and its fusions of a
    product with a cast or a bias are 10 to 45 % slower than the product alone. The
    result is cast to the type of `x`.
    """
    return _unfused(x, kernel, x.ndim - 1, 0, precision).astype(x.dtype)


def _forward(
    x: Array, kernel: Array, precision: _Precision
) -> tuple[Array, tuple[Array, Array]]:
    return product(x, kernel, precision), (x, kernel)


def _backward(
    precision: _Precision, operands: tuple[Array, Array], of_out: Array
) -> tuple[Array, Array]:
    """Returns the gradients of both operands.

    XLA transposes the left operand of a kernel's gradient element by element, together
    with all that is fused into it: the smaller operand is the left one.
    """
    x, kernel = operands
    of_x = _unfused(of_out, kernel, of_out.ndim - 1, 1, precision).astype(x.dtype)
    rows, of_rows = (value.reshape(-1, value.shape[-1]) for value in (x, of_out))
    if rows.shape[1] <= of_rows.shape[1]:
        of_kernel = _dot(rows, of_rows, 0, 0, precision)
    else:
        of_kernel = _dot(of_rows, rows, 0, 0, precision).T
    return of_x, of_kernel.astype(kernel.dtype)


product.defvjp(_forward, _backward)


def _unfused(x: Array, y: Array, axis: int, other: int, precision: _Precision) -> Array:
    """Returns a product that XLA does not fuse with the operations that follow."""
    return jax.lax.optimization_barrier(_dot(x, y, axis, other, precision))


def _dot(x: Array, y: Array, axis: int, other: int, precision: _Precision) -> Array:
    """Contracts `axis` of `x` with `other` of `y`, to float32."""
    return jax.lax.dot_general(
        x,
        y,
        (((axis,), (other,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )
