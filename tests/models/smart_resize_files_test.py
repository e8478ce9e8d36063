"""The files that say how many pixels Qwen-VL's and VideoLLaMA3's frames may have."""

import pytest

from oracles.video_processors import (
    CAP,
    CLASSES,
    IMAGES,
    PATCHES,
    VIDEO,
    read_files,
    read_video,
    size_of,
)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_file_of_videos_is_taken_at_its_word(kind, tmp_path):
    made, remarks, problems = read_video(tmp_path, kind)
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
    made, _, problems = read_files(tmp_path, kind, {"preprocessor_config.json": raw})
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
        made, _, problems = read_files(tmp_path, kind, {})
        assert problems == [] and (made.least, made.most) == (7000, 99000)


def test_a_file_of_images_has_no_budget_of_videos(tmp_path):
    """As the published repositories of Qwen2-VL and Qwen2.5-VL."""
    files = {"preprocessor_config.json": IMAGES}
    made, remarks, problems = read_files(tmp_path, "qwen2", files)
    assert problems == [] and (made.least, made.most) == (100352, 602112)
    assert remarks == (
        "preprocessor_config.json is for images: the budget of training, 100352 to "
        "602112 pixels a frame, replaces 3136 to 12845056 pixels a frame, which "
        "transformers 5.24 takes from there",
        CAP,
    )
    typed = IMAGES | {"video_processor_type": "Qwen2VLVideoProcessor"}
    made, remarks, _ = read_files(
        tmp_path, "qwen2", {"preprocessor_config.json": typed}
    )
    assert (made.least, made.most) == (3136, 12845056)
    assert remarks == (
        "preprocessor_config.json has 3136 to 12845056 pixels a frame, the models were "
        "trained with 100352 to 602112 pixels a frame",
        CAP,
    )
    files = {"preprocessor_config.json": IMAGES | {"patch_size": 16}}
    made, remarks, problems = read_files(tmp_path, "qwen3", files)
    assert problems == [] and (made.least, made.most) == (4096, 25165824)
    assert "4096 to 25165824 pixels a clip, replaces 3136 to" in remarks[0]
    files = {"preprocessor_config.json": {"merge_size": 1, "image_mean": [0.5] * 3}}
    made, remarks, problems = read_files(tmp_path, "video_llama_3", files)
    assert problems == [] and (made.least, made.most) == (12544, 12845056)
    assert made.compression and "12544 pixels a frame to 12845056 a cl" in remarks[0]


def test_which_file_counts(tmp_path):
    files = {"preprocessor_config.json": IMAGES}
    files["video_preprocessor_config.json"] = VIDEO["qwen2"] | {"resample": 2}
    made, _, problems = read_files(tmp_path, "qwen2", files)
    assert problems == [] and (made.most, made.resample) == (12845056, 2)
    video = VIDEO["qwen2"] | {"max_pixels": 99 * 784, "size": None, "min_pixels": 784}
    files["processor_config.json"] = {"image_processor": {}, "video_processor": video}
    made, _, problems = read_files(tmp_path, "qwen2", files)
    assert problems == [] and (made.least, made.most) == (784, 99 * 784)


def test_no_file_is_one_problem(tmp_path):
    made, _, problems = read_files(tmp_path, "qwen2", {}, patch_size=4)
    (problem,) = problems
    assert "no preprocessor_config.json: the preprocessing of frames" in problem
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
    made, _, problems = read_files(tmp_path, "qwen2", files)
    assert problems == [] and (made.least, made.most) == expected


WRONG_SIZE = "expected shortest_edge and longest_edge, the least and the most"
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
            size_of(4096.0, 9999),
            "size.shortest_edge is 4096.0, expected int",
        ),
        (
            "video_llama_3",
            size_of(True, 9999),
            "size.shortest_edge is True, expected int",
        ),
        (
            "video_llama_3",
            size_of(0, 9999),
            "size.shortest_edge is 0, expected 1 to 16777216",
        ),
        (
            "video_llama_3",
            size_of(-4, 9999),
            "size.shortest_edge is -4, expected 1 to 167",
        ),
        ("video_llama_3", size_of(4, [9]), "size.longest_edge is [9], expected int"),
        ("video_llama_3", size_of(4, "9"), "size.longest_edge is '9', expected int"),
        (
            "video_llama_3",
            size_of(4, float("inf")),
            "size.longest_edge is inf, expected int",
        ),
        ("video_llama_3", size_of(4, 10**40), "expected 1 to 4294967296"),
        (
            "video_llama_3",
            size_of(999, 998),
            "least pixels, 999, are more than the most, 998",
        ),
        (
            "qwen2",
            {"min_pixels": 12845057},
            "the least pixels, 12845057, are more than the most, 12845",
        ),
        ("qwen2", {"min_pixels": 1e4}, "min_pixels is 10000.0, expected int"),
        ("qwen2", {"max_pixels": -1}, "max_pixels is -1, expected 1 to 4294967296"),
        (
            "qwen3",
            {"max_pixels": 9999},
            "max_pixels is 9999, but 25165824 by size, which tra",
        ),
        ("qwen3", {"min_pixels": 9999}, "transformers takes; remove min_pixels"),
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
    made, _, problems = read_files(
        tmp_path, kind, {"video_preprocessor_config.json": raw}, **sizes
    )
    (problem,) = problems
    assert problem.startswith("video_preprocessor_config.json: ")
    assert expected in problem and len(problem) < 320
    made.target(2, 30, 40)


def test_several_problems_are_reported_together(tmp_path):
    change = {"size": "x", "image_std": 0, "novel": 1, "merge_size": 3}
    problems = read_video(tmp_path, "qwen2", **change)[2]
    assert len(problems) == 4


def test_flags_that_are_null(tmp_path):
    """As transformers has it: a default where they are absent, false if null."""
    made = read_video(tmp_path, "video_llama_3", use_token_compression=None)[0]
    assert not made.compression
    assert CAP in read_video(tmp_path, "qwen2", cap_pixels_per_frame=None)[1]
    assert CAP not in read_video(tmp_path, "qwen2", cap_pixels_per_frame=True)[1]
    made = read_video(tmp_path, "qwen2", max_video_tokens=5000)[0]
    assert made.tokens == 5000
