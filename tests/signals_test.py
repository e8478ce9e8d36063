"""The jitted step against torch run twice, and against itself on other devices."""

import jax
import numpy as np
import pytest
import torch

from oracles import llava_next_video as oracle
from vidsme_jax import models, parallel, signals
from vidsme_jax.base import PROFILE_ORDERS, ClipError, TokenSignals
from vidsme_jax.entropy import streaming


@pytest.fixture(scope="module")
def torch_model():
    return oracle.make_model(kv_heads=2)


@pytest.fixture(scope="module")
def folder(torch_model, tmp_path_factory):
    return oracle.save_complete(torch_model, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder):
    return models.load(str(folder), dtype="float32")


def _frames(count, seed=0, height=70, width=90):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def _expected(torch_model, plan, frames):
    """Runs torch on one order of the frames; returns float64 log-probabilities."""
    small = plan.prepare(frames).astype(np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    std = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    pixels = torch.tensor(((small - mean) / std).transpose(0, 3, 1, 2))
    logits = oracle.logits(torch_model, plan.prompt.prefix, pixels, (7, 8)).double()
    start = len(plan.prompt.prefix)
    rows = logits[start : start + len(frames) * 4]
    return torch.log_softmax(rows, dim=-1).numpy()


def _renyi(log_probs, order):
    p = np.exp(log_probs)
    if order == 1:
        return -(p * log_probs).sum(-1)
    if order == np.inf:
        return -log_probs.max(-1)
    return np.log((p**order).sum(-1)) / (1 - order)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_both_directions_equal_torch(torch_model, model, count):
    frames = _frames(count)
    found = signals.compute(model, frames)
    for direction, order in enumerate((frames, frames[::-1])):
        log_probs = _expected(torch_model, model.plan, order)
        for k, q in enumerate(PROFILE_ORDERS):
            actual = found.renyi[direction, :, k]
            np.testing.assert_allclose(actual, _renyi(log_probs, q), rtol=2e-4)
        mean = np.log(np.exp(log_probs).mean(0))
        shannon = found.mean_renyi[direction, 0, 1]
        np.testing.assert_allclose(shannon, _renyi(mean, 1), rtol=2e-4)
        np.testing.assert_allclose(
            found.log_prob[direction], log_probs.max(-1), atol=2e-4
        )
    if count > 1:
        natural, backward = found.renyi[..., 1]
        assert np.abs(natural - backward).max() > 0.05, "reversal does nothing"


def _stream(folder, mode, data, split, lengths, batch_size=8, second=True):
    """Scores clips of the given lengths on a grid of devices; returns arrays by key."""
    devices = parallel.make_devices(mode, data, split)
    plan = models.inspect(str(folder), dtype="float32")
    loaded = plan.load(devices.sharding)
    clips = [
        signals.Prepared(k, plan.prepare(_frames(n, seed=k)))
        for k, n in enumerate(lengths)
    ]
    batches = signals.stream(
        loaded, clips, devices, batch_size=batch_size, num_frames=4, second=second
    )
    return {key: found for batch in batches for key, found in batch}


@pytest.fixture(scope="module")
def on_one_device(folder):
    return _stream(folder, "pmap", 1, 1, [4] * 11)


@pytest.mark.parametrize(
    ("mode", "data", "split"),
    [("pmap", 8, 1), ("mesh", 8, 1), ("mesh", 4, 2), ("mesh", 1, 4), ("auto", 0, 1)],
)
def test_any_grid_of_devices_gives_the_same(folder, on_one_device, mode, data, split):
    """A ragged last batch (11 clips, 8 a step) included."""
    found = _stream(folder, mode, data, split, [4] * 11)
    assert list(found) == list(on_one_device)
    for key, expected in on_one_device.items():
        for name in TokenSignals._fields:
            actual, wanted = getattr(found[key], name), getattr(expected, name)
            np.testing.assert_allclose(actual, wanted, rtol=2e-5, atol=1e-5)


def test_clips_of_several_lengths_share_batches(folder, model):
    lengths = [4, 1, 3, 4, 3]
    found = _stream(folder, "pmap", 1, 1, lengths, batch_size=2)
    assert sorted(found) == list(range(5))
    for key, length in enumerate(lengths):
        alone = signals.compute(model, _frames(length, seed=key))
        for name in TokenSignals._fields:
            actual, wanted = getattr(found[key], name), getattr(alone, name)
            assert actual.shape == wanted.shape
            np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_a_corpus_compiles_once(folder, monkeypatch):
    traces = []
    original = streaming.token_signals

    def counting(*args, **kwargs):
        traces.append(args[0].shape)
        return original(*args, **kwargs)

    monkeypatch.setattr(streaming, "token_signals", counting)
    _stream(folder, "pmap", 1, 1, [4] * 7, batch_size=3)
    assert len(traces) == 1


def test_without_a_second_pass(folder):
    found = _stream(folder, "pmap", 1, 1, [4], second=False)[0]
    assert found.modified is None and found.mean_renyi is None
    assert found.renyi.shape == (2, 16, 15)


def test_what_is_not_finite_is_the_clips_error(folder, model):
    state = jax.tree.map(lambda x: x * np.float32(np.nan), model.state)
    broken = signals.LoadedModel(plan=model.plan, graphdef=model.graphdef, state=state)
    with pytest.raises(ClipError, match="signals: not finite: renyi"):
        signals.compute(broken, _frames(2))
