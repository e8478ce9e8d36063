"""Layouts of text and video without a model, each compared with a plain loop."""

import numpy as np
import pytest

from vidsme_jax.models.rows import (
    SEQUENCE_MEAN,
    SLICES,
    VIDEO_MEAN,
    Builder,
    Text,
    joined,
    second_order,
)

PAIRS = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]  # Time, height, width.

# Blocks: (features, frame, positions) is video, a tuple of tokens is text.
LAYOUTS = {
    "text, frames, text": [
        ("text", (5, 6)),
        ("video", [0, 1], 0, None),
        ("video", [2, 3], 1, None),
        ("behind", (7,)),
    ],
    "nothing around the video": [
        ("video", [0, 1], 0, None),
        ("video", [2, 3], 1, None),
    ],
    "a question and an answer": [
        ("text", (5,)),
        ("video", [0, 1], 0, None),
        ("ask", (7, 8, 9), (4, 3)),
    ],
    "several questions, one without an answer, one without a question": [
        ("text", (5,)),
        ("video", [0, 1], 0, None),
        ("behind", (7, 2)),
        ("ask", (7, 8, 9), (4, 3)),
        ("ask", (8,), ()),
        ("ask", (), (6, 6)),
    ],
    "a separator behind the last frame": [
        ("text", (5,)),
        ("video", [1, 2], 0, None),
        ("video", [3, 4], 1, None),
        ("video", [0], -1, None),
        ("behind", (7,)),
    ],
    "a separator behind each row of the grid": [
        ("text", (5,)),
        ("video", [0, 1, 8, 2, 3, 8], 0, None),
        ("video", [4, 5, 8, 6, 7, 8], 1, None),
    ],
    "text between the frames": [
        ("text", (5, 6)),
        ("video", [0, 1], 0, None),
        ("text", (11, 12)),
        ("video", [2, 3], 1, None),
        ("text", (13, 14)),
        ("video", [4, 5], 2, None),
        ("ask", (7,), ()),
    ],
    "text between video and question": [
        ("video", [0, 1], 0, None),
        ("text", (11, 12)),
        ("ask", (7,), (3,)),
    ],
    "three axes": [
        ("text", (5, 6)),
        ("video", [0, 1, 2, 3], 0, PAIRS),
        ("text", (11,)),
        ("video", [4, 5, 6, 7], 1, PAIRS),
        ("ask", (7, 8), (9,)),
        ("ask", (1,), (2,)),
    ],
}


def _build(blocks, slices, axes=1):
    builder = Builder(axes)
    for kind, *block in blocks:
        if kind == "text":
            builder.text(*block)
        elif kind == "behind":
            builder.after(*block)
        elif kind == "ask":
            builder.ask(Text((), *block))
        else:
            features, frame, at = block
            builder.video(features, frame, None if at is None else np.array(at))
    return builder.build(slices)


def _plain(blocks, slices, axes):
    """The rows one by one: (feature, token, segment, position), then the kept ones."""
    rows, kept, video, asked, start, behind = [], [], [], [], 0, []

    def write(tokens, segment, at):
        for k, token in enumerate(tokens):
            rows.append((-1, token, segment, [at + k] * axes))
        return at + len(tokens)

    for kind, *block in blocks:
        if kind == "text":
            start = write(*block, 0, start)
        elif kind == "behind":
            behind.append(len(rows))
            write(*block, -1, start)
        elif kind == "ask":
            asked.append((len(rows), block))
            write([*block[0], *block[1]], len(asked), start)
        else:
            features, frame, at = block
            largest = start - 1
            for step, feature in enumerate(features):
                place = [step] * axes if at is None else at[step]
                video.append((len(rows), frame))
                rows.append((feature, 0, 0, [start + x for x in place]))
                largest = max(largest, *rows[-1][3])
            start = largest + 1
    last = max(k for k, row in enumerate(rows) if row[2] == 0)
    if "video" in slices:
        kept += [(row, -1, 0, 0, frame, (True, True)) for row, frame in video]
        kept += [(row, -1, -1, 0, -1, (False, True)) for row in behind]
    for number, (first, (question, answer)) in enumerate(asked, 1):
        for k, token in enumerate([*question, *answer]):
            name = "instruction" if k < len(question) else "response"
            if name in slices:
                row = first + k - 1 if k else last
                place = SLICES.index(name)
                kept.append((row, token, place, number, -1, (False, False)))
    return rows, kept


_CASES = [(name, slices) for name in LAYOUTS for slices in (SLICES[:1], SLICES)]


