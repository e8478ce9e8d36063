"""The definitional kernels against the release's numbers and 60-digit arithmetic."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch

from vidsme_jax.base import NODES
from vidsme_jax.entropy import definitions, stored


@pytest.fixture(scope="module")
def data(golden):
    return np.load(golden / "entropy_official.npz")


@pytest.fixture(scope="module")
def log_probs(data):
    # Torch rounds as the release did, which matters for its columns near q = 1.
    return torch.log_softmax(torch.tensor(data["logits"]), dim=-1).numpy()


def _grid(data):
    q = jnp.asarray(data["q"], jnp.float32)[:, None, None]
    return q, jnp.asarray(data["r"], jnp.float32)[None, :, None]


def _within(actual, expected, relative, absolute):
    error = np.abs(np.asarray(actual, np.float64) - expected)
    return bool(np.all((error <= relative * np.abs(expected)) | (error <= absolute)))


def test_exact_columns(data, log_probs):
    q, r = _grid(data)
    log_probs = jnp.asarray(log_probs)[None, None]
    sme = definitions.sharma_mittal_entropy(log_probs, q, r)
    assert _within(sme, data["exact_token_sme"], 1e-4, 1e-6)


def test_official_columns(data, log_probs):
    q, r = _grid(data)
    log_probs = jnp.asarray(log_probs)[None, None]
    sme = definitions.sharma_mittal_official(log_probs, q, r)
    far = data["q"] > 1.002
    assert _within(sme[far], data["official_token_sme"][far], 1e-4, 1e-5)


def test_official_at_q_1_is_no_entropy(data, log_probs):
    """The release's defect: near 0, where the entropy is 7.6 nats."""
    one, r = jnp.float32(1.0), jnp.float32(1.1)
    sme = definitions.sharma_mittal_official(jnp.asarray(log_probs[0]), one, r)
    assert abs(float(sme)) < 0.1 < 5 < data["exact_token_sme"][0, 5, 0]


def test_mean_distribution(data):
    probs = torch.softmax(torch.tensor(data["logits"]).double(), dim=-1).mean(0)
    log_mean = jnp.asarray(probs.log().numpy(), jnp.float32)[None, None]
    q, r = (x[..., 0] for x in _grid(data))
    sme = definitions.sharma_mittal_entropy(log_mean, q, r)
    assert _within(sme, data["exact_sequence_sme"], 1e-5, 1e-6)


@pytest.mark.parametrize("order", [0.5, 2.0, np.inf])
def test_renyi_columns(data, log_probs, order):
    actual = definitions.renyi_entropy(jnp.asarray(log_probs), jnp.float32([order]))
    if order == np.inf:
        expected = -data["official_max_log_prob"]
    else:
        logits = torch.tensor(data["logits"]).double()
        lp = torch.log_softmax(logits, dim=-1).numpy()
        expected = np.log(np.exp(order * lp).sum(-1)) / (1 - order)
    assert _within(actual, expected, 1e-5, 1e-6)


def test_vmapped_and_jitted_equal_batched(log_probs):
    q, r = jnp.linspace(1.0, 2.0, 8), jnp.linspace(1.0, 1.3, 8)
    kernel = definitions.sharma_mittal_entropy
    batched = kernel(jnp.asarray(log_probs), q, r)
    mapped = jax.jit(jax.vmap(kernel))(jnp.asarray(log_probs), q, r)
    np.testing.assert_allclose(mapped, batched, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("r", [0.7, 1.0, 1.000001, 1.3, 2.0])
@pytest.mark.parametrize("q", [0.9, 0.99999, 1.0, 1.00001, 1.09, 1.11, 2.0])
def test_across_the_singularities(q, r):
    rng = np.random.default_rng(0)
    lp = jax.nn.log_softmax(jnp.asarray(rng.normal(0, 3, 300), jnp.float32))
    q, r = (np.float32(x) for x in (q, r))
    p = [mpmath.exp(mpmath.mpf(float(x))) for x in lp]
    norm = mpmath.fsum(p)
    p = [x / norm for x in p]
    if q == 1:
        renyi = -mpmath.fsum(x * mpmath.log(x) for x in p)
    else:
        renyi = mpmath.log(mpmath.fsum(x ** float(q) for x in p)) / (1 - float(q))
    s = 1 - float(r)
    expected = renyi if s == 0 else mpmath.expm1(s * renyi) / s
    actual = definitions.sharma_mittal_entropy(lp, jnp.float32(q), jnp.float32(r))
    assert float(actual) == pytest.approx(float(expected), rel=5e-6)


def test_permuting_the_vocabulary_changes_nothing(log_probs):
    order = np.random.default_rng(0).permutation(log_probs.shape[1])
    q, r = jnp.float32([1.3]), jnp.float32([1.1])
    first, second = (
        definitions.sharma_mittal_entropy(jnp.asarray(x), q, r)
        for x in (log_probs, log_probs[:, order])
    )
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_interpolation_reproduces_every_order(data):
    logits = torch.tensor(data["logits"]).double()
    lp = torch.log_softmax(logits, dim=-1).numpy()

    def renyi(q):
        if q == 1:
            return -(np.exp(lp) * lp).sum(-1)
        excess = np.exp(lp) * np.expm1((q - 1) * lp)
        return -np.log1p(excess.sum(-1)) / (q - 1)

    nodes = np.stack([renyi(q) for q in NODES], axis=-1)
    rows = [0, 1, 2, 3, 4, 5, 7]  # All but the one-hot row: see streaming_test.
    for q in [*np.linspace(1, 2, 41), 1.0000001, NODES[3]]:
        actual = stored.renyi_at_order(nodes, np.full(8, q))
        np.testing.assert_allclose(actual[rows], renyi(q)[rows], rtol=1e-6)
