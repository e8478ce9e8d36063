"""Intervals of 95 %, with videos, not rows, as the independent observations.

Rows that show the same video share its content hash, the *cluster*.

Axes: `items`, rows of the table; `resamples` of the bootstrap.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vidsme_jax.arguments import count, number, require, series

CONFIDENCE = 0.95
INTERVALS = (
    "95 % intervals. AUC and accuracy: percentile bootstrap over videos, members and "
    "non-members resampled separately; a video brings all its rows. Where both roles "
    "separate perfectly: Clopper-Pearson on disjoint pairs of videos. TPR and FPR: "
    "Clopper-Pearson with videos, not rows, as the number of observations, at the "
    "threshold found."
)


def num_videos(clusters: Shaped[np.ndarray, " items"]) -> int:
    """Counts distinct videos."""
    return len(np.unique(clusters))


def effective_videos(clusters: Shaped[np.ndarray, " items"]) -> int:
    """Returns how many equally weighted videos the rows of these clusters amount to.

    Kish's (sum m)^2 / sum m^2 over the rows m of each video, rounded down: the number
    of videos when all have the same number of rows, fewer otherwise.
    """
    require(len(clusters), "no rows are given, which amount to no video")
    rows = np.unique(clusters, return_counts=True)[1].astype(float)
    return int(rows.sum() ** 2 / (rows**2).sum() + 1e-9)


def clopper_pearson(rate: float, num: int) -> tuple[float, float]:
    """Returns the exact 95 % interval [1] of a rate over independent observations.

    A rate that is not a whole number of observations (rows weigh differently when
    videos have unequal numbers of them) takes the lower end of the count below and
    the upper end of the count above.

    [1] Clopper and Pearson, 1934. https://doi.org/10.1093/biomet/26.4.404

    Raises:
      AuditError: The rate is not in [0, 1], or there is no observation.
    """
    rate, num = number("rate", rate, 0, 1), count("num", num)
    hits = rate * num
    below, above = math.floor(hits + 1e-9), math.ceil(hits - 1e-9)
    tail = (1 - CONFIDENCE) / 2
    import scipy.special  # Heavy; a mistake is refused without it.

    low = scipy.special.betaincinv(below, num - below + 1, tail) if below else 0.0
    high = (
        scipy.special.betainccinv(above + 1, num - above, tail) if above < num else 1.0
    )
    return float(low), float(high)


def percentile_interval(
    resamples: Float[np.ndarray, " resamples"], num_pairs: int
) -> tuple[float, float]:
    """Returns the middle 95 % of the resamples.

    Where members and non-members separate perfectly every resample is 1 (or 0), and
    the interval would claim certainty. Then the open end is Clopper-Pearson's for
    `num_pairs` disjoint, hence independent, pairs of videos that all came out right
    (or wrong): 0.025^(1/num_pairs).

    Raises:
      AuditError: There are no resamples, or one is not finite.
    """
    resamples = series("resamples", resamples)
    tails = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resamples, [tails, 100 - tails])
    if low == high and high in (0.0, 1.0):
        return clopper_pearson(float(high), num_pairs)
    return float(low), float(high)


def estimate(
    value: float, resamples: Float[np.ndarray, " resamples"], videos: int
) -> dict[str, Any]:
    """Returns a value with its bootstrap interval; `videos` of the smaller role."""
    if videos < 2:
        return refused("no interval: a role has only one video") | {"value": value}
    low, high = percentile_interval(resamples, videos)
    return {"value": value, "low": low, "high": high}


def proportion(rate: float, num: int) -> dict[str, Any]:
    """Returns a rate with its Clopper-Pearson interval over `num` observations."""
    low, high = clopper_pearson(rate, num)
    return {"value": rate, "low": low, "high": high}


def refused(reason: str) -> dict[str, Any]:
    """Makes a result without a value."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def in_words(result: dict[str, Any] | None, digits: int = 2) -> str:
    """Formats a value with its interval, such as '0.93 [0.90, 0.96]'.

    An end that rounding would put on 0.5, the AUC of guessing, brings a third digit.
    """
    if result is None or result["value"] is None:
        return "none"
    value, low, high = result["value"], result.get("low"), result.get("high")
    if low is None or high is None:
        return f"{value:.{digits}f}"
    if any(end != 0.5 and round(end, digits) == 0.5 for end in (low, high)):
        digits = max(digits, 3)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
