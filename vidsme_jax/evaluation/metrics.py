"""How well a score separates members from non-members, and how sure that is.

Here a larger score means "more likely a member"; `evaluate` turns the scores of a
table round where its own sign says otherwise. Rows that show the same video share its
content hash, the *cluster*; intervals are 95 % and take videos, not rows, as the
independent observations.

Axes: `members`, `nonmembers`, rows of the two roles; `scores`; `items`, rows of the
table; `vertices` of a curve; `resamples` of the bootstrap; `clusters`, unique videos.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics
from jaxtyping import Float, Int, Shaped

from vidsme_jax.base import ROLES, ScoreTable
from vidsme_jax.evaluation.bootstrap import bootstrap

CONFIDENCE = 0.95
INTERVALS = (
    "95 % intervals. AUC and accuracy: percentile bootstrap over videos, members and "
    "non-members resampled separately; a video brings all its rows. Where both roles "
    "separate perfectly: Clopper-Pearson on disjoint pairs of videos. TPR and FPR: "
    "Clopper-Pearson with videos, not rows, as the number of observations, at the "
    "threshold found."
)
OPTIMISTIC = "the threshold was chosen on these very labels, so this is optimistic"


class RocCurve(NamedTuple):
    """Vertices of a ROC curve, thresholds falling; the first threshold is infinite."""

    fpr: Float[np.ndarray, " vertices"]
    tpr: Float[np.ndarray, " vertices"]
    thresholds: Float[np.ndarray, " vertices"]


class OperatingPoint(NamedTuple):
    """Rates when every score at or above `threshold` is called a member."""

    tpr: float
    fpr: float
    threshold: float


class Comparison(NamedTuple):
    """The rows of a table that are held against each other."""

    description: str
    members: Int[np.ndarray, " members"]
    nonmembers: Int[np.ndarray, " nonmembers"]


def roc_curve(
    member_scores: Float[np.ndarray, " members"],
    nonmember_scores: Float[np.ndarray, " nonmembers"],
    *,
    drop_intermediate: bool = False,
) -> RocCurve:
    """Returns the ROC curve with one vertex a distinct score, ties together.

    Args:
      member_scores: Finite.
      nonmember_scores: Finite.
      drop_intermediate: Leaves out vertices on a straight line, as scikit-learn does
        by default.
    """
    labels = np.repeat([1, 0], [len(member_scores), len(nonmember_scores)])
    scores = np.concatenate([member_scores, nonmember_scores])
    return RocCurve(
        *sklearn.metrics.roc_curve(labels, scores, drop_intermediate=drop_intermediate)
    )


def auc(
    member_scores: Float[np.ndarray, " members"],
    nonmember_scores: Float[np.ndarray, " nonmembers"],
) -> float:
    """The chance that a member scores above a non-member, ties counting half.

    The Mann-Whitney statistic over its maximum, from average ranks [1].

    [1] Hanley and McNeil, 1982. The meaning and use of the area under a receiver
      operating characteristic (ROC) curve. https://doi.org/10.1148/radiology.143.1.7063747
    """
    m, n = len(member_scores), len(nonmember_scores)
    ranks = scipy.stats.rankdata(np.concatenate([member_scores, nonmember_scores]))
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


def operating_point(curve: RocCurve, max_fpr: float) -> OperatingPoint:
    """The vertex with the largest TPR among those with FPR <= `max_fpr`."""
    last = np.flatnonzero(curve.fpr <= max_fpr)[-1]
    return OperatingPoint(
        *(float(axis[last]) for axis in (curve[1], curve[0], curve[2]))
    )


def tpr_at_fpr(
    member_scores: Float[np.ndarray, " members"],
    nonmember_scores: Float[np.ndarray, " nonmembers"],
    max_fpr: float,
) -> float:
    """The largest TPR of a threshold whose FPR on these non-members is <= `max_fpr`."""
    return operating_point(roc_curve(member_scores, nonmember_scores), max_fpr).tpr


def best_accuracy(curve: RocCurve) -> tuple[float, float]:
    """The best mean of TPR and 1 - FPR over the vertices, and its threshold.

    Optimistic: the threshold is chosen on the labels it is judged by. The release's
    "Accuracy" is the same number.
    """
    balanced = 1 - (curve.fpr + (1 - curve.tpr)) / 2
    best = int(np.argmax(balanced))
    return float(balanced[best]), float(curve.thresholds[best])


def official_tpr_at_fpr(
    member_scores: Float[np.ndarray, " members"],
    nonmember_scores: Float[np.ndarray, " nonmembers"],
    fpr: float = 0.05,
) -> float:
    """TPR of the last vertex with FPR *strictly* below `fpr`, as the release counts.

    Vertices on straight lines are left out first, so it can be below `tpr_at_fpr` even
    where no vertex has exactly that FPR.
    """
    curve = roc_curve(member_scores, nonmember_scores, drop_intermediate=True)
    return float(curve.tpr[np.flatnonzero(curve.fpr < fpr)[-1]])


def clopper_pearson(rate: float, num: int) -> tuple[float, float]:
    """Exact 95 % interval [1] of a rate seen over `num` independent observations.

    A rate that is not a whole number of observations (rows weigh differently when
    videos have unequal numbers of them) takes the lower end of the count below and
    the upper end of the count above.

    [1] Clopper and Pearson, 1934. https://doi.org/10.1093/biomet/26.4.404
    """
    count = rate * num
    below, above = math.floor(count + 1e-9), math.ceil(count - 1e-9)
    tail = (1 - CONFIDENCE) / 2
    low = scipy.special.betaincinv(below, num - below + 1, tail) if below else 0.0
    high = (
        scipy.special.betainccinv(above + 1, num - above, tail) if above < num else 1.0
    )
    return float(low), float(high)


def effective_videos(clusters: Shaped[np.ndarray, " items"]) -> int:
    """The number of equally weighted videos that rows of these clusters amount to.

    Kish's (sum m)^2 / sum m^2 over the rows m of each video, rounded down: the number
    of videos when all have the same number of rows, fewer otherwise.
    """
    rows = np.unique(clusters, return_counts=True)[1].astype(float)
    return int(rows.sum() ** 2 / (rows**2).sum() + 1e-9)


def percentile_interval(
    resamples: Float[np.ndarray, " resamples"], num_pairs: int
) -> tuple[float, float]:
    """The middle 95 % of the resamples.

    Where members and non-members separate perfectly every resample is 1 (or 0), and
    the interval would claim certainty. Then the open end is Clopper-Pearson's for
    `num_pairs` disjoint, hence independent, pairs of videos that all came out right
    (or wrong): 0.025^(1/num_pairs).
    """
    tails = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resamples, [tails, 100 - tails])
    if low == high and high in (0.0, 1.0):
        return clopper_pearson(float(high), num_pairs)
    return float(low), float(high)


def num_videos(clusters: Shaped[np.ndarray, " items"]) -> int:
    """The number of distinct videos."""
    return len(np.unique(clusters))


def comparisons(table: ScoreTable) -> dict[str, Comparison]:
    """Which rows are compared with which: all of them, then one entry a group.

    A group is a non-empty `group` among the non-members; it is held against the
    members of the same group where there are any, else against all members. Empty
    where members or non-members are missing.
    """
    members = np.flatnonzero(table.role == "members")
    nonmembers = np.flatnonzero(table.role == "nonmembers")
    if not (len(members) and len(nonmembers)):
        return {}
    found = {"all": Comparison("all members and all non-members", members, nonmembers)}
    for group in np.unique(table.group[nonmembers]).tolist():
        if group == "":
            continue
        peers = members[table.group[members] == group]
        who = f"members of group {group!r}" if len(peers) else "all members"
        key = group if group != "all" else "group all"
        found[key] = Comparison(
            f"{who} and non-members of group {group!r}",
            peers if len(peers) else members,
            nonmembers[table.group[nonmembers] == group],
        )
    return found


def oriented(table: ScoreTable, name: str) -> Float[np.ndarray, " items"]:
    """One score of the table, turned so that larger = member."""
    scores = table.scores[name].astype(np.float64)
    return scores if table.larger_is_member else -scores


def count(table: ScoreTable, rows: Int[np.ndarray, " items"]) -> dict[str, int]:
    """Rows and distinct videos among them."""
    return {"items": len(rows), "videos": num_videos(table.cluster[rows])}


def evaluate(
    table: ScoreTable,
    fprs: tuple[float, ...],
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Evaluates every score on every comparison.

    Args:
      table: The scores; without members or without non-members only counts remain.
      fprs: False-positive rates, in (0, 1), at which the TPR is wanted.
      num_bootstrap: Resamples behind the intervals of AUC and accuracy.
      seed: Of the resamples.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN: `counts` by role, `intervals` in
      words, and `comparisons`: by name, `description`, `counts` and `scores`: by name,
      `auc`, `accuracy` and `tpr` (by rate, as text): each with `value`, `low` and
      `high`, or None and the `reason`.
    """
    return {
        "intervals": INTERVALS,
        "counts": {
            role: count(table, np.flatnonzero(table.role == role)) for role in ROLES
        },
        "comparisons": {
            name: {
                "description": comparison.description,
                "counts": {
                    "members": count(table, comparison.members),
                    "nonmembers": count(table, comparison.nonmembers),
                },
                "scores": _evaluate(table, comparison, fprs, num_bootstrap, seed),
            }
            for name, comparison in comparisons(table).items()
        },
    }


