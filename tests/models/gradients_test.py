"""Programs that compute gradients: the same numbers, without loops on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vidsme_jax.models import attention, gradients, layers

_HIGHEST = jax.lax.Precision.HIGHEST


def _traced(function, *arguments):
    """Returns the program's text, never that of an earlier trace."""
    return str(jax.make_jaxpr(lambda *args: function(*args))(*arguments))


def _operands(inputs, outputs, dtype):
    rng = np.random.default_rng(0)
    shapes = (3, 5, inputs), (inputs, outputs), (3, 5, outputs)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 7), (7, 4)])
def test_a_product_and_its_gradients(inputs, outputs, dtype):
    x, kernel, of_out = _operands(inputs, outputs, dtype)
    precision = _HIGHEST if dtype == jnp.float32 else None
    out, back = jax.vjp(lambda x, y: gradients.product(x, y, precision), x, kernel)
    of_x, of_kernel = back(of_out)
    wide = [np.asarray(value, np.float64) for value in (x, kernel, of_out)]
    expected = (
        wide[0] @ wide[1],
        wide[2] @ wide[1].T,
        np.einsum("abi,abo->io", wide[0], wide[2]),
    )
    close = 1e-5 if dtype == jnp.float32 else 1e-2
    for found, right in zip((out, of_x, of_kernel), expected, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(found, np.float64), right, rtol=close, atol=close
        )


def test_the_smaller_operand_is_transposed():
    for inputs, outputs in ((4, 7), (7, 4)):
        x, kernel, of_out = _operands(inputs, outputs, jnp.float32)
        _, back = jax.vjp(lambda x, y: gradients.product(x, y, None), x, kernel)
        found = jax.make_jaxpr(lambda back, y: back(y)[1])(back, of_out).eqns
        (dot,) = [eqn for eqn in found if eqn.primitive.name == "dot_general"][-1:]
        left, _ = (variable.aval.shape for variable in dot.invars)
        assert left == (15, 4)


def test_a_dense_layer_on_a_cpu_takes_it(monkeypatch):
    seen = []

    def product(x, kernel, precision):
        seen.append((x.shape, kernel.shape, precision))
        return x @ kernel

    monkeypatch.setattr(gradients, "product", product)
    layer = layers.linear(4, 7, bias=True, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer(jnp.ones((2, 4)))
    assert seen == [((2, 4), (4, 7), _HIGHEST)]


@pytest.mark.parametrize("causal", [False, True])
def test_heads_side_by_side_attend_alike(causal):
    rng = np.random.default_rng(1)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 9, n, 8)), "f") for n in (4, 2, 2))
    lengths = None if causal else jnp.asarray([3, 9])

    def attend(q, k, v):
        return attention.attention(q, k, v, causal=causal, lengths=lengths)

    looped = _traced(attend, q, k, v)
    expected = attend(q, k, v)
    with gradients.wanted():
        plain = _traced(attend, q, k, v)
        np.testing.assert_allclose(attend(q, k, v), expected, rtol=1e-6, atol=1e-6)
    assert [text.count("scan[") for text in (looped, plain)] == [2, 1]


class _Layer(nnx.Module):
    def __init__(self, scale):
        self.scale = nnx.Param(scale)

    def __call__(self, x):
        return jnp.tanh(x * self.scale[...])


@pytest.mark.parametrize("remat", [False, True])
def test_layers_without_a_loop(remat):
    scales = jnp.asarray([0.3, -2.0, 1.5])
    x = jnp.linspace(-1, 1, 4)

    def last(scales, x):
        return layers.run_stack(_Layer(scales), x)

    expected = jax.grad(lambda s: last(s, x).sum())(scales)
    with gradients.wanted(remat=remat):
        found = jax.grad(lambda s: last(s, x).sum())(scales)
        text = _traced(last, scales, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert "unroll=3" in text and ("remat" in text or "checkpoint" in text) == remat
    assert "unroll=1" in _traced(last, scales, x)

    def added(scales, x):
        return layers.run_stack(_Layer(scales), x, after=(x,))

    with gradients.wanted(remat=remat):
        assert "unroll=2" in _traced(added, scales, x)
    assert not gradients.are_wanted() and not gradients.rematerialised()
