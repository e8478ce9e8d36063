"""Chooses the frames of a clip."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float

from vidsme_jax.arguments import count, number, one_of
from vidsme_jax.base import ClipError
from vidsme_jax.data.segments import WHOLE, Segment

# From the number of frames, and the seconds of each, to the wanted indices.
Choose = Callable[[int, np.ndarray], Sequence[int]]

_SAME_INSTANT = 1e-6  # Seconds: k / fps and a time stamp are rounded differently.


def _uniform(num_frames: int, num_decodable: int) -> tuple[int, ...]:
    places = np.linspace(0, num_decodable - 1, num_frames)
    return tuple(int(place) for place in places)


def frame_indices(
    sampling: str,
    num_frames: int,
    num_decodable: int,
    times: Float[np.ndarray, " decodable"],
    fps: float,
) -> tuple[int, ...]:
    """Returns the indices of the sampled frames in display order.

    Args:
      sampling: `uniform`: `num_frames` equally spaced from the first to the last frame,
        rounded down, as in the release of Vid-SME; `midpoint`: the centres of
        `num_frames` equal parts; `fps`: the frame shown at every multiple of 1 / fps
        seconds, or `num_frames` of these, equally spaced, if there are more.
      num_frames: T. A clip with fewer frames repeats them.
      num_decodable: The number of frames in the clip, at least 1.
      times: Seconds, increasing; only `fps` reads them, and only their differences.
      fps: Frames per second, for `fps`.

    Returns:
      Indices in [0, num_decodable), not decreasing: `num_frames` of them, or for `fps`
      at most as many.

    Raises:
      ClipError: "decode", if there is no frame, or a frame has no time.
      AuditError: There is no such sampling, or a number is out of range.

    Example:
      >>> frame_indices("uniform", 3, 10, np.arange(10.0), 1.0)
      (0, 4, 9)
      >>> frame_indices("midpoint", 3, 10, np.arange(10.0), 1.0)
      (1, 5, 8)
    """
    one_of("sampling", sampling, ("uniform", "midpoint", "fps"))
    count("num_frames", num_frames)
    if count("num_decodable", num_decodable, 0) < 1:
        raise ClipError("decode", "frames cannot be chosen from a clip that has none")
    if sampling == "uniform":
        return _uniform(num_frames, num_decodable)
    if sampling == "midpoint":
        parts = 2 * num_frames
        return tuple((2 * k + 1) * num_decodable // parts for k in range(num_frames))
    number("fps", fps, 0, open="(")
    times = np.asarray(times)
    if times.shape != (num_decodable,) or not np.isfinite(times).all():
        problem = f"{num_decodable} frames need as many times, finite; there are"
        raise ClipError("decode", f"{problem} {int(np.isfinite(times).sum())}")
    elapsed = times - times[0]
    ticks = np.arange(int((elapsed[-1] + _SAME_INSTANT) * fps) + 1) / fps
    shown = np.searchsorted(elapsed, ticks + _SAME_INSTANT, side="right") - 1
    if len(shown) > num_frames:
        shown = shown[list(_uniform(num_frames, len(shown)))]
    return tuple(int(index) for index in shown)


class Choice:
    """Chooses the frames of a clip, or of a part of it, for several counts.

    Attributes:
      indices: By count, after the call.
      warnings: Warnings about the part, after the call.
    """

    def __init__(
        self,
        sampling: str,
        fps: float,
        counts: Iterable[int],
        segment: Segment = WHOLE,
    ):
        """Takes the arguments of `frame_indices`, and the part of the clip."""
        self._sampling, self._fps = sampling, fps
        self._counts, self._segment = tuple(counts), segment
        self.indices: dict[int, tuple[int, ...]] = {}
        self.warnings: tuple[str, ...] = ()

    def __call__(
        self, num_decodable: int, times: Float[np.ndarray, " decodable"]
    ) -> list[int]:
        """Chooses frames; returns the sorted union of the indices for all counts.

        Raises:
          ClipError: "decode", see `frame_indices`.
        """
        within = self._segment.indices(times)
        self.warnings = self._segment.warnings(times)
        inside = times[within.start : within.stop]
        for wanted in self._counts:
            found = frame_indices(
                self._sampling, wanted, len(within), inside, fps=self._fps
            )
            self.indices[wanted] = tuple(within.start + index for index in found)
        return sorted(set().union(*self.indices.values()))
