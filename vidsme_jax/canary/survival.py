"""Measures what is left of the marks after recoding and a model's preprocessing.

Every variant of a clip is scaled to a shorter side of `SIDE` pixels (a smaller one
keeps its size) and encoded by x264 at crf `CRF`; `FRAMES` pictures are compared, as
means over the cells of a grid with `PATCHES` cells along the shorter side. A cell has
28 of 336 pixels: a visual token of a model that merges 2 x 2 patches of 14, and half a
cell of a mark. A mark varies little within such a cell, while most of the coding noise
of single pixels cancels; in single pixels no mark of 40 dB exceeds the noise.

Axes: `variants`; `numbers`, of all cells, colours and pictures.
"""

import pathlib
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vidsme_jax.canary import coding
from vidsme_jax.canary.coding import ClipInfo
from vidsme_jax.data import sampling

SIDE, CRF, FRAMES, PATCHES = 336, 28, 8, 12
LEAST_IDENTIFIED = 0.95  # Share of the variants.


class Seen(NamedTuple):
    """The pictures of a variant before and after recoding.

    Attributes:
      before: Means over cells of the scaled variant, in levels.
      after: The same after x264.
      noise: Mean square change of the pixels by x264, in squared levels.
    """

    before: Float[np.ndarray, " numbers"]
    after: Float[np.ndarray, " numbers"]
    noise: float


class Survival(NamedTuple):
    """What is left of the marks of a set, in 8-bit levels of R, G and B.

    Attributes:
      kept: The share of the differences between marks that is left.
      distance: The root mean square difference between two variants that is left.
      noise: The root mean square change by x264, over cells.
      noise_of_pixels: The same over single pixels.
      identified: The share of variants that, after x264, are nearest to themselves
        before it, among all of the set.
    """

    kept: float
    distance: float
    noise: float
    noise_of_pixels: float
    identified: float

    @property
    def is_enough(self) -> bool:
        """Returns whether variants are identified and differ by more than the noise."""
        return self.identified >= LEAST_IDENTIFIED and self.distance > self.noise


def see(path: pathlib.Path, clip: ClipInfo) -> Seen:
    """Recodes a variant of a clip as a platform does; measures it before and after."""
    scale = min(1.0, SIDE / min(clip.height, clip.width))
    height, width = (2 * round(scale * side / 2) for side in (clip.height, clip.width))
    times = np.arange(clip.frames, dtype=float)  # Only their number matters.
    chosen = sampling.frame_indices("uniform", FRAMES, clip.frames, times, 1.0)
    indices = sorted(set(chosen))
    recoded = coding.recoded(path, height, width, CRF)
    before, after = (
        coding.scaled(content, indices, height, width) for content in (path, recoded)
    )
    error = np.square(before.astype(np.float32) - after).mean()
    return Seen(cells(before), cells(after), float(error))


def cells(
    pictures: UInt8[np.ndarray, "frames height width 3"],
) -> Float[np.ndarray, " numbers"]:
    """Returns the means over the cells of pictures, concatenated.

    Example:
      >>> cells(np.full((2, 24, 36, 3), 7, np.uint8)).shape  # 2 x 12 x 18 x 3.
      (1296,)
    """
    height, width = pictures.shape[1:3]
    unit = min(height, width) / PATCHES
    size = max(1, round(width / unit)), max(1, round(height / unit))
    means = [
        cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for picture in pictures
    ]
    return np.stack(means).ravel()


def of(seen: list[Seen]) -> Survival:
    """Measures what is left of the marks of a set.

    Args:
      seen: The result of `see` for each variant, at least two.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> marks = rng.normal(size=(4, 1000))
      >>> found = of([Seen(m, 0.5 * m + 3, 1.0) for m in marks])
      >>> round(found.kept, 3), round(found.distance, 1), found.identified
      (0.5, 0.7, 1.0)
    """
    before = np.stack([each.before for each in seen]).astype(np.float64)
    after = np.stack([each.after for each in seen]).astype(np.float64)
    number = len(seen)
    noise = np.sqrt(np.square(after - before).mean())
    marks, left = before - before.mean(0), after - after.mean(0)
    energy = np.square(marks).sum()
    kept = float((marks * left).sum() / energy) if energy else 0.0
    # The mean square over pairs is twice the variance; `kept` excludes the noise.
    distance = np.sqrt(2 * energy / (number - 1) / before.shape[1])
    apart = (
        np.square(left).sum(1)[:, None] - 2 * left @ marks.T + np.square(marks).sum(1)
    )
    identified = np.mean(apart.argmin(1) == np.arange(number))
    return Survival(
        kept=kept,
        distance=float(max(kept, 0.0) * distance),
        noise=float(noise),
        noise_of_pixels=float(np.sqrt(np.mean([each.noise for each in seen]))),
        identified=float(identified),
    )
