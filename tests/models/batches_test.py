"""Rows of several samples as arrays of one shape, each compared with the rows."""

import numpy as np
import pytest

from vidsme_jax.models.batches import Shape, TextShape, pad, stack, stack_texts
from vidsme_jax.models.rows import SLICES, Builder, Rows, Text

GRID = np.array([[0, 0, 0], [0, 0, 1]])
TEXTS = (
    Text((), (7, 8), (9, 4)),
    Text((), (5,), ()),
    Text((), (), (3, 3, 3)),
)


def _rows(frames=3, order=None, texts=TEXTS, slices=SLICES, axes=1) -> Rows:
    """Text, frames of two rows with a time in front of each, text behind, texts."""
    builder = Builder(axes)
    builder.text((5, 6))
    for place, frame in enumerate(range(frames) if order is None else order):
        builder.text((20 + place,))
        at = GRID[:, :axes] if axes == 3 else None
        builder.video([2 * frame, 1 + 2 * frame], frame, at)
    builder.after((2,))
    for text in texts:
        builder.ask(text)
    return builder.build(slices)


def test_padding_stands_behind_and_belongs_to_nothing():
    rows = _rows(axes=3).trunk
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
    clips = [[_rows(n, order) for order in (range(n), range(n)[::-1])] for n in (3, 2)]
    shape = Shape.of(clips[0][0])
    pixels = np.zeros((2, 1, 3, 4, 4, 3), np.uint8)
    batch = stack(clips, pixels, shape)
    assert batch.pixels is pixels and batch.texts is None
    assert batch.shared.tolist() == [11, 8]
    visual = 100 + np.arange(6)  # In place of features.
    for k, directions in enumerate(clips):
        table = [*batch.text[k], *visual]
        for d, rows in enumerate(x.trunk for x in directions):
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


@pytest.mark.parametrize("axes", [1, 3])
def test_texts_of_a_batch_are_those_of_its_clips(axes):
    """Whatever the clip's length: kept rows count from the padded trunk's end."""
    clips = [_rows(3, axes=axes), _rows(2, texts=TEXTS[:1], axes=axes)]
    trunk, shape = 14, TextShape(rows=12, kept=10, texts=4)
    found = stack_texts(clips, trunk, shape)
    for k, rows in enumerate(clips):
        asked, kept = rows.segment > 0, rows.text > 0
        count, wanted = asked.sum(), kept.sum()
        for name in ("token", "position", "segment"):
            column = getattr(found, name)[k]
            np.testing.assert_array_equal(column[:count], getattr(rows, name)[asked])
            assert not column[count:].any()
        np.testing.assert_array_equal(found.target[k, :wanted], rows.target[kept])
        assert (found.target[k, wanted:] <= 0).all()
        # What stands at the kept places of trunk and texts, one behind the other.
        whole = [*pad(rows.trunk, trunk, len(rows.kept)).token, *found.token[k]]
        place = [*range(trunk), *trunk + np.arange(shape.rows)]
        assert len(whole) == len(place)
        for j in range(wanted):
            row = rows.kept[kept][j]
            assert whole[found.kept[k, j]] == rows.token[row]
            assert (found.kept[k, j] < trunk) == (rows.segment[row] <= 0)
            expected = np.zeros(8, bool)
            is_response = rows.slice[kept][j] == SLICES.index("response")
            expected[2 * (rows.text[kept][j] - 1) + is_response] = True
            np.testing.assert_array_equal(found.means[k, j], expected)
        assert not found.means[k, wanted:].any()


def test_the_shape_of_texts_is_that_of_the_clips_own():
    """Never of what else is in the batch; a few shapes for all."""
    expected = {
        ((3, 2),): (128, 64, 4),
        ((10, 80),): (128, 128, 4),
        ((1, 1),) * 5: (384, 192, 8),
        ((64, 32),) * 4: (384, 192, 8),
        ((200, 100), (200, 100)): (768, 384, 8),
        ((1, 1),) * 12: (2016, 1008, 12),
        ((900, 1000),): (2016, 1008, 12),
        ((100, 500),): (768, 768, 8),
    }
    for lengths, (rows, kept, texts) in expected.items():
        asked = [Text((), (5,) * a, (6,) * b) for a, b in lengths]
        found = TextShape.of(_rows(texts=asked, slices=("response",)))
        assert found == (rows, kept, texts), lengths
        found = TextShape.of(_rows(texts=asked))
        assert found == (rows, rows, texts), lengths
    assert TextShape.of(_rows(texts=())) is None


@pytest.mark.parametrize("slices", [("response",), ("instruction", "response")])
def test_a_corpus_has_few_shapes_with_little_padding(slices):
    """200 clips with 1 to 8 questions of 5 to 200 tokens: 6 shapes, 20 % padding."""
    rng = np.random.default_rng(0)
    shapes, held, needed = set(), 0, 0
    for _ in range(200):
        lengths = rng.integers(5, 201, rng.integers(1, 9))
        asked = [Text((), (5,) * (n - n // 3), (6,) * (n // 3)) for n in lengths]
        shape = TextShape.of(_rows(1, texts=asked, slices=slices))
        shapes.add(shape)
        held, needed = held + shape.rows, needed + int(lengths.sum())
    assert len(shapes) <= 6 and needed >= 0.8 * held, (shapes, needed / held)
