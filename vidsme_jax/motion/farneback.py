import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LEVELS, WINDOW, ITERATIONS, POLY_N, POLY_SIGMA = 3, 15, 3, 5, 1.2
_SMALLEST = 32
_BORDER = (0.14, 0.14, 0.4472, 0.4472, 0.4472)


def _moments():
    x = np.arange(-POLY_N, POLY_N + 1)
    g = np.exp(-(x**2) / (2 * POLY_SIGMA**2)).astype(np.float32)
    g = (g / g.sum(dtype=np.float64)).astype(np.float32)
    xg = (x * g).astype(np.float32)
    xxg = (x * x * g).astype(np.float32)
    gram = np.zeros((6, 6))
    w = np.outer(g, g).astype(np.float64)
    y, xx = np.meshgrid(x, x, indexing="ij")
    basis = [np.ones_like(xx), xx, y, xx**2, y**2, xx * y]
    for i in range(6):
        for j in range(6):
            gram[i, j] = (w * basis[i] * basis[j]).sum()
    gram[0, 0] = w.sum()
    inv = np.linalg.inv(gram)
    return g, xg, xxg, inv[1, 1], inv[0, 3], inv[3, 3], inv[5, 5]


def num_levels(height, width):
    for k in range(LEVELS):
        if min(height, width) * 0.5 ** (k + 1) < _SMALLEST:
            return k
    return LEVELS


def sizes(height, width):
    n = num_levels(height, width)
    return np.array(
        [[round(s * 0.5**k) for s in (height, width)] for k in range(n + 1)], np.int32
    )


def _gauss(k):
    sigma = (2.0**k - 1) / 2
    n = max(round(sigma * 5) | 1, 3)
    if sigma == 0:
        return np.array([0.25, 0.5, 0.25], np.float32)
    x = np.arange(n) - n // 2
    w = np.exp(-(x**2) / (2 * sigma**2))
    return (w / w.sum()).astype(np.float32)


def _bilinear(num, source, target):
    """Index of left neighbour and weight of right one."""
    x = jnp.arange(num, dtype=jnp.int32)
    numer = (2 * x + 1) * source - target
    left = numer // (2 * target)
    frac = (numer - left * 2 * target).astype(jnp.float32) / (2 * target).astype(jnp.float32)
    right = jnp.clip(left + 1, 0, source - 1)
    frac = jnp.where(left < 0, 0.0, frac)
    left = jnp.clip(left, 0, source - 1)
    return left, right, frac


def _take(x, index, axis):
    return jnp.take(x, index, axis=axis, mode="clip")


def _along(v, axis):
    return v[:, None] if axis == -2 else v[None, :]


def _lead(v, x):
    return v.reshape((1,) * (x.ndim - v.ndim) + v.shape)


def _reduce_axis(x, num, source, target, kernel, axis):
    left, right, frac = _bilinear(num, source, target)
    radius = len(kernel) // 2
    out = None
    # weights of taps -radius..radius+1 about left: (1-f) k[t] + f k[t-1]
    step = right - left
    for t in range(-radius, radius + 2):
        a = float(kernel[t + radius]) if t <= radius else 0.0
        b = float(kernel[t - 1 + radius]) if t > -radius else 0.0
        i = jnp.abs(left + t)
        i = jnp.where(i >= source, 2 * (source - 1) - i, i)
        i = jnp.clip(i, 0, source - 1)
        w = jnp.where(frac > 0, (1 - frac) * a + frac * b, jnp.float32(a))
        term = _take(x, i, axis) * _lead(_along(w, axis), x)
        out = term if out is None else out + term
    return out


def _blur(x, size, kernel):
    h, w = size
    for axis, n in ((-2, h), (-1, w)):
        i = jnp.arange(x.shape[axis], dtype=jnp.int32)
        lo = jnp.abs(i - 1)
        hi = jnp.where(i + 1 >= n, 2 * (n - 1) - i - 1, i + 1)
        lo, hi = jnp.clip(lo, 0, n - 1), jnp.clip(hi, 0, n - 1)
        x = 0.5 * x + 0.25 * (_take(x, lo, axis) + _take(x, hi, axis))
    return x


def _upsample(x, shape, source, target):
    for axis in (-2, -1):
        left, right, frac = _bilinear(shape[axis], source[axis], target[axis])
        f = _lead(_along(frac, axis), x)
        x = _take(x, left, axis) * (1 - f) + _take(x, right, axis) * f
    return x


def _pad(x, r, axis, n):
    """Replicates first and last (n-1) line."""
    size = x.shape[axis]
    i = jnp.arange(size, dtype=jnp.int32)
    last = lax.dynamic_slice_in_dim(x, n - 1, 1, axis % x.ndim)
    first = lax.slice_in_dim(x, 0, 1, axis=axis % x.ndim)
    x = jnp.where(_lead(_along(i < n, axis), x), x, last)
    return jnp.concatenate([first] * r + [x] + [last] * r, axis=axis)


def _shift(p, k, r, axis):
    n = p.shape[axis] - 2 * r
    return lax.slice_in_dim(p, r + k, r + k + n, axis=axis % p.ndim)


def _moving(p, r, axis, even=(), odd=()):
    """Correlates a padded array with kernels given by their taps 0..r."""
    middle = _shift(p, 0, r, axis)
    evens, odds = [middle * kernel[0] for kernel in even], [0.0 for _ in odd]
    for k in range(1, r + 1):
        ahead, behind = _shift(p, k, r, axis), _shift(p, -k, r, axis)
        both, change = ahead + behind, ahead - behind
        evens = [e + both * kernel[k] for e, kernel in zip(evens, even)]
        odds = [o + change * kernel[k] for o, kernel in zip(odds, odd)]
    return *evens, *odds


