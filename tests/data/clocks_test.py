"""The times of frames: by the average rate, as transformers' processors take them."""

import dataclasses
import fractions
import json
import math

import av
import numpy as np
import pytest
from numbered import make
from transformers import video_utils

from decoding import decode
from vidsme_jax import settings
from vidsme_jax.base import Frames
from vidsme_jax.clock import Clock
from vidsme_jax.data import clocks, video
from vidsme_jax.data.reading import Videos
from vidsme_jax.data.segments import Segment
from vidsme_jax.prepared import preparation
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.settings import views

NTSC = fractions.Fraction(30000, 1001)
STAMPS = np.cumsum(np.random.default_rng(0).choice([7, 40, 333, 1500], 60)).tolist()
KINDS = {
    "mp4": {},
    "mkv": {},
    "ts": {},
    "avi": {},
    "flv": {},
    "webm": {"codec": "libvpx"},
}


def _read(key: str, count: int = 5, **changes) -> Frames:
    config = settings.default()
    config.video.update(changes)
    return Videos(views.view(views.Video, config)).read(key, {count})(count)[0]


def _clock(frames) -> Clock:
    assert frames.clock is not None
    return frames.clock


def _metadata(path, indices) -> video_utils.VideoMetadata:
    """What transformers makes of the same frames of a file."""
    chosen = sorted(set(indices))
    _, found = video_utils.load_video(
        str(path), backend="pyav", sample_indices_fn=lambda metadata: chosen
    )
    found.frames_indices = list(indices)
    return found


