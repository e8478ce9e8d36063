"""The choice of frames, against what each kind means."""

import numpy as np
import pytest

from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data.sampling import frame_indices

EVEN = np.arange(100) / 25


def _sample(sampling, num_frames, times=EVEN, fps=1.0):
    return frame_indices(sampling, num_frames, len(times), times, fps)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 100, 7207])
@pytest.mark.parametrize("num_frames", [2, 8, 16, 64])
def test_uniform_is_the_release_s(count, num_frames):
    expected = np.linspace(0, count - 1, num_frames, dtype=int)
    assert _sample("uniform", num_frames, np.arange(count) / 25) == tuple(expected)


def test_midpoints():
    assert _sample("midpoint", 4) == (12, 37, 62, 87)
    assert _sample("midpoint", 4, EVEN[:2]) == (0, 0, 1, 1)
    assert _sample("midpoint", 3, EVEN[:1]) == (0, 0, 0)


def test_frames_a_second():
    assert _sample("fps", 16) == (0, 25, 50, 75)
    assert _sample("fps", 16, fps=2.0) == (0, 12, 25, 37, 50, 62, 75, 87)
    assert _sample("fps", 3, fps=2.0) == (0, 37, 87)  # Three of those eight.
    assert _sample("fps", 16, EVEN[:1]) == (0,)


def test_frames_a_second_by_the_clock_of_the_file():
    times = np.array([5.0, 5.1, 5.2, 5.9, 7.0, 7.5, 9.0])
    # On screen at 5, 6, 7, 8 and 9 seconds; the clock need not begin at 0.
    assert _sample("fps", 16, times) == (0, 3, 4, 5, 6)


def test_a_time_stamp_that_is_rounded_still_counts():
    times = np.round(np.arange(31) * 1001 / 30000, 9)
    assert _sample("fps", 64, times, fps=30000 / 1001) == tuple(range(31))


def test_errors():
    with pytest.raises(ClipError, match="a clip that has none"):
        _sample("uniform", 4, EVEN[:0])
    with pytest.raises(AuditError, match=r"'random'; known: uniform, midpoint, fps"):
        _sample("random", 4)
