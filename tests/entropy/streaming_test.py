"""The streaming head against 60-digit arithmetic, float64 and the release."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.sharding import AxisType, PartitionSpec

from vidsme_jax.base import PROFILE_ORDERS
from vidsme_jax.entropy import states, stored, streaming, vocabulary
from vidsme_jax.entropy.vocabulary import VocabularyShard

CPU, ACCELERATOR = (VocabularyShard(dimension=x) for x in (0, -1))


@pytest.fixture(scope="module")
def data(golden):
    return np.load(golden / "entropy_official.npz")


def _head(hidden, head, masks, **options):
    """The head in one program, which is traced under the caller's patches."""
    run = jax.jit(functools.partial(streaming.token_signals, **options))
    return run(*map(jnp.asarray, (hidden, head, masks)))


def _signals(logits, monkeypatch, block):
    """Runs the head on hidden states and weights whose product is `logits`.

    Classes are scanned in blocks, or as on an accelerator where `block` is None.
    """
    rows = logits.shape[0]
    memory = None if block else 2**30
    monkeypatch.setattr(vocabulary, "block_size", lambda rows, vocab: min(block, vocab))
    hidden = jnp.eye(rows, dtype=jnp.float32)[None]
    mask = jnp.ones((1, 1, rows), bool)
    out = _head(hidden, logits.T, mask, second=True, memory=memory)
    return jax.tree.map(lambda x: np.asarray(x, np.float64)[0], out)


@pytest.mark.parametrize("block", [64, 500, 2003, 4096, None])
def test_exact_columns(data, monkeypatch, block):
    """Every row, order and degree within 1e-4 relative, the one-hot row included."""
    signals = _signals(data["logits"], monkeypatch, block)
    for i, q in enumerate(data["q"]):
        renyi = stored.renyi_at_order(signals.renyi[:, 1:14], np.full(8, q))
        for j, r in enumerate(data["r"]):
            sme = stored.sharma_mittal_of_renyi(renyi, r)
            np.testing.assert_allclose(sme, data["exact_token_sme"][i, j], rtol=1e-4)


@pytest.mark.parametrize("block", [500, None])
def test_mean_distribution(data, monkeypatch, block):
    signals = _signals(data["logits"], monkeypatch, block)
    for i, q in enumerate(data["q"]):
        renyi = stored.renyi_at_order(signals.mean_renyi[0, 1:14], np.array(q))
        for j, r in enumerate(data["r"]):
            sme = stored.sharma_mittal_of_renyi(renyi, r)
            assert sme == pytest.approx(data["exact_sequence_sme"][i, j], rel=1e-5)


@pytest.mark.parametrize("block", [500, None])
def test_the_release_columns(data, monkeypatch, block):
    s = _signals(data["logits"], monkeypatch, block)
    close = {
        "official_shannon": s.renyi[:, 1],
        "official_renyi_05": s.renyi_half_clamped,
        "official_renyi_2": s.renyi[:, 13],
        "official_max_log_prob": s.log_prob,
        "official_gap": s.gap,
        "official_modified_entropy": s.modified[:, 0],
        "official_mod_renyi_05": s.modified[:, 1],
        "official_mod_renyi_2": s.modified[:, 2],
    }
    for name, actual in close.items():
        error = np.abs(actual - data[name])
        # Its sums run in float32: 1e-5 absolute is what it resolves itself.
        assert np.all((error <= 1e-4 * np.abs(data[name])) | (error <= 2e-5)), name


