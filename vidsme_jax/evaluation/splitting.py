"""The accuracy of a score whose threshold is chosen on other sources.

Axes: `members`, `nonmembers`, rows of the roles.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vidsme_jax.evaluation import intervals


def accuracy(
    members: Float[np.ndarray, " members"],
    nonmembers: Float[np.ndarray, " nonmembers"],
    member_units: Int[np.ndarray, " members"],
    nonmember_units: Int[np.ndarray, " nonmembers"],
    seed: int,
) -> dict[str, Any]:
    """Returns the mean of TPR and TNR, each half judged at the other's best threshold.

    The interval is of t over the sources' shares of right calls; where all are right,
    Clopper-Pearson over as many pairs as the smaller role has sources.

    Args:
      members: Scores, larger = member.
      nonmembers: Likewise.
      member_units: Of each row; all rows of a unit are in one half.
      nonmember_units: Likewise.
      seed: Of the halves.

    Returns:
      `value`, `low`, `high`; refused where a role has fewer than 10 sources, or rows
      that do not amount to as many (`intervals.effective`).
    """
    counts = [intervals.effective(each) for each in (member_units, nonmember_units)]
    if min(counts) < intervals.MIN_SOURCES:
        return intervals.refused(
            f"no accuracy: the rows amount to {counts[0]} sources of members and "
            f"{counts[1]} of non-members; it takes {intervals.MIN_SOURCES} of each"
        )
    scores = np.concatenate([members, nonmembers])
    unit = np.concatenate([member_units, nonmember_units])
    label = np.arange(len(scores)) < len(members)
    half = _halves(unit, label, seed)
    right = np.zeros(len(scores))
    for test in (half, ~half):
        threshold = _best(scores[~test], label[~test])
        right[test] = (scores[test] >= threshold) == label[test]
    rates: list[float] = []
    variance, freedom = 0.0, math.inf
    for role in (label, ~label):
        _, place = np.unique(unit[role], return_inverse=True)
        rate = right[role].mean()
        sums = np.bincount(place, right[role] - rate) / role.sum()
        rates.append(float(rate))
        variance += len(sums) / (len(sums) - 1) * (sums**2).sum() / 4
        freedom = min(freedom, len(sums) - 1)
    value = float(np.mean(rates))
    if not variance:
        low, high = intervals.clopper_pearson(value, min(counts))
        return {"value": value, "low": low, "high": high}
    import scipy.special  # Heavy; a mistake is refused without it.

    width = scipy.special.stdtrit(freedom, (1 + intervals.CONFIDENCE) / 2)
    width = float(width * math.sqrt(variance))
    return {
        "value": value,
        "low": max(0.0, value - width),
        "high": min(1.0, value + width),
    }


def _halves(
    unit: Int[np.ndarray, " items"], label: Bool[np.ndarray, " items"], seed: int
) -> Bool[np.ndarray, " items"]:
    """Deals units into two halves at random, of each role as evenly as can be."""
    rng = np.random.default_rng([seed, 4])
    _, place = np.unique(unit, return_inverse=True)
    num = int(place.max()) + 1
    share = np.bincount(place, label, num) / np.bincount(place, minlength=num)
    order = rng.permutation(num)
    order = order[np.argsort(-share[order], kind="stable")]
    half = np.zeros(num, bool)
    half[order[::2]] = True
    return half[place]


def _best(
    scores: Float[np.ndarray, " items"], label: Bool[np.ndarray, " items"]
) -> float:
    """Returns the threshold with the best mean of TPR and TNR; ties: the middle."""
    order = np.argsort(-scores, kind="stable")
    ranked, of_members = scores[order], label[order]
    tpr = np.cumsum(of_members) / of_members.sum()
    fpr = np.cumsum(~of_members) / (~of_members).sum()
    last = np.append(np.diff(ranked) != 0, True)  # Of equal scores.
    gain = np.where(last, tpr - fpr, -np.inf)
    best = int(np.argmax(gain))
    if gain[best] <= 0:
        return math.inf
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    return (
        float((ranked[best] + below) / 2)
        if below < ranked[best]
        else float(ranked[best])
    )
