"""Devices that are too small: one message, and nothing stored."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from vidsme_jax import audit, models, parallel, settings, studies
from vidsme_jax.base import AuditError
from vidsme_jax.run import memory, pipeline
from vidsme_jax.run.stopping import RunStopped

pytestmark = pytest.mark.usefixtures("without_figures")
ASKED = r"281474976710656 bytes were asked for"


def _too_much(*_):
    """Really asks for 256 TiB."""
    return jax.jit(lambda: jnp.zeros(2**46, jnp.float32))()


@pytest.fixture
def config(tmp_path):
    config = settings.default()
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
    for role, videos in (("members", clips[:4]), ("nonmembers", clips[4:8])):
        rows = [{"video": str(video)} for video in videos]
        (tmp_path / f"{role}.json").write_text(json.dumps(rows))
        config.corpus[role] = (str(tmp_path / f"{role}.json"),)
    config.corpus.allow_outside = True
    config.model.checkpoint = "random:llava_qwen-tiny"
    config.model.dtype = "float32"
    config.video.num_frames, config.batch_size = 2, 4
    config.parallel.data = 2
    config.report.num_permutations = 100
    config.scores = "vid_sme"
    return config


def _stored(workdir):
    return list(workdir.rglob("part-*"))


@pytest.mark.parametrize("late", [False, True])
def test_too_little_memory_for_the_first_batch(late, config, tmp_path, monkeypatch):
    """Whether it is noticed when the batch is sent, or when its result is fetched."""
    if late:
        monkeypatch.setattr(parallel.Devices, "fetch", _too_much)
    else:
        monkeypatch.setattr(parallel.Devices, "runner", lambda *_: _too_much)
    with pytest.raises(AuditError) as caught:
        audit.run(config, tmp_path / "run")
    (problem,) = caught.value.problems
    for part in (
        "does not suffice for the first batch, 4 clips of up to 2 frames: "
        "281474976710656 bytes were asked for",
        "how much cpu has is not known",
        "config.batch_size = 2 (it is 4)",
        "a smaller config.video.num_frames (it is 2)",
        "config.parallel.mode = mesh with a larger config.parallel.model (it is 1)",
        "config.model.dtype = bfloat16",
    ):
        assert part in problem
    assert not _stored(tmp_path / "run")


def test_the_smallest_batch_is_not_advised_again(config, tmp_path, monkeypatch):
    config.batch_size = 2  # One clip on each of two devices.
    monkeypatch.setattr(parallel.Devices, "runner", lambda *_: _too_much)
    with pytest.raises(AuditError) as caught:
        audit.run(config, tmp_path / "run")
    assert "config.batch_size" not in caught.value.problems[0]
    assert "a smaller config.video.num_frames" in caught.value.problems[0]


def test_too_little_memory_for_the_parameters(config, tmp_path, monkeypatch):
    monkeypatch.setattr(models.loading, "load", lambda *args, **_: _too_much())
    with pytest.raises(AuditError, match=f"suffice to load the parameters: {ASKED}"):
        audit.run(config, tmp_path / "run")
    assert not _stored(tmp_path / "run")


def test_a_study_says_the_same(config, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel.Devices, "runner", lambda *_: _too_much)
    config.study, config.studies.frames = "frames", (1, 3)
    with pytest.raises(AuditError, match=rf"4 clips of up to 3 frames: {ASKED}"):
        studies.run(config, tmp_path / "run")


def test_what_lacks_memory_later_is_no_bad_setting(config, tmp_path, monkeypatch):
    fetched, fetch = [], parallel.Devices.fetch

    def once(devices, out):
        fetched.append(out)
        return fetch(devices, out) if len(fetched) == 1 else _too_much()

    monkeypatch.setattr(parallel.Devices, "fetch", once)
    with pytest.raises(RunStopped, match=r"3 clips in a row failed .* RESOURCE_EXHAU"):
        audit.run(config, tmp_path / "run")
    assert len(_stored(tmp_path / "run")) == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_first_batch_that_lacks_memory_once(late, config, tmp_path, monkeypatch):
    """What was compiled is sent again; what may not have been is not compiled twice."""
    tried, fetch = [], parallel.Devices.fetch

    def once(*args):
        tried.append(args)
        return fetch(*args) if len(tried) > 1 else _too_much()

    if late:
        monkeypatch.setattr(parallel.Devices, "fetch", once)
        assert not audit.run(config, tmp_path / "run").failures
        return

    def failing(devices, step):
        return lambda *args: tried.append(args) or _too_much()

    monkeypatch.setattr(parallel.Devices, "runner", failing)
    with pytest.raises(AuditError, match=r"Set config\.batch_size = 2"):
        audit.run(config, tmp_path / "run")
    assert len(tried) == 2  # Two are in flight.


def test_a_larger_shape_that_lacks_memory_is_one_problem(config, tmp_path, monkeypatch):
    """Its halves would need as much: it is not tried in halves, clip after clip."""
    config.slices, config.response = ("video", "response"), "given"
    config.scores, config.headline = "vid_sme,response_loss", "vid_sme"
    for role in ("members", "nonmembers"):
        (path,) = config.corpus[role]
        rows = json.loads(pathlib.Path(path).read_text())
        for k, row in enumerate(rows):
            row |= {"question": "what", "answer": "a " * (200 if k > 1 else 1)}
        pathlib.Path(path).write_text(json.dumps(rows))
    sent, send = [], pipeline.Pipeline._batch
    runner = parallel.Devices.runner

    def watched(run, group):
        sent.append(group)
        return send(run, group)

    def failing(devices, step):
        run = runner(devices, step)

        def small(*args):
            return run(*args) if sent[-1].shape == sent[0].shape else _too_much()

        return small

    monkeypatch.setattr(pipeline.Pipeline, "_batch", watched)
    monkeypatch.setattr(parallel.Devices, "runner", failing)
    with pytest.raises(RunStopped) as caught:
        audit.run(config, tmp_path / "run")
    assert (
        "does not suffice for a batch of 4 clips of up to 2 frames with 384 rows of "
        in (str(caught.value))
    )
    assert "Set config.batch_size = 2 (it is 4)" in str(caught.value)
    assert len(sent) == 2 and len(_stored(tmp_path / "run")) == 1


def _broken(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: no such kernel\nat 0x7f")


@pytest.mark.parametrize("times", [1, 2])
def test_parameters_that_cannot_be_loaded(times, config, monkeypatch, tmp_path):
    """What fails once is read once more."""
    load, tried = models.loading.load, []

    def failing(*args, **options):
        tried.append(args)
        return _broken() if len(tried) <= times else load(*args, **options)

    monkeypatch.setattr(models.loading, "load", failing)
    if times == 1:
        assert not audit.run(config, tmp_path / "run").failures
        return
    with pytest.raises(RunStopped) as caught:
        audit.run(config, tmp_path / "run")
    cause = "INTERNAL: no such kernel"
    assert str(caught.value) == f"the parameters could not be loaded: {cause}"
    assert len(tried) == 2 and not _stored(tmp_path / "run")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Out of memory while trying to allocate 6291456 bytes.", "6291456 bytes were"),
        ("Out of memory while trying to allocate 4.00GiB.", "4.00GiB were asked for"),
        (
            "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
            "Used 20.25G of 15.48G hbm. Exceeded hbm capacity by 4.77G.",
            "20.25G were asked for",
        ),
        ("Something is full.\nA long table", "the error is 'RESOURCE_EXHAUSTED: Some"),
    ],
)
def test_the_sizes_that_xla_reports(said, expected, monkeypatch):
    class Card:
        device_kind = "NVIDIA L4"

        def memory_stats(self):
            return {"bytes_limit": 18 * 2**30, "bytes_in_use": 14 * 2**30}

    class Mesh:
        local_devices, shape = (Card(),), {"model": 1, "data": 1}

    plan = models.inspect("random:llava_qwen-tiny", dtype="bfloat16")
    devices = parallel.make_devices("pmap", 1, 1)
    monkeypatch.setattr(parallel.Devices, "shardings", lambda *_: None)
    object.__setattr__(devices, "mesh", Mesh())
    error = jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {said}")

    def full(*args, **options):
        raise error

    monkeypatch.setattr(type(plan), "load", full)
    with pytest.raises(AuditError) as caught:
        memory.loaded(plan, devices)
    (problem,) = caught.value.problems
    assert f": {expected}" in problem and "A long table" not in problem
    free = (
        "NVIDIA L4 has 18.0 GiB (19,327,352,832 bytes), 4.0 GiB (4,294,967,296 bytes)"
    )
    assert f"{free} of it free" in problem
    assert "dtype = bfloat16" not in problem  # It is that already.
