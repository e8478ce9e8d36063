"""Sizes and pixels of Qwen-VL's and VideoLLaMA3's frames.

The oracle is transformers 5.24 with `cap_pixels_per_frame=True`.
"""

import itertools

import cv2
import numpy as np
import pytest
import torch
from transformers import Qwen3VLVideoProcessor
from transformers.image_utils import SizeDict
from transformers.video_processing_utils import BaseVideoProcessor

from oracles.video_processors import CLASSES, VIDEO, read_video
from vidsme_jax.base import ClipError
from vidsme_jax.models import pixel_budget
from vidsme_jax.models.smart_resize import SmartResize

SHAPES = [(240, 320), (360, 640), (720, 1280), (1080, 1920), (640, 360), (1080, 1080)]
SHAPES += [(480, 480), (17, 31), (8, 8), (1, 1), (1, 200), (2400, 13), (3, 500)]
SHAPES += [(27, 29), (42, 70), (336, 448), (2160, 4096), (97, 1501), (45, 4000)]
BUDGETS = [(None, None), (3136, 12845056), (4096, 25165824), (100, 999), (70000, 80000)]


def _made(kind, least=None, most=None, tokens=None) -> SmartResize:
    default = pixel_budget.KINDS[kind]
    return SmartResize(
        kind=kind,
        factor=default.patches[0] * default.patches[2],
        temporal=default.patches[1],
        least=least or default.size[0],
        most=most or default.size[1],
        tokens=tokens or default.tokens or 0,
        mean=default.mean,
        std=default.std,
    )


def _theirs(made: SmartResize, monkeypatch):
    """Returns the target of transformers, whose own resizing is left out."""
    monkeypatch.setattr(
        BaseVideoProcessor, "resize", lambda self, image, size, resample: size
    )
    known = {"cap_pixels_per_frame": True, "max_video_tokens": made.tokens}
    processor = CLASSES[made.kind](**(known if made.tokens else {}))
    size = SizeDict(shortest_edge=made.least, longest_edge=made.most)

    def target(frames, height, width):
        found = processor.resize(
            torch.empty(1, frames, 3, height, width, device="meta"),
            size=size,
            resample=3,
            factor=made.factor,
            temporal_factor=made.temporal,
            cap_pixels_per_frame=True,
        )
        return found.height, found.width

    return target


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("kind", CLASSES)
def test_targets_are_those_of_transformers(kind, budget, monkeypatch):
    made = _made(kind, *budget)
    theirs = _theirs(made, monkeypatch)
    sizes = set()
    for frames in [*range(1, 26), *range(26, 401, 27), 399, 400, 2047]:
        counted = max(frames, 2) if kind == "qwen3" else frames  # One stands twice.
        for shape in SHAPES:
            if made.most < frames:
                continue  # They divide by zero.
            found = made.target(frames, *shape)
            assert found == theirs(counted, *shape), (frames, shape)
            assert found[0] * found[1] <= made.most_rows * made.factor**2
            sizes.add(found)
    assert len(sizes) > 3


def test_tokens_of_a_long_clip_are_shared_among_its_frames(monkeypatch):
    made = _made("qwen2", tokens=4000)
    theirs = _theirs(made, monkeypatch)
    found = [made.target(frames, 720, 1280) for frames in range(1, 80)]
    assert found == [theirs(frames, 720, 1280) for frames in range(1, 80)]
    assert len(set(found)) > 10
    made = _made("qwen3", 4096, 25165824, tokens=99)
    theirs = _theirs(made, monkeypatch)
    assert made.target(8, 720, 1280) == theirs(8, 720, 1280) == (224, 416)


def test_transformers_alone_does_not_cap_pixels(monkeypatch):
    """Of a clip of eight frames; where that changes, the remark on it is wrong."""
    monkeypatch.setattr(
        BaseVideoProcessor, "resize", lambda self, image, size, resample: size
    )
    made = _made("qwen3", 4096, 25165824)
    processor = Qwen3VLVideoProcessor()
    assert processor.cap_pixels_per_frame is None
    size = SizeDict(shortest_edge=made.least, longest_edge=made.most)
    video = torch.empty(1, 8, 3, 1080, 1920, device="meta")
    found = processor.resize(video, size=size, resample=3, factor=32, temporal_factor=2)
    assert (found.height, found.width) == (1088, 1920)
    assert made.target(8, 1080, 1920) == (640, 1152)


