"""The middle of resized frames that are long and thin, bit for bit as Pillow's.

A frame of 2 x 16384 pixels whose short side becomes 336 has 2.7 million columns, of
which a crop keeps 336. Pillow cannot resize to a part of them without moving its
filter by a rounding error, so the long side is resized here, by Pillow's arithmetic
[1]: weights in float64, as multiples of 2^-22, and a result that is rounded to 8 bits.
The short side is left to Pillow. Of frames that grow it resizes the width before the
height, with a rounding in between; of others that depends on its version.

Axes: `frames`; `height`, `width`.

[1] https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c, and
  Geometry.c beside it for the nearest pixel.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.Image import Resampling

_BITS = 22  # Of a weight, behind the point.
_STEPS = 1 << 20  # Places of nearest pixels that are computed at once.
_054, _046 = float(np.float32(0.54)), float(np.float32(0.46))

_Weights = list[tuple[int, np.ndarray]]  # Of each result: the first pixel, and factors.


def resized(
    frames: UInt8[np.ndarray, "frames height width 3"],
    target: tuple[int, int],
    kept: int,
    resample: Resampling,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yields the middle of every frame after a resizing.

    Args:
      frames: Whole ones.
      target: Height and width of a whole resized frame; both larger than before.
      kept: How much of the longer of them is wanted: what a crop of its centre keeps.
      resample: The filter.
    """
    wide = target[1] > target[0]
    long, size = frames.shape[2 if wide else 1], max(target)
    weights = _weights(long, size, (size - kept) // 2, kept, resample)
    low = min(first for first, _ in weights)
    high = max(first + len(factors) for first, factors in weights)
    weights = [(first - low, factors) for first, factors in weights]
    for frame in frames:
        if wide:
            part = _apply(weights, frame[:, low:high].transpose(1, 0, 2))
            yield _pillows(part.transpose(1, 0, 2), kept, target[0], resample)
        else:
            part = _pillows(frame[low:high], target[1], high - low, resample)
            yield _apply(weights, part)


def _pillows(
    pixels: np.ndarray, width: int, height: int, resample: Resampling
) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), resample))


def _apply(weights: _Weights, pixels: np.ndarray) -> np.ndarray:
    """Resizes the first axis."""
    out = np.empty((len(weights), *pixels.shape[1:]), np.uint8)
    for place, (first, factors) in enumerate(weights):
        taken = pixels[first : first + len(factors)].astype(np.int64)
        total = np.tensordot(factors, taken, 1) + (1 << (_BITS - 1))
        out[place] = np.clip(total >> _BITS, 0, 255)
    return out


def _weights(
    long: int, size: int, start: int, count: int, resample: Resampling
) -> _Weights:
    """Of `count` results from `start` on, where `long` pixels become `size`."""
    if resample == Resampling.NEAREST:
        one = np.array([1 << _BITS])
        return [(place, one) for place in _nearest(long, size, start, count)]
    support, curve = _FILTERS[resample]
    scale = long / size
    found = []
    for place in range(start, start + count):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        end = min(long, int(centre + support + 0.5))
        exact = [curve(x - centre + 0.5) for x in range(first, end)]
        total = 0.0
        for weight in exact:  # In this order: `sum` compensates its rounding errors.
            total += weight
        scaled = (weight / (total or 1.0) * (1 << _BITS) for weight in exact)
        fixed = [int(weight + math.copysign(0.5, weight)) for weight in scaled]
        found.append((first, np.array(fixed, np.int64)))
    return found


def _nearest(long: int, size: int, start: int, count: int) -> list[int]:
    """The places of pixels; Pillow adds up the steps, with their rounding errors."""
    scale = long / size
    at, found = scale * 0.5, np.empty(0, np.int64)
    for begin in range(0, start + count, _STEPS):
        places = np.full(_STEPS + 1, scale)
        places[0] = at
        places = np.add.accumulate(places)
        at = float(places[-1])
        part = places[max(0, start - begin) : min(_STEPS, start + count - begin)]
        found = np.concatenate([found, part.astype(np.int64)])
    return found.tolist()


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


def _hamming(x: float) -> float:
    x = abs(x)
    return _sinc(x) * (_054 + _046 * math.cos(math.pi * x)) if x < 1 else 0.0


def _bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


_FILTERS: dict[Resampling, tuple[float, Callable[[float], float]]] = {
    Resampling.BOX: (0.5, _box),
    Resampling.BILINEAR: (1.0, _bilinear),
    Resampling.HAMMING: (1.0, _hamming),
    Resampling.BICUBIC: (2.0, _bicubic),
    Resampling.LANCZOS: (3.0, _lanczos),
}
