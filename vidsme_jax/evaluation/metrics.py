"""Computes how well scores separate members from non-members.

A larger score means "more likely a member"; `oriented` negates the scores of a table
with the other sign.

Axes: `members`, `nonmembers`, rows of the two roles; `scores`; `items`, rows of the
table; `vertices` of a curve.
"""

# Arguments are checked, whatever their annotations say.
# pyright: reportUnnecessaryIsInstance=false

import math
from collections.abc import Collection
from typing import Any, NamedTuple, TypeVar

import numpy as np
import scipy.stats
import sklearn.metrics
from jaxtyping import Float, Int

from vidsme_jax import arguments
from vidsme_jax.arguments import count, number, one_of, require, series, text_list
from vidsme_jax.base import ROLES, ScoreTable
from vidsme_jax.evaluation import clustered, groups, intervals, splitting
from vidsme_jax.evaluation.clustered import Influences
from vidsme_jax.evaluation.intervals import num_units

_Values = TypeVar("_Values", float, np.ndarray)


class RocCurve(NamedTuple):
    """Vertices of a ROC curve, thresholds falling; the first threshold is infinite."""

    fpr: Float[np.ndarray, " vertices"]
    tpr: Float[np.ndarray, " vertices"]
    thresholds: Float[np.ndarray, " vertices"]


def roc_curve(
    member_scores: Float[np.ndarray, " members"],
    nonmember_scores: Float[np.ndarray, " nonmembers"],
    *,
    drop_intermediate: bool = False,
) -> RocCurve:
    """Returns the ROC curve with one vertex per distinct score, ties together.

    Args:
      member_scores: Finite.
      nonmember_scores: Finite.
      drop_intermediate: Whether to leave out vertices on a straight line, as
        scikit-learn does by default.

    Raises:
      AuditError: A role has no scores, or one is not finite.
    """
    member_scores = series("member_scores", member_scores)
    nonmember_scores = series("nonmember_scores", nonmember_scores)
    labels = np.repeat([1, 0], [len(member_scores), len(nonmember_scores)])
    scores = np.concatenate([member_scores, nonmember_scores])
    return RocCurve(
        *sklearn.metrics.roc_curve(labels, scores, drop_intermediate=drop_intermediate)
    )


