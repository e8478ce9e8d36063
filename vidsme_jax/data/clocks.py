"""Clocks of clips, from the average frame rate of their file or source."""

import fractions
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.clock import Clock

# Frames per second; values outside are not frame rates but, for example, clock ticks
# (90,000).
_LEAST, _MOST = 1e-4, 1e4

Rate = fractions.Fraction | float


def rate_of(value: Any) -> Rate | None:
    """Returns a frame rate in Hz; None for a value that cannot be one.

    Example:
      >>> rate_of(fractions.Fraction(30000, 1001)), rate_of(90_000), rate_of("nan")
      (Fraction(30000, 1001), None, None)
    """
    if isinstance(value, fractions.Fraction):
        return value if _LEAST <= value <= _MOST else None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if _LEAST <= number <= _MOST else None


def of_frames(
    rate: Rate | None,
    indices: Sequence[int],
    stamps: Float[np.ndarray, " decodable"],
    part: range,
) -> Clock | None:
    """Returns the clock of chosen frames; None without a rate.

    Args:
      rate: Frames per second of the whole video.
      indices: Indices of the chosen frames in the whole video.
      stamps: Time stamps of all its frames, in seconds.
      part: The indices of the scored part; the clock starts at the first.
    """
    if rate is None:
        return None
    # As `timestamps` and `duration` of transformers' `VideoMetadata` are rounded.
    times = tuple((index - part.start) / float(rate) for index in indices)
    shown = tuple(float(stamps[index] - stamps[part.start]) for index in indices)
    duration = float(len(part) / fractions.Fraction(rate))
    return Clock(times=times, shown=shown, duration=duration)
