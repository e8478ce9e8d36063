r"""Farneback's dense optical flow [1] in JAX, equal to OpenCV's within rounding.

The parameters are those of Vid-SME's release: scales 1, 1/2, 1/4, 1/8 (fewer where a
side would fall below 32 pixels), a window of 15 x 15, 3 iterations, polynomials over
11 x 11 pixels with a Gaussian of deviation 1.2. Each frame is smoothed and scaled, and
near each pixel taken as $f(x) = x^T A x + b^T x + c$; the flow $d$ solves, in the mean
over the window, $A d = (b_0 - b_1) / 2 + A \tilde d$, where $\tilde d$ is the flow so
far and $b_1$ is read where it points to.

What is not in the paper is OpenCV's [2]: the full frame is smoothed for each scale;
borders are mirrored when smoothing and repeated elsewhere; where the flow points out of
the frame only the first polynomial counts; five pixels along the border count less; and
1e-3 is added to the determinant. OpenCV sums and solves in float64. Here the window's
sums are corrected for their rounding and the 2 x 2 systems are solved from pairs of
float32: where all edges of a window have one direction the determinant is a difference
of nearly equal products, and plain float32 gave the flow of stripes three times its
variance.

Sizes are data: frames may be padded at the right and at the bottom, and the values in
the padding are never read, so that one compiled function serves all sizes of a bucket.

What it costs: of each pixel of each scale (4/3 of the frame's) and iteration a GPU
moves 72 bytes to set up the equations and 12 for the index that they read by, 40 to sum
them along the height, 28 to sum them along the width and solve them: 152 bytes, and
about 1,000 operations. 15 pairs of 720p are 63 million such pixels and iterations (with
the padding to 768 x 1280 and to 16 pairs): 9.6 GB and 63 GFLOP. By the shapes of the
program that XLA makes for an H100 it is 11 GB with all that surrounds the iterations,
in 151 kernels. Were memory the only limit, that is 3 ms on an H100 (3.35 TB/s) and
2.1 ms on an H200 (4.8 TB/s). It has been run on neither.

Axes: `frames`, `height`, `width` (padded); `levels`, the scales, the full size first;
`pairs`, of consecutive frames.

References:
  [1] Farneback, 2003. Two-Frame Motion Estimation Based on Polynomial Expansion.
  [2] OpenCV, modules/video/src/optflowgf.cpp.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from vidsme_jax.motion import rounding

T = TypeVar("T")

_LEVELS = 3  # Below the full size.
_SMALLEST = 32  # No side gets shorter by scaling.
_RADIUS = 7  # Of the window.
_ITERATIONS = 3
_POLY_RADIUS, _POLY_SIGMA = 5, 1.2
_BORDER = (0.14, 0.14, 0.4472, 0.4472, 0.4472)
_REGULAR = 1e-3 * (2 * _RADIUS + 1) ** 4  # The sums are not divided by 15 x 15.

# Fusing a sum of shifted arrays with what makes the array computes that once a shift.
_whole = lax.optimization_barrier


def _on_gpus(ours: Callable[..., T], default: Callable[..., T], *args: Any) -> T:
    """Calls one function where GPUs run the program and another elsewhere.

    Threads of a GPU share what neighbours read, so the fewest passes over the memory
    are the best there. Other compilers would compute shared values again for each use,
    which only reductions and joined arrays prevent.
    """
    return lax.platform_dependent(*args, cuda=ours, rocm=ours, default=default)


def _written(*arrays: Array) -> tuple[Array, ...]:
    """Writes arrays to memory, so that no later operation computes them again."""
    return _on_gpus(
        lambda *arrays: _whole(arrays),
        lambda *arrays: tuple(_whole(jnp.stack(arrays))),
        *arrays,
    )


def scales(height: int, width: int) -> Int[np.ndarray, "levels 2"]:
    """Returns (height, width) at each scale, the full size first."""
    count = 1
    while count <= _LEVELS and min(height, width) * 0.5**count >= _SMALLEST:
        count += 1
    sizes = [(round(height * 0.5**k), round(width * 0.5**k)) for k in range(count)]
    return np.array(sizes, np.int32)  # Rounded half to even, as OpenCV's cvRound.


@jax.named_scope("flow")
def variances(
    frames: UInt8[Array, "frames height width"], sizes: Int[Array, "levels 2"]
) -> Float[Array, " pairs"]:
    """Returns, for each pair, the variance of its flow over both components.

    Args:
      frames: In grey, padded to any size not below `sizes[0]`.
      sizes: From `scales`.
    """
    both = jnp.stack(_flows(frames, sizes))
    y, x = (lax.broadcasted_iota(jnp.int32, both.shape, axis) for axis in (2, 3))
    inside = (y < sizes[0, 0]) & (x < sizes[0, 1])
    count = 2.0 * sizes[0, 0].astype(jnp.float32) * sizes[0, 1].astype(jnp.float32)

    def mean(values: Array) -> Array:
        # In two steps: a long float32 sum would lose digits.
        rows = _whole(jnp.sum(jnp.where(inside, values, 0.0), axis=3))
        return jnp.sum(rows, axis=(0, 2)) / count

    return mean((both - mean(both)[None, :, None, None]) ** 2)


def _flows(frames: Array, sizes: Array) -> tuple[Array, Array]:
    """Computes the flow (x, y) of each pair, from the coarsest scale on."""
    count, *shape = frames.shape
    grey = frames.astype(jnp.float32) - 128.0  # A constant has no polynomial terms.
    x = y = jnp.zeros((count - 1, 1, 1), jnp.float32)
    for level in reversed(range(sizes.shape[0])):
        full, size = sizes[0], sizes[level]
        here = [-(-side // 2**level) for side in shape]
        image = grey
        for axis in (0, 1):
            image = _whole(
                _resize(image, here, full, size, axis, kernel=_smoothing(level))
            )
        polynomials = _expand(image, size)
        if level == sizes.shape[0] - 1:
            x = y = jnp.zeros((count - 1, *here), jnp.float32)
        else:
            coarser = sizes[level + 1]
            for axis in (0, 1):
                x, y = _whole(
                    tuple(_resize(d, here, coarser, size, axis) for d in (x, y))
                )
            x, y = 2.0 * x, 2.0 * y

        def improve(
            _: Array | int,
            flow: tuple[Array, Array],
            polynomials: tuple[Array, ...] = polynomials,
            size: Array = size,
        ) -> tuple[Array, Array]:
            return _solve(_equations(polynomials, flow[0], flow[1], size), size)

        x, y = lax.fori_loop(0, _ITERATIONS, improve, (x, y))
    return x, y


def _smoothing(level: int) -> tuple[float, ...]:
    sigma = (2.0**level - 1) / 2
    if sigma == 0:
        return (0.25, 0.5, 0.25)
    radius = max(round(5 * sigma) | 1, 3) // 2
    weights = np.exp(-((np.arange(-radius, radius + 1) / sigma) ** 2) / 2)
    return tuple((weights / weights.sum()).tolist())


def _resize(
    image: Array,
    shape: Sequence[int],
    source: Array,
    target: Array,
    axis: int,
    kernel: tuple[float, ...] = (1.0,),
) -> Array:
    """Correlates with a kernel and interpolates linearly, along height or width (0, 1).

    Only the lines that are interpolated between are smoothed. Positions are exact: they
    are fractions of integers.
    """
    axis, source, target, lines = axis - 2, source[axis], target[axis], shape[axis]
    line = jnp.arange(lines, dtype=jnp.int32)
    above = (2 * line + 1) * source - target
    left = above // (2 * target)
    part = (above % (2 * target)).astype(jnp.float32) / (2 * target).astype(jnp.float32)
    part = jnp.where((left < 0) | (left >= source - 1), 0.0, part)
    left = jnp.clip(left, 0, source - 1)
    radius = len(kernel) // 2
    out: Any = 0.0
    for tap, (weight, next_weight) in enumerate(
        zip((*kernel, 0.0), (0.0, *kernel), strict=True), start=-radius
    ):
        index = jnp.abs(left + tap)  # Mirrored without repeating the border.
        index = jnp.where(index < source, index, 2 * (source - 1) - index)
        index = jnp.clip(index, 0, source - 1)
        lines = _columns(image, index) if axis == -1 else _lines(image, index, axis)
        weights = (1 - part) * weight + part * next_weight
        out = out + lines * _spread(weights, axis, image.ndim)
    return out


def _lines(x: Array, index: Int[Array, " lines"], axis: int) -> Array:
    """Takes lines by number along the axis -2 or -1; all must exist."""
    where = (..., index) if axis == -1 else (..., index, slice(None))
    return x.at[where].get(mode="promise_in_bounds")


def _columns(x: Array, index: Int[Array, " lines"]) -> Array:
    """Takes columns, as `_lines`; on a GPU in the order of `x` in memory."""

    def one_by_one(x: Array, index: Array) -> Array:
        *shape, width = x.shape
        begin = jnp.arange(x.size // width, dtype=jnp.int32) * width
        index = begin[:, None] + index[None]
        found = x.reshape(-1).at[index].get(mode="promise_in_bounds")
        return found.reshape(*shape, -1)

    return _on_gpus(one_by_one, lambda x, index: _lines(x, index, -1), x, index)


def _spread(values: Float[Array, " lines"], axis: int, rank: int) -> Array:
    """Reshapes values to broadcast along one axis of an array of this rank."""
    return jnp.expand_dims(values, [a for a in range(-rank, 0) if a != axis])


def _pad(x: Array, radius: int, axis: int, size: Int[Array, ""]) -> Array:
    """Repeats the first line before, and the last of `size` lines in all that follows.

    `axis` is -2 for height and -1 for width, as in what follows.
    """
    line = jnp.arange(-radius, x.shape[axis] + radius, dtype=jnp.int32)
    return _whole(_lines(x, jnp.clip(line, 0, size - 1), axis))


def _shifts(x: Array, radius: int, axis: int, size: Int[Array, ""]) -> list[Array]:
    """Moves an array by -radius to radius lines, padded as by `_pad`."""
    lines = x.shape[axis]

    def read(x: Array, size: Array) -> list[Array]:
        line = jnp.arange(lines, dtype=jnp.int32)
        return [
            _lines(x, jnp.clip(line + k, 0, size - 1), axis)
            for k in range(-radius, radius + 1)
        ]

    def sliced(x: Array, size: Array) -> list[Array]:
        x = _pad(x, radius, axis, size)
        return [
            lax.slice_in_dim(x, start, start + lines, axis=axis % x.ndim)
            for start in range(2 * radius + 1)
        ]

    return _on_gpus(read, sliced, x, size)


@functools.cache
def _moments() -> tuple[list[list[float]], list[float]]:
    """Taps 0 to 5 of g, x g and x^2 g, and what is used of the inverse Gram matrix."""
    x = np.arange(-_POLY_RADIUS, _POLY_RADIUS + 1)
    g = np.exp(-((x / _POLY_SIGMA) ** 2) / 2).astype(np.float32)
    g = (g / g.sum(dtype=np.float64)).astype(np.float32)
    row, column = np.meshgrid(x, x, indexing="ij")
    basis = np.stack([row**0, column, row, column**2, row**2, column * row], -1)
    gram = np.einsum("y,x,yxi,yxj->ij", *[g.astype(np.float64)] * 2, basis, basis)
    inverse = np.linalg.inv(gram)
    taps = [(x**power * g)[_POLY_RADIUS:].tolist() for power in range(3)]
    used = inverse[[1, 0, 3, 5], [1, 3, 3, 5]]
    return taps, used.tolist()


def _even(shifts: list[Array], kernel: list[float]) -> Array:
    middle = len(kernel) - 1
    out = shifts[middle] * kernel[0]
    for k in range(1, len(kernel)):
        out = out + (shifts[middle + k] + shifts[middle - k]) * kernel[k]
    return out


def _odd(shifts: list[Array], kernel: list[float]) -> Array:
    middle = len(kernel) - 1
    out = jnp.zeros_like(shifts[middle])
    for k in range(1, len(kernel)):
        out = out + (shifts[middle + k] - shifts[middle - k]) * kernel[k]
    return out


def _expand(
    image: Array, size: Array
) -> tuple[Float[Array, "frames height width"], ...]:
    """Fits the polynomials: b along y and x; of A the yy, the xx and twice the xy."""
    (one, first, second), (ig11, ig03, ig33, ig55) = _moments()
    rows = _shifts(image, _POLY_RADIUS, -2, size[0])
    along_y = _written(_even(rows, one), _odd(rows, first), _even(rows, second))
    flat, slope, curve = (_shifts(x, _POLY_RADIUS, -1, size[1]) for x in along_y)
    level = _even(flat, one) * ig03
    return _written(
        _even(slope, one) * ig11,
        _odd(flat, first) * ig11,
        level + _even(curve, one) * ig33,
        level + _even(flat, second) * ig33,
        _odd(slope, first) * ig55,
    )


def _equations(
    polynomials: tuple[Array, ...], x: Array, y: Array, size: Array
) -> tuple[Float[Array, "pairs height width"], ...]:
    """Sets up the normal equations: yy, yx and xx of A^2; y and x of A db.

    The second frame's polynomials are read at the four pixels around where the flow
    points to, once an iteration.
    """
    height, width = x.shape[1:]
    rows, columns = size.astype(jnp.float32)
    pair, line, column = (
        lax.broadcasted_iota(jnp.int32, x.shape, axis) for axis in range(3)
    )
    at_y, at_x = line.astype(jnp.float32) + y, column.astype(jnp.float32) + x
    top, left = jnp.floor(at_y), jnp.floor(at_x)
    down, right = at_y - top, at_x - left
    inside = (top >= 0) & (top < rows - 1) & (left >= 0) & (left < columns - 1)
    top, left = (
        jnp.where(inside, value, 0.0).astype(jnp.int32) for value in (top, left)
    )
    # Of all frames in one line: pairs of indices would be written to memory, thrice.
    index = ((pair + 1) * height + top) * width + left
    corners = (
        (0, (1 - down) * (1 - right)),
        (1, (1 - down) * right),
        (width, down * (1 - right)),
        (width + 1, down * right),
    )

    def read(plane: Array) -> Array:
        plane, out = plane.reshape(-1), 0.0
        for step, weight in corners:
            corner = plane.at[index + step].get(mode="promise_in_bounds")
            out = out + corner * weight
        return jnp.where(inside, out, 0.0)

    first = [plane[:-1] for plane in polynomials]
    b_y, b_x, a_yy, a_xx, a_xy = map(read, polynomials)
    share = jnp.where(inside, 0.5, 1.0)
    a_yy, a_xx = (first[2] + a_yy) * share, (first[3] + a_xx) * share
    a_xy = (first[4] + a_xy) * share * 0.5
    b_y = (first[0] - b_y) * 0.5 + a_yy * y + a_xy * x
    b_x = (first[1] - b_x) * 0.5 + a_xy * y + a_xx * x
    weight = _near_border(height, size[0])[:, None] * _near_border(width, size[1])[None]
    a_yy, a_xx, a_xy, b_y, b_x = (
        value * weight[None] for value in (a_yy, a_xx, a_xy, b_y, b_x)
    )
    return _written(
        a_yy * a_yy + a_xy * a_xy,
        (a_yy + a_xx) * a_xy,
        a_xx * a_xx + a_xy * a_xy,
        a_yy * b_y + a_xy * b_x,
        a_xy * b_y + a_xx * b_x,
    )


def _near_border(lines: int, size: Array) -> Float[Array, " lines"]:
    line = jnp.arange(lines, dtype=jnp.int32)
    table = jnp.array((*_BORDER, 1.0), jnp.float32)
    return table[jnp.clip(line, 0, 5)] * table[jnp.clip(size - 1 - line, 0, 5)]


def _solve(equations: tuple[Array, ...], size: Array) -> tuple[Array, Array]:
    """Solves the equations of the window around each pixel for the flow (x, y)."""
    columns = _whole(tuple(sum(_sum(plane, -2, size[0])) for plane in equations))
    sums = [_sum(plane, -1, size[1]) for plane in columns]
    g_yy, g_yx, g_xx, h_y, h_x = ((*pair, *rounding.split(pair[0])) for pair in sums)
    determinant = jnp.maximum(rounding.cross(g_yy, g_xx, g_yx, g_yx), 0.0) + _REGULAR
    x = rounding.cross(g_yy, h_x, g_yx, h_y) / determinant
    y = rounding.cross(g_xx, h_y, g_yx, h_x) / determinant
    return _whole((x, y))


def _sum(x: Array, axis: int, size: Int[Array, ""]) -> tuple[Array, Array]:
    """Sums over the window along one axis; returns the sum and its rounding error."""

    def added(x: Array, size: Array) -> tuple[Array, Array]:
        total, *others = _shifts(x, _RADIUS, axis, size)
        rest = jnp.zeros_like(total)
        for other in others:
            total, error = rounding.add(total, other)
            rest = rest + error
        return total, rest

    def merge(
        one: tuple[Array, Array], other: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        total, error = rounding.add(one[0], other[0])
        return total, one[1] + other[1] + error

    def reduced(x: Array, size: Array) -> tuple[Array, Array]:
        x, window = _pad(x, _RADIUS, axis, size), [1] * x.ndim
        window[axis] = 2 * _RADIUS + 1
        values, zero = (x, jnp.zeros_like(x)), np.float32(0)
        return _whole(
            lax.reduce_window(
                values, (zero, zero), merge, window, [1] * x.ndim, "VALID"
            )
        )

    return _on_gpus(added, reduced, x, size)