@pytest.mark.parametrize("rate", [25, NTSC, fractions.Fraction(25, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_rate(tmp_path, kind, rate):
    path = make(tmp_path / f"a.{kind}", 41, rate=rate, **KINDS[kind])
    frames = decode(path, num_frames=7)
    clock, theirs = _clock(frames), _metadata(path, frames.indices)
    assert frames.indices == (0, 6, 13, 20, 26, 33, 40)
    assert clock.times == tuple(theirs.timestamps)
    np.testing.assert_allclose(
        clock.times, np.array(frames.indices) / float(rate), rtol=2e-3
    )
    np.testing.assert_allclose(clock.duration, 41 / float(rate), rtol=2e-3)
    if theirs.total_num_frames == 41:  # Some headers count none.
        assert clock.duration == theirs.duration
    assert clock.drift < 0.01


@pytest.mark.parametrize("kind", ["mp4", "mkv", "flv"])
def test_a_variable_rate(tmp_path, kind):
    path = make(tmp_path / f"a.{kind}", 60, milliseconds=STAMPS)
    frames = decode(path, num_frames=7)
    clock, theirs = _clock(frames), _metadata(path, frames.indices)
    assert clock.times == tuple(theirs.timestamps)
    np.testing.assert_allclose(clock.duration, 60 / theirs.fps, atol=1e-6)
    stamps = np.array(STAMPS)[list(frames.indices)] / 1000 - STAMPS[0] / 1000
    np.testing.assert_allclose(clock.shown, stamps, atol=1e-6)
    expected = np.abs(stamps - np.array(frames.indices) / theirs.fps).max()
    np.testing.assert_allclose(clock.drift, expected, atol=1e-6)
    assert clock.drift > 0.5


def test_the_demo_and_frames_that_repeat():
    path = settings.DEMO / "corpus/clips/0000.mp4"
    frames = decode(path, num_frames=40)
    assert len(set(frames.indices)) < 40
    theirs = _metadata(path, frames.indices)
    assert _clock(frames).times == tuple(theirs.timestamps)
    assert _clock(frames).duration == theirs.duration


@pytest.mark.parametrize("sampling", ["uniform", "midpoint", "fps"])
def test_a_part_counts_from_its_first_frame(tmp_path, sampling):
    """As a file of its own does, whatever comes before the part."""
    whole = make(tmp_path / "a.mp4", 60)
    part = make(tmp_path / "b.mp4", 21)
    how = {"sampling": sampling, "fps": 7.0}
    frames = _read(f"{whole}{Segment(19 / 25, 40 / 25)}", **how)
    alone = _read(str(part), **how)
    assert frames.indices == tuple(19 + index for index in alone.indices)
    assert _clock(frames).times == _clock(alone).times
    assert _clock(frames).duration == _clock(alone).duration == 21 / 25
    np.testing.assert_allclose(_clock(frames).shown, _clock(alone).shown, atol=1e-6)
    assert (_clock(frames).times[0] > 0) == (sampling == "midpoint")


def test_a_part_of_a_variable_rate(tmp_path):
    path = make(tmp_path / "a.mp4", 60, milliseconds=STAMPS)
    start = (STAMPS[17] - STAMPS[0]) / 1000
    frames = _read(f"{path}{Segment(start)}", sampling="midpoint")
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
    indices = np.array(frames.indices)
    assert indices[0] > 17
    times, shown = (indices - 17) / rate, (np.array(STAMPS)[indices] - STAMPS[17]) / 1e3
    clock = _clock(frames)
    np.testing.assert_allclose(clock.times, times, atol=1e-6)
    np.testing.assert_allclose(clock.shown, shown, atol=1e-6)
    np.testing.assert_allclose(clock.duration, 43 / rate, atol=1e-6)
    np.testing.assert_allclose(clock.drift, np.abs(times - shown).max(), atol=1e-6)


@pytest.mark.parametrize("kind", ["mp4", "avi"])
def test_a_sequential_decode_has_the_same_clock(tmp_path, monkeypatch, kind):
    stamps = [0, 40, 120, 160, 400, 1000, 1040, 1500]
    options = {"preset": "veryfast", "bf": "0"}
    path = make(tmp_path / f"a.{kind}", 8, milliseconds=stamps, options=options)
    sought = _clock(decode(path, num_frames=4))
    monkeypatch.setattr(video, "scan", lambda *_: None)
    clock = _clock(decode(path, num_frames=4))
    assert (clock.times, clock.duration) == (sought.times, sought.duration)
    np.testing.assert_allclose(clock.shown, sought.shown, atol=1e-6)
    np.testing.assert_allclose(clock.shown, [0, 0.12, 0.4, 1.5], atol=1e-6)


def test_the_duration_is_that_of_the_frames_that_decode(tmp_path):
    """The header of an AVI counts those that were dropped, too."""
    options = {"preset": "veryfast", "bf": "0"}
    stamps = [0, 40, 1000, 1500]
    path = make(tmp_path / "a.avi", 4, milliseconds=stamps, options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames > 1000 and stream.average_rate is not None
        rate = float(stream.average_rate)
    clock = _clock(decode(path, num_frames=4))
    np.testing.assert_allclose((clock.times[-1], clock.duration), (3 / rate, 4 / rate))
    np.testing.assert_allclose(clock.shown, [0, 0.04, 1, 1.5], atol=1e-6)


# ------------------------------------------------------------------------ no rate


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("a.asf", {"codec": "mpeg4"}),
        ("a.ts", {"milliseconds": STAMPS}),
        ("a.mp4", {"rate": 90_000}),
    ],
)
def test_an_unknown_rate_has_no_clock(tmp_path, name, more):
    path = make(tmp_path / name, 60, **more)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate in (None, 90_000)
    frames = _read(str(path))
    assert len(set(frames.indices)) == 5 and frames.clock is None
    part = _read(f"{path}{Segment(0.0001)}")
    assert part.indices[0] > 0 and part.clock is None


@pytest.mark.parametrize(
    "value",
    [None, 0, -25, 0.0, math.nan, math.inf, -math.inf, 1e5, 1e-5, "soon", b"\xff", []]
    + [fractions.Fraction(n) for n in (-25, 90_000)]
    + [10**400, fractions.Fraction(10**400), np.float32("nan"), np.array([1.0, 2.0])],
    ids=lambda value: f"{value!r:.20}",
)
def test_what_is_no_rate(value):
    assert clocks.rate_of(value) is None


@pytest.mark.parametrize("value", [NTSC, 25, 0.5, np.float32(12.5), np.int64(30)])
def test_what_is_a_rate(value):
    assert clocks.rate_of(value) == value


# ------------------------------------------------------------- from process to process


def test_several_numbers_of_frames_have_their_own_clocks(tmp_path):
    path = make(tmp_path / "a.mp4", 60, milliseconds=STAMPS)
    of = Videos(views.Settings.of(settings.default()).video).read(str(path), {2, 5, 9})
    drifts = set()
    for count in (2, 5, 9):
        frames = of(count)[0]
        assert frames.clock == decode(path, num_frames=count).clock
        assert len(_clock(frames).times) == count
        drifts.add(_clock(frames).drift)
    assert len(drifts) == 3


@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_prepared_clips_have_the_same_clocks(tmp_path, kind):
    """Of every number of frames, and of a single one; a .ts has no average rate."""
    stamps = [0, 40, 500, 540, 900, 2000, 2040, 2500, 2600, 3000]
    make(tmp_path / f"a.{kind}", 10, milliseconds=stamps)
    rows = [{"video": f"a.{kind}", "start": start} for start in (0.5, None)]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    config = settings.default()
    config.workers = 1
    config.corpus.prepared = str(tmp_path / "prepared")
    config.corpus.suspects = (str(tmp_path / "m.json"),)
    given = views.Settings.of(config)
    for count in (2, 3, 5):
        how = dataclasses.replace(given.video, num_frames=count)
        its = dataclasses.replace(given, video=how)
        assert not preparation.run(its, given.corpus.prepared).failures
    corpus, reader = open_corpus(given, (1, 2, 3, 5))
    for item in corpus.items:
        prepared = reader.read(item.clip, {1, 2, 3, 5})
        decoded = Videos(given.video).read(item.clip, {1, 2, 3, 5})
        clocks = {n: decoded(n)[0].clock for n in (1, 2, 3, 5)}
        assert clocks == {n: prepared(n)[0].clock for n in (1, 2, 3, 5)}
        if kind == "ts":
            assert set(clocks.values()) == {None}
        else:
            assert [len(clock.times) for clock in clocks.values()] == [1, 2, 3, 5]
            assert clocks[5].drift > 0.1 > clocks[1].drift == 0
