"""Whether the corpus itself gives the answer away, before any model is asked."""

import math
import re
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidsme_jax.arguments import count, one_of
from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import groups, metrics, verdicts
from vidsme_jax.evaluation.blind import Pair, Words, compare

_MAX_LISTED = 20  # Duplicates listed by hash.
# Seconds at the end of a video's name, as in `data.segments`.
_PART = re.compile(r"#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)?$")
_MEMBERSHIP = Words(
    "members",
    "non-members",
    "a score computed from q and r cannot be read as evidence of membership here",
    "a score",
)
_SUSPICION = "the two are not exchangeable, and p-values of suspects do not hold here"


def blind_baseline(
    table: ScoreTable, num_bootstrap: int, seed: int, headline: str | None = None
) -> dict[str, Any]:
    """Tries to separate members from non-members by motion and brightness alone.

    Args:
      table: Its scores are used for the verdicts only.
      num_bootstrap: Resamples of videos behind each interval.
      seed: Of the cross-fitting and the resamples.
      headline: A score whose AUC is compared with the blind one, resample by resample.

    Returns:
      Plain lists, dicts, numbers and strings, no NaN. `comparisons`: for each of
      `metrics.comparisons`, what `blind.compare` returns, with `duplicates` (videos
      listed in both roles, whole or in parts), `verdicts` (by score:
      `verdicts.of_score`) and, if asked,
      `headline_minus_blind`. `suspects`: the same test of suspects against the clips
      they are compared with, or None.

    Raises:
      AuditError: The table has no such headline, or the number of resamples is none.
    """
    count("num_bootstrap", num_bootstrap)
    if headline is not None:
        one_of("headline", headline, table.scores)
    found = {}
    for name, comparison in groups.comparisons(table).items():
        members, nonmembers = comparison.members, comparison.nonmembers
        pair = Pair.of(table, members, nonmembers)
        result, fitted = compare(pair, num_bootstrap, seed, _MEMBERSHIP)
        result["description"] = comparison.description
        result["duplicates"] = _duplicates(table, members, nonmembers)
        rows = np.concatenate([members, nonmembers])
        scores = {s: metrics.oriented(table, s)[rows] for s in table.scores}
        result["verdicts"] = {
            s: verdicts.of_score(result, _auc(score, pair))
            for s, score in scores.items()
        }
        if headline in scores and fitted is not None:
            result["headline_minus_blind"] = _difference(
                scores[headline], fitted, pair, num_bootstrap, seed
            )
        found[name] = result
    return {"comparisons": found, "suspects": _suspects(table, num_bootstrap, seed)}


def _duplicates(
    table: ScoreTable,
    members: Int[np.ndarray, " members"],
    nonmembers: Int[np.ndarray, " nonmembers"],
) -> dict[str, Any]:
    """Lists videos, by content hash, that are both member and non-member."""
    shared = np.intersect1d(table.cluster[members], table.cluster[nonmembers])
    if not len(shared):
        return {"count": 0, "statement": "", "videos": []}

    spans: dict[Any, list[tuple[float, float, int]]] = {each: [] for each in shared}
    ids: dict[Any, tuple[list[str], list[str]]] = {each: ([], []) for each in shared}
    for role, rows in enumerate((members, nonmembers)):
        for row in rows[np.isin(table.cluster[rows], shared)]:
            cluster = table.cluster[row]
            spans[cluster].append((*_part(str(table.video[row])), role))
            ids[cluster][role].append(str(table.id[row]))
    wrong = sum(map(_overlap, spans.values()))
    divided = len(shared) - wrong
    statements = []
    if wrong:
        its = "video is" if wrong == 1 else "videos are"
        statements.append(
            f"{wrong} {its} listed both as member and as non-member: the labels are "
            "wrong."
        )
    if divided:
        its = "video has" if divided == 1 else "videos have"
        statements.append(
            f"{divided} {its} some parts among the members and others among the "
            "non-members: parts of one video are not independent."
        )
    return {
        "count": len(shared),
        "statement": " ".join(statements),
        "videos": [
            {
                "hash": str(cluster),
                "members": ids[cluster][0],
                "nonmembers": ids[cluster][1],
            }
            for cluster in shared[:_MAX_LISTED]
        ],
    }


def _overlap(spans: list[tuple[float, float, int]]) -> bool:
    """Whether a part of one role overlaps one of the other: begin, end and role."""
    ends = [-math.inf, -math.inf]  # The latest of each role so far.
    for begin, end, role in sorted(spans):
        if begin < min(end, ends[1 - role]):
            return True
        ends[role] = max(ends[role], end)
    return False


def _part(name: str) -> tuple[float, float]:
    """Returns when the part of a video begins and ends that its name ends with."""
    found = _PART.search(name)
    if found is None:
        return 0.0, math.inf
    return float(found[1]), math.inf if found[2] is None else float(found[2])


def _has_values(score: Float[np.ndarray, " items"], pair: Pair) -> bool:
    """Whether both roles have values, and all that are not NaN are finite."""
    kept = ~np.isnan(score)
    both = kept[pair.label].any() and kept[~pair.label].any()
    return bool(both and np.isfinite(score[kept]).all())


def _auc(score: Float[np.ndarray, " items"], pair: Pair) -> float | None:
    """Returns the AUC over the rows that have the score; None if there is none."""
    if not _has_values(score, pair):
        return None
    kept = ~np.isnan(score)
    return pair.kept(kept).auc(score[kept])


def _difference(
    score: Float[np.ndarray, " items"],
    fitted: Float[np.ndarray, " items"],
    pair: Pair,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any] | None:
    """Returns the AUC of the score less that of the cross-fitted classifier, paired."""
    if not _has_values(score, pair):
        return None
    kept = ~np.isnan(score)
    both, pair = np.stack([score, fitted])[:, kept], pair.kept(kept)
    aucs = pair.bootstrap(both, num_bootstrap, seed)
    first, second = map(pair.auc, both)
    low, high = np.percentile(aucs[0] - aucs[1], [2.5, 97.5])
    return {"value": first - second, "low": float(low), "high": float(high)}


def _suspects(
    table: ScoreTable, num_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Tests whether suspects look like the clips that calibrate their p-values."""
    role = "calibration" if (table.role == "calibration").any() else "nonmembers"
    rows = np.flatnonzero(table.role == "suspects"), np.flatnonzero(table.role == role)
    if not all(map(len, rows)):
        return None
    name = "calibration clips" if role == "calibration" else "non-members"
    words = Words("suspects", name, _SUSPICION, "a p-value")
    result, _ = compare(Pair.of(table, *rows), num_bootstrap, seed, words)
    return result | {"description": f"suspects and {name}"}
