"""Tests whether a score ranks members above beyond the reference model's score.

The reference model has seen neither members nor non-members: if it ranks members above,
the two differ in something else. Ranks are compared because the two models may score on
different scales: with raw values, a difference of the sets that shifts both scores by
equally many standard deviations would remain if one scale is wider.

Axes: `items`, rows of the table; `sources`, of both roles; `scores`.
"""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import adjusted, metrics, ranking
from vidsme_jax.evaluation.family_tests import Between
from vidsme_jax.evaluation.sources import Labels
from vidsme_jax.names import uncalibrated

Pair = Float[np.ndarray, "two items"]  # A score and the reference model's.


def pair(table: ScoreTable, name: str) -> Pair | None:
    """Returns a score and the reference model's; None if the latter has no such score.

    A score calibrated by subtraction of the reference model's is restored first.
    """
    base = uncalibrated(name)
    if base not in table.reference:
        return None
    reference = metrics.signed(table, table.reference[base].astype(np.float64))
    score = metrics.oriented(table, name)
    return np.stack([score if base == name else score + reference, reference])


def p_values(
    pairs: Sequence[Pair | None],
    between: Between,
    permuted: Labels,
    adjusting: tuple[adjusted.Adjustment, Labels],
) -> list[tuple[float | None, float | None]]:
    """Returns p_d and p_c of each score, None where it has no pair.

    Args:
      pairs: One per score, finite on the rows of the two roles.
      between: The two roles.
      permuted: Permutations of the labels.
      adjusting: The adjustment for blind features, with labels permuted within its
        strata.

    Returns:
      p_d, that the reference model ranks members as far above: the larger of the plain
      and of the adjusted test. p_c, that on non-members, which no model has seen, the
      two scores are not correlated, in which case the reference model shows nothing.
    """
    found: list[tuple[float | None, float | None]] = [(None, None)] * len(pairs)
    paired = [(k, x[:, between.rows]) for k, x in enumerate(pairs) if x is not None]
    if not paired:
        return found
    sources, (adjustment, within) = between.sources, adjusting
    audited, reference = (
        ranking.ranks(np.stack([x[side] for _, x in paired], axis=1)) for side in (0, 1)
    )
    excess = audited - reference
    p_d = np.maximum(
        ranking.p_values(excess, sources, permuted),
        adjustment.p_values(sources.means(excess), within),
    )
    p_c = _unrelated(sources.means(audited), sources.means(reference), ~sources.label)
    for (k, _), d, c in zip(paired, p_d.tolist(), p_c, strict=True):
        found[k] = d, c
    return found


def _unrelated(
    audited: Float[np.ndarray, "sources scores"],
    reference: Float[np.ndarray, "sources scores"],
    some: Bool[np.ndarray, " sources"],
) -> list[float]:
    """Returns one-sided p-values of the rank correlations over some sources."""
    found: list[float] = []
    for x, y in zip(audited[some].T, reference[some].T, strict=True):
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            found.append(1.0)
            continue
        r = np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1]
        t = r * np.sqrt((len(x) - 2) / max(1 - r * r, 1e-12))  # Finite where r is 1.
        found.append(float(scipy.stats.t.sf(t, len(x) - 2)))
    return found