@pytest.mark.parametrize("shard", [CPU, ACCELERATOR])
def test_the_profile_keeps_its_digits(shard):
    """Flat rows, peaked rows and near ties, near q = 1 too: float32 to the last."""
    rng = np.random.default_rng(3)
    logits = [scale * rng.standard_normal(5000) for scale in (0.1, 1, 3, 12, 30)]
    for lower in (-1e-3, -0.1, -5.0, -20.0):
        row = np.full(5000, -60.0)
        row[7], row[100:110] = 0.0, lower
        logits.append(row)
    logits = np.array(logits, np.float32)
    state = _state(logits, shard)
    y = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    mass = np.array([np.delete(row, row.argmax()) for row in np.exp(y)]).sum(-1)
    y = np.array([np.delete(row, row.argmax()) for row in y])
    for k, q in enumerate(PROFILE_ORDERS):
        if q == 1:
            tail = (y * np.exp(y)).sum(-1) / (1 + mass)
        elif q == np.inf:
            tail = 0.0
        elif q < 1:
            tail = (np.log1p(np.exp(q * y).sum(-1)) - np.log1p(mass)) / (q - 1)
        else:
            lost = (np.exp(y) * np.expm1((q - 1) * y)).sum(-1)
            tail = np.log1p(lost / (1 + mass)) / (q - 1)
        expected = np.log1p(mass) - tail
        found = states.renyi_profile(state)[:, k]
        # In one reduction a CPU adds term after term; an accelerator adds as a tree.
        rtol = 6e-7 if shard.dimension == 0 else 2e-5
        np.testing.assert_allclose(found, expected, rtol=rtol, err_msg=f"q = {q}")


def _state(logits, shard):
    """The state of rows of logits, (rows, classes)."""
    logits = jnp.asarray(logits.T if shard.dimension == 0 else logits)
    return _first_pass(shard)(logits)


@functools.cache
def _first_pass(shard):
    return jax.jit(lambda x: streaming.first_pass(x, shard)[2])


