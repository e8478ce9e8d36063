"""Suspects: p-values against clips known not to be members.

A conformal p-value is the rank of a suspect among calibration clips. It is exact, with
no model of the scores, if and only if the suspect, were it not a member, could have
been drawn from the same source as the calibration clips.

Axes: `suspects` and `calibration`, unique videos.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Shaped

from vidsme_jax.arguments import number, require, series
from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import metrics

ASSUMPTION = (
    "The p-values hold only if the suspects, had the model never seen them, would be "
    "exchangeable with the {calibration}: the same source, period, length and kind of "
    "content. A small p-value then says that a suspect ranks higher than such clips "
    "do by chance. It does not say that the suspect was in the training data."
)
_NAMES = {"calibration": "calibration clips", "nonmembers": "non-members"}


def conformal_p_values(
    suspect_scores: Float[np.ndarray, " suspects"],
    calibration_scores: Float[np.ndarray, " calibration"],
) -> Float[np.ndarray, " suspects"]:
    r"""One-sided conformal p-values [1]; a larger score is more member-like.

    $$p_j = (1 + |\{i : c_i \ge s_j\}|) / (n + 1)$$

    over the n calibration scores c; ties count against the suspect.

    [1] Bates et al., 2023. Testing for outliers with conformal p-values.
      https://arxiv.org/abs/2104.08279

    Raises:
      AuditError: A score is not finite.
    """
    suspect_scores = series("suspect_scores", suspect_scores, least=0)
    calibration_scores = series("calibration_scores", calibration_scores, least=0)
    ranked = np.sort(calibration_scores)
    above = len(ranked) - np.searchsorted(ranked, suspect_scores, side="left")
    return (1 + above) / (len(ranked) + 1)


def benjamini_hochberg(
    p_values: Float[np.ndarray, " suspects"],
) -> Float[np.ndarray, " suspects"]:
    """Adjusted p-values: listing those <= a bounds the false discovery rate by a [1].

    Holds for p-values that share their calibration clips (they are positively
    dependent, Bates et al., 2023).

    [1] Benjamini and Hochberg, 1995. https://doi.org/10.1111/j.2517-6161.1995.tb02031.x

    Raises:
      AuditError: There are none, or one is not in [0, 1].
    """
    p_values = series("p_values", p_values)
    inside = ((p_values >= 0) & (p_values <= 1)).all()
    require(inside, "some of p_values are not in [0, 1]")
    return scipy.stats.false_discovery_control(p_values, method="bh")


def suspects(table: ScoreTable, score: str, fdr: float) -> dict[str, Any]:
    """Ranks the suspects of a table against its calibration clips, one row a video.

    Args:
      table: With rows of role `suspects`, and `calibration` or else `nonmembers`.
      score: The headline score. A video whose rows ask different questions has the
        mean of theirs; one without any is ranked last and not tested.
      fdr: The false discovery rate, in (0, 1), at which suspects are listed.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN: `score`, `fdr`, `calibration`
      (role and number of videos), `num_listed`, `statement`, `notes`, and `rows`, most
      member-like first: `video`, `ids`, `group`, `score` (with the table's sign),
      `p_value`, `adjusted_p_value`, `listed`; the last three are None where nothing
      can be compared.

    Raises:
      AuditError: The table has no such score, or the rate is out of range.
    """
    number("fdr", fdr, 0, 1, open="()")
    role = "calibration" if (table.role == "calibration").any() else "nonmembers"
    oriented = metrics.oriented(table, score)
    tested = _by_video(oriented, table, "suspects")
    known = _by_video(oriented, table, role)
    result: dict[str, Any] = {
        "score": score,
        "fdr": fdr,
        "calibration": {"role": role, "videos": len(known.values)},
        "num_listed": 0,
        "notes": [],
        "rows": [],
    }
    if not len(tested.values):
        return result | {"statement": "There are no suspects."}
    have, calibrates = (~np.isnan(each.values) for each in (tested, known))
    result["calibration"]["videos"] = int(calibrates.sum())
    values, against = tested.values[have], known.values[calibrates]
    finite = np.isfinite(values).all() and np.isfinite(against).all()
    comparable = bool(len(values) and len(against) and finite)
    p_values, adjusted = np.full((2, len(tested.values)), np.nan)
    if comparable:
        p_values[have] = conformal_p_values(values, against)
        adjusted[have] = benjamini_hochberg(p_values[have])
        result["notes"] = _notes(tested, known, len(against), fdr)
    result["notes"] = _lacking(have, calibrates, score, role) + result["notes"]
    # Equality counts; the division behind an adjusted p-value may miss it by one ulp.
    listed = adjusted <= fdr * (1 + 1e-12)
    signed = metrics.signed(table, tested.values)
    result["num_listed"] = int(listed.sum())
    result["rows"] = [
        {
            "video": str(table.video[tested.rows[i][0]]),
            "ids": table.id[tested.rows[i]].tolist(),
            "group": str(table.group[tested.rows[i][0]]),
            "score": _number(signed.item(i)),
            "p_value": _number(p_values.item(i)),
            "adjusted_p_value": _number(adjusted.item(i)),
            "listed": bool(listed[i]) if comparable and have[i] else None,
        }
        for i in np.argsort(-tested.values, kind="stable")
    ]
    return result | {"statement": _statement(result, comparable)}


class _Videos(NamedTuple):
    """The videos of one role, in the order of their hashes."""

    clusters: Shaped[np.ndarray, " videos"]
    values: Float[np.ndarray, " videos"]
    rows: list[np.ndarray]  # Of the table, per video.


def _by_video(
    scores: Float[np.ndarray, " items"], table: ScoreTable, role: str
) -> _Videos:
    rows = np.flatnonzero(table.role == role)
    clusters, video, num_rows = np.unique(
        table.cluster[rows], return_inverse=True, return_counts=True
    )
    ordered = rows[np.argsort(video, kind="stable")]
    split = np.split(ordered, np.cumsum(num_rows)[:-1]) if len(rows) else []
    values = [_mean(scores[its]) for its in split]
    return _Videos(clusters, np.array(values, np.float64), split)


def _mean(values: Float[np.ndarray, " items"]) -> float:
    """Averages what is not NaN; of equal values exactly that value."""
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan
    same = (values == values[0]).all()
    return float(values[0] if same else values.mean())


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _lacking(
    have: Shaped[np.ndarray, " suspects"],
    calibrates: Shaped[np.ndarray, " calibration"],
    score: str,
    role: str,
) -> list[str]:
    """Says how many videos have no score."""
    return [
        f"{int((~each).sum())} of the {len(each)} {name} have no {score} and are "
        f"{what}."
        for each, name, what in (
            (have, "suspects", "not tested"),
            (calibrates, _NAMES[role], "not compared with"),
        )
        if not each.all()
    ]


def _notes(tested: _Videos, known: _Videos, videos: int, fdr: float) -> list[str]:
    """Warns where the p-values mean less than they seem to."""
    notes = []
    shared = len(np.intersect1d(tested.clusters, known.clusters))
    if shared:
        notes.append(
            f"{shared} of the suspects are, by content, among the calibration clips "
            "too: clips declared not to be members."
        )
    smallest = 1 / (videos + 1)
    if smallest > fdr:
        notes.append(
            f"With {videos} clips to compare with, no p-value can be below "
            f"{smallest:.2g}: at a false discovery rate of {fdr:g} none can be listed, "
            f"whatever its score. At least {math.ceil(1 / fdr - 1e-9) - 1} are needed."
        )
    return notes


def _statement(result: dict[str, Any], comparable: bool) -> str:
    num, videos = len(result["rows"]), result["calibration"]["videos"]
    if not videos:
        return (
            f"{num} suspects are ranked but not tested: there are neither calibration "
            "clips nor non-members to compare them with."
        )
    if not comparable:
        return f"{num} suspects are not tested: some scores are not finite."
    calibration = _NAMES[result["calibration"]["role"]]
    return (
        f"{result['num_listed']} of {num} suspects rank higher than the {videos} "
        f"{calibration} do by chance, at a false discovery rate of {result['fdr']:g}. "
        + ASSUMPTION.format(calibration=calibration)
    )
