"""Numbers in words against num2words."""

import num2words
import pytest

from vidsme_jax.models.rows import MAX_FRAMES
from vidsme_jax.models.smolvlm.words import in_words


def test_counts_of_frames_equal_num2words():
    """All below two thousand; beyond, where only the thousands are new, every 7th."""
    english = num2words.CONVERTER_CLASSES["en"]
    for number in (*range(2000), *range(2000, MAX_FRAMES, 7), MAX_FRAMES):
        assert in_words(number) == english.to_cardinal(number)


@pytest.mark.parametrize("number", [40_000, 100_000, 100_099, 123_456, 999_999])
def test_larger_numbers(number):
    assert in_words(number) == num2words.num2words(number)


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_what_has_no_words_here(number):
    with pytest.raises(ValueError, match="is not a number from 0 to 999999"):
        in_words(number)
