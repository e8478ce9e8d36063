"""Sizes and pixels of Qwen-VL's and VideoLLaMA3's frames, and the files that say them.

The oracle is transformers 5.24 with `cap_pixels_per_frame=True`.
"""

import json
import pathlib

import cv2
import numpy as np
import pytest
import torch
from transformers import (
    Qwen2VLVideoProcessor,
    Qwen3VLVideoProcessor,
    VideoLlama3VideoProcessor,
)
from transformers.image_utils import SizeDict
from transformers.video_processing_utils import BaseVideoProcessor

from vidsme_jax.base import ClipError
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import pixel_budget, smart_resize
from vidsme_jax.models.smart_resize import SmartResize

CLASSES = {
    "qwen2": Qwen2VLVideoProcessor,
    "qwen3": Qwen3VLVideoProcessor,
    "video_llama_3": VideoLlama3VideoProcessor,
}
PATCHES = {"qwen2": (14, 2), "qwen3": (16, 2), "video_llama_3": (14, 1)}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
# As the processors save themselves; the budgets are those of published files.
FLAGS = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "return_metadata": False,
}
VIDEO = {
    "qwen2": {
        **FLAGS,
        "crop_size": None,
        "data_format": "channels_first",
        "default_to_square": True,
        "device": None,
        "do_center_crop": None,
        "do_pad": None,
        "do_sample_frames": False,
        "fps": None,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "input_data_format": None,
        "max_frames": 768,
        "max_pixels": 12845056,
        "merge_size": 2,
        "min_frames": 4,
        "min_pixels": 3136,
        "num_frames": None,
        "patch_size": 14,
        "processor_class": "Qwen2_5_VLProcessor",
        "size": {"longest_edge": 12845056, "shortest_edge": 3136},
        "size_divisor": None,
        "temporal_patch_size": 2,
        "video_metadata": None,
        "video_processor_type": "Qwen2VLVideoProcessor",
    },
    "qwen3": {
        **FLAGS,
        "do_sample_frames": True,
        "fps": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_frames": 768,
        "merge_size": 2,
        "min_frames": 4,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "size": {"longest_edge": 25165824, "shortest_edge": 4096},
        "temporal_patch_size": 2,
        "video_processor_type": "Qwen3VLVideoProcessor",
    },
    "video_llama_3": {
        **FLAGS,
        "do_sample_frames": False,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_frames": 180,
        "merge_size": 2,
        "min_frames": 4,
        "patch_size": 14,
        "processor_class": "VideoLlama3Processor",
        "return_metadata": True,
        "size": {"longest_edge": 12845056, "shortest_edge": 12544},
        "temporal_patch_size": 1,
        "use_token_compression": True,
        "video_processor_type": "VideoLlama3VideoProcessor",
    },
}
IMAGES = {  # Of Qwen2-VL's and Qwen2.5-VL's repositories.
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
CAP = (
    "the pixels of a frame are capped as in training; transformers 5.24 does so only "
    "with cap_pixels_per_frame=True"
)
SHAPES = [(240, 320), (360, 640), (720, 1280), (1080, 1920), (640, 360), (1080, 1080)]
SHAPES += [(480, 480), (17, 31), (8, 8), (1, 1), (1, 200), (2400, 13), (3, 500)]
SHAPES += [(27, 29), (42, 70), (336, 448), (2160, 4096), (97, 1501), (45, 4000)]
BUDGETS = [(None, None), (3136, 12845056), (4096, 25165824), (100, 999), (70000, 80000)]


def _read(folder, kind, files, **change):
    for name, raw in files.items():
        (folder / name).write_text(json.dumps(raw))
    patch, temporal = PATCHES[kind]
    sizes = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": temporal}
    problems: list[str] = []
    made, remarks = smart_resize.read(
        Checkpoint("x", (pathlib.Path(folder),), {}, {}),
        kind,
        **(sizes | change),
        problems=problems,
    )
    return made, remarks, problems


def _read_video(folder, kind, **change):
    raw = VIDEO[kind] | change
    return _read(folder, kind, {"video_preprocessor_config.json": raw})


def _size(least, most):
    return {"size": {"shortest_edge": least, "longest_edge": most}}


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


def _smooth(count, shape) -> np.ndarray:
    """Frames whose resampled values are not clipped, as those of a camera's."""
    frames = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in frames])