@pytest.mark.parametrize(
    ("kind", "budget", "rows", "grid"),
    [
        ("qwen2", (None, None), 768, (12, 12)),
        ("qwen2", (3136, 12845056), 16384, (2, 2)),
        ("qwen3", (4096, 25165824), 960, (1, 1)),
        ("video_llama_3", (12544, 12845056), 16384, (4, 4)),
    ],
)
def test_rows_of_a_frame(kind, budget, rows, grid):
    made = _made(kind, *budget)
    assert made.most_rows == rows and made.least_grid == grid
    count, side = (5 if kind == "qwen3" else 1), made.factor
    shapes = [(a * side, b * side) for a in range(16, 140) for b in range(a, a + 9)]
    most = max(np.prod(made.target(count, *shape)) for shape in shapes) / side**2
    assert 0.99 * rows < most <= rows
    down, across = made.target(400, 8, 8)
    assert (down // side, across // side) == grid


def test_thin_frames_can_have_more_rows_than_the_budget():
    made = _made("qwen2", 128 * 784, 128 * 784)
    down, across = made.target(1, 10, 1000)
    assert (down // 28, across // 28) == (2, 114) and 228 <= made.most_rows < 300


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 15, 67])
@pytest.mark.parametrize("kind", CLASSES)
def test_no_frame_has_more_rows_than_its_clip_allows(kind, count):
    """Of Qwen3-VL three frames are compared as four, but scaled as three."""
    made = _made(kind)
    sides = range(8 * made.factor, 46 * made.factor, made.factor)
    found = (made.target(count, *shape) for shape in itertools.product(sides, sides))
    most = max(down * across for down, across in found) // made.factor**2
    assert most <= made.rows_at_most(count)


def _smooth(count, shape) -> np.ndarray:
    """Frames whose resampled values are not clipped, as those of a camera's."""
    frames = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in frames])


@pytest.mark.parametrize("shape", [(135, 240), (240, 135), (150, 150), (448, 448)])
@pytest.mark.parametrize("kind", CLASSES)
def test_pixels_are_those_of_transformers(kind, shape, tmp_path):
    """Within two grey levels of torchvision's filter; as they were, if not resized."""
    made, _, problems = read_video(tmp_path, kind)
    assert not problems
    frames = _smooth(5, shape)
    processor = CLASSES[kind](**VIDEO[kind])
    known = {} if kind == "video_llama_3" else {"cap_pixels_per_frame": True}
    patches = processor(
        [torch.tensor(frames).permute(0, 3, 1, 2)],
        do_sample_frames=False,
        return_tensors="pt",
        **known,
    )
    side, time = made.factor // 2, made.temporal
    t, h, w = patches["video_grid_thw"][0].tolist()
    theirs = patches["pixel_values_videos"].numpy()
    theirs = theirs.reshape(t, h // 2, w // 2, 2, 2, 3, time, side, side)
    theirs = theirs.transpose(0, 6, 1, 3, 7, 2, 4, 8, 5)
    theirs = theirs.reshape(t * time, h * side, w * side, 3)[:5]
    ours = made(frames)
    assert ours.dtype == np.uint8
    scaled = (ours / 255 - np.array(made.mean)) / np.array(made.std)
    same = ours.shape == frames.shape
    assert same == (shape == (448, 448)) and same == (ours is frames)
    levels = np.abs(scaled - theirs) * 255 * np.array(made.std)
    assert levels.max() < (0.001 if same else 2.001)


def test_frames_that_are_a_view_are_resized_too():
    frames = _smooth(3, (60, 90))
    made = _made("qwen2")
    np.testing.assert_array_equal(made(frames[::-1]), made(frames.copy())[::-1])


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("shape", "cause"),
    [
        ((3000, 10), "frames of 10x3000 pixels are too thin: one side is 300 times "),
        ((40, 8080), "frames of 8080x40 pixels are too thin: one side is 202 times "),
        ((0, 5), "frames of 5x0 pixels are empty"),
    ],
)
def test_frames_that_cannot_be_resized(kind, shape, cause):
    with pytest.raises(ClipError) as caught:
        _made(kind)(np.zeros((2, *shape, 3), np.uint8))
    assert caught.value.stage == "preprocess"
    assert caught.value.cause.startswith(cause)


# --------------------------------------------------------------------------- the files