def _evaluate(
    table: ScoreTable,
    comparison: Comparison,
    fprs: tuple[float, ...],
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    rows = np.concatenate([comparison.members, comparison.nonmembers])
    split = len(comparison.members)
    clusters = table.cluster[comparison.members], table.cluster[comparison.nonmembers]
    results: dict[str, Any] = {}
    values, curves = {}, {}
    for name in table.scores:
        score = oriented(table, name)[rows]
        missing = int(np.sum(~np.isfinite(score)))
        results[name] = _refused(f"{missing} of the scores are not finite", fprs)
        if not missing:
            values[name] = score
            curves[name] = roc_curve(score[:split], score[split:])
    if not values:
        return results
    videos = min(map(num_videos, clusters))
    effective = [effective_videos(c) for c in clusters]
    observed = effective[0], effective[1], num_videos(clusters[1])
    stacked = np.stack(list(values.values()))
    best = {name: best_accuracy(curve) for name, curve in curves.items()}
    resamples = bootstrap(
        stacked[:, :split],
        stacked[:, split:],
        *clusters,
        thresholds=np.array([threshold for _, threshold in best.values()]),
        num_bootstrap=num_bootstrap,
        seed=seed,
    )
    for row, (name, score) in enumerate(values.items()):
        point = auc(score[:split], score[split:])
        results[name] = {
            "auc": estimate(point, resamples.auc[row], videos),
            "accuracy": estimate(best[name][0], resamples.accuracy[row], videos)
            | {"note": OPTIMISTIC},
            "tpr": {
                f"{fpr:g}": _tpr(curves[name], fpr, observed, table.larger_is_member)
                for fpr in fprs
            },
        }
        if not table.larger_is_member:
            results[name]["official"] = {
                "auc": point,
                "accuracy": best[name][0],
                "tpr_at_5_fpr": official_tpr_at_fpr(score[:split], score[split:]),
            }
    return results


def estimate(
    value: float, resamples: Float[np.ndarray, " resamples"], videos: int
) -> dict[str, Any]:
    """A value with its bootstrap interval; `videos` of the role that has fewer."""
    if videos < 2:
        reason = "no interval: a role has only one video"
        return {"value": value, "low": None, "high": None, "reason": reason}
    low, high = percentile_interval(resamples, videos)
    return {"value": value, "low": low, "high": high}


def in_words(result: dict[str, Any] | None, digits: int = 2) -> str:
    """A value with its interval, such as '0.93 [0.90, 0.96]'.

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


def _refused(reason: str, fprs: tuple[float, ...]) -> dict[str, Any]:
    nothing = {"value": None, "low": None, "high": None, "reason": reason}
    return {
        "auc": nothing,
        "accuracy": nothing,
        "tpr": {f"{fpr:g}": nothing for fpr in fprs},
    }


def _tpr(
    curve: RocCurve,
    max_fpr: float,
    observed: tuple[int, int, int],
    larger_is_member: bool,
) -> dict[str, Any]:
    """TPR at a false-positive rate, refused where the non-members cannot resolve it.

    Args:
      curve: Of the score.
      max_fpr: The rate.
      observed: Members and non-members, as `effective_videos`; distinct non-members.
      larger_is_member: The sign of the scores in the table.
    """
    members, nonmembers, videos = observed
    if videos * max_fpr < 1 - 1e-9:
        needed = math.ceil(1 / max_fpr - 1e-9)
        reason = (
            f"refused: a false-positive rate of {100 * max_fpr:g} % needs at least "
            f"{needed} non-member videos; there are {videos}"
        )
        return {"value": None, "low": None, "high": None, "reason": reason}
    point = operating_point(curve, max_fpr)
    low, high = clopper_pearson(point.tpr, members)
    fpr_low, fpr_high = clopper_pearson(point.fpr, nonmembers)
    threshold = point.threshold if larger_is_member else -point.threshold
    return {
        "value": point.tpr,
        "low": low,
        "high": high,
        "fpr": {"value": point.fpr, "low": fpr_low, "high": fpr_high},
        "threshold": threshold if math.isfinite(threshold) else None,
    }
