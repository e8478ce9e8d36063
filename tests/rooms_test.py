"""Clips of sizes of their own through a pipeline: few programs, equal signals."""

import fractions
import json

import numpy as np
import pytest

from asked_test import score, stored
from data.numbered import make
from timed_test import _config as config_of
from vidsme_jax import models, parallel
from vidsme_jax.base import ClipError, TokenSignals
from vidsme_jax.models import random
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Shown
from vidsme_jax.models.tiles import Room, Tiling
from vidsme_jax.motion import statistics
from vidsme_jax.run import checks, pipeline, signals, stacking

FIELDS = [name for name in TokenSignals._fields if name != "rank"]  # Of the video.
NAMES = "qwen2_5_vl-tiny", "qwen3_vl-tiny"
# Frames (width, height) of common formats, a quarter of a side or less.
SIZES = (160, 90), (120, 90), (90, 160), (80, 60), (320, 180), (120, 120)


@pytest.fixture(scope="module")
def drawn():
    return {name: random.draw(name, dtype="float32") for name in NAMES}


def _video(model, size, seed=0, count=3):
    width, height = size
    rng = np.random.default_rng(seed)
    # Blocks, so that little is left to the filter that resizes.
    small = rng.integers(0, 256, (count, -(-height // 5), -(-width // 5), 3), np.uint8)
    whole = small.repeat(5, axis=1).repeat(5, axis=2)
    return model.prepare(whole[:, :height, :width])


def _pipeline(loaded, **options):
    devices = parallel.make_devices("pmap", 1, 1)
    given = {"batch_size": 2, "num_frames": 3, "second": True} | options
    return pipeline.Pipeline(loaded, devices, **given)


def _stream(run, videos):
    coming = ([(0, stacking.Input(k, video))] for k, video in enumerate(videos))
    found = {}
    for _, results in pipeline.stream(coming, [run]):
        found |= {result.key: result.signals for result in results}
    return found


def _assert_same(found, expected, tolerance):
    for name in FIELDS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=tolerance * scale, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_clips_signals_depend_on_the_clip_alone(drawn, name, monkeypatch):
    """Not on the clips of its batch, nor on the room that it is padded to."""
    loaded = drawn[name]
    tiling = loaded.model.tiling
    videos = [_video(loaded.model, SIZES[k % 3], seed=k) for k in range(5)]
    grids = [video.shape[1:3] for video in videos]
    assert len(set(grids)) == 3 > len({tiling.room(grid) for grid in grids})
    found = _stream(_pipeline(loaded), videos)
    assert sorted(found) == list(range(5))
    run = _pipeline(loaded)
    for key, video in enumerate(videos):
        alone = _stream(run, [video])[0]
        groups = tiling.groups(len(video))
        assert alone.renyi.shape[:2] == (2, groups * np.prod(grids[key]))
        _assert_same(found[key], alone, 1e-6)
        natural, backward = alone.renyi[..., 1]
        assert np.abs(natural - backward).max() > 0.05, "reversal does nothing"
    room = Tiling.room

    def larger(tiling, grid):
        usual = room(tiling, grid)
        return Room(usual.rows + 16, usual.windows + 3 * bool(usual.windows))

    monkeypatch.setattr(Tiling, "room", larger)
    _assert_same(_stream(_pipeline(loaded), videos[:1])[0], found[0], 1e-5)


def test_a_corpus_of_many_formats_takes_few_programs(drawn, monkeypatch):
    """And a line says how many, and how much of it is padding."""
    loaded, lines = drawn[NAMES[0]], []
    log = pipeline.logging
    monkeypatch.setattr(log, "info", lambda text, *args: lines.append(text % args))
    model = loaded.model
    videos = [_video(model, SIZES[k % len(SIZES)], seed=k) for k in range(12)]
    grids = [video.shape[1:3] for video in videos]
    rooms = [model.tiling.room(grid) for grid in grids]
    assert len(set(grids)) >= 4 and len(set(rooms)) == 2
    found = _stream(_pipeline(loaded, second=False), videos)
    assert all(isinstance(x, TokenSignals) for x in found.values())
    own = sum(down * across for down, across in grids)
    padding = 1 - own / sum(room.rows for room in rooms)
    (line,) = (line for line in lines if "program" in line)
    assert line == (
        f"2 programs, one for each padded shape; {padding:.0%} of the video rows are "
        "padding"
    )
    assert 0 < padding < 0.45


def test_one_room_is_one_program(drawn, monkeypatch):
    loaded, lines = drawn[NAMES[1]], []
    log = pipeline.logging
    monkeypatch.setattr(log, "info", lambda text, *args: lines.append(text % args))
    _stream(_pipeline(loaded, second=False), [_video(loaded.model, SIZES[0])])
    assert [line for line in lines if line.startswith("1 program, one for each")]


@pytest.mark.long
def test_a_grid_of_processes_has_one_room_for_all(drawn, monkeypatch):
    """A frame too long and thin for it is refused by name; others are as ever."""
    loaded = drawn[NAMES[0]]
    model, tiling = loaded.model, loaded.model.tiling
    monkeypatch.setattr(pipeline.Pipeline, "spanning", True)
    only = stacking.Padded(3, room=tiling.largest(3))
    run = _pipeline(loaded, only=only)
    thin = (1, tiling.limit(3))
    assert not tiling.holds(tiling.largest(3), thin)
    assert tiling.room(thin).rows <= tiling.largest(3).rows
    numbers = _video(model, SIZES[0]).shape[-1]
    long = np.zeros((3, *thin, numbers), np.uint8)
    assert not run.add(stacking.Input("thin", long))
    assert not run.add(stacking.Input("square", _video(model, SIZES[-1])))
    assert run.add(stacking.Input("wide", _video(model, SIZES[0])))
    (group,) = run.take(full=True)
    assert group.shape == only
    refused, *others = run.settle(run.send(group))
    assert refused.key == "thin" and isinstance(refused.signals, ClipError)
    assert str(refused.signals) == (
        "signals: its frames are larger, or longer and thinner, than a grid of "
        "several processes has room for"
    )
    monkeypatch.undo()
    for result, size in zip(others, (SIZES[-1], SIZES[0]), strict=True):
        expected = _stream(_pipeline(loaded), [_video(model, size)])[0]
        _assert_same(result.signals, expected, 1e-5)


def _checkpoint(folder, name, positions):
    random.write(folder, name)
    config = json.loads((folder / "config.json").read_text())
    config.get("text_config", config)["max_position_embeddings"] = positions
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.long
def test_clips_that_the_positions_do_not_hold_are_refused_by_name(
    tmp_path, monkeypatch
):
    """Too many rows for the context, and times beyond its positions."""
    begun, begin = [], statistics.begin

    def spy(pixels, *args):
        begun.append(pixels.shape[1:3])
        return begin(pixels, *args)

    monkeypatch.setattr(statistics, "begin", spy)
    small = make(tmp_path / "small.mp4", 8, width=64, height=48)
    large = make(tmp_path / "large.mp4", 8, width=160, height=120)
    slow = make(tmp_path / "slow.mp4", 8, 64, 48, rate=fractions.Fraction(1, 60))
    folder = _checkpoint(tmp_path / "model", "qwen2_5_vl-tiny", 100)
    config = config_of(folder, [small, large, slow], tmp_path)
    config.video.num_frames = 8
    _, scored = score(config, tmp_path / "run")
    causes = {x.video.rsplit("/")[-1]: x.cause for x in scored.failures}
    assert sorted(causes) == ["large.mp4", "slow.mp4"]
    assert "8 frames of 160x120 pixels are 1" in causes["large.mp4"]
    assert (
        "; the model has 100 positions: take fewer frames (config.video.num_fra"
        in (causes["large.mp4"])
    )
    assert "its last frame is at position 7" in causes["slow.mp4"]
    assert "of a clip of 480 s; the model has 100 positions" in causes["slow.mp4"]
    assert [key.rsplit("/")[-1] for key in stored(scored.runs[0])] == ["small.mp4"]
    assert begun == [(48, 64)]  # Nothing is measured of the others.


def test_fewer_frames_than_a_tower_sees_at_once_are_not_advised(tmp_path):
    folder = _checkpoint(tmp_path / "model", "qwen2_5_vl-tiny", 20)
    model = models.inspect(str(folder), dtype="float32")
    for count, said in ((2, "budget of pixels is more than"), (3, "take fewer frames")):
        pixels = model.prepare(np.zeros((count, 120, 160, 3), np.uint8))
        shown = stacking.seen(model, pixels, Shown(count, (0.0,) * count, 1.0))
        with pytest.raises(ClipError, match=said):
            stacking.check_positions(model, shown, "160x120")


def test_what_is_shown_has_the_grid_of_the_frames(drawn):
    """Of a model whose clips have one size, none."""
    model = drawn[NAMES[0]].model
    video = _video(model, SIZES[1])
    assert stacking.seen(model, video).grid == video.shape[1:3]
    other = random.describe("llava_qwen-tiny")
    frames = other.prepare(np.zeros((2, 8, 8, 3), np.uint8))
    assert stacking.seen(other, frames).grid == (0, 0)


def test_from_python_too_the_positions_must_hold_a_clip(tmp_path):
    folder = _checkpoint(tmp_path / "model", "qwen2_5_vl-tiny", 100)
    loaded = models.load(str(folder), dtype="float32")
    frames = np.zeros((8, 120, 160, 3), np.uint8)
    with pytest.raises(ClipError, match=r"8 frames of 160x120 pixels are 1\d\d rows"):
        signals.compute(loaded, frames, rate=1.0)


def test_frames_that_fit_are_not_tried_out(tmp_path, monkeypatch):
    """Of a context of 262,144 rows that would take a quarter of a minute."""
    clip = make(tmp_path / "clip.mp4", 4, width=64, height=48)
    folder = _checkpoint(tmp_path / "model", "qwen3_vl-tiny", 262_144)
    config = config_of(folder, [clip], tmp_path)
    config.video.num_frames = 4

    def searched(model):
        raise AssertionError("the most frames are not asked for")

    monkeypatch.setattr(Model, "max_frames", property(searched))
    assert checks.check(config).model.holds(4)