def thinned(num_vertices: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Returns at most `most` places along a curve, evenly and densely near FPR 0."""
    last, half = count("num_vertices", num_vertices) - 1, count("most", most, 2) // 2
    evenly = np.linspace(0, last, half)
    near_zero = np.geomspace(1, num_vertices, half) - 1
    return np.unique(np.concatenate([evenly, near_zero]).astype(int))


def auc(
    member_scores: Float[np.ndarray, " members"],
    nonmember_scores: Float[np.ndarray, " nonmembers"],
) -> float:
    """Returns the probability that a member scores above a non-member, ties half.

    The Mann-Whitney statistic divided by its maximum, from average ranks [1].

    [1] Hanley and McNeil, 1982. The meaning and use of the area under a receiver
      operating characteristic (ROC) curve. https://doi.org/10.1148/radiology.143.1.7063747

    Raises:
      AuditError: A role has no scores, or one is not finite.

    Example:
      >>> auc(np.array([0.9, 0.5]), np.array([0.1, 0.5]))
      0.875
    """
    member_scores = series("member_scores", member_scores)
    nonmember_scores = series("nonmember_scores", nonmember_scores)
    m, n = len(member_scores), len(nonmember_scores)
    ranks = scipy.stats.rankdata(np.concatenate([member_scores, nonmember_scores]))
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


def tpr_at_fpr(curve: RocCurve, max_fpr: float) -> tuple[float, float, float]:
    """Returns the largest TPR of thresholds with FPR <= `max_fpr` on these non-members.

    Returns:
      TPR, FPR and the threshold; a score at or above it is called a member.

    Raises:
      AuditError: The rate is not in [0, 1], or `curve` is not a `RocCurve`.
    """
    _check_curve(curve)
    number("max_fpr", max_fpr, 0, 1)
    last = np.flatnonzero(curve.fpr <= max_fpr)[-1]
    return float(curve.tpr[last]), float(curve.fpr[last]), float(curve.thresholds[last])


def best_accuracy(curve: RocCurve) -> tuple[float, float]:
    """Returns the best mean of TPR and 1 - FPR over the vertices, and its threshold.

    Optimistic: the threshold is chosen and evaluated on the same labels. The release's
    "Accuracy" is the same number.
    """
    _check_curve(curve)
    balanced = 1 - (curve.fpr + (1 - curve.tpr)) / 2
    best = int(np.argmax(balanced))
    return float(balanced[best]), float(curve.thresholds[best])


def official_tpr_at_5_fpr(
    member_scores: Float[np.ndarray, " members"],
    nonmember_scores: Float[np.ndarray, " nonmembers"],
) -> float:
    """Returns the TPR of the last vertex with FPR *strictly* below 5 %, as released.

    Vertices on straight lines are left out first, so that it can be below `tpr_at_fpr`
    even where no vertex has exactly that FPR.
    """
    curve = roc_curve(member_scores, nonmember_scores, drop_intermediate=True)
    return float(curve.tpr[np.flatnonzero(curve.fpr < 0.05)[-1]])


def signed(table: ScoreTable, values: _Values) -> _Values:
    """Converts values from the table's sign to larger = member, and back."""
    return values if table.larger_is_member else -values


def oriented(table: ScoreTable, name: str) -> Float[np.ndarray, " items"]:
    """Returns one score of the table, larger = member.

    Raises:
      AuditError: The table has no such score; the message has the nearest name.
    """
    one_of("score", name, arguments.table(table).scores)
    return signed(table, table.scores[name].astype(np.float64))


def _count(table: ScoreTable, rows: Int[np.ndarray, " items"]) -> dict[str, int]:
    """Returns the numbers of items, videos and sources of some rows."""
    return {
        "items": len(rows),
        "videos": num_units(table.cluster[rows]),
        "sources": num_units(table.units[rows]),
    }


def same_columns(
    table: ScoreTable, declared: Collection[str] = ()
) -> dict[str, list[str]]:
    """Returns the columns that are reported, each with its equals on every row.

    K % of few rows are the same rows for several K, and for an answer of one token
    most scores are equal. A declared score is always reported, and in the release's
    table every column, as in the release.

    Returns:
      By name of each reported column, the names of the others that are equal to it;
      every column that is not reported is among these.
    """
    if declared:
        text_list("declared", declared, "vid_sme")
    if not arguments.table(table).larger_is_member:
        return {name: [] for name in table.scores}
    firsts: dict[bytes, str] = {}
    same: dict[str, list[str]] = {}
    for name in sorted(table.scores, key=lambda name: name not in declared):
        values = table.scores[name] + 0.0  # -0 is 0.
        content = np.where(np.isnan(values), np.nan, values).tobytes()
        first = firsts.setdefault(content, name)
        if first == name or name in declared:
            same[name] = []
        else:
            same[first].append(name)
    return {name: same[name] for name in table.scores if name in same}


def _check_curve(curve: Any) -> None:
    """Raises an `AuditError` unless `curve` is a `RocCurve` of arrays."""
    problem = f"curve is a {type(curve).__name__}; give what metrics.roc_curve returns"
    require(isinstance(curve, RocCurve) and len(curve.fpr), problem)
    require(all(hasattr(x, "dtype") for x in curve), "curve holds lists; give arrays")


def evaluate(
    table: ScoreTable,
    fprs: tuple[float, ...],
    num_draws: int,
    seed: int,
    declared: Collection[str] = (),
) -> dict[str, Any]:
    """Evaluates every score on every comparison.

    Rows on which a score is NaN are left out for that score.

    Args:
      table: The scores; without members or without non-members only counts remain.
      fprs: False-positive rates, in (0, 1), at which the TPR is evaluated.
      num_draws: The number of draws for p-values adjusted for all scores and groups.
      seed: The seed of the draws, and of the halves for accuracies.
      declared: Scores that were declared in advance; the reference model's own are
        evaluated too.

    Raises:
      AuditError: A rate or the number of draws is out of range.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN: `counts` by role, `groups` of
      `groups.summary`, `intervals` in words, and `comparisons`: by name,
      `description`, `counts` and `scores`. `scores`: by name, `auc`, `accuracy` and
      `tpr` (by rate, as text), each with `value`, `low` and `high`, or None and the
      `reason`; `adjusted_p`, the chance of an AUC so far above 0.5 in any of the scores
      and groups; `dropped`, the numbers of rows of each role on which it is NaN, if
      any; and `same_as`, see `same_columns`, if any. `reference`, if the table has a
      reference model's scores: by name of the declared ones, their `auc`.
    """
    require(
        isinstance(fprs, tuple | list),
        f"fprs is {fprs!r}; it must be a tuple of rates, such as (0.01, 0.05)",
    )
    for fpr in fprs:
        number("a rate of fprs", fpr, 0, 1, open="()")
    count("num_draws", num_draws)
    reported = same_columns(table, declared)
    columns = {name: oriented(table, name) for name in reported}
    reference = {
        name: signed(table, table.reference[name])
        for name in declared
        if name in table.reference
    }
    found: dict[str, Any] = {}
    compared: list[tuple[dict[str, Any], list[str], Influences]] = []
    for name, comparison in groups.comparisons(table).items():
        result, influences = _evaluate(table, columns, comparison, fprs, seed)
        compared += [(result, names, each) for names, each in influences]
        for score, others in reported.items():
            if others:
                result[score]["same_as"] = others
        found[name] = {
            "description": comparison.description,
            "counts": {
                "members": _count(table, comparison.members),
                "nonmembers": _count(table, comparison.nonmembers),
            },
            "scores": result,
        }
        if reference:
            of_reference, _ = _evaluate(table, reference, comparison, (), seed)
            found[name]["reference"] = {
                score: {key: x[key] for key in ("auc", "dropped") if key in x}
                for score, x in of_reference.items()
            }
    adjusted = clustered.adjusted([each for *_, each in compared], num_draws, seed)
    for (result, names, _), p_values in zip(compared, adjusted, strict=True):
        for name, p in zip(names, p_values.tolist(), strict=True):
            result[name]["adjusted_p"] = p
    return {
        "intervals": intervals.INTERVALS,
        "counts": {
            role: _count(table, np.flatnonzero(table.role == role)) for role in ROLES
        },
        "groups": groups.summary(table),
        "comparisons": found,
    }


def _evaluate(
    table: ScoreTable,
    columns: dict[str, Float[np.ndarray, " items"]],
    comparison: groups.Comparison,
    fprs: tuple[float, ...],
    seed: int,
) -> tuple[dict[str, Any], list[tuple[list[str], Influences]]]:
    """Evaluates columns, larger = member, those that have the same rows together."""
    rows = np.concatenate([comparison.members, comparison.nonmembers])
    split = len(comparison.members)
    results: dict[str, Any] = {}
    influences: list[tuple[list[str], Influences]] = []
    together: dict[bytes, dict[str, np.ndarray]] = {}
    for name, column in columns.items():
        kept = ~np.isnan(column[rows])
        lost = int(np.sum(~np.isfinite(column[rows])))
        refused = intervals.refused(f"{lost} of the scores are not finite")
        results[name] = {
            "auc": refused,
            "accuracy": refused,
            "tpr": {f"{fpr:g}": refused for fpr in fprs},
            "adjusted_p": None,
        }
        if kept[:split].any() and kept[split:].any() and lost == np.sum(~kept):
            together.setdefault(kept.tobytes(), {})[name] = column
    for mask, values in together.items():
        kept = np.frombuffer(mask, bool)
        members = comparison.members[kept[:split]]
        nonmembers = comparison.nonmembers[kept[split:]]
        found, each = _evaluate_rows(table, values, members, nonmembers, fprs, seed)
        if each is not None:
            influences.append((list(values), each))
        if not kept.all():
            for result in found.values():
                result["dropped"] = {
                    "members": int((~kept[:split]).sum()),
                    "nonmembers": int((~kept[split:]).sum()),
                }
        results |= found
    return results, influences


def _evaluate_rows(
    table: ScoreTable,
    columns: dict[str, Float[np.ndarray, " items"]],
    members: Int[np.ndarray, " members"],
    nonmembers: Int[np.ndarray, " nonmembers"],
    fprs: tuple[float, ...],
    seed: int,
) -> tuple[dict[str, Any], Influences | None]:
    """Evaluates columns of the same rows; influences are None for too few sources."""
    _, codes = np.unique(table.units, return_inverse=True)
    units = codes[members], codes[nonmembers]
    effective = intervals.effective(units[0]), intervals.effective(units[1])
    split = {name: (x[members], x[nonmembers]) for name, x in columns.items()}
    influences = clustered.influences(
        np.stack([member for member, _ in split.values()]),
        np.stack([nonmember for _, nonmember in split.values()]),
        *units,
    )
    few = intervals.too_few(influences.sources, effective)
    results: dict[str, Any] = {}
    for row, (name, both) in enumerate(split.items()):
        curve = roc_curve(*both)
        low, high = (None, None) if few else influences.interval(row)
        point = {"value": auc(*both), "low": low, "high": high}
        results[name] = {
            "auc": point | ({"reason": few} if few else {}),
            "accuracy": splitting.accuracy(*both, *units, seed),
            "tpr": {
                f"{fpr:g}": _tpr(table, curve, both, fpr, effective, few)
                for fpr in fprs
            },
            "adjusted_p": None,
        }
        if not table.larger_is_member:  # The release's figures, for comparison.
            results[name]["official"] = {
                "auc": point["value"],
                "accuracy": best_accuracy(curve)[0],
                "tpr_at_5_fpr": official_tpr_at_5_fpr(*both),
            }
    return results, None if few else influences


def _tpr(
    table: ScoreTable,
    curve: RocCurve,
    scores: tuple[Float[np.ndarray, " members"], Float[np.ndarray, " nonmembers"]],
    max_fpr: float,
    effective: tuple[int, int],
    few: str,
) -> dict[str, Any]:
    """Returns the TPR at a rate, refused if there are too few non-members for it.

    Curve and scores are larger = member; the threshold has the table's sign.
    """
    if effective[1] * max_fpr < 1 - 1e-9:
        needed = math.ceil(1 / max_fpr - 1e-9)
        reason = (
            f"refused: a false-positive rate of {100 * max_fpr:g} % needs at least "
            f"{needed} sources of non-members; there are {effective[1]}"
        )
        return {**intervals.refused(reason)}
    tpr, fpr, threshold = tpr_at_fpr(curve, max_fpr)
    threshold = signed(table, threshold)
    ends = None if few else intervals.rate_at_quantile(*scores, effective, max_fpr)
    return {
        **intervals.proportion(tpr, effective[0], few),
        "fpr": intervals.proportion(fpr, effective[1], few),
        "threshold": threshold if math.isfinite(threshold) else None,
        "of_population": ends and dict(zip(("low", "high"), ends, strict=True)),
    }
