"""The jitted step against torch run twice, and against itself on other devices."""

import dataclasses
import re

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from oracles import llava_next_video as oracle
from vidsme_jax import models, parallel
from vidsme_jax.base import PROFILE_ORDERS, ClipError, TokenSignals
from vidsme_jax.entropy import streaming
from vidsme_jax.models import random
from vidsme_jax.models.rows import Shape, Shown, stack
from vidsme_jax.motion import farneback
from vidsme_jax.run import pipeline


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
    logits = oracle.logits(torch_model, plan.tokenise().before, pixels, (7, 8)).double()
    start = len(plan.tokenise().before)
    rows = logits[start : start + len(frames) * 4]
    return torch.log_softmax(rows, dim=-1).numpy()


def _renyi(log_probs, order):
    p = np.exp(log_probs)
    if order == 1:
        return -(p * log_probs).sum(-1)
    if order == np.inf:
        return -log_probs.max(-1)
    return np.log((p**order).sum(-1)) / (1 - order)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_both_directions_equal_torch(torch_model, model, count):
    frames = _frames(count)
    found = pipeline.compute(model, frames)
    for direction, order in enumerate((frames, frames[::-1])):
        log_probs = _expected(torch_model, model.model, order)
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
    loaded = plan.load(devices.shardings(plan.split))
    clips = [
        pipeline.Prepared(k, plan.prepare(_frames(n, seed=k)))
        for k, n in enumerate(lengths)
    ]
    batches = pipeline.stream(
        loaded, clips, devices, batch_size=batch_size, num_frames=4, second=second
    )
    return {key: found for batch in batches for key, found in batch}


def test_clips_of_several_lengths_share_batches(folder, model):
    lengths = [4, 1, 3, 4, 3]
    found = _stream(folder, "pmap", 1, 1, lengths, batch_size=2)
    assert sorted(found) == list(range(5))
    for key, length in enumerate(lengths):
        alone = pipeline.compute(model, _frames(length, seed=key))
        for name in TokenSignals._fields:
            actual, wanted = getattr(found[key], name), getattr(alone, name)
            assert actual.shape == wanted.shape
            np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_not_finite_is_the_clips_error(folder, model):
    state = jax.tree.map(lambda x: x * np.float32(np.nan), model.state)
    broken = dataclasses.replace(model, state=state)
    with pytest.raises(ClipError, match="signals: not finite: renyi"):
        pipeline.compute(broken, _frames(3))


# The torch tests above share programs with what stands between them and here.
quick = pytest.mark.usefixtures("quick_to_compile")


def _on_one_device(folder):
    return _stream(folder, "pmap", 1, 1, [4] * 11)


def _assert_same(found, expected):
    assert list(found) == list(expected)
    for key, one in expected.items():
        for name in TokenSignals._fields:
            actual, wanted = getattr(found[key], name), getattr(one, name)
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


GRIDS = [("pmap", 8, 1), ("mesh", 8, 1), ("mesh", 4, 2), ("mesh", 2, 4), ("mesh", 1, 8)]
FAMILIES = sorted({name for name in random.CONFIGS if name.endswith("-tiny")})


@pytest.mark.parametrize("family", FAMILIES)
@quick
def test_any_grid_of_devices_gives_the_same(family):
    """A ragged last batch (11 clips, 8 a step) included; 2 key heads on 8 devices."""
    folder = random.folder(family)
    expected = _on_one_device(folder)
    for grid in GRIDS if family == FAMILIES[0] else GRIDS[4:]:
        _assert_same(_stream(folder, *grid, [4] * 11), expected)


@quick
def test_a_vocabulary_that_does_not_divide(tmp_path, monkeypatch):
    """Of 515 classes 8 devices get 65 each, the last one 60; embeddings share them."""
    raw = random.CONFIGS["llava_onevision-tiny"]
    text = raw["text_config"] | {"vocab_size": 515, "tie_word_embeddings": True}
    odd = raw | {"text_config": text, "tie_word_embeddings": True}
    monkeypatch.setitem(random.CONFIGS, "odd", odd)
    random.write(tmp_path, "odd")
    expected = _stream(tmp_path, "pmap", 1, 1, [2] * 3)
    _assert_same(_stream(tmp_path, "mesh", 1, 8, [2] * 3), expected)


def test_no_device_holds_more_than_its_share():
    devices = parallel.make_devices("mesh", 2, 4)
    plan = models.inspect(str(random.folder("llava_qwen-tiny")), dtype="float32")
    leaves = jax.tree_util.tree_leaves_with_path(
        nnx.to_pure_dict(plan.load(devices.shardings(plan.split)).state)
    )
    shapes = {"/".join(k.key for k in path): leaf for path, leaf in leaves}
    names = {"q_proj", "k_proj", "o_proj", "gate_proj", "down_proj", "lm_head"}
    big = {p for p in shapes if "language_model" in p and names & set(p.split("/"))}
    assert len({p.split("/")[-2] for p in big}) == len(names)
    for path in big:
        for shard in shapes[path].addressable_shards:
            assert shard.data.size * 4 == shapes[path].size, path


