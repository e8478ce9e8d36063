"""The attention adapter against the textbook form, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidsme_jax.models.attention import attention


def _plain(q, k, v, causal):
    groups = q.shape[2] // k.shape[2]
    k, v = (np.repeat(x, groups, axis=2) for x in (k, v))
    scores = np.einsum("bqhd,bshd->bhqs", q, k) * q.shape[-1] ** -0.5
    if causal:
        keep = np.tril(np.ones(scores.shape[-2:], bool))
        scores = np.where(keep, scores, -np.inf)
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
