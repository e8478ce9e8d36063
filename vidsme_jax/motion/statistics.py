"""Motion and light of a clip, and the entropy orders scaled by them.

Axes: `frames` T, `height` H and `width` W of one clip; `clips`, a corpus. OpenCV is
imported where it is called: the flow of `farneback` needs none.

References:
  [1] Li, Yu and Wang, 2025. Vid-SME. https://arxiv.org/abs/2506.03179
  [2] Farneback, 2003. Two-Frame Motion Estimation Based on Polynomial Expansion.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vidsme_jax import arguments
from vidsme_jax.arguments import number, require, same_length, series
from vidsme_jax.base import AuditError, ClipError, MotionStatistics

Bounds = tuple[float, float, float, float]

# Takes grey frames, shape (frames, height, width); calling what it returns gives, for
# each pair of consecutive frames, the variance of the flow over both components.
FlowVariances = Callable[[np.ndarray], Callable[[], np.ndarray]]

# The parameters of OpenCV's flow [2] in the release of [1].
RELEASE: dict[str, Any] = {"pyr_scale": 0.5, "levels": 3, "winsize": 15}
RELEASE |= {"iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0}

_REMEDY = "give motion.bounds = (phi_min, phi_max, b_min, b_max)"


def opencv(
    grey: UInt8[np.ndarray, "frames height width"],
) -> Callable[[], Float[np.ndarray, " pairs"]]:
    """Computes the variance of the flow of each pair with OpenCV, at once.

    Raises:
      ClipError: "motion", if OpenCV refuses the frames.
    """
    import cv2

    flow: Any = np.empty((*grey.shape[1:], 2), np.float32)  # Filled, not read.
    variances = []
    try:
        for before, after in itertools.pairwise(grey):
            flow = cv2.calcOpticalFlowFarneback(before, after, flow, **RELEASE)
            variances.append(flow.var(dtype=np.float64))
    except cv2.error as error:
        height, width = grey.shape[1:]
        of = f"the optical flow of frames of {width}x{height} pixels"
        raise ClipError(
            "motion", f"OpenCV cannot compute {of} ({error.err})"
        ) from error
    return lambda: np.array(variances)


def begin(
    pixels: UInt8[np.ndarray, "frames height width 3"],
    flow: FlowVariances = opencv,
    known: MotionStatistics | None = None,
) -> Callable[[], MotionStatistics]:
    r"""Starts the measurement of motion and brightness of one clip [1].

    $\phi$ is the mean, over the pairs of consecutive frames, of the variance of their
    optical flow over both components and all pixels; $b$ is the standard deviation,
    over the frames, of the mean grey level (the paper calls it a variance).

    Args:
      pixels: RGB at full resolution.
      flow: Computes the variances, perhaps asynchronously.
      known: The statistics that `opencv` gave before, which replace its computation.

    Returns:
      A function that waits for the flow and gives the statistics; it may raise what
      `flow` does.

    Raises:
      ClipError: "motion", if these are no frames, RGB of uint8, or fewer than two, or
        if `flow` refuses them.
    """
    if known is not None and flow is opencv:
        return lambda: known
    arguments.frames("motion", pixels)
    if len(pixels) < 2:
        raise ClipError(
            "motion",
            f"{len(pixels)} frame was sampled and motion needs at least 2: a still "
            "picture, or a video of one frame",
        )
    import cv2

    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels])
    means = [frame.mean(dtype=np.float64) for frame in grey]
    variances = flow(grey)
    return lambda: MotionStatistics(
        flow_variance=float(np.mean(variances())), brightness_std=float(np.std(means))
    )


def measure(
    pixels: UInt8[np.ndarray, "frames height width 3"],
) -> MotionStatistics:
    """Measures motion and brightness of one clip; see `begin`.

    Example, of a bright square that moves over a dark ground:

    >>> frames = np.zeros((4, 48, 64, 3), np.uint8)
    >>> for k, frame in enumerate(frames):
    ...     frame[16:32, 8 + 6 * k : 24 + 6 * k] = 255
    >>> found = measure(frames)
    >>> found.flow_variance > 1, found.brightness_std
    (True, 0.0)
    """
    return begin(pixels)()


def bounds(phi: Float[np.ndarray, " clips"], b: Float[np.ndarray, " clips"]) -> Bounds:
    """Returns the ranges of motion and brightness of a corpus, members and all others.

    Args:
      phi: Flow variance, in squared pixels.
      b: Standard deviation of the brightness, in grey levels.

    Returns:
      (phi_min, phi_max, b_min, b_max), both ranges of positive length.

    Raises:
      AuditError: If the corpus has no range to scale by.
    """
    for name, values in (("phi", phi), ("b", b)):
        axes = np.ndim(values)
        require(axes == 1, f"{name} has {axes} axes; it must have one, a value a clip")
    same_length(phi=phi, b=b)
    phi, b = np.asarray(phi), np.asarray(b)
    problems = []
    if phi.size < 2:
        problems.append(
            f"{phi.size} clip has motion statistics; the entropy orders are scaled by "
            f"the range over at least 2 clips: add clips or {_REMEDY}"
        )
    else:
        named = ("phi", "flow variance", phi), ("b", "brightness deviation", b)
        for name, meaning, values in named:
            if not np.isfinite(values).all():
                first = int(np.flatnonzero(~np.isfinite(values))[0])
                problems.append(
                    f"the {meaning} ({name}) of clip {first} is {values[first]}; it "
                    "must be finite"
                )
            elif values.min() == values.max():
                problems.append(
                    f"the {meaning} ({name}) of all {values.size} clips is "
                    f"{values[0]:.6g}, so it has no range to scale by: add clips that "
                    f"differ or {_REMEDY}"
                )
    if problems:
        raise AuditError(problems)
    return float(phi.min()), float(phi.max()), float(b.min()), float(b.max())


def entropy_orders(
    phi: Float[np.ndarray, " clips"],
    b: Float[np.ndarray, " clips"],
    bounds: Bounds,
    q_scale: float,
    r_scale: float,
) -> tuple[Float[np.ndarray, " clips"], Float[np.ndarray, " clips"]]:
    r"""Computes the Sharma-Mittal orders $(q, r)$ of each clip [1].

    $$q = 1 + \beta_1 \frac{\phi_{max} - \phi}{\phi_{max} - \phi_{min}}, \qquad
      r = 1 + \beta_2 \frac{b - b_{min}}{b_{max} - b_{min}}$$

    The most motion gives $q = 1$ and the steadiest light $r = 1$. Values outside of the
    bounds, possible only with bounds of another corpus, count as the nearer end of the
    range, so that $q$ stays in $[1, 1 + \beta_1]$ and $r$ in $[1, 1 + \beta_2]$.

    Args:
      phi: Flow variance, in squared pixels.
      b: Standard deviation of the brightness, in grey levels.
      bounds: (phi_min, phi_max, b_min, b_max), increasing.
      q_scale: $\beta_1$, in (0, 1].
      r_scale: $\beta_2$, > 0.

    Raises:
      AuditError: A statistic is not finite, or bounds or scales are none.

    Example, of three clips that set their own bounds:

    >>> phi, b = np.array([0.0, 5.0, 10.0]), np.array([2.0, 2.5, 4.0])
    >>> q, r = entropy_orders(phi, b, bounds(phi, b), 1.0, 0.1)
    >>> q.tolist(), r.round(3).tolist()
    ([2.0, 1.5, 1.0], [1.0, 1.025, 1.1])
    """
    phi, b = series("phi", phi, least=0), series("b", b, least=0)
    same_length(phi=phi, b=b)
    phi_min, phi_max, b_min, b_max = _checked_bounds(bounds)
    q_scale = number("q_scale", q_scale, 0, 1, open="(")
    r_scale = number("r_scale", r_scale, 0, open="(")
    stillness = (phi_max - np.clip(phi, phi_min, phi_max)) / (phi_max - phi_min)
    flicker = (np.clip(b, b_min, b_max) - b_min) / (b_max - b_min)
    return 1 + q_scale * stillness, 1 + r_scale * flicker


def _checked_bounds(bounds: Any) -> Bounds:
    found = series("bounds", bounds)
    ordered = len(found) == 4 and found[0] < found[1] and found[2] < found[3]
    require(
        ordered,
        f"bounds is {bounds!r}; it must be (phi_min, phi_max, b_min, b_max), "
        "increasing: of several clips motion.bounds finds them",
    )
    return tuple(found.tolist())