@pytest.mark.parametrize("mode", ["pmap", "mesh"])
@quick
def test_results_are_fetched_one_batch_behind_without_waiting(mode, monkeypatch):
    """Nothing moves between host and devices but batches sent and results fetched."""
    events = []
    runner, fetch = parallel.Devices.runner, parallel.Devices.fetch

    def watched(self, step):
        run = runner(self, step)

        def send(*args):
            with jax.transfer_guard("disallow"):
                out = run(*args)
            events.append("sent")
            return out

        return send

    def receive(self, out):
        events.append("fetched")
        return fetch(self, out)

    monkeypatch.setattr(parallel.Devices, "runner", watched)
    monkeypatch.setattr(parallel.Devices, "fetch", receive)
    split = 1 if mode == "pmap" else 2
    folder = random.folder("llava_qwen-tiny")
    _stream(folder, mode, 2, split, [2] * 7, batch_size=2, second=False)
    between = ["sent", "fetched"] * 3
    assert events == ["sent", *between, "fetched"]


def _dots(jaxpr):
    """Yields every equation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _dots(inner)


_IN_LAYER = ("attention", "mlp")


def _small_batch(loaded, frames=2):
    model, orders = loaded.model, [np.arange(frames), np.arange(frames)[::-1]]
    text = model.tokenise()
    rows = [model.lay_out(Shown(frames), text, order) for order in orders]
    pixels = model.prepare(_frames(frames))[None, None]
    return stack([rows], pixels, Shape.of(rows[0]))


@quick
def test_the_parts_of_a_step_have_scopes():
    """A profile sums the time of its kernels by these names."""
    loaded = random.draw("llava_qwen-tiny", dtype="float32")
    step = pipeline.make_step(loaded.graphdef, second=True)
    lowered = jax.jit(step).lower(loaded.state, _small_batch(loaded))
    names = set(re.findall(r'op_name="([^"]*)"', lowered.compile().as_text()))
    paths = [
        *(f"{part}/.*layer/.*{x}/" for part in ("tower", "decoder") for x in _IN_LAYER),
        *(f"head/.*{x}/" for x in ("logits", "first_pass", "second_pass", "mean")),
    ]
    for path in paths:
        assert any(re.search(path, name) for name in names), path
    frames = jax.ShapeDtypeStruct((3, 32, 32), np.uint8)
    flow = jax.jit(farneback.variances).lower(frames, farneback.scales(32, 32))
    assert "/flow/" in flow.as_text(debug_info=True)


def test_products_are_in_bfloat16_and_statistics_in_float32():
    loaded = random.draw("llava_qwen-tiny", dtype="bfloat16")
    step = pipeline.make_step(loaded.graphdef, second=False)
    jaxpr = jax.make_jaxpr(step)(loaded.state, _small_batch(loaded)).jaxpr
    kinds = {"dot_general": set(), "statistic": set()}
    narrow = {"reduce_sum", "exp", "log1p", "rsqrt", "expm1", "div", "reduce_max"}
    for equation in _dots(jaxpr):
        dtypes = {str(v.aval.dtype) for v in equation.invars if hasattr(v, "aval")}
        if equation.primitive.name == "dot_general":
            kinds["dot_general"] |= dtypes
        elif equation.primitive.name in narrow:
            kinds["statistic"] |= dtypes
    assert kinds["dot_general"] == {"bfloat16"}
    assert "bfloat16" not in kinds["statistic"], kinds


@quick
def test_a_corpus_compiles_once(folder, monkeypatch):
    traces = []
    original = streaming.token_signals

    def counting(*args, **kwargs):
        traces.append(args[0].shape)
        return original(*args, **kwargs)

    monkeypatch.setattr(streaming, "token_signals", counting)
    _stream(folder, "pmap", 1, 1, [4] * 7, batch_size=3)
    assert len(traces) == 1


@quick
def test_a_batch_could_not_be_donated(model):
    """No result has the size of the pixels, so XLA would write none over them."""
    step = pipeline.make_step(model.graphdef, second=True)
    donating = jax.jit(step, donate_argnums=1)
    with pytest.warns(UserWarning, match="donated buffers were not usable"):
        compiled = donating.lower(model.state, _small_batch(model, 4)).compile()
    assert compiled.memory_analysis().alias_size_in_bytes < 2**10


@quick
def test_without_a_second_pass(folder):
    found = _stream(folder, "pmap", 1, 1, [4], second=False)[0]
    assert found.modified is None and found.mean_renyi is None
    assert found.renyi.shape == (2, 16, 15)
