"""The rows on which statistics are tried have the signals that the head computes."""

import jax.numpy as jnp
import numpy as np
import pytest

from vidsme_jax.entropy.streaming import token_signals
from vidsme_jax.scores import example


@pytest.mark.parametrize("targets", [None, [4, 0, 2]])
def test_signals_are_those_of_the_head(targets):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=(2, 3, 7)).astype(np.float32)
    logits[0, 1, 3] = logits[0, 1].max()  # A tie.
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    found = example.view(p[0], p[1], targets=targets).signals
    given = None if targets is None else jnp.asarray([targets] * 2, jnp.int32)
    head = token_signals(
        jnp.asarray(logits),
        jnp.eye(7, dtype=jnp.float32),
        jnp.ones((2, 1, 3), bool),
        second=True,
        targets=given,
    )
    names = ["renyi", "varentropy", "gap", "log_prob", "renyi_half_clamped"]
    names += ["modified"] if targets is None else ["rank"]  # Of the argmax alone.
    for name in names:
        own, wanted = getattr(found, name), getattr(head, name)
        np.testing.assert_allclose(own, wanted, atol=2e-5, err_msg=name)
    means = found.mean_renyi
    np.testing.assert_allclose(means[:, :1], head.mean_renyi, atol=2e-5)
    np.testing.assert_array_equal(means[:, 0], means[:, 1])
