"""The driver: several runs over the same clips, of one model or of several."""

import dataclasses
import shutil
import weakref

import jax
import numpy as np
import pytest

from killed_run import config as small
from vidsme_jax import models, parallel, settings
from vidsme_jax.data import decoders
from vidsme_jax.models.interface import Model
from vidsme_jax.run import checks, contents, processes, scoring
from vidsme_jax.run.stopping import Stop


def _score(setup, runs, workdir):
    parts = setup.samples, setup.reader, setup.devices
    with processes.together(workdir) as team:
        return scoring.score(runs, *parts, team=team, stop=Stop())


def _stored(run):
    return {clip.key: clip for clip in run.store.read(run.store.finished)}


@pytest.mark.long
@pytest.mark.parametrize("together", [True, False])
def test_runs_of_two_models(together, tmp_path, monkeypatch, caplog, decoded):
    """Clips are decoded once where both fit; else weights are freed before others."""
    monkeypatch.setattr(parallel.Devices, "hold", lambda *_: together)
    setup = checks.check(small(3, batch_size=2))
    other = models.inspect("random:llava_qwen-tiny", dtype="float32")
    held, load = [], Model.load

    def watched(model, shardings):
        freed = [leaf() is None for leaves in held for leaf in leaves]
        assert all(freed) if held[1:] or not together else not any(freed)
        loaded = load(model, shardings)
        held.append([weakref.ref(x) for x in jax.tree.leaves(loaded.state)])
        return loaded

    monkeypatch.setattr(Model, "load", watched)
    runs = [
        checks.open_run(dataclasses.replace(setup, model=model), tmp_path / name)
        for name, model in (("target", setup.model), ("reference", other))
    ]
    with caplog.at_level("INFO", "absl"):
        scored = _score(setup, runs, tmp_path)
    assert len(decoded) == len(setup.clips) * (1 if together else 2)
    assert together != ("and clips are decoded twice" in caplog.text)
    assert len(held) == 2 and all(held) and not scored.failures
    target, reference = map(_stored, scored.runs)
    assert target.keys() == reference.keys() == {clip.key for clip in setup.clips}
    for key, clip in target.items():
        assert (clip.signals.gap != reference[key].signals.gap).all()
        assert clip.motion == reference[key].motion
    alone = checks.open_run(setup, tmp_path / "alone")
    _score(setup, [alone], tmp_path)
    again = _stored(alone)
    assert again.keys() == target.keys()
    for key, clip in again.items():
        np.testing.assert_array_equal(clip.signals.renyi, target[key].signals.renyi)


def test_one_frame_has_the_motion_of_two_and_one_direction(
    tmp_path, monkeypatch, decoded
):
    fetch, rounding = parallel.Devices.fetch, np.float32([0, 1e-3]).reshape(1, 2, 1, 1)

    def rounded(devices, out):
        host = fetch(devices, out)
        video = host.video._replace(renyi=host.video.renyi + rounding)
        return host._replace(video=video)

    monkeypatch.setattr(parallel.Devices, "fetch", rounded)
    setup = checks.check(small(3, batch_size=2))
    one = dataclasses.replace(setup.settings.video, num_frames=1)
    run = checks.open_run(setup, tmp_path / "one", one, "1 frame")
    both = checks.open_run(setup, tmp_path / "two")
    _score(setup, [run, both], tmp_path)
    assert len(decoded) == 3
    pairs, single = _stored(both), _stored(run)
    assert single.keys() == pairs.keys() == {clip.key for clip in setup.clips}
    for key, clip in single.items():
        assert clip.num_frames == 1 and clip.motion == pairs[key].motion
        natural, backward = clip.signals.renyi
        np.testing.assert_array_equal(natural, backward)
        assert clip.frame.tolist() == [0] * clip.num_rows


@pytest.mark.long
def test_a_clip_that_changes_while_it_is_decoded_has_failed(tmp_path, monkeypatch):
    """What was read of it is stored, but is not of the file as it is now."""
    clips = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:3]
    for clip in clips:
        shutil.copy(clip, tmp_path)
    original = decoders.ask

    def changing(request, path, *args, **arguments):
        found = original(request, path, *args, **arguments)
        if request == "frames":
            shutil.copy(clips[1 if path.name == clips[0].name else 0], path)
        return found

    config = small(3, batch_size=2)
    config.corpus.suspects = (str(tmp_path / "*.mp4"),)
    setup = checks.check(config)
    with monkeypatch.context() as patch:
        patch.setattr(decoders, "ask", changing)
        run = checks.open_run(setup, tmp_path / "run")
        scored = _score(setup, [run], tmp_path / "run")
    assert [f.id for f in scored.failures] == [str(tmp_path / x.name) for x in clips]
    assert {failure.cause for failure in scored.failures} == {contents.CHANGED}
    assert not scored.runs[0].store.finished
    run = checks.open_run(setup, tmp_path / "run")
    assert len(run.store.finished) == 3
    now = contents.Contents(setup.reader)
    assert all(now.missing(sample, run) for sample in setup.samples)
    assert not _score(setup, [run], tmp_path / "run").failures
