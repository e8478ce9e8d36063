"""Computes the accuracy of a score with thresholds chosen on other sources.

Axes: `members`, `nonmembers`, rows of the roles.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from vidsme_jax.evaluation import intervals
from vidsme_jax.evaluation.sources import halves


def accuracy(
    members: Float[np.ndarray, " members"],
    nonmembers: Float[np.ndarray, " nonmembers"],
    member_units: Int[np.ndarray, " members"],
    nonmember_units: Int[np.ndarray, " nonmembers"],
    seed: int,
) -> intervals.Estimate:
    """Returns the mean of TPR and TNR, each half at the best threshold of the other.

    The interval is Student's over the sources' shares of correct calls; if these do not
    vary, Clopper-Pearson over as many observations as the smaller role has sources.

    Args:
      members: The scores of members, larger = member.
      nonmembers: The scores of non-members.
      member_units: The unit of each member; all rows of a unit are in one half.
      nonmember_units: The unit of each non-member.
      seed: The seed of the halves.

    Returns:
      `value`, `low`, `high`; refused if a role has fewer than 10 sources effectively
      (`intervals.effective`).
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
    half = halves(unit, label, np.random.default_rng([seed, 4]))
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
    import scipy.special  # Slow to import.

    width = scipy.special.stdtrit(freedom, (1 + intervals.CONFIDENCE) / 2)
    width = float(width * math.sqrt(variance))
    return {
        "value": value,
        "low": max(0.0, value - width),
        "high": min(1.0, value + width),
    }


def _best(
    scores: Float[np.ndarray, " items"], label: Bool[np.ndarray, " items"]
) -> float:
    """Returns the threshold with the best mean of TPR and TNR, halfway between scores.

    It is infinite if no threshold is better than chance.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, of_members = scores[order], label[order]
    tpr = np.cumsum(of_members) / of_members.sum()
    fpr = np.cumsum(~of_members) / (~of_members).sum()
    last = np.append(np.diff(ranked) != 0, True)  # Of equal scores.
    gain = np.where(last, tpr - fpr, -np.inf)  # 0 at the lowest score.
    best = int(np.argmax(gain))
    if gain[best] <= 0:
        return math.inf
    return float((ranked[best] + ranked[best + 1]) / 2)
