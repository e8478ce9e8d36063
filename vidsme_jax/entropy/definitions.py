r"""Entropies of next-token distributions, as their papers define them.

The kernels reduce the last axis (`vocab`) of finite, normalised log-probabilities and
broadcast their parameters over the rest: one token is shape (vocab,) with scalar
orders, and `jax.vmap` over tokens and clips gives the same numbers. All entropies are
in nats.

`renyi_at_order` and the `sharma_mittal_of_...` functions work from a stored Renyi
profile (`base.PROFILE_ORDERS`) instead, for any order in [1, 2] and any degree, with
NumPy or JAX arrays alike.

References:
  [1] Renyi, 1961. On Measures of Entropy and Information.
  [2] Sharma and Mittal, 1975. New Non-additive Measures of Entropy for Discrete
      Probability Distributions.
  [3] Li, Yu and Wang, 2025. Vid-SME. https://arxiv.org/abs/2506.03179
  [4] Berrut and Trefethen, 2004. Barycentric Lagrange Interpolation. SIAM Review 46(3).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidsme_jax.base import NODES

Real = Any  # An array of NumPy or JAX, or a number: what goes in comes out.

_NEAR_ONE = 0.1  # Within it, log sum p^q is taken as log1p(sum p (p^(q-1) - 1)).
_CLAMP = 1e-10  # The release clamps probabilities to [1e-10, 1 - 1e-10].
_TINY = 1e-30  # log H of a distribution that is a point mass in float32.


def shannon_entropy(log_probs: Float[Array, "*batch vocab"]) -> Float[Array, "*batch"]:
    r"""Shannon entropy, $H(p) = -\sum_v p_v \log p_v$, in nats."""
    return jnp.sum(jax.scipy.special.entr(jnp.exp(log_probs)), axis=-1)


def renyi_entropy(
    log_probs: Float[Array, "*#batch vocab"], order: Float[Array, "*#batch"]
) -> Float[Array, "..."]:
    r"""Renyi entropy of order $q$ [1], $R_q(p) = \log(\sum_v p_v^q) / (1 - q)$.

    Continuous in `order`: $R_1$ is the Shannon entropy and $R_\infty = -\log \max p$.

    Args:
      log_probs: Normalised.
      order: In [0, inf].
    """
    infinite = jnp.isinf(order)
    t = jnp.where(infinite, 2.0, order) - 1.0
    powers = (t[..., None] + 1.0) * log_probs
    far = jax.nn.logsumexp(powers, axis=-1)
    excess = jnp.expm1(t[..., None] * log_probs)
    near = jnp.log1p(jnp.sum(jnp.exp(log_probs) * excess, axis=-1))
    log_sum = jnp.where(jnp.abs(t) < _NEAR_ONE, near, far)
    finite = jnp.where(
        t == 0.0, shannon_entropy(log_probs), -log_sum / jnp.where(t == 0.0, 1.0, t)
    )
    return jnp.where(infinite, -jnp.max(log_probs, axis=-1), finite)


def sharma_mittal_entropy(
    log_probs: Float[Array, "*#batch vocab"],
    q: Float[Array, "*#batch"],
    r: Float[Array, "*#batch"],
) -> Float[Array, "..."]:
    r"""Sharma-Mittal entropy of order $q$ and degree $r$ [2], the heart of [3].

    $$S_{q,r}(p) = \frac{1}{1-r}\Big[\big(\textstyle\sum_v p_v^q\big)^{\frac{1-r}{1-q}}
      - 1\Big] = \frac{e^{(1-r) R_q(p)} - 1}{1-r}$$

    The right-hand side is computed, so $q \to 1$ and $r \to 1$ are the only limits:
    Renyi for $r \to 1$, Tsallis for $r = q$, "Gaussian" for $q \to 1$, and Shannon
    for both.
    """
    return sharma_mittal_of_renyi(renyi_entropy(log_probs, q), r)


def sharma_mittal_official(
    log_probs: Float[Array, "*#batch vocab"],
    q: Float[Array, "*#batch"],
    r: Float[Array, "*#batch"],
) -> Float[Array, "..."]:
    """The Sharma-Mittal entropy as the release of [3] computes it.

    Probabilities are clamped to [1e-10, 1 - 1e-10] and not renormalised; the cases and
    their clips are those of `sharma_mittal_of_log_power_sum`.
    """
    probs = jnp.clip(jnp.exp(log_probs), _CLAMP, 1.0 - _CLAMP)
    # The release sums in float64. Here log sum p^q comes from sum p (p^(q-1) - 1) and
    # sum p - 1, the latter with the largest term apart, so that float32 suffices.
    top = jnp.argmax(probs, axis=-1, keepdims=True)
    first = jnp.take_along_axis(probs, top, axis=-1)[..., 0]
    columns = jax.lax.broadcasted_iota(top.dtype, probs.shape, probs.ndim - 1)
    rest = jnp.where(columns == top, 0.0, probs)
    defect = (first - 1.0) + jnp.sum(rest, axis=-1)
    excess = jnp.sum(probs * jnp.expm1((q[..., None] - 1.0) * jnp.log(probs)), axis=-1)
    return sharma_mittal_of_log_power_sum(jnp.log1p(excess + defect), q, r)


def sharma_mittal_of_renyi(renyi: Real, r: Real) -> Real:
    """Deforms a Renyi entropy of order q into the Sharma-Mittal entropy (q, r)."""
    xp = _namespace(renyi)
    s = 1.0 - xp.asarray(r)
    near = s == 0.0
    safe = xp.where(near, xp.ones_like(s), s)
    return xp.where(near, renyi, xp.expm1(safe * renyi) / safe)


def sharma_mittal_of_log_power_sum(log_sum: Real, q: Real, r: Real) -> Real:
    r"""The release's cases, from $\log \sum_v p_v^q$, which is $(1-q) R_q$ unclamped.

    In its order: Tsallis where |q - r| < 1e-10; Renyi where |r - 1| < 1e-10; else the
    general form with the exponent (1 - r) / (1 - q + 1e-10) clipped to [-100, 100]
    and the sum clamped from below at 1e-10. At q = 1 (the clip with the most motion of
    every corpus) the result is rounding noise near 0 instead of an entropy, and for
    1 < q < 1 + (r - 1) / 100 the clip distorts it. The exact value is that of
    `sharma_mittal_of_renyi`. Arguments broadcast; NumPy and JAX arrays alike.
    """
    xp = _namespace(log_sum)
    q, r = xp.asarray(q), xp.asarray(r)
    log_sum = xp.maximum(log_sum, xp.full_like(log_sum, math.log(_CLAMP)))
    # The denominators' 1e-10 is the release's guard against 0 / 0.
    tsallis = xp.expm1(log_sum) / (1.0 - q + _CLAMP)
    renyi = log_sum / (1.0 - q + _CLAMP)
    exponent = xp.clip((1.0 - r) / (1.0 - q + _CLAMP), -100.0, 100.0)
    general = xp.expm1(exponent * log_sum) / (1.0 - r + _CLAMP)
    return xp.where(
        abs(q - r) < _CLAMP, tsallis, xp.where(abs(r - 1.0) < _CLAMP, renyi, general)
    )


def renyi_at_order(
    nodes: Float[np.ndarray, "*#batch 13"], q: Float[np.ndarray, "*#batch"] | float
) -> Float[np.ndarray, "..."] | np.floating:
    """Renyi entropy of any order in [1, 2] from its values at `base.NODES`.

    Barycentric interpolation [4] of log R_q at the 13 Chebyshev-Lobatto nodes; relative
    error 1e-7 or better, up to 1e-4 for distributions that are a point mass to 1e-8.

    Args:
      nodes: Entropies at the 13 nodes, >= 0.
      q: In [1, 2].
    """
    weights = np.where(np.arange(len(NODES)) % 2 == 0, 1.0, -1.0)
    weights[[0, -1]] *= 0.5
    distance = np.asarray(q, np.float64)[..., None] - np.asarray(NODES)
    at_node = distance == 0.0
    terms = weights / np.where(at_node, 1.0, distance)
    terms = np.where(at_node.any(-1, keepdims=True), at_node.astype(np.float64), terms)
    log_nodes = np.log(np.maximum(nodes.astype(np.float64), _TINY))
    return np.exp((log_nodes * terms).sum(-1) / terms.sum(-1))


def _namespace(x):
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np
