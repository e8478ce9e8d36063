"""The largest subset of two roles whose sources have like propensities, in pairs.

Axes: `sources`, of both roles.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import blind, clustered, intervals, metrics
from vidsme_jax.evaluation.family_tests import Between, Traits
from vidsme_jax.wording import counted

CALIPER = 0.2  # Standard deviations of the propensity that a pair may differ by.


def matched(
    propensity: Float[np.ndarray, " sources"], label: Bool[np.ndarray, " sources"]
) -> Bool[np.ndarray, " sources"]:
    """Returns which sources are in a pair, one of each role, of like propensity.

    On a line, pairing in order the lowest of both that are near enough gives as many
    pairs as any pairing.

    Args:
      propensity: Of being in the first role, on any scale.
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
    """Returns what a score shows on the largest subset of like propensities.

    Args:
      table: The scores.
      traits: Of the table.
      between: Two roles of it.
      headline: The score.
      comparison: What the two are called.
      seed: Of cross-fitting.

    Returns:
      `pairs`, `overlap` (the share of sources where both roles have some), `score`,
      `auc` with its interval, `blind_auc` (of `blind_auc`), `comparison` and a
      `statement`.
    """
    sources = between.sources
    propensity = _propensity(between, seed)
    kept = matched(propensity, sources.label)
    inside = overlap(propensity, sources.label)
    pairs = int(kept.sum()) // 2
    score = metrics.oriented(table, headline)[between.rows]
    items = kept[sources.source] & np.isfinite(score)
    label = sources.label[sources.source]
    if not (items & label).any() or not (items & ~label).any():
        auc = intervals.refused("no two sources of the two sets are alike")
    else:
        units = sources.unit[sources.source]
        its = units[items & label], units[items & ~label]
        found = clustered.influences(
            score[items & label][None],
            score[items & ~label][None],
            *its,
        )
        few = intervals.too_few(
            found.sources, (intervals.effective(its[0]), intervals.effective(its[1]))
        )
        low, high = (None, None) if few else found.interval(0)
        auc = {"value": float(found.auc[0]), "low": low, "high": high}
        auc |= {"reason": few} if few else {}
    again = blind_auc(traits, between, kept, seed)
    why = f" ({auc['reason']})" if "reason" in auc else ""
    statement = (
        f"On the largest subset of like propensities, {counted(pairs, 'pair')} of "
        f"sources ({inside:.0%} of all sources lie where both sets have some), "
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
    """Returns how well a new propensity fit separates a matched subset.

    Args:
      traits: Of the table.
      between: Two roles of it.
      kept: Their sources that are in the subset.
      seed: Of cross-fitting.

    Returns:
      The AUC, near or below 0.5 where matching left nothing to be found; None for fewer
      than 10 pairs.
    """
    if kept.sum() // 2 < intervals.MIN_SOURCES:
        return None
    source, label = between.sources.source, between.sources.label
    first, second = (between.rows[(kept & role)[source]] for role in (label, ~label))
    subset = traits.between(first, second, whole=True)
    return blind.auc(_propensity(subset, seed), subset.sources)


def in_words(auc: float | None) -> str:
    """Says what is left to be found without a model; "" where it is not known."""
    if auc is None:
        return ""
    return f"; a new blind fit on it has AUC {auc:.2f}"


def sources_of(between: Between, seed: int) -> Bool[np.ndarray, " sources"]:
    """Returns which sources are in the largest subset of like propensities."""
    return matched(_propensity(between, seed), between.sources.label)


def _propensity(between: Between, seed: int) -> Float[np.ndarray, " sources"]:
    """Returns the propensity by everything that is known, reaching the model or not."""
    families = [*between.reaching, *between.apart]
    return blind.propensity(families, between.sources, seed)
