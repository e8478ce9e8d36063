"""Material of the controlled benchmark: a film's shots, and what answers say of them.

The film is not here: its test skips unless `VIDSME_FILM` names a folder that has it.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from vidsme_jax import settings
from vidsme_jax.data import corpora
from vidsme_jax.demo import clips
from vidsme_jax.settings import views

pytestmark = pytest.mark.usefixtures("beside_scripts")


@pytest.fixture
def film():
    import _film

    return _film


@pytest.fixture
def seen():
    import _seen

    return _seen


def _scene(seed, count, *, step=(0, 0), colour=(128, 128, 128)) -> np.ndarray:
    """A blurred texture of a colour that moves by so many pixels a frame."""
    rng = np.random.default_rng(seed)
    light = cv2.GaussianBlur(rng.uniform(-400, 400, (180, 320)), (0, 0), 6)
    shown = [
        np.roll(light, (k * step[1], k * step[0]), (0, 1))[..., None] + colour
        for k in range(count)
    ]
    return np.clip(shown, 0, 255).round().astype(np.uint8)


def _timed(path, frames, times):
    """Writes frames at times in milliseconds; the header says 24 a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=24)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def test_cuts_of_three_scenes_and_of_black_are_found(film, tmp_path):
    """Fast motion and a slow fade are none; what is black is left out."""
    fade = _scene(3, 80) * np.linspace(1, 0, 80)[:, None, None, None]
    parts = [
        _scene(1, 40, step=(9, 4)),
        _scene(2, 30, step=(3, 0), colour=(60, 90, 170)),
        fade.astype(np.uint8),
        np.zeros((30, 180, 320, 3), np.uint8),
    ]
    clips.encode(tmp_path / "a.mp4", np.concatenate(parts), 12)
    found = film.shots(tmp_path / "a.mp4", tmp_path)
    starts = [round(start * 12) for start, _ in found]
    assert starts[:3] == [0, 40, 70] and 130 < starts[3] < 150 and len(starts) == 4
    assert found[-1][1] == pytest.approx(180 / 12)
    spans = film.pieces(found)
    assert [span[:2] for span in spans] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    taken = [frames for _, frames in film.read(tmp_path / "a.mp4", spans)]
    assert [film.is_black(frames) for frames in taken] == [False, False, False, True]
    np.testing.assert_allclose(taken[0], parts[0][: len(taken[0])], atol=40)
    assert np.abs(taken[0] - parts[0].astype(float)).mean() < 4
    assert film.shots(tmp_path / "a.mp4", tmp_path, 4.0)[-1][0] == pytest.approx(
        40 / 12
    )


def test_the_cuts_are_kept_for_the_same_bytes(film, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    clips.encode(
        path, np.concatenate([_scene(1, 12), _scene(2, 12, colour=(90, 60, 60))]), 12
    )
    found = film.shots(path, tmp_path)
    np.testing.assert_allclose(found, [(0, 1), (1, 2)])
    with monkeypatch.context() as patch:
        patch.setattr(film, "_frames", lambda *_: pytest.fail("decoded again"))
        assert film.shots(path, tmp_path) == found
    clips.encode(path, _scene(1, 12), 12)
    np.testing.assert_allclose(film.shots(path, tmp_path), [(0, 1)])


def test_times_are_those_of_frames_not_of_the_header(film, tmp_path):
    """As of opencv-doc's tree.avi: 24 a second it says, and there are three or less."""
    times = [0, 300, 700, 1000, 1900, 2200, 2600]
    frames = np.stack([np.full((64, 96, 3), 20 + 30 * k, np.uint8) for k in range(7)])
    _timed(tmp_path / "a.mkv", frames, times)
    span = film.Piece(0, 0, 0.0, 2.5)
    ((_, found),) = film.read(tmp_path / "a.mkv", [span])
    asked = 1000 * (np.arange(30) + 0.25) / 12
    shown = np.searchsorted(times, asked, side="right") - 1
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 20 + 30 * shown, atol=3)
    assert found.shape == (30, 64, 96, 3)


