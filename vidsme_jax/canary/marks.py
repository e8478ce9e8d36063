"""The mark of a variant: a smooth pattern that does not change over a clip.

It is drawn from a secret, the name of the set and the number of the variant, on a grid
of `CELLS` cells along the shorter side of the picture, and enlarged: waves as long as a
sixth of the picture survive what scaling and coding take. All three planes of the
picture have one, those of colour half as strong as that of brightness, and no mark
makes a picture brighter or its colour another one on the whole.

Axes: `height`, `width` of a picture; `rows`, 3 / 2 of its height: the planes of
yuv420p, one below the other, as FFmpeg lays them out; `cells_high`, `cells_wide` of
the grid; a last axis of 3 is brightness and the two planes of colour.
"""

import hashlib

import cv2
import numpy as np
from jaxtyping import Float, Int16

CELLS = 6  # Along the shorter side of the picture.
LONGEST = 12  # Cells along the longer side, at most.
COLOUR = 0.5  # Deviation of a plane of colour by that of brightness.
# Square of the deviation of R, G and B, on average, by that of a plane, of BT.601 in
# its usual range: brightness 1.164, colour 1.596, 0.392 and 0.813, 2.017.
_IN_RGB = (1.355, 1.407, 1.069)
STRENGTH = 1 / np.sqrt(_IN_RGB[0] + COLOUR**2 * (_IN_RGB[1] + _IN_RGB[2]))


def drawn(secret: str, *what: str | int) -> int:
    """Returns a number of 256 bits, a function of a secret and of what it is for.

    Without the secret it cannot be distinguished from a random draw.

    Args:
      secret: Of the key.
      what: Such as "choice" and the name of a set.

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
    """Draws the grid of a mark: independent normal numbers.

    Args:
      secret: Of the key.
      name: Of the set.
      index: Of the variant.
      height: Of the picture, which the number of cells follows.
      width: Of the picture.
    """
    unit = min(height, width)
    cells = [min(LONGEST, round(CELLS * side / unit)) for side in (height, width)]
    rng = np.random.default_rng(drawn(secret, "mark", name, index))
    return rng.standard_normal((*cells, 3))


def pattern(
    secret: str, name: str, index: int, height: int, width: int
) -> Float[np.ndarray, "rows {width}"]:
    """Returns a mark for the planes of a picture, of mean 0.

    Its root mean square in the R, G and B of the picture is about 1.

    Args:
      secret: Of the key.
      name: Of the set.
      index: Of the variant.
      height: Of the picture, even.
      width: Of the picture, even.

    Example:
      >>> pattern("0f", "a", 0, 72, 96).shape
      (108, 96)
    """
    cells = grid(secret, name, index, height, width)
    planes = []
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
    """Returns what a variant has more than the clip, in levels of 8 bits.

    Args:
      secret: Of the key.
      name: Of the set.
      index: Of the variant.
      height: Of the picture, even.
      width: Of the picture, even.
      strength: Its root mean square in R, G and B, about.
    """
    wave = strength * pattern(secret, name, index, height, width)
    return np.rint(wave).astype(np.int16)
