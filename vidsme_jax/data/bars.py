"""Bars: the uniform borders that letterboxing and pillarboxing leave.

A bar is a border of rows or columns that have one colour, the same in all sampled
frames, but for the noise of a codec. What lies within may have bars again, such as a
letterboxed film in a pillarboxed one, or a border that is uniform by itself, so that a
film is cut alike with bars and without.

Axes: `frames`, the sampled ones; `height`, `width`.
"""

import numpy as np
from jaxtyping import Bool, UInt8

_SPREAD = 12  # Grey levels between the lightest and the darkest of a bar.
_ODD = 0.02  # Of the places of a row or column, how many noise may take further.
_LEAST = 0.4  # Of each side, how much is left in any case.
_NESTED = 3  # Bars within bars.

Box = tuple[slice, slice]


def content(grey: UInt8[np.ndarray, "frames height width"]) -> Box:
    """Returns the rows and columns that are no bars; all of them if too few are.

    Args:
      grey: At least one frame.
    """
    height, width = grey.shape[1:]
    top, bottom, left, right = 0, height, 0, width
    for _ in range(_NESTED):
        its = grey[:, top:bottom, left:right]
        above, below = _ends(its)
        its = its[:, above : its.shape[1] - below].swapaxes(1, 2)
        before, behind = _ends(its) if its.size else (0, 0)
        if not above + below + before + behind:
            break
        top, bottom = top + above, bottom - below
        left, right = left + before, right - behind
        if bottom - top < _LEAST * height or right - left < _LEAST * width:
            return slice(0, height), slice(0, width)
    return slice(top, bottom), slice(left, right)


def _ends(grey: UInt8[np.ndarray, "frames rows columns"]) -> tuple[int, int]:
    """Returns how many of the first rows are a bar, and of the last."""
    return _first(grey), _first(grey[:, ::-1])


def _first(grey: UInt8[np.ndarray, "frames rows columns"]) -> int:
    """Returns how many of the first rows are a bar."""
    edge = grey[:, :1]
    if not _uniform(edge, edge)[0]:  # As of most; the others need not be looked at.
        return 0
    found = _uniform(grey, edge)
    return len(found) if found.all() else int(np.argmin(found))


def _uniform(
    grey: UInt8[np.ndarray, "frames rows columns"],
    edge: UInt8[np.ndarray, "frames 1 columns"],
) -> Bool[np.ndarray, " rows"]:
    """Returns which rows have the level of the first, in all frames."""
    level = np.median(edge)
    away = np.abs(grey.astype(np.int16) - np.int16(level)) > _SPREAD / 2
    return away.mean(axis=(0, 2)) <= _ODD
