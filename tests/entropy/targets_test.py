"""log p and rank of given targets, in both layouts and on shards, against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from vidsme_jax.entropy import streaming, vocabulary
from vidsme_jax.entropy.vocabulary import VocabularyShard

VOCAB = 1031  # No multiple of a block, nor of 2 or 4 devices.
layouts = pytest.mark.parametrize("memory", [None, 2**30], ids=["cpu", "accelerator"])


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(vocabulary, "block_size", lambda _, vocab: min(128, vocab))


def _rows():
    """Hidden states and a head: flat rows, peaked ones, one that is all but certain."""
    rng = np.random.default_rng(0)
    scale = np.array([0.0, 0.1, 1, 3, 12, 40, 120], np.float32)
    hidden = scale[:, None] * rng.normal(size=(2, 7, 24)).astype(np.float32) / 24**0.5
    return hidden, rng.normal(size=(VOCAB, 24)).astype(np.float32)


def _found(hidden, head, targets, memory, shards=1):
    """The signals, where the head is split over so many devices."""
    mask = jnp.ones((hidden.shape[0], 1, hidden.shape[1]), bool)
    run = functools.partial(
        streaming.token_signals,
        second=False,
        memory=memory,
        shard=VocabularyShard(head.shape[0], "model" if shards > 1 else None),
    )
    run_with = lambda h, w, m, t: run(h, w, m, targets=t)
    head = jnp.pad(jnp.asarray(head), [(0, -len(head) % shards), (0, 0)])
    if shards > 1:
        mesh = jax.make_mesh((shards,), ("model",), axis_types=(AxisType.Auto,))
        none = PartitionSpec()
        run_with = jax.shard_map(
            run_with,
            mesh=mesh,
            in_specs=(none, PartitionSpec("model"), none, none),
            out_specs=none,
            check_vma=False,
        )
    out = jax.jit(run_with)(jnp.asarray(hidden), head, mask, targets)
    return jax.tree.map(np.asarray, out)


def _expected(logits, targets):
    """Log p, rank and what is next to the target: (batch, rows) each, float64."""
    logits = logits.astype(np.float64)
    targets = np.where(targets < 0, logits.argmax(-1), targets)
    own = np.take_along_axis(logits, targets[..., None], -1)
    top = logits.max(-1, keepdims=True)
    log_p = (own - top)[..., 0] - np.log(np.exp(logits - top).sum(-1))
    distance = np.abs(logits - own)
    np.put_along_axis(distance, targets[..., None], np.inf, -1)
    equal = (logits == own).sum(-1) - 1
    return log_p, 1 + (logits > own).sum(-1) + 0.5 * equal, distance.min(-1)


@layouts
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_log_p_and_rank_against_float64(shards, memory):
    """Of any class, the most and the least likely one, the first and the last one."""
    hidden, head = _rows()
    logits = hidden.astype(np.float64) @ head.T.astype(np.float64)
    order, size = np.argsort(logits, axis=-1), hidden.shape[:2]
    anywhere = np.random.default_rng(1).integers(0, VOCAB, size)
    first, last = np.zeros(size, int), np.full(size, VOCAB - 1)
    targets = (anywhere, order[..., -1], order[..., 0], first, last)
    targets = np.concatenate(targets).astype(np.int32)
    hidden, logits = (np.concatenate([x] * 5) for x in (hidden, logits))
    found = _found(hidden, head, targets, memory, shards)
    log_p, rank, distance = _expected(logits, targets)
    np.testing.assert_allclose(found.log_prob, log_p, rtol=1e-6, atol=3e-5)
    clear = distance > 1e-4
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(found.rank[clear], rank[clear])
    # The row whose logits are all equal: the target is in the middle of all.
    np.testing.assert_array_equal(found.rank[:, 0], 1 + (VOCAB - 1) / 2)


@layouts
@pytest.mark.parametrize("shards", [1, 4])
def test_ties_count_half(shards, memory):
    """Logits that are whole numbers are exact in every product."""
    logits = np.random.default_rng(2).integers(-3, 4, (1, 12, VOCAB))
    logits[0, 1, [5, 700, 1030]] = 9  # Equal maxima in three places.
    targets = np.array([[0, 700, 1030, *range(100, 109)]], np.int32)
    head = logits[0].T.astype(np.float32)
    found = _found(np.eye(12, dtype=np.float32)[None], head, targets, memory, shards)
    log_p, rank, _ = _expected(logits, targets)
    assert rank[0, 1] == 2.0
    np.testing.assert_array_equal(found.rank, rank)
    np.testing.assert_allclose(found.log_prob, log_p, rtol=1e-6)


@layouts
@pytest.mark.parametrize("shards", [1, 2])
def test_own_argmax_with_given_targets(shards, memory):
    """-1 gives what the row gives without targets, and the rank of an argmax."""
    hidden, head = _rows()
    targets = np.full(hidden.shape[:2], -1, np.int32)
    targets[0, 2:] = 4
    found = _found(hidden, head, targets, memory, shards)
    without = _found(hidden, head, None, memory, shards)
    assert without.rank is None
    own = targets < 0
    np.testing.assert_array_equal(found.log_prob[own], without.log_prob[own])
    np.testing.assert_array_equal(found.rank[1, 1:], 1.0)
    for name in ("renyi", "varentropy", "gap"):
        values = getattr(found, name), getattr(without, name)
        np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-7, err_msg=name)


@layouts
def test_a_certain_target_keeps_its_digits(memory):
    """Log p of -1e-12 is not 0, and that of -100 not lost in a sum."""
    logits = np.full((1, 2, VOCAB), -100.0)
    logits[0, 0, [3, 7]] = 0.0, -27.6
    logits[0, 1, 3] = 0.0
    head, hidden = logits[0].T.astype(np.float32), np.eye(2, dtype=np.float32)[None]
    found = _found(hidden, head, np.array([[3, 1030]], np.int32), memory)
    log_p, rank, _ = _expected(head.T[None], np.array([[3, 1030]]))
    exact = -np.log1p(np.exp(np.float64(np.float32(-27.6))))
    np.testing.assert_allclose(found.log_prob, [[exact, log_p[0, 1]]], rtol=1e-6)
    np.testing.assert_array_equal(found.rank, rank)


@layouts
@pytest.mark.parametrize("shards", [1, 2])
def test_a_head_in_bfloat16(shards, memory):
    """Ranks are those of the products of the rounded numbers, summed in float32."""
    hidden, head = (jnp.asarray(x, jnp.bfloat16) for x in _rows())
    targets = np.random.default_rng(3).integers(0, VOCAB, (2, 7)).astype(np.int32)
    found = _found(hidden, head, targets, memory, shards)
    exact = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64).T
    log_p, rank, distance = _expected(exact, targets)
    np.testing.assert_allclose(found.log_prob, log_p, rtol=1e-5, atol=1e-4)
    clear = distance > 1e-3
    assert clear.any()
    np.testing.assert_array_equal(found.rank[clear], rank[clear])


@layouts
def test_rows_in_several_chunks(monkeypatch, memory):
    hidden, head = _rows()
    targets = np.random.default_rng(4).integers(-1, VOCAB, (2, 7)).astype(np.int32)
    whole = _found(hidden, head, targets, memory)
    monkeypatch.setattr(streaming, "rows_at_once", lambda *_: 4)
    parts = _found(hidden, head, targets, memory)
    np.testing.assert_array_equal(parts.rank[:, 1:], whole.rank[:, 1:])
    np.testing.assert_allclose(parts.log_prob, whole.log_prob, rtol=1e-5, atol=1e-5)
