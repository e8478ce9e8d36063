r"""Entropies from a stored Renyi profile (`base.PROFILE_ORDERS`).

For any order in [1, 2] and any degree. The `sharma_mittal_of_...` functions take NumPy
or JAX arrays alike; nothing here imports JAX.

References:
  [1] Sharma and Mittal, 1975. New Non-additive Measures of Entropy for Discrete
      Probability Distributions.
  [2] Berrut and Trefethen, 2004. Barycentric Lagrange Interpolation. SIAM Review 46(3).
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.arguments import require
from vidsme_jax.base import NODES, AnyArray, AuditError

Real = Any  # An array of NumPy or JAX, or a number: what goes in comes out.

CLAMP = 1e-10  # The release clamps probabilities to [1e-10, 1 - 1e-10].
_TINY = 1e-30  # log H of a distribution that is a point mass in float32.


def sharma_mittal_of_renyi(renyi: Real, r: Real) -> Real:
    """Deforms a Renyi entropy of order q into the Sharma-Mittal entropy (q, r) [1]."""
    xp = _namespace(renyi)
    s = 1.0 - xp.asarray(r)
    near = s == 0.0
    safe = xp.where(near, xp.ones_like(s), s)
    return xp.where(near, renyi, xp.expm1(safe * renyi) / safe)


def sharma_mittal_of_log_power_sum(log_sum: Real, q: Real, r: Real) -> Real:
    r"""Computes the release's entropy from $\log \sum_v p_v^q = (1-q) R_q$ (unclamped).

    In its order: Tsallis where |q - r| < 1e-10; Renyi where |r - 1| < 1e-10; else the
    general form with the exponent (1 - r) / (1 - q + 1e-10) clipped to [-100, 100]
    and the sum clamped from below at 1e-10. At q = 1 (the clip with the most motion of
    every corpus) the result is rounding noise near 0 instead of an entropy, and for
    1 < q < 1 + (r - 1) / 100 the clip distorts it. The exact value is that of
    `sharma_mittal_of_renyi`. Arguments broadcast; NumPy and JAX arrays alike.
    """
    xp = _namespace(log_sum)
    q, r = xp.asarray(q), xp.asarray(r)
    log_sum = xp.maximum(log_sum, xp.full_like(log_sum, math.log(CLAMP)))
    # The denominators' 1e-10 is the release's guard against 0 / 0.
    tsallis = xp.expm1(log_sum) / (1.0 - q + CLAMP)
    renyi = log_sum / (1.0 - q + CLAMP)
    exponent = xp.clip((1.0 - r) / (1.0 - q + CLAMP), -100.0, 100.0)
    general = xp.expm1(exponent * log_sum) / (1.0 - r + CLAMP)
    return xp.where(
        abs(q - r) < CLAMP, tsallis, xp.where(abs(r - 1.0) < CLAMP, renyi, general)
    )


def renyi_at_order(
    nodes: Float[AnyArray, "*#batch 13"], q: Float[np.ndarray, "*#batch"] | float
) -> Float[np.ndarray, "..."] | np.floating:
    """Interpolates the Renyi entropy of an order in [1, 2] between `base.NODES`.

    Barycentric interpolation [2] of log R_q at the 13 Chebyshev-Lobatto nodes; relative
    error 1e-7 or better, up to 1e-4 for distributions that are a point mass to 1e-8.

    Args:
      nodes: Entropies at the 13 nodes, >= 0.
      q: In [1, 2].

    Raises:
      AuditError: There are not 13 nodes, or an order is out of range.
    """
    shape, orders = np.shape(nodes), np.asarray(q, np.float64)
    require(
        shape[-1:] == (len(NODES),),
        f"nodes has shape {shape}; the last axis must have the {len(NODES)} orders of "
        "base.NODES",
    )
    if not ((orders >= 1) & (orders <= 2)).all():
        raise AuditError([f"q is {q!r}; all orders must be in [1, 2]"])
    weights = np.where(np.arange(len(NODES)) % 2 == 0, 1.0, -1.0)
    weights[[0, -1]] *= 0.5
    distance = orders[..., None] - np.asarray(NODES)
    at_node = distance == 0.0
    terms = weights / np.where(at_node, 1.0, distance)
    terms = np.where(at_node.any(-1, keepdims=True), at_node.astype(np.float64), terms)
    log_nodes = np.log(np.maximum(np.asarray(nodes, np.float64), _TINY))
    return np.exp((log_nodes * terms).sum(-1) / terms.sum(-1))


def _namespace(x: Real) -> Any:
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np
