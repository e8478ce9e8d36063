"""The attention adapter against the textbook form, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType

from vidsme_jax.models import attention as kernels
from vidsme_jax.models.attention import attention, chunked, splash


def _plain(q, k, v, causal, lengths=None):
    groups = q.shape[2] // k.shape[2]
    k, v = (np.repeat(x, groups, axis=2) for x in (k, v))
    scores = np.einsum("bqhd,bshd->bhqs", q, k) * q.shape[-1] ** -0.5
    if causal:
        keep = np.tril(np.ones(scores.shape[-2:], bool))
        scores = np.where(keep, scores, -np.inf)
    if lengths is not None:
        keep = np.arange(k.shape[1]) < np.asarray(lengths)[:, None]
        scores = np.where(keep[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqs,bshd->bqhd", weights, v)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [1, 37, 257, 700])
def test_equals_the_textbook(tokens, causal, kv_heads):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2 if tokens < 1000 else 1, tokens, 4, 8))
    k, v = (rng.normal(size=(*q.shape[:2], kv_heads, 8)) for _ in range(2))
    expected = _plain(q, k, v, causal)
    arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    actual = jax.jit(lambda *x: attention(*x, causal=causal))(*arrays)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_bfloat16_keeps_its_softmax_in_float32():
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, 300, 4, 16)) for _ in range(3))
    expected = _plain(q, k, v, True)
    arrays = (jnp.asarray(x, jnp.bfloat16) for x in (q, k, v))
    actual = np.asarray(attention(*arrays, causal=True), np.float32)
    assert np.abs(actual - expected).max() < 0.03


@pytest.mark.parametrize("causal", [True, False])
def test_memory_is_far_below_the_whole_matrix(causal):
    tokens, heads = 4096, 8
    shape = jax.ShapeDtypeStruct((1, tokens, heads, 16), jnp.float32)
    compiled = jax.jit(lambda *x: attention(*x, causal=causal)).lower(*[shape] * 3)
    temporary = compiled.compile().memory_analysis().temp_size_in_bytes
    assert temporary < tokens * tokens * heads * 4 / 4


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)]
)
def test_the_tpu_kernel_equals_the_plain_form(dtype, tolerance, causal, monkeypatch):
    """Interpreted: three blocks, the last not full; grouped heads, an odd head size."""
    monkeypatch.setattr(kernels, "_BLOCK", 128)
    rng = np.random.default_rng(2)
    shapes = [(1, 300, heads, 72) for heads in (2, 1, 1)]
    q, k, v = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    expected = chunked(q, k, v, causal=causal)
    with jax.default_matmul_precision("float32"), pltpu.force_tpu_interpret_mode():
        actual = splash(q, k, v, causal=causal)
    assert actual.dtype == dtype and actual.shape == q.shape
    wide = (np.asarray(x, np.float32) for x in (actual, expected))
    np.testing.assert_allclose(*wide, atol=tolerance)


@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 8), (7, 1), (14, 2), (12, 6)])
@pytest.mark.parametrize("grid", [(1, 8), (2, 4)])
def test_heads_split_over_devices(grid, heads, kv_heads):
    """Fewer key heads than devices, and numbers that do not divide."""
    rng = np.random.default_rng(3)
    shapes = [(2, 5, n, 8) for n in (heads, kv_heads, kv_heads)]
    q, k, v = (rng.normal(size=shape) for shape in shapes)
    mesh = jax.make_mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
        actual = jax.jit(lambda *x: attention(*x, causal=True))(*arrays)
    np.testing.assert_allclose(actual, _plain(q, k, v, True), atol=2e-6)


@pytest.mark.parametrize("error", [NotImplementedError, RuntimeError, ValueError])
def test_why_the_nvidia_kernel_does_not_run_is_asked_of_it(monkeypatch, error):
    def fussy(q, k, v, *, causal):
        assert q.dtype == k.dtype == v.dtype == jnp.bfloat16 and causal
        if q.shape[-1] > 256:
            raise error(f"no heads\n of {q.shape[-1]}")
        return q

    monkeypatch.setattr(kernels, "cudnn", fussy)
    assert kernels._refusal("bfloat16", 256) == ""
    assert kernels._refusal("bfloat16", 512) == "no heads of 512"


def _with_lengths(tokens, heads, kv_heads, lengths):
    """Queries, keys and values; what is not seen would show."""
    rng = np.random.default_rng(4)
    shapes = [(len(lengths), tokens, n, 8) for n in (heads, kv_heads, kv_heads)]
    q, k, v = (rng.normal(size=shape) for shape in shapes)
    for x in (k, v):
        for one, length in zip(x, lengths, strict=True):
            one[length:] *= 100
    return [jnp.asarray(x, jnp.float32) for x in (q, k, v)]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("chunk", [7, 1024])
def test_keys_beyond_the_lengths_are_not_seen(chunk, heads, kv_heads, monkeypatch):
    """One chunk of queries and several, the last not full."""
    monkeypatch.setattr(kernels, "_LARGE_CHUNK", chunk)
    lengths = jnp.asarray([1, 18, 30], jnp.int32)
    arrays = _with_lengths(30, heads, kv_heads, lengths)
    actual = jax.jit(
        lambda *x: attention(
            *x, causal=False, lengths=lengths, implementation="chunked"
        )
    )(*arrays)
    expected = _plain(*map(np.asarray, arrays), False, lengths)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("split", ["heads", "batch"])
@pytest.mark.parametrize("grid", [(1, 8), (2, 4), (8, 1)])
def test_lengths_over_devices(grid, split):
    lengths = np.array([1, 5, 3, 4, 2, 5, 1, 2], np.int32)
    arrays = _with_lengths(5, 6, 3, lengths)
    mesh = jax.make_mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    run = jax.jit(lambda *x: attention(*x[:3], causal=False, lengths=x[3], split=split))
    with jax.set_mesh(mesh):
        actual = run(*arrays, jnp.asarray(lengths))
    expected = _plain(*map(np.asarray, arrays), False, lengths)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 129, 300])
def test_the_tpu_kernel_takes_lengths(length, monkeypatch):
    """Interpreted, which takes one item: three blocks, some not seen at all."""
    monkeypatch.setattr(kernels, "_BLOCK", 128)
    lengths = jnp.asarray([length], jnp.int32)
    arrays = _with_lengths(300, 2, 1, lengths)
    expected = _plain(*map(np.asarray, arrays), False, lengths)
    with jax.default_matmul_precision("float32"), pltpu.force_tpu_interpret_mode():
        actual = splash(*arrays, lengths, causal=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_lengths_are_not_of_causal_attention():
    q = jnp.ones((1, 3, 2, 8))
    with pytest.raises(ValueError, match="with causal attention they must be None"):
        attention(q, q, q, causal=True, lengths=jnp.ones(1, jnp.int32))


@pytest.mark.parametrize("lengths", [None, (5, 7)])
@pytest.mark.parametrize("causal", [False, True])
def test_an_odd_number_of_rows_has_a_gradient_on_nvidia(causal, lengths, monkeypatch):
    """Of which jax knows none there; a row more, unseen, in plain operations here."""
    if causal and lengths:
        return
    sizes = []

    def fused(q, k, v, lengths=None, *, causal):
        sizes.append(q.shape[1])
        return chunked(q, k, v, lengths, causal=causal)

    monkeypatch.setattr(kernels, "_fused", fused)
    rng = np.random.default_rng(3)
    arrays = [
        jnp.asarray(rng.standard_normal((2, 7, heads, 8)), jnp.float32)
        for heads in (4, 2, 2, 4)
    ]
    own = () if lengths is None else (jnp.array(lengths, jnp.int32),)

    def slopes(kernel):
        def loss(q, k, v):
            return (kernel(q, k, v, *own, causal=causal) * arrays[3]).sum()

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*arrays[:3])

    for one, other in zip(
        *(jax.tree.leaves(slopes(x)) for x in (kernels.cudnn, chunked)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert set(sizes) == {8}
    kernels.cudnn(*arrays[:3], *own, causal=causal)
    assert sizes[-1] == 7, "a pass without a gradient needs no more"
