"""From the arrays of a batch to one sample: its own rows, and no padding."""

import numpy as np
import pytest

from vidsme_jax.base import Asked, AuditError, ClipError, TokenSignals
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.rows import Rows
from vidsme_jax.run import outcomes, signals
from vidsme_jax.run.step import Found

# Kept rows of a sample with two texts: of the video, of the question, of the answer.
SLICE = [0, -1, 0, 0, 1, 1, 2, 1, 2, 2]
TEXT = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
FRAME = [0, -1, 0, 1, -1, -1, -1, -1, -1, -1]
TARGET = [-1, -1, -1, -1, 11, 12, 13, 21, 22, 23]


def _rows(slices=tuple(SLICE)):
    return Rows(
        feature=np.zeros(6, np.int32),
        token=np.zeros(6, np.int32),
        position=np.zeros((6, 1), np.int32),
        segment=np.array([0, 0, 1, 1, 2, 2], np.int16),
        kept=np.zeros(10, np.int32),
        target=np.array(TARGET, np.int32),
        slice=np.array(slices, np.int8),
        text=np.array(TEXT, np.int16),
        frame=np.array(FRAME, np.int16),
        means=np.zeros((10, 2), bool),
    )


def _batch(kept, means):
    """Numbers that say where they are: sample, direction, row; three samples."""
    place = np.arange(3)[:, None, None] * 1000 + np.arange(2)[:, None] * 100
    place = (place + np.arange(kept + 4)).astype(np.float32)  # Four rows of padding.
    of_means = np.arange(3)[:, None, None] * 1000 + np.arange(2)[:, None] * 100
    of_means = (of_means + np.arange(means)).astype(np.float32)
    return TokenSignals(
        renyi=np.repeat(place[..., None], 15, -1),
        varentropy=place,
        gap=place + 0.25,
        log_prob=place + 0.5,
        modified=np.repeat(place[..., None], 3, -1),
        renyi_half_clamped=place,
        mean_renyi=np.repeat(of_means[..., None], 15, -1),
        rank=place + 0.75,
    )


def test_the_rows_of_the_video_and_their_frames():
    found, frame = outcomes.of_video(1, _batch(4, 2), _rows())
    assert frame.tolist() == [0, 0, 1]
    both = [[1000.0, 1002.0, 1003.0], [1100.0, 1102.0, 1103.0]]
    assert found.varentropy.tolist() == both
    assert (found.gap - 0.25).tolist() == (found.log_prob - 0.5).tolist() == both
    assert found.renyi[..., 14].tolist() == found.modified[..., 2].tolist() == both
    assert found.mean_renyi[..., 0].tolist() == [[1000.0, 1001.0], [1100.0, 1101.0]]
    without = _batch(4, 2)._replace(mean_renyi=None, modified=None)
    found, _ = outcomes.of_video(1, without, _rows())
    assert found.mean_renyi is None and found.modified is None


@pytest.mark.parametrize("number", [1, 2])
def test_the_rows_of_each_text(number):
    asked = Asked(key="k", question="what", answer="a cat")
    grey = np.arange(30, dtype=np.float32).reshape(3, 10)
    found = Found(None, _batch(6, 4), grey)
    text = outcomes.of_text(2, number, asked, found, _rows())
    begin = 3 * (number - 1)
    places = np.arange(begin, begin + 3)
    assert text.asked is asked
    assert text.tokens.tolist() == [10 * number + k for k in (1, 2, 3)]
    assert text.slice.tolist() == [[1, 1, 2], [1, 2, 2]][number - 1]
    both = [(2000.0 + places).tolist(), (2100.0 + places).tolist()]
    assert text.signals.varentropy.tolist() == both
    assert (text.signals.rank - 0.75).tolist() == both
    assert text.blank.tolist() == (20 + places).tolist()
    own = [2 * number - 2, 2 * number - 1]
    assert text.signals.mean_renyi[..., 3].tolist() == [
        [2000.0 + n for n in own],
        [2100.0 + n for n in own],
    ]
    plain = outcomes.of_text(2, number, asked, found._replace(blank=None), _rows())
    assert plain.blank is None


def test_a_mean_over_no_row_is_none_and_may_be_anything():
    """The second text has no row of an answer."""
    slices = [*SLICE[:7], 1, 1, 1]
    batch = _batch(6, 4)
    batch.mean_renyi[0, :, 3] = np.inf
    asked = Asked(key="k", question="what", answer="")
    found = Found(None, batch, None)
    text = outcomes.of_text(0, 2, asked, found, _rows(slices))
    assert np.isnan(text.signals.mean_renyi[:, 1]).all()
    assert text.signals.mean_renyi[:, 0, 0].tolist() == [2.0, 102.0]
    batch.mean_renyi[0, 1, 2, 4] = np.nan
    with pytest.raises(ClipError, match="not finite: mean_renyi of the text 'what'"):
        outcomes.of_text(0, 2, asked, found, _rows(slices))


def test_what_is_not_finite_is_named_if_it_is_the_samples_own():
    batch = _batch(4, 2)
    batch.gap[0] = np.nan  # Of another sample.
    batch.gap[1, :, 1] = np.nan  # Of a row that is not stored.
    batch.gap[1, :, 4:] = np.inf  # Padding.
    outcomes.of_video(1, batch, _rows())
    batch.gap[1, 1, 2], batch.modified[1, 0, 0, 1] = np.inf, np.nan
    with pytest.raises(ClipError, match=r"not finite: gap, modified$") as error:
        outcomes.of_video(1, batch, _rows())
    assert error.value.stage == "signals"


def test_what_is_not_finite_of_a_text_is_named_with_its_question():
    batch, grey = _batch(6, 4), np.zeros((3, 10), np.float32)
    batch.rank[0, 0, 3:], grey[0, 3:] = np.nan, -np.inf  # Of the second text.
    asked = Asked(key="k", question=f"why {'so ' * 40}", answer="a cat")
    found = Found(None, batch, grey)
    outcomes.of_text(0, 1, asked, found, _rows())
    with pytest.raises(ClipError, match="not finite: rank, blank of the text 'why so"):
        outcomes.of_text(0, 2, asked, found, _rows())
    asked = Asked(key="k", question="", answer="a cat")
    with pytest.raises(ClipError, match=r"rank, blank of the text 'a cat'$"):
        outcomes.of_text(0, 2, asked, found, _rows())


def test_the_door_checks_the_order_before_it_computes():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    model = object.__new__(LoadedModel)  # Nothing of it is looked at before.
    with pytest.raises(AuditError, match="against is 'sideways'; it must be "):
        signals.compute(model, frames, against="sideways")
