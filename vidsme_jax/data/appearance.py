"""Features of a clip's appearance, computed without a model.

Two sets of clips that differ in one of them, such as in colour grading, sharpness or
end cards, can be separated without any membership. Most are computed from frames shrunk
to 160 pixels, without letterbox bars; texture is computed at full resolution, so that
upscaling and stronger compression show.

Columns by group (levels are grey levels, 0 to 255; logarithms to base 10):

colour: `red_blue`, mean red minus mean blue, and `green`, mean green minus the mean of
    both, over the mean luma; `red_spread` and `blue_spread`, log ratio of the standard
    deviations of red and blue to that of green; correlations of two channels;
    `saturation`, its mean, and `vivid`, its 99th percentile, which grading changes
    most; `hue`, the mean closeness to red, from -1 to 1.
light: `light` and `contrast`, mean and standard deviation of luma over 255; `skewness`;
    `clipped`, the share of pixels within two levels of black or white.
texture: `edges`, the log mean square difference of neighbours, and `sharpness`, the log
    ratio of the Laplacian's variance to it; `noise`, the log median absolute high-pass
    [1]; `middle` and `high`, the log power share of two bands of the 8 x 8 DCT;
    `blocks`, the log ratio of differences at borders of 8 x 8 blocks to the others.
layout: `bar_rows` and `bar_columns`, the share of rows and columns that are bars;
    `corner_light` and `corner_edges`, the largest excess of a corner of the mean frame
    over its centre; `still`, the share of pixels that stay constant while others
    change, and `still_edges`, the log ratio of their edges to the frame's.
time: `first_light` and `last_light`, the luma of the first and last frame minus the
    median of the others; `last_edges` likewise; `change`, the log median difference of
    consecutive frames; `first_change` and `last_change`, the log ratio of the first and
    last difference to that median.

Axes: `frames`, the sampled ones; `height`, `width`.

[1] J. Immerkaer, 1996. Fast Noise Variance Estimation.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from vidsme_jax.data import bars

COLUMNS = (
    *("red_blue", "green", "red_spread", "blue_spread"),
    *("red_green_correlation", "red_blue_correlation", "green_blue_correlation"),
    *("saturation", "vivid", "hue"),
    *("light", "contrast", "skewness", "clipped"),
    *("edges", "sharpness", "noise", "middle", "high", "blocks"),
    *("bar_rows", "bar_columns", "corner_light", "corner_edges", "still"),
    *("still_edges", "first_light", "last_light", "last_edges"),
    *("change", "first_change", "last_change"),
)

_SHRUNK = 160  # Pixels of the longer side.
_BLOCK = 8
_BLOCKS = 2048  # Blocks of a frame in its spectrum, about.
_MIDDLE, _HIGH = 5, 9  # Sums of both DCT indices at which bands begin.
_HIGH_PASS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_K, _N = np.mgrid[:_BLOCK, :_BLOCK]
_DCT = np.cos(np.pi * (2 * _N + 1) * _K / 16) * np.where(_K, 0.5, np.sqrt(0.125))
_DCT = _DCT.astype(np.float32)  # Orthonormal.
_CLIPPED = 2  # Levels.
_STILL = 0.2  # A pixel that changes less than this share of the mean is still.
_LEAST = 0.5  # Levels added to numerators and denominators: less is noise.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_Grey = UInt8[np.ndarray, "height width"]
_Numbers = dict[str, float | np.floating]
_Luma = Float32[np.ndarray, "frames height width"]


def describe(
    pixels: UInt8[np.ndarray, "frames height width 3"],
) -> Float32[np.ndarray, " traits"]:
    """Returns the features of a clip, in the order of `COLUMNS`; all are finite.

    Args:
      pixels: RGB, at any size; at least one frame.

    Raises:
      ValueError: There is no pixel.
    """
    if not pixels.size:
        raise ValueError(
            f"frames of shape {pixels.shape} have no pixels to describe; give at least "
            "one frame."
        )
    small = np.stack([bars.shrunk(frame, _SHRUNK) for frame in pixels])
    rows, columns = bars.content((small @ _LUMA).astype(np.uint8))
    found = {
        "bar_rows": 1 - (rows.stop - rows.start) / small.shape[1],
        "bar_columns": 1 - (columns.stop - columns.start) / small.shape[2],
    }
    scale = np.array(pixels.shape[1:3]) / small.shape[1:3]
    inside = tuple(
        slice(int(np.ceil(axis.start * by)), max(int(axis.stop * by), 1))
        for axis, by in zip((rows, columns), scale, strict=True)
    )
    small = small[:, rows, columns].astype(np.float32)
    luma = small @ _LUMA
    textures = [_texture(frame[inside]) for frame in pixels]
    found |= {
        name: np.mean(np.array([x[name] for x in textures])) for name in textures[0]
    }
    found |= _colour(small, luma) | _light(luma) | _layout(luma) | _time(luma)
    return np.array([found[name] for name in COLUMNS], np.float32)


def _colour(
    small: Float32[np.ndarray, "frames height width 3"], luma: _Luma
) -> _Numbers:
    flat = small.reshape(-1, 3).astype(np.float64)
    red, green, blue = means = flat.mean(axis=0)
    light = means @ _LUMA + 1
    centred = flat - means
    covariance = centred.T @ centred / len(flat)
    spread = np.sqrt(np.diag(covariance)) + _LEAST
    correlation = covariance / np.outer(spread, spread)
    most, least = small.max(axis=-1), small.min(axis=-1)
    chroma, saturation = most - least, (most - least) / (most + 1)
    reddish = small[..., 0] - (small[..., 1] + small[..., 2]) / 2
    return {
        "red_blue": (red - blue) / light,
        "green": (green - (red + blue) / 2) / light,
        "red_spread": np.log10(spread[0] / spread[1]),
        "blue_spread": np.log10(spread[2] / spread[1]),
        "red_green_correlation": correlation[0, 1],
        "red_blue_correlation": correlation[0, 2],
        "green_blue_correlation": correlation[1, 2],
        "saturation": saturation.mean(),
        "vivid": np.percentile(saturation, 99),
        "hue": reddish.mean() / (chroma.mean() + _LEAST),
    }


def _light(luma: _Luma) -> _Numbers:
    flat = luma.ravel().astype(np.float64)
    mean, spread = flat.mean(), flat.std()
    clipped = (flat < _CLIPPED + 0.5) | (flat > 255 - _CLIPPED - 0.5)
    return {
        "light": mean / 255,
        "contrast": spread / 255,
        "skewness": np.mean(((flat - mean) / (spread + _LEAST)) ** 3),
        "clipped": np.mean(clipped),
    }


def _texture(frame: UInt8[np.ndarray, "height width 3"]) -> _Numbers:
    """Returns the texture features of a frame at its own resolution."""
    grey: _Grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    if lacking := max(_BLOCK - min(grey.shape), 0):  # Pads to at least one block.
        grey = np.pad(grey, (0, lacking), mode="edge")
    across = cv2.absdiff(grey[:, 1:], grey[:, :-1])
    down = cv2.absdiff(grey[1:], grey[:-1])
    squares = [cv2.norm(x, cv2.NORM_L2SQR) / x.size for x in (across, down)]
    edges = sum(squares) / 2
    laplacian = cv2.Laplacian(grey, cv2.CV_16S, ksize=1)
    spread = float(cv2.meanStdDev(laplacian)[1][0, 0]) ** 2
    power = _spectrum(grey)
    band = np.add.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    whole = power[band > 0].sum() + _LEAST
    middle = power[(band >= _MIDDLE) & (band < _HIGH)].sum()
    high = power[band >= _HIGH].sum()
    return {
        "edges": np.log10(edges + _LEAST),
        "sharpness": np.log10((spread + _LEAST) / (edges + _LEAST)),
        "noise": _noise(grey),
        "middle": np.log10((middle + 0.01) / whole),
        "high": np.log10((high + 0.01) / whole),
        "blocks": (_at_borders(across) + _at_borders(down.T)) / 2,
    }


def _spectrum(grey: _Grey) -> Float32[np.ndarray, "8 8"]:
    """Returns the mean power of each coefficient of the DCT of 8 x 8 blocks."""
    n = _BLOCK
    rows, columns = (side // n for side in grey.shape)
    step = max(1, round(np.sqrt(rows * columns / _BLOCKS)))
    blocks = grey[: rows * n, : columns * n].reshape(rows, n, columns, n)
    blocks = blocks[::step, :, ::step].swapaxes(1, 2).astype(np.float32)
    return np.square(_DCT @ blocks @ _DCT.T).mean(axis=(0, 1))


def _noise(grey: _Grey) -> float:
    """Returns the log median absolute high-pass, interpolated between integers."""
    passed = np.abs(cv2.filter2D(grey, cv2.CV_16S, _HIGH_PASS)).astype(np.uint16)
    counts = np.bincount(passed.ravel())
    total = np.cumsum(counts)
    at = int(np.searchsorted(total, passed.size / 2))
    before = passed.size / 2 - (total[at] - counts[at])
    return float(np.log10(at + before / counts[at] + _LEAST))


def _at_borders(steps: _Grey) -> float:
    """Returns the log ratio of column differences at block borders to the others."""
    means = cv2.reduce(steps, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0]
    border = np.arange(len(means)) % _BLOCK == _BLOCK - 1
    if not border.any():
        return 0.0
    return float(np.log10((means[border].mean() + 0.1) / (means[~border].mean() + 0.1)))


def _gradient(luma: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Returns the L1 gradient: absolute differences to the right and lower pixel."""
    found = np.zeros_like(luma)
    for axis in (-1, -2):
        last = np.take(luma, [-1], axis)
        found += np.abs(np.diff(luma, axis=axis, append=last))
    return found


