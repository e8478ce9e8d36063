"""The mark of a variant: a smooth pattern that is constant over a clip.

It is drawn from a secret, the name of the set and the number of the variant, on a grid
of `CELLS` cells along the shorter side of the picture, and enlarged: wavelengths of a
sixth of the picture survive scaling and coding. Each plane of the picture has a pattern
of mean 0; those of chroma are half as strong as that of luma.

Axes: `height`, `width` of a picture; `rows`, 3 / 2 of its height: the planes of
yuv420p, one below the other, as in FFmpeg; `cells_high`, `cells_wide` of the grid; a
last axis of 3 is luma and the two planes of chroma.
"""

import hashlib

import cv2
import numpy as np
from jaxtyping import Float, Int16

CELLS = 6  # Along the shorter side of the picture.
LONGEST = 12  # Most cells along the longer side.
COLOUR = 0.5  # Standard deviation of a chroma plane relative to luma.
# Mean square of R, G and B per mean square of a plane, of BT.601 in limited range:
# luma 1.164, chroma 1.596, 0.392 and 0.813, 2.017.
_IN_RGB = (1.355, 1.407, 1.069)
STRENGTH = 1 / np.sqrt(_IN_RGB[0] + COLOUR**2 * (_IN_RGB[1] + _IN_RGB[2]))


def drawn(secret: str, *what: str | int) -> int:
    """Returns 256 bits as an integer: the SHA-256 of a secret and a purpose.

    Without the secret they cannot be distinguished from random bits.

    Args:
      secret: The secret of the key.
      what: The purpose, such as "choice" and the name of a set.

    Example:
      >>> drawn("0f", "choice", "a") == drawn("0f", "choice", "a")
      True
      >>> drawn("0f", "choice", "a") == drawn("0f", "choice", "b")
      False
    """
    text = "\0".join([secret, *map(str, what)])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest(), "big")


def grid(
    secret: str, name: str, index: int, height: int, width: int
) -> Float[np.ndarray, "cells_high cells_wide 3"]:
    """Draws the grid of a mark: independent standard normal numbers.

    Args:
      secret: The secret of the key.
      name: The name of the set.
      index: The number of the variant.
      height: Of the picture; determines the number of cells.
      width: Of the picture; likewise.
    """
    unit = min(height, width)
    cells = [min(LONGEST, round(CELLS * side / unit)) for side in (height, width)]
    rng = np.random.default_rng(drawn(secret, "mark", name, index))
    return rng.standard_normal((*cells, 3))


def pattern(
    secret: str, name: str, index: int, height: int, width: int
) -> Float[np.ndarray, "rows {width}"]:
    """Returns a mark for the planes of a picture, of mean 0.

    Its root mean square in R, G and B of the picture is about 1. See `grid` for the
    arguments; height and width must be even.

    Example:
      >>> pattern("0f", "a", 0, 72, 96).shape
      (108, 96)
    """
    cells = grid(secret, name, index, height, width)
    planes: list[Float[np.ndarray, "h w"]] = []
    for plane, (size, weight) in enumerate(
        [((height, width), 1.0), *[((height // 2, width // 2), COLOUR)] * 2]
    ):
        wave = cv2.resize(
            cells[..., plane], (size[1], size[0]), interpolation=cv2.INTER_CUBIC
        )
        wave -= wave.mean()
        wave *= weight * STRENGTH / np.sqrt(np.mean(wave**2))
        planes.append(wave)
    return np.concatenate([plane.ravel() for plane in planes]).reshape(-1, width)


def added(
    secret: str, name: str, index: int, height: int, width: int, strength: float
) -> Int16[np.ndarray, "rows {width}"]:
    """Returns the difference between a variant and its clip, in 8-bit levels.

    It is `pattern` times `strength`, the approximate root mean square in R, G and B.
    """
    wave = strength * pattern(secret, name, index, height, width)
    return np.rint(wave).astype(np.int16)
