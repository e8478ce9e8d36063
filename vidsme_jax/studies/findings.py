"""Evaluates a study: a row per point and comparison, and the selection of the best.

Axes: `points`; `items`, rows of the tables; `units`, a video in one role; `shuffles` of
the labels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import groups, intervals, metrics, validity
from vidsme_jax.settings import views
from vidsme_jax.studies.points import Point, Sheet

SEED = 0  # Of permutations, cross-fitting and shuffled labels.
_NUM_SHUFFLES = 1000
_CHUNK = 100  # Shuffles at a time.

CAUTION = (
    "The best point of a grid was chosen on the videos that it is evaluated on, so it "
    "is too good by selection: evaluate it on other videos. The verdict of an audit is "
    "that of the point declared before the results were seen; a study has none, since "
    "it does not measure the clips without the model."
)


def evaluate(
    sheets: Sequence[Sheet], study: str, settings: views.Report
) -> dict[str, Any]:
    """Evaluates every point on every comparison.

    Args:
      sheets: One per run.
      study: The name of the study.
      settings: The settings of rates and intervals.

    Returns:
      JSON-ready: `points`, one row per point and comparison; `groups`, see
      `groups.summary`; `comparisons`, by name: `description`, `blind` (for each sheet,
      as in an audit), the rows `declared` and `best`, and `by_chance`, see
      `best_by_chance`.
    """
    tests = validity.Procedure.of(settings)
    rows: list[dict[str, Any]] = []
    blinds: list[dict[str, Any]] = []
    comparisons: dict[str, dict[str, Any]] = {}
    for sheet in sheets:
        # Each point has its result, even if others are equal.
        evaluation = metrics.evaluate(
            *(sheet.table, settings.fprs, tests.number, SEED),
            declared=sheet.table.scores,
        )
        judged = validity.judge(sheet.table, evaluation, tests)
        blinds.append({name: verdict["blind"] for name, verdict in judged.items()})
        for name, comparison in evaluation["comparisons"].items():
            description = {"description": comparison["description"]}
            comparisons.setdefault(name, description)
            rows += [
                _row(point, name, comparison, judged[name]) for point in sheet.points
            ]
    for name, found in comparisons.items():
        compared = [row for row in rows if row["comparison"] == name]
        known = [row for row in compared if row["auc"] is not None]
        found["blind"] = [blind[name] for blind in blinds if name in blind]
        found["declared"] = next((row for row in compared if row["declared"]), None)
        found["best"] = max(known, key=lambda row: row["auc"], default=None)
        found["by_chance"] = best_by_chance(sheets, name)
    return {
        "study": study,
        "caution": CAUTION,
        "intervals": intervals.INTERVALS,
        "groups": groups.summary(sheets[0].table),
        "comparisons": comparisons,
        "points": rows,
    }


def _row(
    point: Point, name: str, comparison: dict[str, Any], judged: dict[str, Any]
) -> dict[str, Any]:
    result = comparison["scores"][point.name]
    row = {"comparison": name, **point.at, "score": point.score}
    row |= {"declared": point.declared, **_flat("auc", result["auc"])}
    notes = [point.note, result["auc"].get("reason", "")]
    for fpr, tpr in result["tpr"].items():
        row |= _flat(f"tpr_at_{fpr}", tpr)
        notes.append(tpr.get("reason", ""))
    row |= {"blind_auc": judged["blind"]["auc"], "blind_p": judged["blind"]["p"]}
    verdict = judged["verdicts"][point.name]
    row |= {name: verdict[name] for name in ("verdict", "p_s", "p_r")}
    for role in ("members", "nonmembers"):
        row[f"{role}_videos"] = comparison["counts"][role]["videos"]
    row["note"] = "; ".join(dict.fromkeys(filter(None, notes)))
    return row


def _flat(name: str, result: dict[str, Any] | None) -> dict[str, float | None]:
    result = result or {}
    ends = {f"{name}_{end}": result.get(end) for end in ("low", "high")}
    return {name: result.get("value")} | ends


def best_by_chance(sheets: Sequence[Sheet], name: str) -> dict[str, Any] | None:
    """Returns how high the best of all points goes under random labels.

    The labels of members and non-members are permuted, the rows of a video together,
    and the largest AUC over all points is taken each time [1]. Only rows that every
    sheet has are used. This accounts for selection only: a shift between the sets
    remains.

    Args:
      sheets: One per run.
      name: The name of the comparison.

    [1] Westfall and Young, 1993. Resampling-Based Multiple Testing.

    Returns:
      `points`, their number; `best`, the largest AUC; `level`, which the largest AUC
      exceeds in 5 % of shuffles; `p_value` of `best`. None if the rows that all sheets
      share have one role only, or no point has finite scores.
    """
    table, scores = _joined(sheets)
    compared = groups.comparisons(table).get(name)
    if compared is None:
        return None
    rows = np.concatenate([compared.members, compared.nonmembers])
    label = np.arange(len(rows)) < len(compared.members)
    scores = scores[:, rows]
    scores = scores[np.isfinite(scores).all(axis=1)]
    if not len(scores):
        return None
    _, video = np.unique(table.cluster[rows], return_inverse=True)
    largest = _largest_aucs(scores, label, 2 * video + label)
    observed, shuffled = largest[0], largest[1:]
    above = int((shuffled >= observed - 1e-12).sum())
    return {
        "points": len(scores),
        "best": float(observed),
        "level": float(np.percentile(shuffled, 95)),
        "p_value": (1 + above) / (1 + len(shuffled)),
    }


def _joined(
    sheets: Sequence[Sheet],
) -> tuple[ScoreTable, Float[np.ndarray, "points items"]]:
    """Returns the rows that all tables share: the first table, and all scores."""
    tables = [sheet.table for sheet in sheets]
    common = set.intersection(*(set(table.id.tolist()) for table in tables))
    shared = [np.flatnonzero([i in common for i in table.id]) for table in tables]
    scores = [
        metrics.oriented(sheet.table, point.name)[rows]
        for sheet, rows in zip(sheets, shared, strict=True)
        for point in sheet.points
    ]
    arrays = {
        name: value[shared[0]]
        for name, value in vars(tables[0]).items()
        if isinstance(value, np.ndarray)
    }
    return dataclasses.replace(tables[0], **arrays, scores={}), np.stack(scores)


def _largest_aucs(
    scores: Float[np.ndarray, "points items"],
    label: Bool[np.ndarray, " items"],
    unit: Int[np.ndarray, " items"],
) -> Float[np.ndarray, " shuffles"]:
    """Returns the largest AUC over the points: of the labels, then of each shuffle."""
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    sizes = np.bincount(unit).astype(float)
    ranks = scipy.stats.rankdata(scores, axis=1)
    sums = np.stack([np.bincount(unit, weights=each) for each in ranks])
    true = label[first]
    rng = np.random.default_rng(SEED)
    largest: list[Float[np.ndarray, " shuffles"]] = []
    for start in range(0, _NUM_SHUFFLES, _CHUNK):
        labels = np.stack([rng.permutation(true) for _ in range(_CHUNK)], axis=1)
        if start == 0:
            labels = np.concatenate([true[:, None], labels], axis=1)
        labels = labels.astype(float)
        members = sizes @ labels
        wins = sums @ labels - members * (members + 1) / 2
        largest.append((wins / (members * (sizes.sum() - members))).max(axis=0))
    return np.concatenate(largest)
