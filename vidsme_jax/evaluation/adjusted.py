r"""Tests whether scores rank members above beyond what blind features explain.

A score enters as its mean rank over each source. Each family of features predicts the
labels (the propensity) and, from the association within each role, the score, both
cross-fitted. The score is regressed on all of these predictions; the residuals are
compared between the roles within strata of the propensity, in which the labels are
permuted, so that no asymptotic law is needed, however many columns there are. A t-test
instead rejects 15 to 26 % of null scores at a level of 5 % with 40 columns.

What is not measured, or poorly, is not adjusted for: that takes a reference model.

Axes: `sources`, of both roles; `scores`; `blind_families`; `permutations`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vidsme_jax.evaluation import blind
from vidsme_jax.evaluation.blind_families import Family
from vidsme_jax.evaluation.sources import Labels, Sources, p_value

_STRATA = 5  # At most.
_PER_STRATUM = 10  # Sources of both roles, at least.


class Adjustment(NamedTuple):
    """The fits and strata by which scores of two roles are adjusted.

    Attributes:
      sources: The sources of both roles, with their labels.
      fits: One fit per family.
      propensities: A constant, and the cross-fitted propensity of each family.
      strata: The stratum of each source, by the propensity of all families together.
    """

    sources: Sources
    fits: tuple[blind.Fit, ...]
    propensities: Float[np.ndarray, "sources families_1"]
    strata: Int[np.ndarray, " sources"]

    @classmethod
    def of(
        cls, families: Sequence[Family], sources: Sources, seed: int
    ) -> "Adjustment":
        """Fits the propensity of each family and divides the sources into strata."""
        y = sources.label.astype(np.float64)
        fits = tuple(blind.Fit.of(each.values, sources, seed) for each in families)
        columns = [np.ones((len(y), 1)), *(fit.labels(y[:, None]) for fit in fits)]
        propensities = np.concatenate(columns, axis=1)
        basis = _basis(propensities)
        number = max(1, min(_STRATA, len(y) // _PER_STRATUM))
        # Ties in random order: sources are ordered by label.
        ties = np.random.default_rng([seed, 7]).permutation(len(y))
        order = np.lexsort((ties, (basis @ (basis.T @ y)).round(9)))
        strata = np.empty(len(y), np.int64)
        strata[order] = np.arange(len(y)) * number // len(y)
        return cls(sources, fits, propensities, strata)

    def permuted(self, number: int, seed: int) -> Labels:
        """Returns labels permuted within the strata."""
        return self.sources.permuted(number, seed, self.strata)

    def p_values(
        self,
        scores: Float[np.ndarray, "sources scores"],
        permuted: Labels,
    ) -> Float[np.ndarray, " scores"]:
        """Returns one-sided p-values that members rank above beyond the features.

        Args:
          scores: One value per source, such as its mean rank; larger = member.
          permuted: Labels from `permuted`.
        """
        label = self.sources.label
        expected = [fit.scores(scores, label) for fit in self.fits]
        residuals = np.empty_like(scores)
        sizes = np.bincount(self.strata)
        for k, score in enumerate(scores.T):
            columns = [self.propensities, *(each[:, k : k + 1] for each in expected)]
            basis = _basis(np.concatenate(columns, axis=1))
            residuals[:, k] = score - basis @ (basis.T @ score)
            means = np.bincount(self.strata, residuals[:, k]) / sizes
            residuals[:, k] -= means[self.strata]
        null = np.empty((len(permuted), scores.shape[1]))
        for some, labels in permuted.chunks():
            null[some] = labels @ residuals
        observed = label.astype(np.float64) @ residuals
        return np.array([p_value(x, y) for x, y in zip(observed, null.T, strict=True)])


def _basis(
    columns: Float[np.ndarray, "sources columns"],
) -> Float[np.ndarray, "sources basis"]:
    """Returns an orthonormal basis of the space that the columns span."""
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > 1e-9 * sizes[0]]