@pytest.mark.parametrize("shard", [CPU, ACCELERATOR])
def test_against_float64(monkeypatch, shard):
    """Flat, common and peaked rows, a clip of each."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(7, 24)).astype(np.float32)
    hidden = hidden * np.float32([0.3, 3, 12])[:, None, None]
    head = (24**-0.5 * rng.normal(size=(1031, 24))).astype(np.float32)
    monkeypatch.setattr(vocabulary, "block_size", lambda *_: 128)
    masks = np.array([[[True] * 5 + [False] * 2, [True] * 7]] * 3)
    memory = None if shard is CPU else 2**30
    out = _head(hidden, head, masks, second=True, memory=memory)
    for k, clip in enumerate(hidden.astype(np.float64)):
        found = jax.tree.map(operator.itemgetter(k), out)
        _assert_float64(found, clip @ head.T.astype(np.float64), shard)


def _assert_float64(out, x, shard):
    """Signals of the rows of logits x of one clip, whose first mean is of 5 rows."""
    top = x.max(-1, keepdims=True)
    lp = x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))
    p = np.exp(lp)
    for k, q in enumerate(PROFILE_ORDERS):
        if q == 1:
            expected = -(p * lp).sum(-1)
        elif q == np.inf:
            expected = -lp.max(-1)
        else:
            expected = np.log((p**q).sum(-1)) / (1 - q)
        np.testing.assert_allclose(out.renyi[:, k], expected, rtol=1e-4)
    mean = (p * lp).sum(-1)
    varentropy = (p * lp**2).sum(-1) - mean**2
    np.testing.assert_allclose(out.varentropy, varentropy, rtol=1e-3)
    ordered = np.sort(x, axis=-1)
    np.testing.assert_allclose(out.gap, ordered[:, -1] - ordered[:, -2], rtol=1e-3)
    other = np.where(p == p.max(-1, keepdims=True), 0, p)
    p_y = p.max(-1)
    entropy = -(1 - p_y) * np.log(p_y) - (other * np.log1p(-other)).sum(-1)
    half = 2 * ((1 - p_y) * (1 - p_y**0.5) + (other * (1 - (1 - other) ** 0.5)).sum(-1))
    two = (1 - p_y) ** 2 + (other**2).sum(-1)
    expected = np.stack([entropy, half, two], -1)
    np.testing.assert_allclose(out.modified, expected, rtol=1e-4)
    clamped = 2 * np.log(np.sqrt(np.maximum(p, 1e-10)).sum(-1))
    rtol = 1e-5 if shard.dimension == 0 else 1e-4
    np.testing.assert_allclose(out.renyi_half_clamped, clamped, rtol=rtol)
    for k, average in enumerate((p[:5].mean(0), p.mean(0))):
        shannon = -(average * np.log(average)).sum()
        np.testing.assert_allclose(out.mean_renyi[k, 1], shannon, rtol=1e-5)


@pytest.mark.parametrize("shard", [CPU, ACCELERATOR])
def test_merge_is_associative_and_finds_the_argmax(shard):
    logits = np.random.default_rng(1).normal(0, 4, (5, 90)).astype(np.float32)
    found = (_state(logits[:, i : i + 30], shard) for i in (0, 30, 60))
    a, b, c = (
        state._replace(winner=state.winner + i)
        for state, i in zip(found, (0, 30, 60), strict=True)
    )
    left = states.merge(states.merge(a, b), c)
    right = states.merge(a, states.merge(b, c))
    whole = _state(logits, shard)
    for state in (left, right):
        for name in states.HeadState._fields:
            actual, expected = getattr(state, name), getattr(whole, name)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(left.winner, jnp.argmax(logits, axis=-1))


@pytest.mark.parametrize("block", [16, None])
def test_ties_with_the_maximum_are_no_second_value(monkeypatch, block):
    logits = np.full((2, 40), -5.0, np.float32)
    logits[0, [3, 30]] = 2.0
    logits[1] = 1.0  # A uniform row has no second value: its gap is 0.
    signals = _signals(logits, monkeypatch, block)
    np.testing.assert_allclose(signals.gap, [7.0, 0.0])
    np.testing.assert_allclose(signals.renyi[1], np.log(40.0), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, -1])
def test_the_first_of_equal_maxima_wins(axis):
    rows = jnp.asarray([[1.0, 7.0, 2.0, 7.0], [7.0, 3.0, 7.0, 7.0]])
    blocks = [rows[:, :2], rows[:, 2:]]
    if axis == 0:
        rows, blocks = rows.T, [block.T for block in blocks]
    one, other = (states.extremes(block, axis) for block in blocks)
    other = other._replace(winner=other.winner + 2)
    for found in (
        states.extremes(rows, axis),
        states.higher(one, other),
        states.higher(other, one),
    ):
        np.testing.assert_array_equal(found.winner, [1, 0])
        np.testing.assert_array_equal(found.below, [2.0, 3.0])


def test_masked_rows_leave_the_mean_alone():
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(1, 6, 8)).astype(np.float32)
    head = rng.normal(size=(50, 8)).astype(np.float32)
    mask = np.array([[[True, True, True, True, False, False]]])
    masked = _head(hidden, head, mask, second=True)
    short = _head(hidden[:, :4], head, mask[..., :4], second=True)
    np.testing.assert_allclose(masked.mean_renyi, short.mean_renyi, rtol=1e-6)


@pytest.mark.parametrize("memory", [None, 2**30])
@pytest.mark.parametrize("means", [2, 3, 6])
def test_several_mean_distributions(means, memory):
    """Few are summed as the logits are read, many by a product."""
    rng = np.random.default_rng(means)
    hidden = rng.normal(size=(2, 7, 8)).astype(np.float32)
    head = rng.normal(size=(50, 8)).astype(np.float32)
    masks = rng.integers(0, 2, (2, means, 7)).astype(bool)
    masks[:, :, means % 7] = True
    found = _head(hidden, head, masks, second=True, memory=memory).mean_renyi
    p = scipy.special.softmax(hidden.astype(np.float64) @ head.T, axis=-1)
    for b, m in np.ndindex(2, means):
        mean = p[b, masks[b, m]].mean(0)
        shannon = -(mean * np.log(mean)).sum()
        np.testing.assert_allclose(found[b, m, 1], shannon, rtol=1e-5)


def test_the_second_pass_runs_only_when_asked_for():
    hidden, head = jnp.ones((1, 2, 4)), jnp.ones((9, 4))
    signals = streaming.token_signals(
        hidden, head, jnp.ones((1, 1, 2), bool), second=False
    )
    assert signals.modified is None and signals.mean_renyi is None


@pytest.mark.parametrize("second", [False, True])
def test_memory_is_a_tenth_of_the_logits(second):
    """At the size of one 16-frame clip and a 152k vocabulary, by XLA's own count."""
    rows, vocab, embed = 2304, 152_064, 896
    shapes = (
        jax.ShapeDtypeStruct((1, rows, embed), jnp.float32),
        jax.ShapeDtypeStruct((vocab, embed), jnp.float32),
        jax.ShapeDtypeStruct((1, 2, rows), bool),
    )
    head = functools.partial(streaming.token_signals, second=second)
    memory = jax.jit(head).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= rows * vocab * 4 / 10