def _expand(x, size):
    g, xg, xxg, ig11, ig03, ig33, ig55 = _moments()
    n = POLY_N
    f = lambda k: np.float32(k)
    g, xg, xxg = ([float(t) for t in k[n:]] for k in (g, xg, xxg))
    B = lax.optimization_barrier
    p = B(_pad(x, n, -2, size[0]))
    v = B(jnp.stack(_moving(p, n, -2, (g, xxg), (xg,))))
    p = B(_pad(v, n, -1, size[1]))
    one, xx, y_x = _moving(p[0], n, -1, (g, xxg), (xg,))
    yy, = _moving(p[1], n, -1, (g,))
    y, xy = _moving(p[2], n, -1, (g,), (xg,))
    return B(jnp.stack((
        y * f(ig11),
        y_x * f(ig11),
        one * f(ig03) + yy * f(ig33),
        one * f(ig03) + xx * f(ig33),
        xy * f(ig55),
    )))


def _border(num, n):
    i = jnp.arange(num, dtype=jnp.int32)
    table = jnp.array((*_BORDER, 1.0), jnp.float32)
    near = _take(table, jnp.minimum(i, 5), 0)
    far = _take(table, jnp.clip(n - 1 - i, 0, 5), 0)
    return near * far


def _equations(r0, r1, u, v, size):
    h, w = size
    H, W = u.shape[-2:]
    x = jnp.arange(W, dtype=jnp.int32).astype(jnp.float32)
    y = jnp.arange(H, dtype=jnp.int32).astype(jnp.float32)
    fx = u + _lead(x[None, :], u)
    fy = v + _lead(y[:, None], v)
    x1, y1 = jnp.floor(fx), jnp.floor(fy)
    fx, fy = fx - x1, fy - y1
    wf, hf = jnp.asarray(w - 1, jnp.float32), jnp.asarray(h - 1, jnp.float32)
    inside = (x1 >= 0) & (x1 < wf) & (y1 >= 0) & (y1 < hf)
    xi = jnp.clip(x1, 0, jnp.maximum(wf - 1, 0)).astype(jnp.int32)
    yi = jnp.clip(y1, 0, jnp.maximum(hf - 1, 0)).astype(jnp.int32)
    flat = (yi * W + xi).reshape(*u.shape[:-2], H * W)
    corners = (
        (0, (1 - fx) * (1 - fy)),
        (1, fx * (1 - fy)),
        (W, (1 - fx) * fy),
        (W + 1, fx * fy),
    )

    def sample(p):
        p = p.reshape(*p.shape[:-2], H * W)
        total = 0.0
        for o, weight in corners:
            t = jnp.take_along_axis(p, flat + o, axis=-1, mode="clip").reshape(u.shape)
            total = total + weight * t
        return jnp.where(inside, total, 0.0)

    s2, s3, s4, s5, s6 = map(sample, r1)
    half = jnp.where(inside, 0.5, 1.0).astype(jnp.float32)
    r4 = (r0[2] + s4) * half
    r5 = (r0[3] + s5) * half
    r6 = (r0[4] + s6) * half * 0.5
    r2 = (r0[0] - s2) * 0.5 + r4 * v + r6 * u
    r3 = (r0[1] - s3) * 0.5 + r6 * v + r5 * u
    scale = _lead(_border(H, h)[:, None] * _border(W, w)[None, :], u)
    r2, r3, r4, r5, r6 = (t * scale for t in (r2, r3, r4, r5, r6))
    return lax.optimization_barrier(jnp.stack((
        r4 * r4 + r6 * r6,
        (r4 + r5) * r6,
        r5 * r5 + r6 * r6,
        r4 * r2 + r6 * r3,
        r6 * r2 + r5 * r3,
    )))


def _solve(m, size):
    r = WINDOW // 2
    B = lax.optimization_barrier
    ones = [1.0] * (r + 1)
    for axis in (-2, -1):
        (m,) = _moving(B(_pad(m, r, axis, size[axis])), r, axis, (ones,))
        m = B(m)
    g11, g12, g22, h1, h2 = m * (1 / WINDOW**2)
    idet = 1 / (jnp.maximum(g11 * g22 - g12 * g12, 0) + 1e-3)
    return ((g11 * h2 - g12 * h1) * idet, (g22 * h1 - g12 * h2) * idet)


def pairs(frames, size):
    """frames (n,H,W) u8 ; size (levels+1, 2) -> u, v (n-1,H,W)."""
    x = frames.astype(jnp.float32) - 128.0
    n, H, W = x.shape
    levels = size.shape[0] - 1
    flow = None
    for k in reversed(range(levels + 1)):
        shape = (-(-H // 2**k), -(-W // 2**k))
        if k:
            s = x
            for axis in (-2, -1):
                s = _reduce_axis(s, shape[axis], size[0][axis], size[k][axis], _gauss(k), axis)
                s = lax.optimization_barrier(s)
        else:
            s = lax.optimization_barrier(_blur(x, size[0], _gauss(0)))
        r = _expand(s, size[k])
        r0, r1 = r[:, :-1], r[:, 1:]
        if flow is None:
            flow = (jnp.zeros((n - 1, *shape), jnp.float32),) * 2
        else:
            flow = tuple(2 * _upsample(t, shape, size[k + 1], size[k]) for t in flow)

        def body(_, uv, r0=r0, r1=r1, k=k):
            return _solve(_equations(r0, r1, *uv, size[k]), size[k])

        flow = lax.fori_loop(0, ITERATIONS, body, tuple(flow))
    return flow
