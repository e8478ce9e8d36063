"""Whether a score ranks members above beyond what a reference model's does.

The reference model has seen neither members nor non-members: what it ranks members
above by is another difference between the two. Ranks are compared, because the two
models may score on different scales: with raw values, a difference of the sets that
moves both alike in standard deviations remains in their difference wherever one scale
is wider.

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
    """Returns a score and the reference model's; None where there is no such score.

    Of a score that is less the reference model's, the two that it is made of.
    """
    base = uncalibrated(name)
    if base not in table.reference:
        return None
    theirs = metrics.signed(table, table.reference[base].astype(np.float64))
    own = metrics.oriented(table, name)
    return np.stack([own if base == name else own + theirs, theirs])


def p_values(
    pairs: Sequence[Pair | None],
    between: Between,
    permuted: Labels,
    adjusting: tuple[adjusted.Adjustment, Labels],
) -> list[tuple[float | None, float | None]]:
    """Returns p_d and p_c of each score, None where it has no pair.

    Args:
      pairs: One a score, finite on the rows of the two roles.
      between: The two roles.
      permuted: Permutations of the labels.
      adjusting: For the blind features, with labels permuted within its strata.

    Returns:
      p_d, that members rank as far above by the reference model: the larger one of the
      plain and of the adjusted test. p_c, that on non-members, which no model has seen,
      the two scores do not go together, in which case the reference model says nothing.
    """
    found: list[tuple[float | None, float | None]] = [(None, None)] * len(pairs)
    some = [(k, its[:, between.rows]) for k, its in enumerate(pairs) if its is not None]
    if not some:
        return found
    sources, (adjustment, within) = between.sources, adjusting
    own, theirs = (
        ranking.ranks(np.stack([its[side] for _, its in some], axis=1))
        for side in (0, 1)
    )
    p_d = np.maximum(
        ranking.p_values(own - theirs, sources, permuted),
        adjustment.p_values(sources.means(own - theirs), within),
    )
    p_c = _unrelated(sources.means(own), sources.means(theirs), ~sources.label)
    for (k, _), d, c in zip(some, p_d.tolist(), p_c, strict=True):
        found[k] = d, c
    return found


def _unrelated(
    own: Float[np.ndarray, "sources scores"],
    theirs: Float[np.ndarray, "sources scores"],
    kept: Bool[np.ndarray, " sources"],
) -> list[float]:
    """Returns one-sided p-values of rank correlations of some sources."""
    found: list[float] = []
    for x, y in zip(own[kept].T, theirs[kept].T, strict=True):
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            found.append(1.0)
            continue
        r = np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1]
        t = r * np.sqrt((len(x) - 2) / max(1 - r * r, 1e-12))  # Finite where r is 1.
        found.append(float(scipy.stats.t.sf(t, len(x) - 2)))
    return found
