"""Preprocessing against transformers' CLIP image processor, PIL path."""

import resource

import numpy as np
import pytest
import transformers

from vidsme_jax.models import preprocessing

# Odd and even, wide and tall, smaller and larger than the tower's input.
SHAPES = [(70, 90), (91, 57), (56, 56), (33, 41), (240, 427)]


def _settings(size=56):
    return {
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": size},
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resize", [56, 63])
def test_equals_the_clip_processor(shape, resize):
    raw = _settings() | {"size": {"shortest_edge": resize}}
    problems: list[str] = []
    prepare = preprocessing.from_json(raw, 56, problems)
    assert not problems
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, *shape, 3), np.uint8)
    ours = prepare(frames)
    mean, std = (np.array(x, np.float32) for x in (prepare.mean, prepare.std))
    normal = ((ours / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    processor = transformers.CLIPImageProcessorPil(**raw)
    theirs = processor(list(frames), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(normal, theirs, atol=2e-6)


@pytest.mark.parametrize("shape", [(7, 900), (900, 7), (90, 8901), (8901, 90)])
def test_long_thin_frames_cost_no_more_than_the_crop(shape, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), np.uint8)
    prepare = preprocessing.from_json(_settings(), 56, [])
    part = prepare(frames)
    monkeypatch.setattr(preprocessing, "_LONGEST", 1000)
    whole = prepare(frames)
    # Pillow rounds between its two passes, whose order it takes from the shape.
    apart = np.abs(part.astype(int) - whole)
    assert apart.max() < 10 and (apart > 1).mean() < 0.01
    monkeypatch.undo()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert prepare(np.zeros((1, 2, 16384, 3), np.uint8)).shape == (1, 56, 56, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_the_release_pixels(golden):
    """The very pixels that the release fed its tower."""
    arrays = np.load(golden / "longva_official" / "official_arrays.npz")
    prepare = preprocessing.from_json(_settings(), 56, [])
    mean, std = (np.array(x, np.float32) for x in (prepare.mean, prepare.std))
    for clip in (0, 1):
        ours = prepare(arrays[f"frames_{clip}"])
        normal = ((ours / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(normal, arrays[f"pixels_{clip}"], atol=2e-6)


def test_no_file_is_clip_at_the_towers_size():
    assert preprocessing.from_json(None, 336, []).size == 336


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"crop_size": {"height": 48, "width": 48}}, "crop_size is"),
        ({"do_center_crop": False}, "do_center_crop is False; built for True"),
        ({"resample": 2}, "resample is 2; built for 3"),
        ({"rescale_factor": 0.5}, "rescale_factor is 0.5, expected 1/255"),
        ({"size": {"height": 40, "width": 56}}, "expected shortest_edge"),
        ({"size": {"shortest_edge": 40}}, "size 40 is smaller than the crop 56"),
        ({"sharpen": True}, "unknown key 'sharpen'"),
    ],
)
def test_what_is_not_built_is_refused(change, text):
    problems: list[str] = []
    preprocessing.from_json(_settings() | change, 56, problems)
    assert any(text in problem for problem in problems), problems
