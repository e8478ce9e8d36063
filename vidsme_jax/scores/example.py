"""Rows with known next-token distributions, on which a statistic can be tried.

All numbers follow from their definitions in float64, without the head's kernels.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from vidsme_jax.base import PROFILE_ORDERS, TokenSignals
from vidsme_jax.entropy.stored import CLAMP
from vidsme_jax.scores.exact import EXACT
from vidsme_jax.scores.statistics import ClipView

Distributions: TypeAlias = Sequence[Sequence[float]] | np.ndarray


def view(
    natural: Distributions,
    second: Distributions | None = None,
    *,
    targets: Sequence[int] | None = None,
    answer: str = "",
    blank: Sequence[float] | None = None,
    reference: Distributions | None = None,
) -> ClipView:
    """Returns what a statistic reads of rows with these distributions, q = r = 1.5.

    Args:
      natural: Positive probabilities of each row, (rows, vocab), natural order.
      second: Those of the second order of the frames; by default the same.
      targets: The class of each row that is the target; by default its argmax.
      answer: The text of the answer.
      blank: Probabilities of the targets after a grey video, (rows,).
      reference: The reference model's distributions, natural order; of equal targets.

    Example:
      >>> view([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]).signals.log_prob[0].round(3)
      array([-0.693, -0.223])
    """
    p = np.stack([np.asarray(natural, np.float64)] * 2)
    if second is not None:
        p[1] = second
    chosen: np.ndarray = p.argmax(-1)
    if targets is not None:
        chosen = np.stack([np.asarray(targets)] * 2)
    log_p = np.log(p)
    of_target = np.take_along_axis(p, chosen[..., None], -1)
    others = p.copy()
    np.put_along_axis(others, chosen[..., None], 0.0, -1)
    rest = 1 - of_target[..., 0]
    below = np.where(p < p.max(-1, keepdims=True), log_p, -np.inf).max(-1)
    top = log_p.max(-1)
    shannon = -rest * np.log(of_target[..., 0]) - (others * np.log1p(-others)).sum(-1)
    half = rest * (1 - np.sqrt(of_target[..., 0])) + (
        others * (1 - np.sqrt(1 - others))
    ).sum(-1)
    means = _profile(p.mean(1))[:, None].repeat(2, 1)
    signals = TokenSignals(
        renyi=_profile(p),
        varentropy=(p * log_p**2).sum(-1) - (p * log_p).sum(-1) ** 2,
        gap=np.where(np.isfinite(below), top - below, 0.0),
        log_prob=np.log(of_target[..., 0]),
        modified=np.stack([shannon, 2 * half, rest**2 + (others**2).sum(-1)], -1),
        renyi_half_clamped=2 * np.log(np.sqrt(np.maximum(p, CLAMP)).sum(-1)),
        mean_renyi=means,
        rank=0.5 + (p > of_target).sum(-1) + (p == of_target).sum(-1) / 2,
    )
    return ClipView(
        signals,
        q=1.5,
        r=1.5,
        deform=EXACT.deform,
        answer=answer,
        tokens=tuple(chosen[0].tolist()),
        blank=None if blank is None else np.log(np.asarray(blank, np.float64)),
        reference=None
        if reference is None
        else view(reference, targets=chosen[0].tolist()),
    )


def _profile(p: Float[np.ndarray, "*rows vocab"]) -> Float[np.ndarray, "*rows orders"]:
    """Returns the Renyi entropies of `PROFILE_ORDERS`."""
    found: list[np.ndarray] = []
    for order in PROFILE_ORDERS:
        if order == 1:
            found.append(-(p * np.log(p)).sum(-1))
        elif math.isinf(order):
            found.append(-np.log(p.max(-1)))
        else:
            found.append(np.log((p**order).sum(-1)) / (1 - order))
    return np.stack(found, -1)
