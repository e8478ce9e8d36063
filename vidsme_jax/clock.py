"""The times of frames as the processors of video models count them."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clock:
    """When frames are shown, by the average rate of their video.

    A processor that writes times into the prompt takes a frame's index over the average
    rate, as if the rate were constant. Of a part of a video, frames are counted from
    the part's first one, and so are seconds: as if the part were a file of its own.

    Attributes:
      times: Of each frame in seconds: its index over the rate.
      shown: The same by the frames' own time stamps.
      duration: In seconds: all frames of the video, or the part, over the rate.
    """

    times: tuple[float, ...]
    shown: tuple[float, ...]
    duration: float

    @property
    def drift(self) -> float:
        """Returns the largest difference of a frame's two times, in seconds."""
        pairs = zip(self.times, self.shown, strict=True)
        return max((abs(time - shown) for time, shown in pairs), default=0.0)

    def at(self, places: Sequence[int]) -> "Clock":
        """Returns that of some of the frames, in the order of `places`.

        Example:
          >>> Clock(times=(0.0, 0.5), shown=(0.0, 2.0), duration=1.0).at([0]).drift
          0.0
        """
        times = tuple(self.times[place] for place in places)
        shown = tuple(self.shown[place] for place in places)
        return Clock(times=times, shown=shown, duration=self.duration)