def test_frames_without_an_order_in_time_are_refused(film, tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    clips.encode(path, _scene(1, 12), 12)

    class Shuffled:
        streams = av.open(str(path)).streams

        def decode(self, _):
            return iter([Frame(0.0), Frame(0.2), Frame(0.1)])

    class Frame:
        def __init__(self, time):
            self.time = time

    monkeypatch.setattr(film.av, "open", lambda _: contextlib.nullcontext(Shuffled()))
    with pytest.raises(SystemExit, match=r"after that at 0\.2 s has the time 0\.1"):
        list(film._frames(path, 9.0))


def test_answers_say_what_was_drawn(seen):
    ask = {each.__name__: each for each in seen.QUESTIONS}
    rng = np.random.default_rng(0)
    clip = _scene(1, 36, step=(-3, 0), colour=(60, 160, 60))
    clip[20:] = np.minimum(clip[20:].astype(int) + 60, 255)
    said = ask["happens"](clip, 12, rng)[1]
    assert said == (
        "the picture is very bright and mostly green ; it grows lighter ; the largest "
        "change comes after 1.7 seconds ; the motion is steady and goes left"
    )
    down = _scene(1, 24, step=(0, 4))
    assert seen.motion(down, 12).endswith("goes down")
    assert seen.motion(down[:1].repeat(9, 0), 12).endswith("still and goes many ways")
    still = np.zeros((24, 180, 320, 3), np.uint8)
    still[:, :60, 220:] = 255, 255, 0
    still[9, 130:, :90] = 200
    assert ask["lit"](still, 12, rng)[1] == (
        "the top right is lightest with 84 of 100 and the top left is darkest with "
        "0 of 100 ; it stays as light ; it is lightest after 0.8 seconds"
    )
    where = ask["moves"](still, 12, rng)[1]
    assert "most of it is in the bottom left ; it is strongest after 0.8" in where
    red = np.full((6, 90, 160, 3), (200, 30, 20), np.uint8)
    red[3:, :, :40] = 30, 40, 220
    assert ask["colours"](red, 12, rng)[1] == (
        "it begins red 100 percent and orange 0 percent ; it goes on red 75 percent "
        "and blue 25 percent ; it ends red 75 percent and blue 25 percent"
    )
    question, answer = ask["seen_at"](red[5:], 12, rng)
    assert question == "what is seen after 0.0 seconds"
    assert answer == (
        "the left is dark blue ; the middle is dim red ; the right is dim red ; the "
        "top is dim red ; 29 of 100 in all"
    )


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((0, 0, 0), "black"),
        ((120, 120, 130), "grey"),
        ((240, 240, 235), "white"),
        ((220, 20, 30), "red"),
        ((240, 140, 20), "orange"),
        ((100, 60, 20), "brown"),
        ((240, 230, 40), "yellow"),
        ((40, 160, 40), "green"),
        ((30, 170, 170), "teal"),
        ((40, 70, 220), "blue"),
        ((130, 40, 200), "purple"),
        ((240, 60, 190), "pink"),
        ((220, 20, 60), "red"),
    ],
)
def test_names_of_colours(seen, colour, name):
    clip = np.full((1, 8, 8, 3), colour, np.uint8)
    assert seen.shares(clip)[0] == (name, 100)


@pytest.mark.long
def test_what_is_asked_depends_on_the_seed_and_the_clip(seen):
    clip = _scene(1, 24, step=(2, 1))
    asked = [seen.asked(clip, 12, f"a-{k}", 0)["question"] for k in range(40)]
    kinds = {question.split(" after ")[0] for question in asked}
    assert len(kinds) == len(seen.QUESTIONS) >= 4
    assert asked == [seen.asked(clip, 12, f"a-{k}", 0)["question"] for k in range(40)]
    assert asked != [seen.asked(clip, 12, f"a-{k}", 1)["question"] for k in range(40)]


def test_a_pool_is_a_manifest_and_the_same_bytes_again(film, tmp_path, monkeypatch):
    path = tmp_path / "made.mp4"
    parts = [_scene(1, 100, step=(3, 1)), _scene(2, 30, colour=(40, 60, 180))]
    clips.encode(path, np.concatenate(parts), 12)
    monkeypatch.setattr(film, "fetch", lambda *_: path)
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        rows = film.write_pool(folder, cache=tmp_path, sources=["bikes"])
        files = sorted(x for x in folder.rglob("*") if x.is_file())
        found.append({x.relative_to(folder): x.read_bytes() for x in files})
    assert found[0] == found[1] and len(found[0]) == 4
    assert [row["source"] for row in rows] == ["bikes/shot-000"] * 2 + [
        "bikes/shot-001"
    ]
    assert film.summary(rows) == {
        "clips": 3,
        "shots": 2,
        "seconds": 10.8,
        "shared_answers": 0,
    }
    _read_as_manifest(folder, rows)


def _read_as_manifest(folder, rows):
    """The corpus has each row as it is; the videos have as many frames as is said."""
    halves = {"members": rows[::2], "nonmembers": rows[1::2]}
    for role, its in halves.items():
        text = "".join(json.dumps(row) + "\n" for row in its)
        (folder / f"{role}.jsonl").write_text(text)
    manifest = (folder / "pool.jsonl").read_text()
    assert [json.loads(line) for line in manifest.splitlines()] == rows
    corpus = dataclasses.replace(
        views.Settings.of(settings.default()).corpus,
        **{role: (str(folder / f"{role}.jsonl"),) for role in halves},
    )
    items = corpora.load(corpus).items
    found = {x.id: (pathlib.Path(x.video).name, x.question, x.answer) for x in items}
    assert found == {
        row["id"]: (pathlib.Path(row["video"]).name, row["question"], row["answer"])
        for row in rows
    }
    for row in rows:
        with av.open(str(folder / row["video"])) as file:
            count = sum(1 for _ in file.decode(video=0))
        assert count == round(row["seconds"] * 12)


def test_the_film(film, tmp_path):
    """Needs the folder of `VIDSME_FILM`, which `_film.fetch` fills."""
    cache = pathlib.Path(os.environ.get("VIDSME_FILM", tmp_path))
    if not (cache / "bbb.mp4").is_file():
        pytest.skip("VIDSME_FILM names no folder with bbb.mp4; see benchmarks/_film.py")
    rows = film.write_pool(tmp_path / "pool", cache=cache)
    about = film.summary(rows)
    assert 110 <= about["clips"] <= 195 and about["shots"] >= 75
    assert about["shared_answers"] < 0.05 * len(rows)
    assert all(2 - 1 / 12 <= row["seconds"] <= 6 for row in rows)
    assert len({row["question"].split(" after ")[0] for row in rows}) >= 4
    _read_as_manifest(tmp_path / "pool", rows)
