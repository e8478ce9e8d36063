"""The small parts that every backbone is made of, and stacks of layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from vidsme_jax import parallel


def linear(
    inputs: int, outputs: int, *, bias: bool, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    """A dense layer; in float32 its product is taken at full precision."""
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        dtype=dtype,
        param_dtype=dtype,
        precision=precision,
        dot_general=_dot_general,
        rngs=rngs,
    )


def _dot_general(lhs, rhs, dimensions, *, precision, out_sharding=None):
    """A product in the operands' type, accumulated in float32.

    On a CPU it leaves the product in float32: of 16-bit operands XLA's compiler takes
    that twice as fast as one that it is to round itself.
    """
    wide = jnp.float32 if parallel.platform() == "cpu" else None
    out = jax.lax.dot_general(
        lhs,
        rhs,
        dimensions,
        precision=precision,
        preferred_element_type=wide,
        out_sharding=out_sharding,
    )
    return out.astype(lhs.dtype)


class RmsNorm(nnx.Module):
    """Root-mean-square norm; the scale multiplies after the cast, as in transformers.

    Zhang and Sennrich, 2019. https://arxiv.org/abs/1910.07467
    """

    def __init__(self, size: int, *, eps: float, dtype: DTypeLike):
        self.weight = nnx.Param(jnp.ones((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        wide = x.astype(jnp.float32)
        variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = (wide * jax.lax.rsqrt(variance + self.eps)).astype(x.dtype)
        return _along(self.weight[...], x) * normed


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias, statistics in float32."""

    def __init__(self, size: int, *, eps: float, dtype: DTypeLike):
        self.weight = nnx.Param(jnp.ones((size,), dtype))
        self.bias = nnx.Param(jnp.zeros((size,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.eps)
        weight, bias = (
            _along(p[...], x).astype(jnp.float32) for p in (self.weight, self.bias)
        )
        return (normed * weight + bias).astype(x.dtype)


class Embedding(nnx.Module):
    """A table with one row a token; also the shape of an output head."""

    def __init__(self, vocab: int, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        scale = jax.random.normal(rngs.params(), (vocab, size), jnp.float32) * 0.02
        self.weight = nnx.Param(scale.astype(dtype))

    def __call__(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch size"]:
        return jnp.take(self.weight[...], tokens, axis=0)


class Projector(nnx.Module):
    """Linear, erf GELU, linear: from the tower's features to the decoder's."""

    def __init__(self, inputs: int, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.linear_1 = linear(inputs, size, bias=True, dtype=dtype, rngs=rngs)
        self.linear_2 = linear(size, size, bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch size"]:
        return self.linear_2(jax.nn.gelu(self.linear_1(x), approximate=False))


def stack(make: Callable[[nnx.Rngs], Any], depth: int, rngs: nnx.Rngs) -> Any:
    """Makes `depth` equal layers as one module whose parameters have a leading axis."""
    return nnx.vmap(make, in_axes=(0,), out_axes=0)(rngs.split(depth))


def run_stack(layers: Any, x: Array, *args: Any) -> Array:
    """Applies stacked layers one after another; `args` go to each of them."""
    graphdef, state = nnx.split(layers)

    def step(x, layer):
        return nnx.merge(graphdef, layer)(x, *args), None

    return jax.lax.scan(step, x, state)[0]


def _along(parameter, x):
    """Gives a parameter of the last axis the rank of `x`."""
    return parameter.reshape((1,) * (x.ndim - 1) + parameter.shape)