@pytest.mark.parametrize(
    ("name", "slices"), [*_CASES, ("a question and an answer", SLICES[2:])]
)
def test_blocks_are_laid_out_one_row_after_the_other(name, slices):
    axes = 3 if name == "three axes" else 1
    found = _build(LAYOUTS[name], slices, axes)
    rows, kept = _plain(LAYOUTS[name], slices, axes)
    columns = (found.feature, found.token, found.segment)
    assert list(zip(*columns, strict=True)) == [x[:3] for x in rows]
    np.testing.assert_array_equal(found.position, [x[3] for x in rows])
    columns = (found.kept, found.target, found.slice, found.text, found.frame)
    assert list(zip(*columns, strict=True)) == [x[:5] for x in kept]
    np.testing.assert_array_equal(found.means, [x[5] for x in kept])
    assert found.shared == sum(x[2] == 0 for x in rows)


def test_positions_after_video_start_behind_its_largest():
    found = _build(LAYOUTS["three axes"], SLICES, 3)
    np.testing.assert_array_equal(found.position[:7, 0], [0, 1, 2, 2, 2, 2, 4])
    np.testing.assert_array_equal(found.position[2:6], 2 + np.array(PAIRS))
    # Each text begins there.
    np.testing.assert_array_equal(found.position[-5:, 2], [7, 8, 9, 7, 8])


def test_a_row_of_no_slice_counts_in_a_mean():
    """The first row behind the video: not stored, but averaged by the release."""
    found = _build(LAYOUTS["text, frames, text"], ("video",))
    assert found.slice.tolist() == [0, 0, 0, 0, -1]
    assert found.means[:, VIDEO_MEAN].tolist() == [True] * 4 + [False]
    assert found.means[:, SEQUENCE_MEAN].tolist() == [True] * 5
    found = _build(LAYOUTS["nothing around the video"], ("video",))
    assert found.means.all() and found.slice.tolist() == [0] * 4


def test_a_token_is_predicted_by_the_row_in_front_of_it():
    """The last video row is kept for the first token of each text, and as video."""
    name = "several questions, one without an answer, one without a question"
    found = _build(LAYOUTS[name], SLICES)
    last = found.shared - 1
    first = found.target[(found.kept == last) & (found.slice > 0)]
    assert first.tolist() == [7, 8, 6] and (found.kept == last).sum() == 4
    for row, target, part in zip(found.kept, found.target, found.slice, strict=True):
        if part > 0 and row != last:
            assert found.token[row + 1] == target


def test_the_trunk_is_what_a_clip_without_texts_has():
    """The video's rows know nothing of the texts that are asked."""
    name = "several questions, one without an answer, one without a question"
    asked = _build(LAYOUTS[name], SLICES)
    alone = _build([x for x in LAYOUTS[name] if x[0] != "ask"], SLICES)
    for one, other in zip(asked.trunk, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_text_is_joined_to_its_video():
    rows = _build(LAYOUTS["a question and an answer"], ("response",))
    found = joined(rows)
    assert not found.segment.any() and not found.text.any()
    for name in ("feature", "token", "position", "kept", "target", "slice"):
        np.testing.assert_array_equal(getattr(found, name), getattr(rows, name))
    for name in ("three axes", "text, frames, text"):
        with pytest.raises(ValueError, match="one text at most"):
            joined(_build(LAYOUTS[name], ("response",), 3))


def _frames(order):
    """The blocks of a clip of two rows a frame, with a time in front of each frame."""
    blocks = [("text", (5, 6))]
    for place, frame in enumerate(order.tolist()):
        blocks.append(("text", (20 + place,)))
        blocks.append(("video", [1 + 2 * frame, 2 + 2 * frame], frame, None))
    return [*blocks, ("video", [0], -1, None), ("ask", (7,), (9,))]


@pytest.mark.parametrize("against", ["reversed", "shuffled:0", "shuffled:3"])
def test_another_order_permutes_features_only(against):
    natural, order = np.arange(5), second_order(against, 5)
    assert sorted(order) == natural.tolist() and (order != natural).any()
    one, other = (_build(_frames(x), SLICES) for x in (natural, order))
    for name in ("token", "position", "segment", "kept", "target", "means"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    is_video = one.frame >= 0
    np.testing.assert_array_equal(other.frame[is_video], np.repeat(order, 2))
    shown = [x for frame in order for x in (1 + 2 * frame, 2 + 2 * frame)]
    np.testing.assert_array_equal(other.feature[other.feature > 0], shown)
    # The separator stays behind the last frame.
    assert one.feature[-3] == other.feature[-3] == 0


def test_one_permutation_for_each_length():
    assert second_order("reversed", 4).tolist() == [3, 2, 1, 0]
    assert second_order("shuffled:7", 1).tolist() == [0]
    for length in (2, 3, 8):
        first = second_order("shuffled:7", length)
        np.testing.assert_array_equal(first, second_order("shuffled:7", length))
    for seed in range(8):  # Never the natural order.
        assert second_order(f"shuffled:{seed}", 2).tolist() == [1, 0]
    different = {tuple(second_order(f"shuffled:{k}", 8)) for k in range(5)}
    assert len(different) == 5
