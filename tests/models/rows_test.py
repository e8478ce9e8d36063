"""Layouts of text and video without a model, each compared with a plain loop."""

import numpy as np
import pytest

from vidsme_jax.models.rows import (
    SEQUENCE_MEAN,
    SLICES,
    VIDEO_MEAN,
    Builder,
    Shape,
    pad,
    second_order,
    stack,
)

PAIRS = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]  # Time, height, width.

# Blocks: (tokens, slice) is text, (features, frame, positions) is video.
LAYOUTS = {
    "text, frames, text": [
        ((5, 6), ""),
        ([0, 1], 0, None),
        ([2, 3], 1, None),
        ((7,), "instruction"),
    ],
    "nothing around the video": [([0, 1], 0, None), ([2, 3], 1, None)],
    "a question and an answer": [
        ((5,), ""),
        ([0, 1], 0, None),
        ((7, 8, 9), "instruction"),
        ((4, 3), "response"),
    ],
    "a separator behind the last frame": [
        ((5,), ""),
        ([1, 2], 0, None),
        ([3, 4], 1, None),
        ([0], -1, None),
        ((7,), ""),
    ],
    "a separator behind each row of the grid": [
        ((5,), ""),
        ([0, 1, 8, 2, 3, 8], 0, None),
        ([4, 5, 8, 6, 7, 8], 1, None),
    ],
    "text between the frames": [
        ((5, 6), ""),
        ([0, 1], 0, None),
        ((11, 12), ""),
        ([2, 3], 1, None),
        ((13, 14), ""),
        ([4, 5], 2, None),
        ((7,), "instruction"),
    ],
    "three axes": [
        ((5, 6), ""),
        ([0, 1, 2, 3], 0, PAIRS),
        ((11,), ""),
        ([4, 5, 6, 7], 1, PAIRS),
        ((7, 8), "instruction"),
    ],
}


def _build(blocks, slices, axes=1):
    builder = Builder(axes)
    for block in blocks:
        if len(block) == 2:
            builder.text(*block)
        else:
            features, frame, at = block
            builder.video(features, frame, None if at is None else np.array(at))
    return builder.build(slices)


def _plain(blocks, slices, axes):
    """The rows one by one: (feature, token, position), then the kept ones."""
    rows, kept, video, texts, start = [], [], [], [], 0
    for block in blocks:
        if len(block) == 2:
            tokens, name = block
            texts.append((name, len(rows), tokens))
            for token in tokens:
                rows.append((-1, token, [start] * axes))
                start += 1
            continue
        features, frame, at = block
        largest = start - 1
        for step, feature in enumerate(features):
            place = [step] * axes if at is None else at[step]
            video.append((len(rows), frame))
            rows.append((feature, 0, [start + x for x in place]))
            largest = max(largest, *rows[-1][2])
        start = largest + 1
    if "video" in slices:
        kept += [(row, -1, 0, frame, (True, True)) for row, frame in video]
        behind = video[-1][0] + 1
        if behind < len(rows):
            kept.append((behind, -1, -1, -1, (False, True)))
    for name, first, tokens in texts:
        if name and name in slices:
            for k, token in enumerate(tokens):
                place = SLICES.index(name)
                kept.append((first + k - 1, token, place, -1, (False, False)))
    return rows, kept


_CASES = [(name, slices) for name in LAYOUTS for slices in (SLICES[:1], SLICES)]


@pytest.mark.parametrize(
    ("name", "slices"), [*_CASES, ("a question and an answer", SLICES[2:])]
)
def test_blocks_are_laid_out_one_row_after_the_other(name, slices):
    axes = 3 if name == "three axes" else 1
    found = _build(LAYOUTS[name], slices, axes)
    rows, kept = _plain(LAYOUTS[name], slices, axes)
    assert list(zip(found.feature, found.token, strict=True)) == [x[:2] for x in rows]
    np.testing.assert_array_equal(found.position, [x[2] for x in rows])
    columns = (found.kept, found.target, found.slice, found.frame)
    assert list(zip(*columns, strict=True)) == [x[:4] for x in kept]
    np.testing.assert_array_equal(found.means, [x[4] for x in kept])


def test_positions_after_video_start_behind_its_largest():
    found = _build(LAYOUTS["three axes"], SLICES, 3)
    np.testing.assert_array_equal(found.position[:7, 0], [0, 1, 2, 2, 2, 2, 4])
    np.testing.assert_array_equal(found.position[2:6], 2 + np.array(PAIRS))
    np.testing.assert_array_equal(found.position[-1], [8, 8, 8])


