"""The pipeline against torch run twice, on other devices, and where devices fail."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from oracles import llava_next_video as oracle
from vidsme_jax import models, parallel
from vidsme_jax.base import PROFILE_ORDERS, Asked, AuditError, ClipError, TokenSignals
from vidsme_jax.entropy import streaming
from vidsme_jax.models import random
from vidsme_jax.models.llava_hf import ONEVISION
from vidsme_jax.run import pipeline, signals, stacking
from vidsme_jax.run.stopping import RunStopped

FIELDS = [name for name in TokenSignals._fields if name != "rank"]  # Of the video.


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
    found = signals.compute(model, frames).signals
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


def _pipeline(folder, mode="pmap", data=1, split=1, batch_size=8, second=True, **more):
    devices = parallel.make_devices(mode, data, split)
    model = models.inspect(str(folder), dtype="float32")
    loaded = model.load(devices.shardings(model.split))
    return pipeline.Pipeline(
        loaded, devices, batch_size=batch_size, num_frames=4, second=second, **more
    )


def _results(run, lengths, into=None):
    """Scores clips of the given lengths; returns what is found, by key."""
    model = run._model
    coming = (
        [(0, stacking.Input(k, model.prepare(_frames(n, seed=k))))]
        for k, n in enumerate(lengths)
    )
    found = {} if into is None else into
    for _, batch in pipeline.stream(coming, [run]):
        found |= {result.key: result.signals for result in batch}
    return found


def _stream(folder, mode, data, split, lengths, **options):
    """Scores clips of the given lengths on a grid of devices; returns arrays by key."""
    return _results(_pipeline(folder, mode, data, split, **options), lengths)


@pytest.mark.long
def test_clips_of_several_lengths_share_batches(folder, model):
    lengths = [4, 1, 3, 4, 3]
    found = _stream(folder, "pmap", 1, 1, lengths, batch_size=2)
    assert sorted(found) == list(range(5))
    for key, length in enumerate(lengths):
        alone = signals.compute(model, _frames(length, seed=key)).signals
        for name in FIELDS:
            actual, wanted = getattr(found[key], name), getattr(alone, name)
            assert actual.shape == wanted.shape
            np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_not_finite_is_the_clips_error(folder, model):
    state = jax.tree.map(lambda x: x * np.float32(np.nan), model.state)
    broken = dataclasses.replace(model, state=state)
    with pytest.raises(ClipError, match="signals: not finite: renyi"):
        signals.compute(broken, _frames(3))


@pytest.mark.parametrize(
    ("cause", "error", "text"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory", AuditError, r"config\.batch_size"),
        ("INTERNAL: the device failed", RunStopped, "a batch failed on the devices"),
    ],
)
def test_a_batch_that_a_grid_of_processes_cannot_send(
    folder, monkeypatch, cause, error, text
):
    """It ends the run before the step that the others take."""

    def fails(*_):
        raise jax.errors.JaxRuntimeError(cause)

    monkeypatch.setattr(parallel.Devices, "runner", lambda *_: fails)
    monkeypatch.setattr(pipeline.Pipeline, "spanning", True)
    refuse = lambda *_: pytest.fail("a step")
    monkeypatch.setattr(parallel.Devices, "any_process", refuse)
    with pytest.raises(error, match=text):
        _stream(folder, "pmap", 1, 1, [4] * 4, batch_size=2)


# The torch tests above share programs with what stands between them and here.


def _on_one_device(folder):
    return _stream(folder, "pmap", 1, 1, [4] * 11)


def _assert_same(found, expected):
    assert list(found) == list(expected)
    for key, one in expected.items():
        for name in FIELDS:
            actual, wanted = getattr(found[key], name), getattr(one, name)
            # Sums in other orders: some units of float32 in the last place of a logit.
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=4e-5)


GRIDS = [("pmap", 8, 1), ("mesh", 4, 2)]
MORE = [("mesh", 8, 1), ("mesh", 2, 4), ("mesh", 1, 8)]


@pytest.mark.parametrize(
    "grid", GRIDS + [pytest.param(x, marks=pytest.mark.long) for x in MORE], ids=str
)
def test_any_grid_of_devices_gives_the_same(grid):
    """A ragged last batch (11 clips, 8 a step) included; 2 key heads on 8 devices."""
    folder = random.folder("llava_next_video-tiny")
    _assert_same(_stream(folder, *grid, [4] * 11), _on_one_device(folder))


@pytest.mark.long
@pytest.mark.parametrize("grid", [("pmap", 8, 1), ("mesh", 4, 2)])
def test_texts_on_any_grid_are_those_of_one_device(grid):
    """Ragged texts, one sample without any rows of its video; a grey video beside."""
    folder = random.folder("llava_qwen-tiny")
    described = models.inspect(str(folder), dtype="float32")
    texts = [Asked(key=str(n), question="what", answer="a ring " * n) for n in (1, 4)]
    tokenised = [stacking.Tokenised(x, described.tokenise(x)) for x in texts]
    inputs = [
        stacking.Input(
            *(k, described.prepare(_frames(4, seed=k))),
            *(tuple(tokenised[: 1 + k % 2]), k != 2),
        )
        for k in range(5)
    ]
    slices = ("video", "instruction", "response")
    found, expected = (
        {
            result.key: result
            for _, batch in pipeline.stream(
                ([(0, x)] for x in inputs),
                [_pipeline(folder, *each, slices=slices, blank=True, text_second=True)],
            )
            for result in batch
        }
        for each in (grid, ("pmap", 1, 1))
    )
    for key, wanted in expected.items():
        assert (found[key].signals is None) == (key == 2)
        for text, other in zip(found[key].texts, wanted.texts, strict=True):
            np.testing.assert_allclose(text.blank, other.blank, atol=1e-4)
            for name in TokenSignals._fields:
                a, b = getattr(text.signals, name), getattr(other.signals, name)
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.long
def test_a_vocabulary_that_does_not_divide(tmp_path, monkeypatch):
    """Of 515 classes 8 devices get 65 each, the last one 60; embeddings share them."""
    raw = ONEVISION.sizes["llava_onevision-tiny"]["config.json"]
    text = raw["text_config"] | {"vocab_size": 515, "tie_word_embeddings": True}
    odd = raw | {"text_config": text, "tie_word_embeddings": True}
    monkeypatch.setitem(ONEVISION.sizes, "odd", {"config.json": odd})
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


# ------------------------------------------------------------- devices that fail


class Failing:
    """Fails where batches are fetched or sent, as a device does.

    Args of `fail` are the keys of the clips of a batch, without copies.
    """

    def __init__(self, monkeypatch, where, fail):
        pipeline.make_step.cache_clear()  # Nothing is compiled yet.
        self.traces, self.tried, batch = [], [], pipeline.Pipeline._batch
        original = streaming.token_signals

        def traced(*args, **kwargs):
            self.traces.append(args[0].shape)
            return original(*args, **kwargs)

        def watched(run, group):
            self.tried.append([clip.key for clip in group.clips])
            return batch(run, group)

        monkeypatch.setattr(streaming, "token_signals", traced)
        monkeypatch.setattr(pipeline.Pipeline, "_batch", watched)
        runner, fetch = parallel.Devices.runner, parallel.Devices.fetch
        sent = {}

        def failing(keys):
            if fail(keys):
                raise jax.errors.JaxRuntimeError(f"INTERNAL: {keys} are bad\nmore")

        def run(devices, step):
            inner = runner(devices, step)

            def send(*args):
                keys = self.tried[-1]
                if where == "send":
                    failing(keys)
                out = inner(*args)
                sent[id(out)] = keys
                return out

            return send

        def receive(devices, out):
            if where == "fetch":
                failing(sent[id(out)])
            return fetch(devices, out)

        monkeypatch.setattr(parallel.Devices, "runner", run)
        monkeypatch.setattr(parallel.Devices, "fetch", receive)


@pytest.fixture(scope="module")
def whole(folder):
    """What 11 clips give where nothing fails."""
    return _results(_pipeline(folder, batch_size=4), [4] * 11)


@pytest.mark.parametrize("where", ["send", "fetch"])
def test_a_clip_that_fails_is_alone_and_nothing_compiles_again(
    where, folder, whole, monkeypatch
):
    failing = Failing(monkeypatch, where, lambda keys: 5 in keys)
    found = _results(_pipeline(folder, batch_size=4), [4] * 11)
    error = found.pop(5)
    assert str(error) == "signals: INTERNAL: [5] are bad"
    assert found.keys() == whole.keys() - {5}
    _assert_same(found, {key: whole[key] for key in found})
    assert len(failing.traces) == 1
    halves = [[4, 5, 6, 7], [4, 5], [4], [5], [5], [6, 7]]
    assert [keys for keys in failing.tried if set(keys) & {4, 5, 6, 7}] == halves


def test_a_batch_that_fails_once_loses_no_clip(folder, whole, monkeypatch):
    failed = []

    def once(keys):
        failed.append(keys)
        return failed.count([4, 5, 6, 7]) == 1 and keys == [4, 5, 6, 7]

    Failing(monkeypatch, "fetch", once)
    found = _results(_pipeline(folder, batch_size=4), [4] * 11)
    assert found.keys() == whole.keys()
    _assert_same({key: found[key] for key in whole}, whole)


def test_a_clip_that_fails_alone_once_is_sent_again(folder, whole, monkeypatch):
    """In a batch of its own, or in what is left of one in which another clip fails."""
    failed = []

    def once(keys):
        failed.append(keys)
        return 4 in keys or (keys in ([5], [10]) and failed.count(keys) == 1)

    Failing(monkeypatch, "fetch", once)
    found = _results(_pipeline(folder, batch_size=2), [4] * 11)
    assert [k for k, x in found.items() if isinstance(x, ClipError)] == [4]
    assert failed.count([4]) == failed.count([5]) == failed.count([10]) == 2
    left = [key for key in whole if key != 4]
    _assert_same(*({key: one[key] for key in left} for one in (found, whole)))


@pytest.mark.parametrize(("clips", "tried"), [(11, 11), (2, 5), (1, 2)])
def test_what_fails_with_every_clip_alone_is_one_problem(
    clips, tried, folder, monkeypatch
):
    """It is found out after three clips, or at the end of a smaller corpus."""
    failing = Failing(monkeypatch, "send", lambda keys: True)
    with pytest.raises(AuditError) as caught:
        _results(_pipeline(folder, batch_size=4), [4] * clips)
    (problem,) = caught.value.problems
    assert "every clip fails on the devices" in problem
    assert "config.batch_size = 4" in problem and "are bad. Set" in problem
    assert len(failing.tried) <= tried


def test_a_clip_that_fails_alone_is_no_problem_of_a_run_with_signals(
    folder, monkeypatch
):
    Failing(monkeypatch, "fetch", lambda keys: True)
    found = _results(_pipeline(folder, batch_size=4, stored=lambda: True), [4] * 2)
    assert {type(x) for x in found.values()} == {ClipError} and len(found) == 2


def test_three_in_a_row_end_a_run_and_what_is_there_is_kept(folder, whole, monkeypatch):
    failing = Failing(monkeypatch, "fetch", lambda keys: max(keys) >= 5)
    run, found = _pipeline(folder, batch_size=4), {}
    with pytest.raises(RunStopped) as caught:
        _results(run, [4] * 40, into=found)
    assert str(caught.value) == (
        "3 clips in a row failed on the devices, each alone in its batch; the last "
        "error is INTERNAL: [7] are bad"
    )
    good = {key: x for key, x in found.items() if not isinstance(x, ClipError)}
    _assert_same(good, {key: whole[key] for key in range(5)})
    assert max(max(keys) for keys in failing.tried) == 11  # Sent before it was known.


@pytest.mark.long
def test_clips_that_fail_apart_do_not_end_a_run(folder, monkeypatch):
    Failing(monkeypatch, "fetch", lambda keys: any(k % 2 for k in keys))
    found = _results(_pipeline(folder, batch_size=4), [4] * 12)
    assert [k for k, x in found.items() if isinstance(x, ClipError)] == [
        *range(1, 12, 2)
    ]


# -------------------------------------------------------- frames that depend on others


def test_a_tower_that_sees_several_frames_is_shown_each_order(model):
    """Frames are permuted and never padded: clips of each length have a shape."""
    both = lambda order: (np.arange(len(order)), order)
    dependent = dataclasses.replace(
        model, model=dataclasses.replace(model.model, views=both)
    )
    devices = parallel.make_devices("pmap", 1, 1)
    run = pipeline.Pipeline(
        dependent, devices, batch_size=2, num_frames=8, second=False
    )
    inputs = [
        stacking.Input(k, model.model.prepare(_frames(n, seed=k)))
        for k, n in enumerate([5, 3, 5])
    ]
    assert [run.add(clip) for clip in inputs] == [False, False, True]
    (group,) = run.take(full=True)
    assert group.shape.num_frames == 5 and [clip.key for clip in group.clips] == [0, 2]
    batch, _ = run._batch(group)
    assert batch.pixels.shape[:3] == (2, 2, 5)
    for k, clip in enumerate(group.clips):
        np.testing.assert_array_equal(batch.pixels[k, 0], clip.frames)
        np.testing.assert_array_equal(batch.pixels[k, 1], clip.frames[::-1])
    (rest,) = run.take(full=False)
    assert rest.shape.num_frames == 3 and run._batch(rest)[0].pixels.shape[2] == 3
