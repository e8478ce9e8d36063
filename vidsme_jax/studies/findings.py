"""What a study found: a row a point and comparison, and how much the best one proves.

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
from vidsme_jax.studies.points import Sheet

SEED = 0  # Of permutations, cross-fitting and shuffled labels.
_NUM_SHUFFLES = 1000
_CHUNK = 100  # Shuffles at a time.

CAUTION = (
    "The best point of a grid was chosen on the very videos that it is judged by, so "
    "it is too good by selection: what it is worth must be seen on other videos. The "
    "verdict of an audit is that of the point declared before the results were seen."
)


def evaluate(
    sheets: Sequence[Sheet], study: str, settings: views.Report
) -> dict[str, Any]:
    """Evaluates every point on every comparison.

    Args:
      sheets: One per run.
      study: Its name.
      settings: Of rates and intervals.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN. `points`: one row a point and
      comparison. `groups`: see `groups.summary`. `comparisons`: by name,
      `description`, `blind` (for each sheet, the same as in an audit), `declared` and
      `best`, which are rows, and `by_chance`: see `best_by_chance`.
    """
    tests = validity.Procedure.of(settings)
    rows: list[dict[str, Any]] = []
    blinds: list[dict[str, Any]] = []
    comparisons: dict[str, dict[str, Any]] = {}
    for sheet in sheets:
        # Each point has its result, even if others are equal.
        found = metrics.evaluate(
            *(sheet.table, settings.fprs, tests.number, SEED),
            declared=sheet.table.scores,
        )
        judged = validity.judge(sheet.table, found, tests)
        blinds.append({name: its["blind"] for name, its in judged.items()})
        for name, comparison in found["comparisons"].items():
            about = {"description": comparison["description"]}
            comparisons.setdefault(name, about)
            rows += [
                _row(point, name, comparison, judged[name]) for point in sheet.points
            ]
    for name, about in comparisons.items():
        its = [row for row in rows if row["comparison"] == name]
        known = [row for row in its if row["auc"] is not None]
        about["blind"] = [blind[name] for blind in blinds if name in blind]
        about["declared"] = next((row for row in its if row["declared"]), None)
        about["best"] = max(known, key=lambda row: row["auc"], default=None)
        about["by_chance"] = best_by_chance(sheets, name)
    return {
        "study": study,
        "caution": CAUTION,
        "intervals": intervals.INTERVALS,
        "groups": groups.summary(sheets[0].table),
        "comparisons": comparisons,
        "points": rows,
    }


def _row(
    point: Any, name: str, comparison: dict[str, Any], judged: dict[str, Any]
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
    """Returns how high the best of all points goes where the labels say nothing.

    Members and non-members are exchanged at random, a video's rows together, and the
    largest AUC over all points is looked at each time [1]. Only rows that every sheet
    has are used. This speaks of selection alone: a shift between the sets remains one.

    [1] Westfall and Young, 1993. Resampling-Based Multiple Testing.

    Returns:
      `points`, their number; `best`, the largest AUC; `level`, which the largest AUC
      exceeds in one shuffle of twenty; `p_value` of `best`. None where the rows that
      all sheets share have one role only, or no point has finite scores.
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


def _joined(sheets: Sequence[Sheet]) -> tuple[ScoreTable, Float[np.ndarray, "p items"]]:
    """Returns the first table at the rows of all tables, and all scores there."""
    tables = [sheet.table for sheet in sheets]
    common = set.intersection(*(set(table.id.tolist()) for table in tables))
    kept = [np.flatnonzero([i in common for i in table.id]) for table in tables]
    scores = [
        metrics.oriented(sheet.table, point.name)[rows]
        for sheet, rows in zip(sheets, kept, strict=True)
        for point in sheet.points
    ]
    arrays = {
        name: value[kept[0]]
        for name, value in vars(tables[0]).items()
        if isinstance(value, np.ndarray)
    }
    return dataclasses.replace(tables[0], **arrays, scores={}), np.stack(scores)


def _largest_aucs(
    scores: Float[np.ndarray, "points items"],
    label: Bool[np.ndarray, " items"],
    unit: Int[np.ndarray, " items"],
) -> Float[np.ndarray, " shuffles"]:
    """Returns the largest AUC over the points: as labelled, then for each shuffle."""
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    sizes = np.bincount(unit).astype(float)
    ranks = scipy.stats.rankdata(scores, axis=1)
    sums = np.stack([np.bincount(unit, weights=each) for each in ranks])
    own = label[first]
    rng = np.random.default_rng(SEED)
    largest = []
    for start in range(0, _NUM_SHUFFLES, _CHUNK):
        labels = np.stack([rng.permutation(own) for _ in range(_CHUNK)], axis=1)
        if start == 0:
            labels = np.concatenate([own[:, None], labels], axis=1)
        labels = labels.astype(float)
        members = sizes @ labels
        wins = sums @ labels - members * (members + 1) / 2
        largest.append((wins / (members * (sizes.sum() - members))).max(axis=0))
    return np.concatenate(largest)
