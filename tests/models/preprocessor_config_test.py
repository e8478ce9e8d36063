"""The files of processors: which of them counts, and what is refused of them."""

import json

import numpy as np
import pytest
import transformers

from oracles import adapters, llava_next_video, llava_onevision, llava_qwen
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.models import preprocessor_config as files

# As the video processors of transformers 5.24 save themselves.
NEXT_VIDEO = {
    "crop_size": {"height": 56, "width": 56},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "do_sample_frames": False,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "return_metadata": False,
    "size": {"shortest_edge": 56},
    "video_processor_type": "LlavaNextVideoVideoProcessor",
}
ONEVISION = {key: value for key, value in NEXT_VIDEO.items() if "crop" not in key} | {
    "size": {"height": 70, "width": 70},
    "video_processor_type": "LlavaOnevisionVideoProcessor",
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size": {"longest_edge": 60}}, "size is {'longest_edge': 60}, which is"),
        ({"size": {"min_pixels": 9, "max_pixels": 99}}, "expected height and width,"),
        ({"size": {"shortest_edge": "x"}}, "size is {'shortest_edge': 'x'}, expected"),
        ({"size": {"shortest_edge": 56.0}}, "a whole number from 1 to 4096, two of"),
        ({"size": {"shortest_edge": 0}}, "size is {'shortest_edge': 0}, expected a"),
        ({"size": {"shortest_edge": 2e6}}, "{'shortest_edge': 2000000.0}, expected"),
        ({"size": {"shortest_edge": 2000000}}, "from 1 to 4096"),
        ({"size": {"shortest_edge": float("inf")}}, "{'shortest_edge': inf}, expected"),
        ({"size": {"shortest_edge": 56, "width": 56}}, "'width': 56}, expected a"),
        ({"size": {"height": 56}}, "size is {'height': 56}, expected a whole"),
        ({"size": {"height": 56, "width": None}}, "which is not supported; expected"),
        ({"size": {}}, "size is {}, expected a whole number"),
        ({"size": [56]}, "size is [56], expected a whole number"),
        ({"size": [1, 2, 3]}, "size is [1, 2, 3], expected a whole number"),
        ({"size": [[56], 56]}, "size is [[56], 56], expected a whole number"),
        ({"size": "56"}, "size is '56', expected a whole number"),
        ({"size": True}, "size is True, expected a whole number"),
        ({"size": 10**4000}, "expected a whole number"),
        ({"size": None}, "size is missing; do_resize needs it"),
        ({"crop_size": {"height": [1], "width": [2]}}, "{'height': [1], 'width': [2]}"),
        ({"crop_size": {"height": 48, "width": 48}}, "the tower takes 56 x 56"),
        ({"crop_size": {"shortest_edge": 56}}, "crop_size is {'shortest_edge': 56},"),
        ({"crop_size": None}, "crop_size is missing; do_center_crop needs it"),
        ({"do_center_crop": False}, "{'shortest_edge': 56} without a crop, but the to"),
        ({"do_center_crop": None}, "expected {'height': 56, 'width': 56}"),
        ({"do_center_crop": 1}, "do_center_crop is 1, expected true or false"),
        ({"do_resize": "no"}, "do_resize is 'no', expected true or false"),
        ({"do_center_crop": False, "do_resize": False}, "are both false, but the tow"),
        ({"do_convert_rgb": "yes"}, "do_convert_rgb is 'yes', expected true or false"),
        ({"default_to_square": 1}, "default_to_square is 1, expected true or false"),
        ({"resample": 6}, "resample is 6, expected one of 0 (nearest), 1 (lanczos), "),
        ({"resample": "bicubic"}, "resample is 'bicubic', expected one of 0"),
        ({"resample": True}, "resample is True, expected one of 0"),
        ({"resample": None}, "resample is None, expected one of 0"),
        ({"rescale_factor": 0}, "rescale_factor is 0, expected a number above 0, such"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255', expected a number"),
        ({"rescale_factor": None}, "rescale_factor is None, expected a number above"),
        ({"rescale_offset": True}, "rescale_offset is True; built for False or None"),
        ({"image_mean": ["a", 1, 2]}, "image_mean is ['a', 1, 2], expected three num"),
        ({"image_mean": [0.5, 0.5]}, "[0.5, 0.5], expected three numbers, or one for"),
        (
            {"image_mean": [0.5] * 1000000},
            "image_mean is [0.5, 0.5, 0.5, 0.5, 0.5, 0.5",
        ),
        ({"image_mean": [[0.5], 1, 2]}, "expected three numbers, or one for all"),
        ({"image_mean": [float("nan"), 1, 2]}, "image_mean is [nan, 1, 2], expected"),
        ({"image_mean": None}, "image_mean is None, expected three numbers"),
        ({"image_std": [0, 0, 0]}, "image_std is [0, 0, 0], expected three numbers ab"),
        ({"image_std": -0.5}, "image_std is -0.5, expected three numbers above 0"),
        ({"sharpen": True}, "unknown key 'sharpen'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_is_not_built_is_refused_in_one_sentence(change, expected):
    problems: list[str] = []
    files.read(NEXT_VIDEO | change, files.NEXT_VIDEO, 56, problems)
    (problem,) = problems
    assert problem.startswith("preprocessor_config.json: ")
    assert expected in problem
    assert len(problem) < 320


def test_a_file_that_is_no_object_is_refused():
    problems: list[str] = []
    files.read([1, 2], files.CLIP, 224, problems, "processor_config.json: x")
    assert problems == ["processor_config.json: x: expected an object, found [1, 2]"]


def test_defaults_of_the_class_are_named_where_the_tower_does_not_take_them():
    problems: list[str] = []
    files.read({}, files.ONEVISION, 70, problems)
    assert problems == [
        "preprocessor_config.json: size is {'height': 384, 'width': 384} (the default "
        "of LlavaOnevisionVideoProcessor) without a crop, but the tower takes 70 x 70; "
        "expected {'height': 70, 'width': 70}"
    ]


def test_several_problems_are_reported_together():
    problems: list[str] = []
    raw = NEXT_VIDEO | {"size": "x", "image_std": 0, "novel": 1}
    files.read(raw, files.CLIP, 56, problems)
    assert len(problems) == 3


# ------------------------------------------------------- through the files of families


@pytest.fixture(scope="module")
def next_video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next_video")
    return llava_next_video.save_complete(llava_next_video.make_model(), folder)


@pytest.fixture(scope="module")
def onevision(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onevision")
    return llava_onevision.save(llava_onevision.make_model(), folder)


NAMES = ("processor_config", "video_preprocessor_config", "preprocessor_config")


def _write(folder, **named):
    """Writes the files of processors; those that are not named are removed."""
    for name in NAMES:
        (folder / f"{name}.json").unlink(missing_ok=True)
        if name in named:
            (folder / f"{name}.json").write_text(json.dumps(named[name]))


def _prepare(folder):
    return models.inspect(str(folder), dtype="float32").prepare


# (height, width): nine aspects, larger and smaller than the towers' inputs.
SHAPES = ((90, 160), (80, 45), (56, 56), (60, 80), (27, 63), (90, 30), (40, 120))
SHAPES += ((31, 17), (5, 7))


def _equal(prepare, processor):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        frames = rng.integers(0, 256, (2, *shape, 3), np.uint8)
        scaled = prepare(frames).transpose(0, 3, 1, 2) / 255
        mean, std = (np.reshape(x, (3, 1, 1)) for x in (prepare.mean, prepare.std))
        theirs = processor(list(frames), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose((scaled - mean) / std, theirs, rtol=0, atol=1e-5)


CHANGES = (
    {},
    {"size": {"height": 56, "width": 56}},
    {"size": {"shortest_edge": 56, "longest_edge": 61}},
    {"size": 63, "default_to_square": True, "resample": 2},
    {"size": {"shortest_edge": 40}, "rescale_factor": 1 / 127.5, "image_mean": 1.0},
)


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_next_video_through_its_files(next_video, name, change):
    raw = NEXT_VIDEO | change
    _write(
        next_video,
        **{name: {"video_processor": raw} if name == "processor_config" else raw},
    )
    _equal(_prepare(next_video), transformers.CLIPImageProcessorPil(**raw))


@pytest.mark.parametrize(
    "change",
    [{}, {"size": [70, 70], "resample": 1}, {"size": 70, "default_to_square": True}],
    ids=str,
)
def test_onevision_through_its_files(onevision, change):
    processor = transformers.SiglipImageProcessorPil(**ONEVISION | change)
    _write(onevision, video_preprocessor_config=ONEVISION | change)
    _equal(_prepare(onevision), processor)
    processor.save_pretrained(onevision)  # As preprocessor_config.json.
    (onevision / "video_preprocessor_config.json").unlink()
    _equal(_prepare(onevision), processor)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return llava_qwen.save(llava_qwen.make_model(), tmp_path_factory.mktemp("qwen"))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_llava_qwen_through_the_file_of_its_tower(qwen, change):
    processor = transformers.CLIPImageProcessorPil(**NEXT_VIDEO | change)
    processor.save_pretrained(qwen / "tower")
    _equal(_prepare(qwen), processor)


def test_the_towers_file_is_named_where_it_is_refused(qwen):
    path = qwen / "tower" / "preprocessor_config.json"
    path.write_text(json.dumps(NEXT_VIDEO | {"image_std": 0}))
    with pytest.raises(AuditError) as caught:
        _prepare(qwen)
    (problem,) = caught.value.problems
    assert "preprocessor_config.json of mm_vision_tower: image_std is 0, exp" in problem


def _size(folder):
    prepare = _prepare(folder)
    return prepare.resize.shortest_edge


def test_the_file_that_transformers_takes_is_taken(next_video):
    """Each holds another size: nested, then the videos' file, then the images'."""
    one, two, three, four = (
        NEXT_VIDEO | {"size": {"shortest_edge": side}} for side in (61, 62, 63, 64)
    )
    nested = {"video_processor": one, "image_processor": two}
    _write(
        next_video,
        processor_config=nested,
        video_preprocessor_config=three,
        preprocessor_config=four,
    )
    assert _size(next_video) == 61
    for other in ({"image_processor": two}, {"video_processor": None}, {}):
        (next_video / "processor_config.json").write_text(json.dumps(other))
        assert _size(next_video) == 63
    (next_video / "video_preprocessor_config.json").unlink()
    assert _size(next_video) == 64
    _write(next_video)
    assert _size(next_video) == 56


def test_an_adapters_files_and_those_of_its_base(tmp_path):
    """The adapter's counts, but for one of images where its base has one of videos."""
    made = adapters.make("llava_next_video", tmp_path, target_modules=["q_proj"])
    adapter, base = made.folder, tmp_path / "base"
    for path in (*adapter.glob("*processor*"), *base.glob("*processor*")):
        path.unlink()
    sides = iter(range(61, 70))

    def write(folder, name):
        side = next(sides)
        raw = NEXT_VIDEO | {"size": {"shortest_edge": side}}
        raw = {"video_processor": raw} if name == "processor_config" else raw
        (folder / f"{name}.json").write_text(json.dumps(raw))
        return side

    for name in ("preprocessor_config", "video_preprocessor_config"):
        for folder in (base, adapter):
            side = write(folder, name)
            assert _size(adapter) == side, (folder, name)
    (adapter / "video_preprocessor_config.json").unlink()
    assert (
        _size(adapter) == 63
    )  # The base's file for videos, not the adapter's for images.
    (adapter / "processor_config.json").write_text("{}")
    assert _size(adapter) == 63
    assert write(base, "processor_config") == _size(adapter)
    assert write(adapter, "processor_config") == _size(adapter)
    (adapter / "processor_config.json").unlink()
    assert write(adapter, "video_preprocessor_config") == _size(adapter)


def test_settings_for_images_alone_say_nothing_of_frames(next_video):
    _write(next_video, processor_config={"image_processor": NEXT_VIDEO})
    with pytest.raises(AuditError, match="an image_processor but no video_processor"):
        _prepare(next_video)


def test_a_nested_processor_is_named_where_it_is_refused(next_video):
    _write(next_video, processor_config={"video_processor": [1]})
    text = "processor_config.json: video_processor: expected an object, found \\[1\\]"
    with pytest.raises(AuditError, match=text):
        _prepare(next_video)
