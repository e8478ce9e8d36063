"""What was noticed of a corpus' videos, a line a kind."""

import re
from collections.abc import Mapping, Sequence

from absl import logging

from vidsme_jax.wording import printable

_MOST = 400  # Characters of an example.
_LINES = 20  # Of the log.


def lines(warnings: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns a line for each kind of warning: how often, and the first of them.

    Warnings of one kind are equal up to their numbers and to the first bracket, colon
    or semicolon.

    Args:
      warnings: As in `Frames.warnings`, by the path of the video.
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
