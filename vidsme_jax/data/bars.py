"""Bars: the uniform borders that letterboxing and pillarboxing leave.

A bar is a border of rows or columns of one colour, the same in all sampled frames up to
codec noise. Bars may be nested (a letterboxed film inside a pillarboxed one), and the
picture may itself have a uniform border, so that a film is cropped equally with and
without bars.

Axes: `frames`, the sampled ones; `height`, `width`.
"""

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

_SPREAD = 12  # Grey levels between the lightest and the darkest pixel of a bar.
_ODD = 0.02  # Share of the pixels of a row or column that noise may move further.
_LEAST = 0.4  # Share of each side that must remain, else nothing is cropped.
_NESTED = 3  # Levels of nested bars.

Box = tuple[slice, slice]


def shrunk(
    picture: UInt8[np.ndarray, "height width *channels"], longest: int
) -> UInt8[np.ndarray, "height_ width_ *channels"]:
    """Returns a picture scaled down so that its longer side has `longest` pixels."""
    height, width = picture.shape[:2]
    by = longest / max(height, width)
    if by >= 1:
        return picture
    size = max(round(width * by), 1), max(round(height * by), 1)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def content(grey: UInt8[np.ndarray, "frames height width"]) -> Box:
    """Returns the rows and columns without bars; all of them if too few remain."""
    height, width = grey.shape[1:]
    top, bottom, left, right = 0, height, 0, width
    for _ in range(_NESTED):
        inner = grey[:, top:bottom, left:right]
        above, below = _ends(inner)
        inner = inner[:, above : inner.shape[1] - below].swapaxes(1, 2)
        before, after = _ends(inner) if inner.size else (0, 0)
        if not above + below + before + after:
            break
        top, bottom = top + above, bottom - below
        left, right = left + before, right - after
        if bottom - top < _LEAST * height or right - left < _LEAST * width:
            return slice(0, height), slice(0, width)
    return slice(top, bottom), slice(left, right)


def _ends(grey: UInt8[np.ndarray, "frames rows columns"]) -> tuple[int, int]:
    """Returns the number of bar rows at the start and at the end."""
    return _first(grey), _first(grey[:, ::-1])


def _first(grey: UInt8[np.ndarray, "frames rows columns"]) -> int:
    """Returns the number of bar rows at the start."""
    edge = grey[:, :1]
    if not _uniform(edge, edge)[0]:  # The common case: other rows need no check.
        return 0
    found = _uniform(grey, edge)
    return len(found) if found.all() else int(np.argmin(found))


def _uniform(
    grey: UInt8[np.ndarray, "frames rows columns"],
    edge: UInt8[np.ndarray, "frames 1 columns"],
) -> Bool[np.ndarray, " rows"]:
    """Returns which rows have the grey level of the first row, in all frames."""
    level = np.median(edge)
    away = np.abs(grey.astype(np.int16) - np.int16(level)) > _SPREAD / 2
    return away.mean(axis=(0, 2)) <= _ODD
