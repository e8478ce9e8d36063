"""Where transformers departs from how Qwen-VL and VideoLLaMA3 were trained.

The package follows training. If a later transformers does so too, a test here fails:
what the parity tests hand over explicitly, and what the package remarks on, can go.
"""

import functools

import numpy as np
import pytest
import torch
import transformers

from oracles import qwen_vl, texts, video_llama_3

SHAPES = {"wide": (90, 160), "tall": (160, 90), "square": (100, 100)}
TURNS = texts.conversation("", "what happens?", "it rains; größer, 17 times")
RATE = 10.0  # Frames of the videos a second.
# So few pixels that sixteen frames are longer than their sides are.
SMALL = {
    kind: {"shortest_edge": 4 * side**2, "longest_edge": longest * side**2}
    for kind, side, longest in (
        ("qwen2_vl", 28, 8),
        ("qwen2_5_vl", 28, 8),
        ("qwen3_vl", 32, 64),
    )
}
make_model = functools.cache(qwen_vl.make_model)


def clip(count: int, height: int, width: int) -> np.ndarray:
    """Returns frames that move smoothly, as bicubic resizing should meet them."""
    at = np.arange(count)[:, None, None, None] / 7
    row, column = np.ogrid[:height, :width]
    wave = row[..., None] / 9 + column[..., None] / 11 + at * np.array([1, 2, 3])
    return np.round(127.5 + 127 * np.sin(wave)).astype(np.uint8)


def shown(kind: str, count: int, shape: str = "wide", **settings):
    """Returns what the processor makes of `count` frames, three to the next."""
    places, total = [3 * frame for frame in range(count)], 3 * count
    frames = clip(count, *SHAPES[shape])
    return qwen_vl.inputs(kind, frames, places, total, RATE, TURNS, **settings)


def both_positions(model, kind: str, given) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of training and of transformers, (3, rows)."""
    more = {}
    if kind == "qwen2_5_vl":
        more["second_per_grid_ts"] = given["second_per_grid_ts"]
    theirs, _ = model.model.get_rope_index(
        given["input_ids"],
        given["mm_token_type_ids"],
        video_grid_thw=given["video_grid_thw"],
        **more,
    )
    seconds = float(more.get("second_per_grid_ts", [1.0])[0])
    rate = getattr(model.config.vision_config, "tokens_per_second", 1)
    grid = given["video_grid_thw"][0]
    ours = qwen_vl.positions(kind, given["input_ids"][0], grid, seconds, rate)
    return ours, theirs[:, 0].numpy()


@pytest.mark.parametrize(
    ("count", "shape"), [(2, "wide"), (5, "tall"), (16, "wide"), (16, "square")]
)
@pytest.mark.parametrize("kind", qwen_vl.KINDS)
def test_text_goes_on_behind_the_largest_position_of_a_video(kind, count, shape):
    """Transformers lets it go on behind the frames' sides, however long the clip is."""
    model = make_model(kind)
    given = shown(kind, count, shape, size=SMALL[kind])
    ours, theirs = both_positions(model, kind, given)
    rows = np.flatnonzero(given["input_ids"][0].numpy() == qwen_vl.VIDEO_TOKEN)
    first, last = rows[0], rows[-1]
    np.testing.assert_array_equal(ours[:, : last + 1], theirs[:, : last + 1])
    assert (ours[:, last + 1] == ours[:, : last + 1].max() + 1).all()
    if kind == "qwen3_vl":
        np.testing.assert_array_equal(ours, theirs)
        return
    sides = given["video_grid_thw"][0, 1:].max().item() // qwen_vl.MERGE
    assert (theirs[:, last + 1] == theirs[0, first] + sides).all()
    if count == 16:
        assert (ours[:, last + 1 :] > theirs[:, last + 1 :]).all()


@pytest.mark.parametrize("kind", qwen_vl.KINDS)
def test_logits_behind_a_long_video_show_which_positions_they_had(kind):
    """Those of the video itself do not."""
    model = make_model(kind)
    given = shown(kind, 16, size=SMALL[kind])
    ours, _ = both_positions(model, kind, given)
    ids, pixels = given["input_ids"][0], given["pixel_values_videos"]
    logits = qwen_vl.logits(model, ids, pixels, given["video_grid_thw"][0], ours)
    with torch.no_grad():
        theirs = model(**given).logits[0]
    last = np.flatnonzero(ids.numpy() == qwen_vl.VIDEO_TOKEN)[-1]
    difference = (logits - theirs).abs().amax(1).numpy()
    assert difference[: last + 1].max() < 1e-4
    if kind == "qwen3_vl":
        assert difference.max() < 1e-4
    else:
        assert difference[last + 1 :].min() > 1e-2


