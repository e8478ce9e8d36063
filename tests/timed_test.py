"""Models that read the times of frames as text, from files to signals."""

import fractions
import json

import numpy as np
import pytest
import torch

from asked_test import score, stored
from data.numbered import make
from decoding import decode
from oracles import smolvlm as oracle
from vidsme_jax import models, settings
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import options, preparing
from vidsme_jax.models.rows import Shown
from vidsme_jax.run import signals, stacking

FRAMES = 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = oracle.make_model()
    return model, oracle.save(model, tmp_path_factory.mktemp("smolvlm"))


@pytest.fixture(scope="module")
def loaded(saved):
    return models.load(str(saved[1]), dtype="float32")


_DRIFTING = [1000, 2000, 3400, 4000, 5000]


def _config(checkpoint, videos, folder, **changes):
    config = settings.default()
    config.model.checkpoint, config.model.dtype = str(checkpoint), "float32"
    manifest = folder / "manifest.jsonl"
    rows = [json.dumps({"video": str(path)}) for path in videos]
    manifest.write_text("\n".join(rows))
    config.corpus.suspects = (str(manifest),)
    config.slices, config.scores, config.headline = ("video",), "vid_sme", "vid_sme"
    config.motion.bounds = (0.0, 1e3, 0.0, 1e3)
    config.video.num_frames, config.batch_size, config.compile_cache = FRAMES, 1, ""
    config.parallel.mode, config.parallel.data = "pmap", 1
    config.update_from_flattened_dict(changes)
    return config


def _entropies(model, plan, shown, pixels) -> np.ndarray:
    """The Shannon entropies of the video's rows, by transformers."""
    prompt = plan.tokenise(None, shown)
    rows = plan.lay_out(shown, prompt, np.arange(len(pixels)))
    shows = rows.feature >= 0
    ids = np.where(shows, oracle.IMAGE_TOKEN, rows.token)
    frames = torch.tensor(pixels.astype(np.float32)).permute(0, 3, 1, 2)
    logits = oracle.logits(model, ids, (frames / 255 - 0.5) / 0.5)
    log_p = torch.log_softmax(logits[torch.tensor(shows)].double(), -1).numpy()
    return -(np.exp(log_p) * log_p).sum(-1)


def test_times_of_files_reach_the_model(saved, loaded, tmp_path):
    """Even, uneven and none; the signals are those of the processor's times."""
    stamps = [0, 40, 900, 4000, 4040, 9000]
    even = make(tmp_path / "even.mp4", 9, rate=fractions.Fraction(1, 7))
    uneven = make(tmp_path / "uneven.mp4", 6, milliseconds=stamps)
    without = make(tmp_path / "without.ts", 6, milliseconds=stamps)
    slightly = make(tmp_path / "slightly.mp4", 6, milliseconds=[0, *_DRIFTING])
    videos = [even, uneven, slightly, without]
    _, scored = score(_config(saved[1], videos, tmp_path), tmp_path / "run")
    ((clip, error),) = [(x.video, x.cause) for x in scored.failures]
    assert clip.endswith("without.ts")
    assert "its frames a second are not known, and the model reads the times" in error
    found = {key.rsplit("/")[-1]: clip for key, clip in stored(scored.runs[0]).items()}
    assert sorted(found) == ["even.mp4", "slightly.mp4", "uneven.mp4"]
    assert found["even.mp4"].warnings == ()
    assert found["slightly.mp4"].warnings[0].endswith("shown up to 0.5 s off")
    (warning,) = found["uneven.mp4"].warnings
    assert "the times in the prompt are those of an even rate" in warning
    plan = loaded.model
    for path in (even, uneven):
        frames = decode(path, num_frames=FRAMES)
        assert frames.clock is not None
        shown = Shown(FRAMES, frames.clock.times, frames.clock.duration)
        pixels = plan.prepare(frames.pixels)
        expected = _entropies(saved[0], plan, shown, pixels)
        renyi = found[path.name].signals.renyi[0, :, 1]
        np.testing.assert_allclose(renyi, expected, rtol=2e-4)
        other = _entropies(saved[0], plan, Shown(FRAMES), pixels)
        assert np.abs(expected - other).max() > 1e-3, "the times change nothing"


def test_a_model_without_times_needs_no_rate(tmp_path):
    stamps = [0, 40, 900, 4000]
    videos = [make(tmp_path / f"{n}.ts", n, milliseconds=stamps[:n]) for n in (3, 4)]
    changes = {"video.num_frames": 4}
    config = _config("random:internvl-tiny", videos, tmp_path, **changes)
    _, scored = score(config, tmp_path / "run")
    assert not scored.failures
    found = {key.rsplit("/")[-1]: clip for key, clip in stored(scored.runs[0]).items()}
    said = {name: clip.warnings for name, clip in found.items()}
    several = "frames are shown as 4, some of them several times"
    assert said == {"3.ts": (f"3 {several}",), "4.ts": ()}


def test_long_times_take_more_rows(saved, loaded):
    """A shape of its own, by the clip alone; the signals are as of any other."""
    plan, count = loaded.model, 4
    frames = np.random.default_rng(0).integers(0, 256, (count, 60, 80, 3), np.uint8)
    pixels = plan.prepare(frames)
    stacker = stacking.Stacker(plan, num_frames=count, slices=("video",))
    sizes = []
    for rate in (1.0, 1e-4):
        times = tuple(k / rate for k in range(count))
        shown = Shown(count, times, count / rate)
        clip = stacking.Input(None, pixels, shown=shown)
        shape = stacker.shape(clip)
        own = len(plan.lay_out(shown, plan.tokenise(None, shown), np.arange(count))[0])
        assert own <= stacker.trunk(shape).rows
        sizes.append((shape.more, own))
        found = signals.compute(loaded, frames, rate=rate).signals.renyi[0, :, 1]
        expected = _entropies(saved[0], plan, shown, pixels)
        np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert sizes[0][0] == 0 and sizes[1][0] == 64 and sizes[0][1] < sizes[1][1]
    assert sizes[1][0] <= stacking.room_for_times(plan, count)


def test_a_clip_whose_times_the_positions_do_not_hold(saved, loaded, tmp_path):
    most = loaded.model.max_frames
    short = make(tmp_path / "short.mp4", most)
    long = make(tmp_path / "long.mp4", most, rate=fractions.Fraction(1, 9000))
    changes = {"video.num_frames": most}
    config = _config(saved[1], [short, long], tmp_path, **changes)
    _, scored = score(config, tmp_path / "run")
    ((clip, error),) = [(x.video, x.cause) for x in scored.failures]
    assert clip.endswith("long.mp4")
    assert "rows with the text between them; the model has 512 positions" in error


def test_without_times_nothing_is_guessed(loaded):
    frames = np.zeros((2, 60, 80, 3), np.uint8)
    with pytest.raises(AuditError, match="give rate, how many of these frames a"):
        signals.compute(loaded, frames)


def test_training_needs_times_too(saved, tmp_path):
    path = make(tmp_path / "without.ts", 4, milliseconds=[0, 40, 900, 4000])
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"video": str(path), "question": "what", "answer": "a b"})
    )
    config = options.default()
    config.corpus.members = (str(tmp_path / "rows.jsonl"),)
    config.video.num_frames = FRAMES
    config.model.checkpoint = str(saved[1])
    with pytest.raises(AuditError, match=r"without.ts: .*not known, and the model"):
        preparing.prepare(config, tmp_path / "out")