@pytest.mark.parametrize("shape", [(135, 240), (240, 135), (150, 150), (448, 448)])
@pytest.mark.parametrize("kind", CLASSES)
def test_pixels_are_those_of_transformers(kind, shape, tmp_path):
    """Within two grey levels of torchvision's filter; as they were, if not resized."""
    made, _, problems = _read_video(tmp_path, kind)
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
        ((0, 5), "frames of 5x0 pixels have nothing to resize"),
    ],
)
def test_frames_that_cannot_be_resized(kind, shape, cause):
    with pytest.raises(ClipError) as caught:
        _made(kind)(np.zeros((2, *shape, 3), np.uint8))
    assert caught.value.stage == "preprocess"
    assert caught.value.cause.startswith(cause)


# --------------------------------------------------------------------------- the files


@pytest.mark.parametrize("kind", CLASSES)
def test_a_file_of_videos_is_taken_at_its_word(kind, tmp_path):
    made, remarks, problems = _read_video(tmp_path, kind)
    size = VIDEO[kind]["size"]
    assert problems == []
    assert (made.least, made.most) == (size["shortest_edge"], size["longest_edge"])
    assert made.tokens == {"qwen2": 128000, "qwen3": 768, "video_llama_3": 0}[kind]
    assert list(made.mean) == VIDEO[kind]["image_mean"]
    assert list(made.std) == VIDEO[kind]["image_std"]
    assert made.factor == 2 * VIDEO[kind]["patch_size"] and made.resample == 3
    assert made.compression == (kind == "video_llama_3")
    expected = [] if kind == "video_llama_3" else [CAP]
    if kind == "qwen2":
        assert "has 3136 to 12845056 pixels a frame, the models were tr" in remarks[0]
        remarks = remarks[1:]
    if kind == "qwen3":
        sampled = "its processor samples 2 frames a second of a video, 4 to 768 in all"
        expected.insert(
            0, f"{sampled}; config.video alone decides here which are shown"
        )
    assert list(remarks) == expected


@pytest.mark.parametrize("kind", CLASSES)
def test_absent_keys_are_the_defaults_of_the_class(kind, tmp_path):
    theirs = CLASSES[kind]()
    raw = {"video_processor_type": type(theirs).__name__}
    made, _, problems = _read(tmp_path, kind, {"preprocessor_config.json": raw})
    size = theirs.size
    assert problems == []
    assert (made.least, made.most) == (size["shortest_edge"], size["longest_edge"])
    assert made.mean == tuple(theirs.image_mean) and made.std == tuple(theirs.image_std)
    assert made.tokens == getattr(theirs, "max_video_tokens", 0)
    assert made.compression == getattr(theirs, "use_token_compression", False)
    patch, temporal = PATCHES[kind]
    assert (patch, temporal) == (theirs.patch_size, theirs.temporal_patch_size)
    assert theirs.merge_size == 2


def test_what_saves_itself_is_read(tmp_path):
    for kind, its_class in CLASSES.items():
        its_class(size={"shortest_edge": 7000, "longest_edge": 99000}).save_pretrained(
            tmp_path
        )
        made, _, problems = _read(tmp_path, kind, {})
        assert problems == [] and (made.least, made.most) == (7000, 99000)


def test_a_file_of_images_has_no_budget_of_videos(tmp_path):
    """As the published repositories of Qwen2-VL and Qwen2.5-VL."""
    files = {"preprocessor_config.json": IMAGES}
    made, remarks, problems = _read(tmp_path, "qwen2", files)
    assert problems == [] and (made.least, made.most) == (100352, 602112)
    assert remarks == (
        "preprocessor_config.json is of images: the budget of training, 100352 to "
        "602112 pixels a frame, stands in for 3136 to 12845056 pixels a frame, which "
        "transformers 5.24 takes from there",
        CAP,
    )
    typed = IMAGES | {"video_processor_type": "Qwen2VLVideoProcessor"}
    made, remarks, _ = _read(tmp_path, "qwen2", {"preprocessor_config.json": typed})
    assert (made.least, made.most) == (3136, 12845056)
    assert remarks == (
        "preprocessor_config.json has 3136 to 12845056 pixels a frame, the models were "
        "trained with 100352 to 602112 pixels a frame",
        CAP,
    )
    files = {"preprocessor_config.json": IMAGES | {"patch_size": 16}}
    made, remarks, problems = _read(tmp_path, "qwen3", files)
    assert problems == [] and (made.least, made.most) == (4096, 25165824)
    assert "4096 to 25165824 pixels a clip, stands in for 3136 to" in remarks[0]
    files = {"preprocessor_config.json": {"merge_size": 1, "image_mean": [0.5] * 3}}
    made, remarks, problems = _read(tmp_path, "video_llama_3", files)
    assert problems == [] and (made.least, made.most) == (12544, 12845056)
    assert made.compression and "12544 pixels a frame to 12845056 a cl" in remarks[0]


