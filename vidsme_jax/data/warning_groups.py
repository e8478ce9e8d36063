"""Groups the warnings about a corpus' videos into one line per kind."""

import re
from collections.abc import Mapping, Sequence

from absl import logging

from vidsme_jax.wording import printable

_MOST = 400  # Characters of an example.
_LINES = 20  # In the log.


def lines(warnings: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns a line for each kind of warning: its first example and the count.

    Warnings are of one kind if they are equal up to the first bracket, colon or
    semicolon, except for numbers.

    Args:
      warnings: `Frames.warnings` by the path of the video.

    Example:
      >>> lines({"a.mp4": ["2 frames are damaged"], "b.mp4": ["3 frames are damaged"]})
      ['a.mp4: 2 frames are damaged (and 1 more alike)']
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for video, texts in warnings.items():
        for text in texts:
            kind = re.sub(r"\d+", "#", re.split(r"[(:;]", text)[0])
            kinds.setdefault(kind, []).append((video, text))
    found = []
    for same in kinds.values():
        video, text = same[0]
        if len(same) == 1:
            found.append(printable(f"{video}: {text}", _MOST))
        else:
            example = printable(f"{video}: {text}", _MOST)
            found.append(f"{example} (and {len(same) - 1} more alike)")
    return found


def log(warnings: Mapping[str, Sequence[str]]) -> None:
    """Logs the lines; the report lists the videos one by one."""
    found = lines(warnings)
    for line in found[:_LINES]:
        logging.warning("%s", line)
    if len(found) > _LINES:
        logging.warning("and %d more kinds of warnings", len(found) - _LINES)