def _layout(luma: _Luma) -> _Numbers:
    mean = luma.mean(axis=0)
    edges = _gradient(mean)
    height, width = mean.shape
    a, b = -(-height // 4), -(-width // 4)
    corners = [
        (y, x) for y in (slice(a), slice(-a, None)) for x in (slice(b), slice(-b, None))
    ]
    centre = (
        slice(height // 4, height - height // 4),
        slice(width // 4, width - width // 4),
    )
    light = [np.percentile(mean[x], 95) for x in (*corners, centre)]
    edge = [float(edges[x].mean()) for x in (*corners, centre)]
    change = luma.std(axis=0)
    moving = float(change.mean())
    still = (change < _STILL * moving) & (moving > _LEAST)
    there = float(edges[still].mean()) if still.any() else float(edges.mean())
    return {
        "corner_light": (max(light[:-1]) - light[-1]) / 255,
        "corner_edges": np.log10((max(edge[:-1]) + _LEAST) / (edge[-1] + _LEAST)),
        "still": np.mean(still),
        "still_edges": np.log10((there + _LEAST) / (float(edges.mean()) + _LEAST)),
    }


def _time(luma: _Luma) -> _Numbers:
    light = luma.mean(axis=(1, 2))
    edges = np.log10(_gradient(luma).mean(axis=(1, 2)) + _LEAST)
    change = np.abs(np.diff(luma, axis=0)).mean(axis=(1, 2))
    if not len(change):
        change = np.zeros(1, np.float32)
    usual = float(np.median(change))
    first, last = np.log10((change[[0, -1]] + _LEAST) / (usual + _LEAST))
    others = len(luma) > 1
    return {
        "first_light": (light[0] - np.median(light[others:])) / 255,
        "last_light": (light[-1] - np.median(light[: len(light) - others])) / 255,
        "last_edges": edges[-1] - np.median(edges[: len(light) - others]),
        "change": np.log10(usual + _LEAST),
        "first_change": first,
        "last_change": last,
    }