def test_a_row_of_no_slice_counts_in_a_mean():
    """The first row behind the video: not stored, but averaged by the release."""
    found = _build(LAYOUTS["text, frames, text"], ("video",))
    assert found.slice.tolist() == [0, 0, 0, 0, -1]
    assert found.means[:, VIDEO_MEAN].tolist() == [True] * 4 + [False]
    assert found.means[:, SEQUENCE_MEAN].tolist() == [True] * 5
    found = _build(LAYOUTS["nothing around the video"], ("video",))
    assert found.means.all() and found.slice.tolist() == [0] * 4


def test_a_token_is_predicted_by_the_row_in_front_of_it():
    """The last video row is kept twice: as video, and for the first token behind it."""
    found = _build(LAYOUTS["a question and an answer"], SLICES)
    for kept, target, slice in zip(found.kept, found.target, found.slice, strict=True):
        if slice > 0:
            assert found.token[kept + 1] == target
    assert (found.kept == 2).sum() == 2
    assert sorted(found.target[found.kept == 2]) == [-1, 7]


def _frames(order):
    """The blocks of a clip of two rows a frame, with a time in front of each frame."""
    blocks = [((5, 6), "")]
    for place, frame in enumerate(order.tolist()):
        blocks.append(((20 + place,), ""))
        blocks.append(([1 + 2 * frame, 2 + 2 * frame], frame, None))
    return [*blocks, ([0], -1, None), ((7,), "instruction")]


@pytest.mark.parametrize("against", ["reversed", "shuffled:0", "shuffled:3"])
def test_another_order_permutes_features_only(against):
    natural, order = np.arange(5), second_order(against, 5)
    assert sorted(order) == natural.tolist() and (order != natural).any()
    one, other = (_build(_frames(x), SLICES) for x in (natural, order))
    for name in ("token", "position", "kept", "target", "slice", "means"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    is_video = one.frame >= 0
    np.testing.assert_array_equal(other.frame[is_video], np.repeat(order, 2))
    shown = [x for frame in order for x in (1 + 2 * frame, 2 + 2 * frame)]
    np.testing.assert_array_equal(other.feature[other.feature > 0], shown)
    # The separator stays behind the last frame.
    assert one.feature[-2] == other.feature[-2] == 0


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


def test_padding_stands_behind_and_belongs_to_nothing():
    rows = _build(LAYOUTS["three axes"], SLICES, 3)
    count, kept, _ = Shape.of(rows)
    wider = pad(rows, count + 3, kept + 2)
    for name, value in rows._asdict().items():
        np.testing.assert_array_equal(getattr(wider, name)[: len(value)], value)
    assert wider.feature[count:].tolist() == [-1] * 3
    assert wider.target[kept:].tolist() == [-1] * 2
    assert not wider.token[count:].any() and not wider.position[count:].any()
    assert wider.slice[kept:].tolist() == wider.frame[kept:].tolist() == [-1, -1]
    assert not wider.means[kept:].any() and not wider.kept[kept:].any()
    same = pad(rows, count, kept)
    for one, other in zip(rows, same, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_takes_text_and_visual_rows_from_one_table():
    """`source` counts through the text rows of a clip, then through its visual rows."""
    clips = [
        [
            _build(_frames(order), ("video",))
            for order in (np.arange(n), np.arange(n)[::-1])
        ]
        for n in (3, 2)
    ]
    shape = Shape.of(clips[0][0])
    pixels = np.zeros((2, 1, 3, 4, 4, 3), np.uint8)
    batch = stack(clips, pixels, shape)
    assert batch.pixels is pixels
    visual = 100 + np.arange(7)  # In place of features.
    for k, directions in enumerate(clips):
        table = [*batch.text[k], *visual]
        for d, rows in enumerate(directions):
            count = len(rows.feature)
            taken = [table[place] for place in batch.source[k, d, :count]]
            assert taken == [
                token if feature < 0 else 100 + feature
                for feature, token in zip(rows.feature, rows.token, strict=True)
            ]
            padded = pad(rows, shape.rows, shape.kept)
            for name in ("position", "kept", "target", "means"):
                np.testing.assert_array_equal(
                    getattr(batch, name)[k, d], getattr(padded, name)
                )
    # Every index lies inside of the table, padding included.
    assert batch.source.min() >= 0 and batch.source.max() < shape.text + len(visual)