@pytest.mark.parametrize(
    ("gap", "tokens_per_second"), [(1, 2), (3, 2), (11, 2), (3, 3), (7, 5)]
)
def test_seconds_are_positions_as_float32_has_them(gap, tokens_per_second):
    """Rounded down: a third of a second thrice is less than one in some float."""
    model = make_model("qwen2_5_vl", tokens_per_second=tokens_per_second)
    places = [gap * frame for frame in range(16)]
    given = qwen_vl.inputs(
        *("qwen2_5_vl", clip(16, 60, 60), places, gap * 16, RATE, TURNS)
    )
    ours, theirs = both_positions(model, "qwen2_5_vl", given)
    rows = given["input_ids"][0].numpy() == qwen_vl.VIDEO_TOKEN
    np.testing.assert_array_equal(ours[:, rows], theirs[:, rows])


@pytest.mark.parametrize(
    ("kind", "count", "settings"),
    [
        # A short clip: pixels of a frame are capped, not of all frames alone.
        ("qwen3_vl", 4, {}),
        # A long one: its frames share what fits into a context.
        ("qwen2_vl", 12, {"max_video_tokens": 60}),
        ("qwen2_5_vl", 12, {"max_video_tokens": 60}),
    ],
)
def test_pixels_are_not_capped_unless_that_is_asked_for(kind, count, settings):
    """Training capped them frame by frame."""
    capped, free, default = (
        shown(kind, count, capped=capped, **settings)["video_grid_thw"][0]
        for capped in (True, False, None)
    )
    assert capped.prod() < free.prod()
    assert default.tolist() == free.tolist()


def test_one_more_start_and_end_stand_around_the_frames_of_qwen3_vl():
    """The class took the template's away when the checkpoints were published."""
    ours = shown("qwen3_vl", 5)["input_ids"][0].tolist()
    theirs = shown("qwen3_vl", 5, wrapped=True)["input_ids"][0].tolist()
    start = len(qwen_vl.TOKENIZER("<|im_start|>user\n").input_ids)
    last = max(i for i, x in enumerate(theirs) if x == qwen_vl.VISION_END)
    assert theirs[start] == qwen_vl.VISION_START
    assert theirs[last - 1] == qwen_vl.VISION_END
    assert theirs[:start] + theirs[start + 1 : last] + theirs[last + 1 :] == ours


@pytest.mark.parametrize("kind", qwen_vl.KINDS[:2])
def test_limits_of_images_are_taken_for_those_of_videos(kind, tmp_path):
    """The hub says the first alone; training took those of the class for videos."""
    qwen_vl.save_as_published(make_model(kind), kind, tmp_path)
    made = transformers.AutoProcessor.from_pretrained(tmp_path).video_processor
    assert (made.size.shortest_edge, made.size.longest_edge) == (3136, 12845056)
    assert type(made).size == {
        "shortest_edge": 128 * 28**2,
        "longest_edge": 768 * 28**2,
    }


@pytest.mark.parametrize(
    ("kind", "tied"),
    [
        ("qwen2_vl", True),
        ("qwen2_5_vl", False),
        ("qwen3_vl", True),
        ("video_llama_3", True),
    ],
)
def test_transformers_reads_what_the_hub_would_have(kind, tied, tmp_path):
    """Flat configs, older keys, the names of published tensors."""
    if kind == "video_llama_3":
        model = video_llama_3.make_model(tied=tied)
        given = video_llama_3.inputs(clip(3, 90, 60), [0, 3, 6], 9, RATE, TURNS)
        video_llama_3.save_as_published(model, tmp_path)
    else:
        model = qwen_vl.make_model(kind, tied=tied)
        given = shown(kind, 3)
        qwen_vl.save_as_published(model, kind, tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected, found = model(**given).logits, again(**given).logits
    assert torch.equal(found, expected)
    assert expected.std() > 0.5


def test_rows_of_still_pictures_go_unless_all_are_kept():
    """So the reversed video of VideoLLaMA3 has other rows than the video."""
    frames = clip(4, 60, 60)
    frames[2] = frames[1]
    given = (frames, [0, 3, 6, 9], 12, RATE, TURNS)
    kept, pruned = (
        video_llama_3.inputs(*given, prunes=prunes)["video_compression_mask"]
        for prunes in (False, True)
    )
    assert kept.all()
    counts = pruned.view(4, -1).sum(1).tolist()
    assert counts[2] == 1 and min(counts[0], counts[1], counts[3]) > 1
