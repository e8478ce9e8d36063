"""Motion statistics and entropy orders, against the release's numbers."""

import json

import cv2
import numpy as np
import pytest

from decoding import decode
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.motion import statistics


def _texture(height=64, width=96) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def test_golden_numbers(golden):
    root = golden / "longva_official"
    official = json.loads((root / "official_scores.json").read_text())
    clips = official["videos"]
    measured = [
        statistics.measure(decode(root / "videos" / clip["video"], num_frames=8).pixels)
        for clip in clips
    ]
    phi = np.array([m.flow_variance for m in measured])
    b = np.array([m.brightness_std for m in measured])
    np.testing.assert_allclose(phi, [c["flow_variance"] for c in clips], rtol=1e-3)
    np.testing.assert_allclose(b, [c["brightness_std"] for c in clips], rtol=1e-6)
    q, r = statistics.entropy_orders(
        phi, b, statistics.bounds(phi, b), official["beta_1"], official["beta_2"]
    )
    np.testing.assert_allclose(q, [c["q"] for c in clips], atol=1e-5)
    np.testing.assert_allclose(r, [c["r"] for c in clips], atol=1e-5)
    assert q.min() == r.min() == 1 and q.max() == 2 and r.max() == pytest.approx(1.1)


def test_flow_variance_is_joint_over_both_components():
    # A shift to the right by 3: (3, 0) everywhere, whose variance over u and v is 9/4.
    texture = _texture(128, 160)
    shifted = [texture[:, 16 - 3 * k : 144 - 3 * k] for k in range(4)]
    measured = statistics.measure(np.stack(shifted))
    assert measured.flow_variance == pytest.approx(2.25, rel=0.1)


def test_brightness_is_a_deviation_over_frames():
    pixels = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in (10, 20, 60)])
    measured = statistics.measure(pixels)
    assert measured.brightness_std == pytest.approx(np.std([10, 20, 60]))


def test_identical_frames_do_not_move():
    measured = statistics.measure(np.stack([_texture()] * 4))
    assert measured.flow_variance == pytest.approx(0, abs=1e-4)
    assert measured.brightness_std == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (5, 3), (31, 33)])
def test_small_frames(size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    assert np.isfinite(statistics.measure(pixels).flow_variance)


def test_one_frame_has_no_motion():
    with pytest.raises(ClipError, match="1 frame was sampled and motion needs") as e:
        statistics.measure(_texture()[None])
    assert e.value.stage == "motion"


def test_what_opencv_refuses_is_the_clip_s_fault(monkeypatch):
    def refuse(*args, **how):
        raise cv2.error("too small")

    monkeypatch.setattr(cv2, "calcOpticalFlowFarneback", refuse)
    with pytest.raises(ClipError, match="optical flow of frames of 96x64 pixels") as e:
        statistics.measure(np.stack([_texture()] * 2))
    assert e.value.stage == "motion"


PHI = np.array([4.0, 1.0, 3.0])
B = np.array([10.0, 2.0, 6.0])


def test_bounds_and_orders():
    assert statistics.bounds(PHI, B) == (1.0, 4.0, 2.0, 10.0)
    q, r = statistics.entropy_orders(PHI, B, (1.0, 4.0, 2.0, 10.0), 0.6, 0.1)
    np.testing.assert_allclose(q, [1, 1.6, 1.2])
    np.testing.assert_allclose(r, [1.1, 1, 1.05])


def test_values_outside_of_given_bounds_count_as_the_nearest_end():
    q, r = statistics.entropy_orders(PHI, B, (2.0, 3.5, 4.0, 8.0), 1.0, 0.1)
    np.testing.assert_allclose(q, [1, 2, 1 + 1 / 3])
    np.testing.assert_allclose(r, [1.1, 1, 1.05])


@pytest.mark.parametrize(
    ("phi", "b", "expected"),
    [
        ([1.0], [2.0], ["1 clip has motion statistics"]),
        ([], [], ["0 clip has motion statistics"]),
        ([3.0, 3.0], [1.0, 2.0], [r"flow variance \(phi\) of all 2 clips is 3,"]),
        ([1.0, 2.0], [5.0, 5.0], [r"brightness deviation \(b\) of all 2 clips is 5,"]),
        ([1.0, 1.0], [5.0, 5.0], ["flow variance", "brightness deviation"]),
    ],
)
def test_a_corpus_without_a_range(phi, b, expected):
    with pytest.raises(AuditError) as e:
        statistics.bounds(np.array(phi, float), np.array(b, float))
    assert len(e.value.problems) == len(expected)
    for problem, text in zip(e.value.problems, expected, strict=True):
        with pytest.raises(AuditError, match=text):
            raise AuditError([problem])
        assert "give motion.bounds = (phi_min, phi_max, b_min, b_max)" in problem


def test_a_statistic_that_is_not_finite():
    with pytest.raises(AuditError, match=r"\(phi\) of clip 1 is nan; it must be"):
        statistics.bounds(np.array([1.0, np.nan, 2.0]), B)
