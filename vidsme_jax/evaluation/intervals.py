"""Computes 95 % intervals with sources, not rows, as independent observations.

Axes: `items`, rows of the table.
"""

import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np
from jaxtyping import Float, Shaped

from vidsme_jax.arguments import count, number, require
from vidsme_jax.wording import counted

CONFIDENCE = 0.95
MIN_SOURCES = 10  # Of a role; there is no interval below.
INTERVALS = (
    "95 % intervals, for sources drawn as these were. AUC: from the variance that the "
    "sources give (Obuchowski; DeLong where each has one row). TPR and FPR: "
    "Clopper-Pearson with sources as observations, at the threshold found; the TPR's "
    "second interval also counts that the threshold was found on these non-members. "
    "Accuracy: the threshold is chosen on one half of the sources and judged on the "
    "other. There is no interval below 10 sources a role. p-values adjusted for all "
    "scores and groups: single-step maxT."
)


class Estimate(TypedDict):
    """A value with its 95 % interval, or None and the `reason`."""

    value: float | None
    low: float | None
    high: float | None
    reason: NotRequired[str]


def num_units(units: Shaped[np.ndarray, " items"]) -> int:
    """Returns the number of distinct units, such as videos or sources."""
    return len(np.unique(units))


def effective(units: Shaped[np.ndarray, " items"]) -> int:
    """Returns the effective number of units, if units had equally many rows.

    Kish's (sum m)^2 / sum m^2 over the rows m of each unit, rounded down: the number of
    units when all have the same number of rows, fewer otherwise.

    Raises:
      AuditError: There are no rows.

    Example:
      >>> effective(np.array([0, 1, 2])), effective(np.array([0, 0, 0, 0, 1, 2]))
      (3, 2)
    """
    require(len(units), "units is empty; give the unit of at least one row")
    rows = np.unique(units, return_counts=True)[1].astype(float)
    return int(rows.sum() ** 2 / (rows**2).sum() + 1e-9)


def too_few(sources: tuple[int, int], effective: tuple[int, int]) -> str:
    """Returns why there is no interval, "" if there is one.

    Args:
      sources: The numbers of sources of members and of non-members.
      effective: Their effective numbers (`effective`).
    """
    if min(effective) >= MIN_SOURCES:
        return ""
    text = f"{counted(sources[0], 'source')} of members and {sources[1]} of non-members"
    if min(sources) >= MIN_SOURCES:
        text += ", whose rows are so unequal in number that they amount to "
        text += f"{effective[0]} and {effective[1]}"
    return f"no interval: {text}; it takes {MIN_SOURCES} of each"


def clopper_pearson(
    rate: float, num: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Returns the exact interval [1] of a rate over independent observations.

    For a rate that is not a whole number of observations (where sources have unequal
    numbers of rows), the lower end is that of the count below and the upper end that of
    the count above.

    [1] Clopper and Pearson, 1934. https://doi.org/10.1093/biomet/26.4.404

    Raises:
      AuditError: The rate is not in [0, 1], or there is no observation.

    Example:
      >>> low, high = clopper_pearson(0.5, 10)
      >>> round(low, 4), round(high, 4)
      (0.1871, 0.8129)
    """
    rate, num = number("rate", rate, 0, 1), count("num", num)
    hits = rate * num
    below, above = math.floor(hits + 1e-9), math.ceil(hits - 1e-9)
    tail = (1 - confidence) / 2
    import scipy.special  # Slow to import; arguments are checked first.

    low = scipy.special.betaincinv(below, num - below + 1, tail) if below else 0.0
    high = (
        scipy.special.betainccinv(above + 1, num - above, tail) if above < num else 1.0
    )
    return float(low), float(high)


def rate_at_quantile(
    members: Float[np.ndarray, " members"],
    nonmembers: Float[np.ndarray, " nonmembers"],
    observed: tuple[int, int],
    max_fpr: float,
) -> tuple[float, float]:
    """Returns a 95 % interval of the TPR at the threshold of the population.

    That threshold is a quantile of the non-members, which order statistics enclose; at
    each of these the TPR has a Clopper-Pearson interval. Both steps have half of the
    5 %, so that coverage is at least 95 %.

    Args:
      members: Scores of members, larger = member.
      nonmembers: Scores of non-members.
      observed: The effective numbers of members and of non-members.
      max_fpr: The false-positive rate.
    """
    import scipy.stats  # Slow to import.

    num, rows = observed[1], len(nonmembers)
    tail = (1 - CONFIDENCE) / 4
    # How many of the observations are above the threshold of the population.
    least, most = scipy.stats.binom.ppf([tail, 1 - tail], num, max_fpr)
    inside, outside = int(least * rows / num), math.ceil(most * rows / num)
    ranked = np.sort(nonmembers)[::-1]
    low = float((members > ranked[inside - 1]).mean()) if inside else 0.0  # Ties.
    high = float((members > ranked[outside]).mean()) if outside < rows else 1.0
    return (
        clopper_pearson(low, observed[0], 1 - 2 * tail)[0],
        clopper_pearson(high, observed[0], 1 - 2 * tail)[1],
    )


def proportion(rate: float, num: int, few: str = "") -> Estimate:
    """Returns a rate with its Clopper-Pearson interval over `num` observations.

    Args:
      rate: From 0 to 1.
      num: The number of observations.
      few: Why there is no interval; "" where there is one.
    """
    low, high = (None, None) if few else clopper_pearson(rate, num)
    return {"value": rate, "low": low, "high": high}


def refused(reason: str) -> Estimate:
    """Returns a result without a value, with the reason why there is none."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def in_words(result: Mapping[str, Any] | None, digits: int = 2) -> str:
    """Formats a value with its interval; "none" without a value.

    If rounding moves an end to 0.5, the AUC of guessing, there are three digits.

    Example:
      >>> in_words({"value": 0.93, "low": 0.9, "high": 0.96})
      '0.93 [0.90, 0.96]'
      >>> in_words({"value": 0.6, "low": 0.501, "high": 0.7})
      '0.600 [0.501, 0.700]'
    """
    if result is None or result["value"] is None:
        return "none"
    value, low, high = result["value"], result.get("low"), result.get("high")
    if low is None or high is None:
        return f"{value:.{digits}f}"
    if any(end != 0.5 and round(end, digits) == 0.5 for end in (low, high)):
        digits = max(digits, 3)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
