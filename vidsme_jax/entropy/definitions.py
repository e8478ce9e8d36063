r"""Entropies of next-token distributions, as their papers define them.

The kernels reduce the last axis (`vocab`) of finite, normalised log-probabilities and
broadcast their parameters over the rest: one token is shape (vocab,) with scalar
orders, and `jax.vmap` over tokens and clips gives the same numbers. All entropies are
in nats.

What works from a stored Renyi profile instead is in `stored`.

References:
  [1] Renyi, 1961. On Measures of Entropy and Information.
  [2] Sharma and Mittal, 1975. New Non-additive Measures of Entropy for Discrete
      Probability Distributions.
  [3] Li, Yu and Wang, 2025. Vid-SME. https://arxiv.org/abs/2506.03179
"""

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vidsme_jax.arguments import require
from vidsme_jax.entropy import stored
from vidsme_jax.entropy.stored import CLAMP

_NEAR_ONE = 0.1  # Within it, log sum p^q is taken as log1p(sum p (p^(q-1) - 1)).
_NORMALISED = 0.01  # How far a sum of probabilities may be from 1.


def shannon_entropy(log_probs: Float[Array, "*batch vocab"]) -> Float[Array, "*batch"]:
    r"""Computes the Shannon entropy, $H(p) = -\sum_v p_v \log p_v$, in nats."""
    _check(log_probs)
    return jnp.sum(jax.scipy.special.entr(jnp.exp(log_probs)), axis=-1)


def renyi_entropy(
    log_probs: Float[Array, "*#batch vocab"], order: Float[Array, "*#batch"]
) -> Float[Array, "..."]:
    r"""Computes the Renyi entropy of order $q$ [1].

    $$R_q(p) = \frac{\log \sum_v p_v^q}{1 - q}$$

    Continuous in `order`: $R_1$ is the Shannon entropy and $R_\infty = -\log \max p$.

    Args:
      log_probs: Normalised.
      order: In [0, inf].

    Raises:
      AuditError: These are no log-probabilities, or an order is out of range.
    """
    log_probs, order = _check(log_probs, order=order)
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
    r"""Computes the Sharma-Mittal entropy of order $q$ and degree $r$ [2], as in [3].

    $$S_{q,r}(p) = \frac{1}{1-r}\Big[\big(\textstyle\sum_v p_v^q\big)^{\frac{1-r}{1-q}}
      - 1\Big] = \frac{e^{(1-r) R_q(p)} - 1}{1-r}$$

    The right-hand side is computed, so $q \to 1$ and $r \to 1$ are the only limits:
    Renyi for $r \to 1$, Tsallis for $r = q$, "Gaussian" for $q \to 1$, and Shannon
    for both.

    Raises:
      AuditError: These are no log-probabilities, or q is negative.
    """
    log_probs, q, r = _check(log_probs, q=q, r=r)
    return stored.sharma_mittal_of_renyi(renyi_entropy(log_probs, q), r)


def sharma_mittal_official(
    log_probs: Float[Array, "*#batch vocab"],
    q: Float[Array, "*#batch"],
    r: Float[Array, "*#batch"],
) -> Float[Array, "..."]:
    """Computes the Sharma-Mittal entropy as the release of [3] does.

    Probabilities are clamped to [1e-10, 1 - 1e-10] and not renormalised; the cases and
    their clips are those of `stored.sharma_mittal_of_log_power_sum`.

    Raises:
      AuditError: These are no log-probabilities, or q is negative.
    """
    log_probs, q, r = _check(log_probs, q=q, r=r)
    probs = jnp.clip(jnp.exp(log_probs), CLAMP, 1.0 - CLAMP)
    # The release sums in float64. Here log sum p^q comes from sum p (p^(q-1) - 1) and
    # sum p - 1, the latter with the largest term apart, so that float32 suffices.
    top = jnp.argmax(probs, axis=-1, keepdims=True)
    first = jnp.take_along_axis(probs, top, axis=-1)[..., 0]
    columns = jax.lax.broadcasted_iota(top.dtype, probs.shape, probs.ndim - 1)
    rest = jnp.where(columns == top, 0.0, probs)
    defect = (first - 1.0) + jnp.sum(rest, axis=-1)
    excess = jnp.sum(probs * jnp.expm1((q[..., None] - 1.0) * jnp.log(probs)), axis=-1)
    return stored.sharma_mittal_of_log_power_sum(jnp.log1p(excess + defect), q, r)


def _check(log_probs: ArrayLike, **parameters: ArrayLike) -> list[Array]:
    """Returns arrays; checks values only where they are known, not while tracing."""
    found: list[Array] = [jnp.asarray(x) for x in (log_probs, *parameters.values())]
    x, *others = found
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    require(
        floating and x.ndim and x.shape[-1],
        f"log_probs is {x.dtype} of shape {x.shape}; it must be floating, the "
        "vocabulary last",
    )
    if not isinstance(x, Tracer):
        total = np.exp(np.asarray(x, np.float64)).sum(-1)
        require(
            (abs(total - 1) < _NORMALISED).all(),
            "log_probs is not normalised: its probabilities sum to "
            f"{float(total.flat[abs(total - 1).argmax()]):.3g}; give "
            "jax.nn.log_softmax(logits)",
        )
    for name, value in zip(parameters, others, strict=True):
        if not isinstance(value, Tracer):
            wrong = np.isnan(value) | ((name != "r") & (np.asarray(value) < 0))
            require(not wrong.any(), f"{name} is {value}; it must be a number >= 0")
    return found
