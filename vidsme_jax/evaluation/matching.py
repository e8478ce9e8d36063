"""Finds the largest subset of two roles with pairs of sources of like propensity.

Axes: `sources`, of both roles.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import blind, clustered, intervals, metrics
from vidsme_jax.evaluation.family_tests import Between, Traits
from vidsme_jax.wording import counted

CALIPER = 0.2  # Largest difference in a pair, in standard deviations of propensity.


def matched(
    propensity: Float[np.ndarray, " sources"], label: Bool[np.ndarray, " sources"]
) -> Bool[np.ndarray, " sources"]:
    """Returns which sources are in a pair, one of each role, of like propensity.

    Pairing the lowest of both roles that are near enough, in order, gives as many pairs
    as any pairing.

    Args:
      propensity: The propensity of the first role, on any scale.
      label: True for the first role.

    Example:
      >>> label = np.array([True, True, False, False])
      >>> matched(np.array([0.0, 9.0, 0.1, -9.0]), label).tolist()
      [True, False, True, False]
    """
    width = CALIPER * float(propensity.std()) + 1e-12
    first, second = (
        side[np.argsort(propensity[side], kind="stable")]
        for side in (np.flatnonzero(label), np.flatnonzero(~label))
    )
    found = np.zeros(len(label), bool)
    i = j = 0
    while i < len(first) and j < len(second):
        apart = propensity[first[i]] - propensity[second[j]]
        if abs(apart) <= width:
            found[[first[i], second[j]]] = True
        i += apart <= width
        j += apart >= -width
    return found


def overlap(
    propensity: Float[np.ndarray, " sources"], label: Bool[np.ndarray, " sources"]
) -> float:
    """Returns the share of sources whose propensity is in the range of both roles."""
    low = max(propensity[label].min(), propensity[~label].min())
    high = min(propensity[label].max(), propensity[~label].max())
    return float(((propensity >= low) & (propensity <= high)).mean())


def result(
    table: ScoreTable,
    traits: Traits,
    between: Between,
    headline: str,
    comparison: str,
    seed: int,
) -> dict[str, Any]:
    """Returns the AUC of a score on the largest subset of like propensities.

    Args:
      table: The table of scores.
      traits: The features of the table.
      between: Two roles of the table.
      headline: The name of the score.
      comparison: The name of the comparison.
      seed: The seed of cross-fitting.

    Returns:
      `pairs`, `overlap` (of `overlap`), `score`, `auc` with its interval, `blind_auc`
      (of `blind_auc`), `comparison` and a `statement`.
    """
    sources = between.sources
    propensity = _propensity(between, seed)
    kept = matched(propensity, sources.label)
    inside = overlap(propensity, sources.label)
    pairs = int(kept.sum()) // 2
    score = metrics.oriented(table, headline)[between.rows]
    items = kept[sources.source] & np.isfinite(score)
    label = sources.label[sources.source]
    first, second = items & label, items & ~label
    if not first.any() or not second.any():
        auc = intervals.refused("no two sources of the two sets are alike")
    else:
        units = sources.unit[sources.source]
        of_first, of_second = units[first], units[second]
        found = clustered.influences(
            score[first][None], score[second][None], of_first, of_second
        )
        effective = intervals.effective(of_first), intervals.effective(of_second)
        few = intervals.too_few(found.sources, effective)
        low, high = (None, None) if few else found.interval(0)
        auc = intervals.Estimate(value=float(found.auc[0]), low=low, high=high)
        if few:
            auc["reason"] = few
    again = blind_auc(traits, between, kept, seed)
    why = f" ({auc['reason']})" if "reason" in auc else ""
    statement = (
        f"On the largest subset of like propensities, {counted(pairs, 'pair')} of "
        f"sources ({inside:.0%} of all sources are in the range of both sets), "
        f"{headline} has AUC {intervals.in_words(auc)}{why}{in_words(again)}."
        if pairs
        else "No pair of sources of the two sets is alike: no subset can be compared."
    )
    return {
        "pairs": pairs,
        "overlap": inside,
        "score": headline,
        "auc": auc,
        "blind_auc": again,
        "statement": statement,
        "comparison": comparison,
    }


def blind_auc(
    traits: Traits, between: Between, kept: Bool[np.ndarray, " sources"], seed: int
) -> float | None:
    """Returns the AUC of a new propensity fit on a matched subset.

    Args:
      traits: The features of the table.
      between: Two roles of the table.
      kept: Which of their sources are in the subset.
      seed: The seed of cross-fitting.

    Returns:
      The AUC, near or below 0.5 if the subset does not differ in its features; None
      for fewer than 10 pairs.
    """
    if kept.sum() // 2 < intervals.MIN_SOURCES:
        return None
    source, label = between.sources.source, between.sources.label
    first, second = (between.rows[(kept & role)[source]] for role in (label, ~label))
    subset = traits.between(first, second, whole=True)
    return blind.auc(_propensity(subset, seed), subset.sources)


def in_words(auc: float | None) -> str:
    """Returns a clause with the AUC of `blind_auc`; "" without one."""
    if auc is None:
        return ""
    return f"; a new blind fit on it has AUC {auc:.2f}"


def sources_of(between: Between, seed: int) -> Bool[np.ndarray, " sources"]:
    """Returns which sources are in the largest subset of like propensities."""
    return matched(_propensity(between, seed), between.sources.label)


def _propensity(between: Between, seed: int) -> Float[np.ndarray, " sources"]:
    """Returns the propensity by all features, whether or not they reach the model."""
    families = [*between.reaching, *between.apart]
    return blind.propensity(families, between.sources, seed)
