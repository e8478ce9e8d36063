"""Preprocessing against transformers' image processors, PIL path."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from vidsme_jax.base import ClipError
from vidsme_jax.models import preprocessing
from vidsme_jax.models import preprocessor_config as files
from vidsme_jax.models.llava_hf import modeling
from vidsme_jax.models.preprocessing import Resize

# (height, width): 16:9, 9:16, 1:1, 4:3, 21:9, 1:3, 3:1, odd, tiny; larger and smaller
# than the tower's input of 56, and as large.
SHAPES = ((135, 240), (80, 45), (56, 56), (60, 80), (27, 63), (90, 30), (40, 120))
SHAPES += ((31, 17), (5, 7), (240, 427))
RNG = np.random.default_rng(0)
FRAMES = [RNG.integers(0, 256, (2, *shape, 3), np.uint8) for shape in SHAPES]


def _settings(**change):
    """As `CLIPImageProcessor` saves them."""
    return {
        "crop_size": {"height": 56, "width": 56},
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
        "size": {"shortest_edge": 56},
        **change,
    }


def _read(raw, kind=files.CLIP, size=56):
    problems: list[str] = []
    return files.read(raw, kind, size, problems), problems


def _normalised(prepare, frames):
    """The tower's input, as the model itself makes it of what is sent to it."""
    config = types.SimpleNamespace(image_mean=prepare.mean, image_std=prepare.std)
    model = types.SimpleNamespace(config=config)
    return modeling.Llava.normalise(model, jnp.asarray(prepare(frames)))


def _check(prepare, processor, frames=FRAMES):
    for clip in frames:
        theirs = processor(list(clip), return_tensors="np")["pixel_values"]
        ours = _normalised(prepare, clip)
        largest = max(1.0, np.abs(theirs).max())  # Not rescaled, they go to 1000.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * largest)


SIZES = {
    "shortest": {"size": {"shortest_edge": 56}},
    "shortest, larger": {"size": {"shortest_edge": 63}},
    "shortest, smaller than the crop": {"size": {"shortest_edge": 33}},
    "height and width": {"size": {"height": 56, "width": 56}},
    "not a square": {"size": {"height": 41, "width": 90}},
    "shortest and longest": {"size": {"shortest_edge": 56, "longest_edge": 70}},
    "longest null": {"size": {"shortest_edge": 63, "longest_edge": None}},
    # 68 / 3 is 22.7 and 68 x 5 / 7 is 48.6.
    "shortest to be rounded": {"size": {"shortest_edge": 56, "longest_edge": 68}},
    "maxima": {"size": {"max_height": 61, "max_width": 80}},
    "small maxima": {"size": {"max_height": 40, "max_width": 43}},
    "number": {"size": 63},
    "number, square": {"size": 63, "default_to_square": True},
    "number, not square": {"size": 63, "default_to_square": False},
    "pair": {"size": [60, 71]},
    "not resized": {"do_resize": False},
    "not resized, null": {"do_resize": None, "size": None, "resample": None},
    "crop as number": {"size": 63, "crop_size": 56},
    "crop as pair": {"size": 63, "crop_size": [56, 56]},
    "rgb null": {"do_convert_rgb": None},
}


@pytest.mark.parametrize("name", SIZES)
def test_every_form_of_size_is_the_clip_processors(name, tmp_path):
    processor = transformers.CLIPImageProcessorPil(**_settings(**SIZES[name]))
    prepare, problems = _read(_settings(**SIZES[name]))
    assert not problems
    _check(prepare, processor)


@pytest.mark.parametrize("resample", range(6))
def test_every_filter_is_pillows(resample):
    raw = _settings(resample=resample, size={"shortest_edge": 60})
    _check(_read(raw)[0], transformers.CLIPImageProcessorPil(**raw))


@pytest.mark.parametrize(
    "change",
    [
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1},
        {"rescale_factor": 1 / 256},
        {"do_rescale": False},
        {"do_rescale": None, "rescale_factor": None},
        {"do_normalize": False},
        {"do_normalize": None, "image_mean": None, "image_std": None},
        {"do_normalize": False, "do_rescale": False},
        {"image_mean": 0.4, "image_std": 0.3},
        {"image_mean": [0, 0, 0], "image_std": 1},
    ],
)
def test_every_scaling_is_the_clip_processors(change):
    raw = _settings(**change)
    prepare, problems = _read(raw)
    assert not problems
    _check(prepare, transformers.CLIPImageProcessorPil(**raw), FRAMES[:2])


def test_absent_keys_are_the_classs():
    prepare, problems = _read({}, size=224)
    assert not problems
    _check(prepare, transformers.CLIPImageProcessorPil(), FRAMES[:3])
    assert prepare == preprocessing.clip(224)


def test_what_it_writes_describes_it():
    for change in SIZES.values():
        made = _read(_settings(**change))[0]
        again, problems = _read(made.to_json())
        assert not problems
        assert again == made
    made = _read(_settings(rescale_factor=1 / 127.5, do_normalize=False))[0]
    assert _read(made.to_json())[0] == made
    assert _read(preprocessing.siglip(56).to_json())[0] == preprocessing.siglip(56)


@pytest.mark.parametrize("shape", [(7, 900), (900, 7), (2, 65535)])
def test_frames_that_would_grow_without_end_are_a_clips_failure(shape):
    prepare = preprocessing.Preprocessing(size=56, resize=Resize(shortest_edge=56))
    with pytest.raises(ClipError, match="at most 32 times the tower's side of 56"):
        prepare(np.zeros((1, *shape, 3), np.uint8))
    # Those that shrink, as of a panorama, need no more memory than they had.
    assert prepare(np.zeros((1, 90, 8901, 3), np.uint8)).shape == (1, 56, 56, 3)


def test_frames_too_thin_for_the_size_are_a_clips_failure():
    prepare = preprocessing.Preprocessing(
        size=56, resize=Resize(max_height=60, max_width=60)
    )
    with pytest.raises(ClipError, match="too thin to be resized to 0x60") as caught:
        prepare(np.zeros((1, 900, 7, 3), np.uint8))
    assert caught.value.stage == "preprocess"


def test_the_release_pixels(golden):
    """The very pixels that the release fed its tower."""
    arrays = np.load(golden / "longva_official" / "official_arrays.npz")
    prepare = _read(_settings())[0]
    for clip in (0, 1):
        ours = _normalised(prepare, arrays[f"frames_{clip}"])
        np.testing.assert_allclose(ours, arrays[f"pixels_{clip}"], atol=2e-6)
