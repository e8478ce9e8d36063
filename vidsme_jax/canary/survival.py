"""What is left of the marks after a platform and a model's loader.

Every variant of a clip is scaled to a shorter side of `SIDE` pixels (a smaller one
keeps its size), coded by x264 at crf `CRF`, and `FRAMES` pictures are taken of it. Of
each the means over the cells of a grid are compared, `PATCHES` along its shorter side:
28 pixels of 336, what a visual token shows where a model joins 2 x 2 patches of 14, and
half a cell of a mark. A mark varies little within such a cell, while most of what
coding does to single pixels cancels there; of single pixels no mark of 40 dB is larger
than that.

Axes: `variants`; `numbers`, of all cells, colours and pictures.
"""

import pathlib
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vidsme_jax.canary import coding
from vidsme_jax.canary.coding import Clip
from vidsme_jax.data import sampling

SIDE, CRF, FRAMES, PATCHES = 336, 28, 8, 12
LEAST_IDENTIFIED = 0.95


class Seen(NamedTuple):
    """What is seen of a variant.

    Attributes:
      before: Means over cells of what was written, scaled.
      after: The same after x264.
      noise: Mean square of what x264 did to the pixels, in levels of R, G and B.
    """

    before: Float[np.ndarray, " numbers"]
    after: Float[np.ndarray, " numbers"]
    noise: float


class Survival(NamedTuple):
    """What is left of the marks of a set; in levels of 8 bits of R, G and B.

    Attributes:
      kept: Which part of the marks' differences is left.
      distance: Root mean square between two variants that is left of their marks.
      noise: Of what x264 did to a variant, likewise over cells.
      noise_of_pixels: The same of single pixels.
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
        """Whether variants are identified, and differ by more than the noise."""
        return self.identified >= LEAST_IDENTIFIED and self.distance > self.noise


def see(path: pathlib.Path, clip: Clip) -> Seen:
    """Codes a variant as platforms do, and looks at it before and after.

    Args:
      path: Of the variant.
      clip: That it is a variant of.
    """
    scale = min(1.0, SIDE / min(clip.height, clip.width))
    height, width = (2 * round(scale * side / 2) for side in (clip.height, clip.width))
    times = np.arange(clip.frames, dtype=float)  # Of which only their number counts.
    chosen = sampling.frame_indices("uniform", FRAMES, clip.frames, times, 1.0)
    indices = sorted(set(chosen))
    coded = coding.recoded(path, height, width, CRF)
    before, after = (
        coding.scaled(content, indices, height, width) for content in (path, coded)
    )
    error = np.square(before.astype(np.float32) - after).mean()
    return Seen(cells(before), cells(after), float(error))


def cells(
    pictures: UInt8[np.ndarray, "frames height width 3"],
) -> Float[np.ndarray, " numbers"]:
    """Returns the means over the cells of pictures, one after the other."""
    height, width = pictures.shape[1:3]
    unit = min(height, width) / PATCHES
    size = max(1, round(width / unit)), max(1, round(height / unit))
    means = [
        cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for picture in pictures
    ]
    return np.stack(means).ravel()


def of(seen: list[Seen]) -> Survival:
    """Returns what is left of the marks of a set.

    Args:
      seen: Of each variant, two at least.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> marks = rng.normal(size=(4, 1000))
      >>> found = of([Seen(m, 0.5 * m + 3, 1.0) for m in marks])
      >>> round(found.kept, 3), round(found.distance, 1), found.identified
      (0.5, 0.7, 1.0)
    """
    before, after = (
        np.stack(list(x)).astype(np.float64)
        for x in ((each.before for each in seen), (each.after for each in seen))
    )
    number = len(seen)
    noise = np.sqrt(np.square(after - before).mean())
    marks, left = before - before.mean(0), after - after.mean(0)
    energy = np.square(marks).sum()
    kept = float((marks * left).sum() / energy) if energy else 0.0
    # Of all pairs the mean square is twice the variance; `kept` leaves the noise out.
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