@pytest.mark.long
@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("vocab", [1, 9, 3000])
def test_a_vocabulary_split_over_devices(vocab, memory):
    """9 classes: two each, one on the fifth device, none on the rest."""
    rng = np.random.default_rng(4)
    hidden = jnp.asarray(rng.normal(size=(2, 5, 8)), jnp.float32)
    head = jnp.asarray(3 * rng.normal(size=(vocab, 8)), jnp.float32)
    mask = jnp.ones((2, 2, 5), bool)
    expected = _head(hidden, head, mask, second=True)
    shard = VocabularyShard(vocab, "model")

    def part(*arrays):
        return streaming.token_signals(*arrays, second=True, shard=shard, memory=memory)

    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("model")
    run = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(PartitionSpec(), spec, PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    actual = jax.jit(run)(hidden, jnp.pad(head, [(0, -vocab % 8), (0, 0)]), mask)
    for found, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        # A log p is the difference of two numbers as large as a logit, here some 20.
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 4, 8])
def test_rows_taken_a_few_at_a_time(monkeypatch, at_once):
    """7 rows of 2 clips: one of each, two of each with one left over, or four."""
    rng = np.random.default_rng(5)
    hidden = jnp.asarray(rng.normal(size=(2, 7, 8)), jnp.float32)
    head = jnp.asarray(3 * rng.normal(size=(60, 8)), jnp.float32)
    masks = jnp.asarray(rng.random((2, 2, 7)) < 0.6)
    expected = _head(hidden, head, masks, second=True)
    monkeypatch.setattr(streaming, "rows_at_once", lambda *_: at_once)
    actual = _head(hidden, head, masks, second=True)
    for found, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


def test_rows_follow_from_the_memory():
    rows, vocab = streaming.rows_at_once, 152_064
    assert rows(vocab) == 160
    assert rows(vocab, -1) == 1
    assert rows(vocab, 2**28) * vocab * 4 <= 2**27
    assert rows(vocab, 2**40) == 4096


def test_rows_are_split_with_little_waste():
    chunks, vocab = streaming.chunks, 152_064
    assert chunks(2, 288, vocab) == (4, 72)  # 144 rows: whole vector registers.
    assert chunks(1, 2304, vocab) == (16, 144)
    assert chunks(3, 5, vocab) == (1, 16)
    assert chunks(2, 2320, vocab, 2**40) == (2, 1160)
    assert chunks(8, 2320, vocab, 2**40) == (5, 464)  # 29 tiles of 128 rows.
    assert chunks(2, 7, vocab, -1) == (7, 1)


def test_blocks_of_classes_fill_a_cache():
    assert vocabulary.block_size(160, 152_064) == 4096
    assert vocabulary.block_size(4, 100) == 100
