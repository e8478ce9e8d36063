"""Segments of videos: the part of a file that a row uses, and its key.

The key of a clip is its file, followed for a part by the seconds as a media fragment:
`/videos/a.mp4#t=3,7.5`; for the second of four windows of that `#t=3,7.5&part=2/4`. A
file whose own name ends like that gets one more fragment for the whole file:
`/videos/a.mp4#t=3,7.5#t=0,`.
"""

import dataclasses
import datetime
import math
import re
from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.base import ClipError

_FRAGMENT = re.compile(
    r"#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)?(?:&part=([1-9]\d{0,5})/([1-9]\d{0,5}))?$",
    re.ASCII,
)
# Minutes are below 60 if there are hours; seconds always are.
_CLOCK = re.compile(
    r"(?:(\d{1,4}):(?=[0-5]?\d:))?(\d{1,3}):([0-5]?\d(?:[.,]\d*)?)", re.ASCII
)
_MOST = 1e7  # Seconds: four months.
_SAME_INSTANT = 1e-6  # Seconds: times of the manifest and stamps are rounded.
_LEAST = 2  # Frames of a window: one frame has neither motion nor order.
_SLACK = 1.0  # Seconds that an annotation may exceed its video.


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a video, in seconds from its first frame.

    Attributes:
      start: Inclusive.
      end: Exclusive; None: the end of the video.
      window: (k, n): the k-th, from 1, of n windows of [start, end), whose numbers of
        frames differ by at most one; None: all of it.
    """

    start: int | float
    end: int | float | None = None
    window: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Returns the fragment, such as `#t=3,7.5`."""
        shown = f"#t={_text(self.start)},{'' if self.end is None else _text(self.end)}"
        return shown + ("&part={}/{}".format(*self.window) if self.window else "")

    @property
    def timed(self) -> bool:
        """Whether it is selected by seconds."""
        return self.start > 0 or self.end is not None

    def indices(self, times: Float[np.ndarray, " frames"]) -> range:
        """Returns the indices of its frames.

        Args:
          times: Of all frames of the video, in seconds, increasing from 0.

        Raises:
          ClipError: "decode", if it has no frame.
        """
        ends = (self.start, math.inf if self.end is None else self.end)
        first, last = map(int, np.searchsorted(times, np.array(ends) - _SAME_INSTANT))
        if first >= last:
            shown = f"its {len(times)} frames are shown from 0 to {times[-1]:.2f} s"
            raise ClipError(
                "decode", f"no frame is in the segment {self._span}: {shown}"
            )
        if self.window is None:
            return range(first, last)
        (number, asked), count = self.window, last - first
        made = _windows(asked, count)
        if number > made:
            few = f"{count} {'frame is' if count == 1 else 'frames are'}"
            raise ClipError("decode", f"{few} enough for {made} of {asked} windows")
        edges = (first + count * k // made for k in (number - 1, number))
        return range(*edges)

    def warnings(self, times: Float[np.ndarray, " frames"]) -> tuple[str, ...]:
        """Returns warnings that the segment ends after the video, or has fewer windows.

        Args:
          times: As in `indices`.
        """
        found = []
        if self.end is not None and self.end > times[-1] + _SLACK:
            found.append(
                f"the segment {self._span} ends after the video, whose last frame is "
                f"shown at {times[-1]:.2f} s"
            )
        if self.window is not None:
            whole = dataclasses.replace(self, window=None).indices(times)
            if (made := _windows(self.window[1], len(whole))) < self.window[1]:
                found.append(
                    f"{len(whole)} frames have {made} windows, not {self.window[1]}"
                )
        return tuple(found)

    @property
    def _span(self) -> str:
        to = "the end" if self.end is None else f"{_text(self.end)} s"
        return f"{_text(self.start)} s to {to}"

    @property
    def words(self) -> str:
        """Its description for a message, such as `3 s to 7.5 s`."""
        if self.window is None:
            return self._span
        which = "window {} of {}".format(*self.window)
        return f"{which} of {self._span}" if self.timed else which


WHOLE = Segment(0.0)


def joined(name: str, segment: Segment | None) -> str:
    """Returns the key of a file, or of a part of it.

    Example:
      >>> joined("a.mp4", Segment(3, 7.5)), joined("a.mp4#t=1,2", None)
      ('a.mp4#t=3,7.5', 'a.mp4#t=1,2#t=0,')
    """
    if segment is not None and segment != WHOLE:
        return f"{name}{segment}"
    return f"{name}{WHOLE}" if "#t=" in name and _FRAGMENT.search(name) else name


def divided(key: str) -> tuple[str, Segment | None]:
    """Returns the file of a key, and the segment; None for the whole file.

    Example:
      >>> divided("a.mp4#t=3,"), divided("a.mp4#t=1,2#t=0,")
      (('a.mp4', Segment(start=3.0, end=None, window=None)), ('a.mp4#t=1,2', None))
    """
    if "#t=" not in key or (found := _FRAGMENT.search(key)) is None:
        return key, None
    start, end, number, count = found.groups()
    window = (int(number), int(count)) if number else None
    segment = Segment(float(start), None if end is None else float(end), window)
    return key[: found.start()], None if segment == WHOLE else segment


def without_window(key: str) -> str:
    """Returns the key of the clip without its window.

    Example:
      >>> without_window("a.mp4#t=3,&part=2/4"), without_window("a.mp4#t=0,&part=1/2")
      ('a.mp4#t=3,', 'a.mp4')
    """
    file, segment = divided(key)
    if segment is None or segment.window is None:
        return key
    return joined(file, dataclasses.replace(segment, window=None))


def of_row(start: Any, end: Any) -> Segment | None:
    """Returns the segment of a row's cells; None for the whole video.

    Args:
      start: Seconds, or [HH:]MM:SS; None or "" for the start of the video.
      end: Likewise, for its end.

    Raises:
      ValueError: A time is invalid, or the segment is empty.

    Example:
      >>> of_row("1:02.5", 70), of_row("", None)
      (Segment(start=62.5, end=70.0, window=None), None)
    """
    first, last = _seconds("start", start), _seconds("end", end)
    first = 0.0 if first is None else first
    if last is not None and last <= first:
        raise ValueError(
            f"the segment from 'start' {_text(first)} s to 'end' {_text(last)} s is "
            "empty; 'end' must be later than 'start', or empty for the end of the video"
        )
    segment = Segment(first, last)
    return None if segment == WHOLE else segment


def _windows(asked: int, count: int) -> int:
    """Returns the number of windows that `count` frames allow, at most `asked`."""
    return max(1, min(asked, count // _LEAST))


def _seconds(name: str, value: Any) -> float | None:
    """Returns a time in seconds, rounded to microseconds; None for an empty cell."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    found = _number(value)
    if found is None or not 0 <= found <= _MOST:
        remedy = "" if name == "start" else "; leave it empty for the end of the video"
        raise ValueError(
            f"{name!r} is {str(value)[:40]!r}; it must be a time within the video: "
            f"seconds >= 0, or HH:MM:SS{remedy}; if the column holds something else, "
            f"leave it out by '{name}=' in corpus.fields"
        )
    return round(found, 6)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.time):
        value = value.isoformat()
    if isinstance(value, str) and (clock := _CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = clock.groups()
        minute = 60 * int(hours or 0) + int(minutes)
        return 60 * minute + float(seconds.replace(",", "."))
    if isinstance(value, str) and "_" in value:  # `float` would ignore it.
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _text(seconds: int | float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