def test_which_file_counts(tmp_path):
    files = {"preprocessor_config.json": IMAGES}
    files["video_preprocessor_config.json"] = VIDEO["qwen2"] | {"resample": 2}
    made, _, problems = _read(tmp_path, "qwen2", files)
    assert problems == [] and (made.most, made.resample) == (12845056, 2)
    video = VIDEO["qwen2"] | {"max_pixels": 99 * 784, "size": None, "min_pixels": 784}
    files["processor_config.json"] = {"image_processor": {}, "video_processor": video}
    made, _, problems = _read(tmp_path, "qwen2", files)
    assert problems == [] and (made.least, made.most) == (784, 99 * 784)


def test_no_file_is_one_problem(tmp_path):
    made, _, problems = _read(tmp_path, "qwen2", {}, patch_size=4)
    (problem,) = problems
    assert "no preprocessor_config.json: nothing says what is done" in problem
    assert "save the model's Qwen2VLVideoProcessor there" in problem
    assert made.factor == 8


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size": {"min_pixels": 784, "max_pixels": 7840}}, (784, 7840)),
        ({"size": None, "min_pixels": 784}, (784, 602112)),
        ({"size": {"longest_edge": 8000}, "min_pixels": 784}, (784, 8000)),
        ({"min_pixels": 784, "max_pixels": 7840}, (784, 7840)),
        ({"min_pixels": None, "max_pixels": 7840}, (3136, 7840)),
    ],
    ids=str,
)
def test_spellings_of_the_budget(change, expected, tmp_path):
    """As transformers has it: `min_pixels` and `max_pixels` in front of `size`."""
    raw = VIDEO["qwen2"] | {"min_pixels": None, "max_pixels": None} | change
    files = {"processor_config.json": {"video_processor": raw}}
    made, _, problems = _read(tmp_path, "qwen2", files)
    assert problems == [] and (made.least, made.most) == expected


WRONG_SIZE = "expected shortest_edge and longest_edge, which are the least and the most"
OTHER = "frames would be cut into other patches than the tower takes"


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("qwen2", {"cap_pixels_per_frame": False}, "is false, but the models were tra"),
        ("qwen2", {"cap_pixels_per_frame": 1}, "cap_pixels_per_frame is 1, expected b"),
        ("qwen3", {"do_resize": False}, "do_resize is False; built for True"),
        ("qwen3", {"do_resize": None}, "do_resize is None; built for True"),
        ("qwen2", {"do_center_crop": True}, "do_center_crop is True; built for False"),
        (
            "qwen2",
            {"patch_size": 16},
            f"patch_size is 16, but by config.json it is 14: {OTHER}",
        ),
        (
            "qwen3",
            {"patch_size": None},
            "patch_size is 16 (the default), but by config",
        ),
        (
            "qwen3",
            {"temporal_patch_size": 1},
            "temporal_patch_size is 1, but by config",
        ),
        (
            "video_llama_3",
            {"merge_size": 1},
            "merge_size is 1, but by config.json it is 2",
        ),
        ("qwen2", {"merge_size": "2"}, "merge_size is '2', expected int"),
        ("qwen2", {"merge_size": 10**30}, "is 1000000000000000000000000000000, but by"),
        ("qwen3", {"size": {"height": 4, "width": 4}}, f"'width': 4}}; {WRONG_SIZE}"),
        (
            "qwen3",
            {"size": {"longest_edge": 99}},
            f"{{'longest_edge': 99}}; {WRONG_SIZE}",
        ),
        ("qwen3", {"size": {"shortest_edge": 9, "longest_edge": None}}, WRONG_SIZE),
        ("qwen3", {"size": 448}, "size is 448, expected dict"),
        ("qwen3", {"size": [4, 9]}, "size is [4, 9], expected dict"),
        ("qwen3", {"size": "4"}, "size is '4', expected dict"),
        (
            "video_llama_3",
            _size(4096.0, 9999),
            "size.shortest_edge is 4096.0, expected int",
        ),
        (
            "video_llama_3",
            _size(True, 9999),
            "size.shortest_edge is True, expected int",
        ),
        (
            "video_llama_3",
            _size(0, 9999),
            "size.shortest_edge is 0, expected 1 to 16777216",
        ),
        (
            "video_llama_3",
            _size(-4, 9999),
            "size.shortest_edge is -4, expected 1 to 167",
        ),
        ("video_llama_3", _size(4, [9]), "size.longest_edge is [9], expected int"),
        ("video_llama_3", _size(4, "9"), "size.longest_edge is '9', expected int"),
        (
            "video_llama_3",
            _size(4, float("inf")),
            "size.longest_edge is inf, expected int",
        ),
        ("video_llama_3", _size(4, 10**40), "expected 1 to 4294967296"),
        (
            "video_llama_3",
            _size(999, 998),
            "at least 999 pixels and at most 998 contrad",
        ),
        (
            "qwen2",
            {"min_pixels": 12845057},
            "at least 12845057 pixels and at most 12845",
        ),
        ("qwen2", {"min_pixels": 1e4}, "min_pixels is 10000.0, expected int"),
        ("qwen2", {"max_pixels": -1}, "max_pixels is -1, expected 1 to 4294967296"),
        (
            "qwen3",
            {"max_pixels": 9999},
            "max_pixels is 9999, but 25165824 by size, which tra",
        ),
        ("qwen3", {"min_pixels": 9999}, "expected no min_pixels, or the same"),
        (
            "qwen3",
            {"size": None, "min_pixels": 9},
            "is 9, but 131072 by size, which tr",
        ),
        ("qwen3", {"size": {"longest_edge": 9}, "min_pixels": 4}, WRONG_SIZE),
        (
            "qwen2",
            {"max_video_tokens": 0},
            "max_video_tokens is 0, expected 1 to 16777216",
        ),
        ("qwen2", {"max_video_tokens": 1.5}, "max_video_tokens is 1.5, expected int"),
        ("video_llama_3", {"max_video_tokens": 9}, "unknown key 'max_video_tokens'"),
        (
            "video_llama_3",
            {"cap_pixels_per_frame": True},
            "unknown key 'cap_pixels_per",
        ),
        (
            "qwen2",
            {"use_token_compression": True},
            "unknown key 'use_token_compression'",
        ),
        ("video_llama_3", {"use_token_compression": 1}, "is 1, expected bool"),
        (
            "qwen2",
            {"video_processor_type": "Qwen3VLVideoProcessor"},
            "built for 'Qwen2VL",
        ),
        ("qwen3", {"fps": -2}, "fps is -2, expected a number from 1e-06 to 1e+06"),
        ("qwen3", {"fps": float("nan")}, "fps is nan, expected a number from"),
        ("qwen3", {"max_frames": 0}, "max_frames is 0, expected 1 to"),
        (
            "qwen3",
            {"do_sample_frames": "no"},
            "do_sample_frames is 'no', expected bool",
        ),
        ("qwen3", {"resample": 9}, "resample is 9, expected one of 0 (nearest)"),
        ("qwen3", {"image_std": 0}, "image_std is 0, expected three numbers above 0"),
        ("qwen3", {"sharpen": 1}, "unknown key 'sharpen'"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_what_is_not_built_is_refused_in_one_sentence(kind, change, expected, tmp_path):
    sizes = {"patch_size": 32} if change == {"patch_size": None} else {}
    raw = VIDEO[kind] | change
    made, _, problems = _read(
        tmp_path, kind, {"video_preprocessor_config.json": raw}, **sizes
    )
    (problem,) = problems
    assert problem.startswith("video_preprocessor_config.json: ")
    assert expected in problem and len(problem) < 320
    made.target(2, 30, 40)


def test_several_problems_are_told_together(tmp_path):
    change = {"size": "x", "image_std": 0, "novel": 1, "merge_size": 3}
    problems = _read_video(tmp_path, "qwen2", **change)[2]
    assert len(problems) == 4


def test_flags_that_are_null(tmp_path):
    """As transformers has it: a default where they are absent, false if null."""
    made = _read_video(tmp_path, "video_llama_3", use_token_compression=None)[0]
    assert not made.compression
    assert CAP in _read_video(tmp_path, "qwen2", cap_pixels_per_frame=None)[1]
    assert CAP not in _read_video(tmp_path, "qwen2", cap_pixels_per_frame=True)[1]
    made = _read_video(tmp_path, "qwen2", max_video_tokens=5000)[0]
    assert made.tokens == 5000
