r"""Variances, intervals and adjusted p-values of AUCs of rows clustered in sources.

With $\theta$ the AUC, $V_i$ the share of non-members below member $i$ and $W_j$ that of
members above non-member $j$ (ties half), source $s$ contributes
$a_s = \sum_{i \in s} (V_i - \theta)/m$ as a member, $b_s$ likewise over $W$ and $n$,
and

$$v = \tfrac{I}{I-1} \sum a_s^2 + \tfrac{J}{J-1} \sum b_s^2
  + 2 \tfrac{K}{K-1} \sum a_s b_s$$

over $I$ sources of members, $J$ of non-members and $K$ units that are in both [1];
with one row a source this is DeLong's [2].

Near 0 and 1 the estimate of $v$ is often too small, and an interval on the logit scale
covers too little: 89 % at an AUC of 0.99 with 20 sources of five clips a role. The
interval here holds all $\theta$ with $|\hat\theta - \theta| \le t \sqrt{v(\theta)}$
[3], $v(\theta) = \max(v\, h_s(\theta)/h_s(\hat\theta), h_c(\theta))$: $h$ is Hanley and
McNeil's variance [4] of as many independent sources ($s$) or clips ($c$), $t$ the
quantile at Welch's degrees of freedom. `benchmarks/validity.py` simulates coverage.

Axes: `scores`; `members`, `nonmembers`, rows of the roles; `units`.

[1] Obuchowski, 1997. Nonparametric analysis of clustered ROC curve data.
  https://doi.org/10.2307/2533958
[2] DeLong, DeLong and Clarke-Pearson, 1988. https://doi.org/10.2307/2531595
[3] Newcombe, 2006. Confidence intervals for an effect size measure based on the
  Mann-Whitney statistic, part 2. https://doi.org/10.1002/sim.2324
[4] Hanley and McNeil, 1982. https://doi.org/10.1148/radiology.143.1.7063747
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from vidsme_jax.evaluation.intervals import CONFIDENCE

_GRID = 4000  # Values of the AUC that are tried for an interval.
_DRAWN = 1 << 24  # Numbers that are drawn at a time.


class Influences(NamedTuple):
    """AUCs, and the contribution of each unit to them.

    Attributes:
      auc: The AUC of each score, larger = member.
      variance: $v$; infinite with one source in a role.
      freedom: Welch's degrees of freedom; where $v$ is 0, those of the role with fewer
        sources.
      total: $a_s + b_s$ of each unit that has rows.
      units: The numbers of these units, ascending.
      rows: The numbers of members and of non-members.
      sources: The numbers of units with members and with non-members.
    """

    auc: Float[np.ndarray, " scores"]
    variance: Float[np.ndarray, " scores"]
    freedom: Float[np.ndarray, " scores"]
    total: Float32[np.ndarray, "scores units"]
    units: Int[np.ndarray, " units"]
    rows: tuple[int, int]
    sources: tuple[int, int]

    def interval(self, score: int) -> tuple[float, float]:
        """Returns the 95 % interval of the AUC of one score; see the module."""
        auc, variance, freedom = (float(each[score]) for each in self[:3])
        grid = _grid(auc)
        around = self._around(auc, variance, grid)
        inside = grid[np.abs(auc - grid) <= _quantile(freedom) * np.sqrt(around)]
        return float(inside[0]), float(inside[-1])

    def z(self) -> Float[np.ndarray, " scores"]:
        """Returns how far each AUC is above 0.5, as a standard normal value."""
        import scipy.stats  # Slow to import.

        middle = np.array([0.5])
        found: list[float] = []
        for auc, variance, freedom in zip(*self[:3], strict=True):
            at = self._around(float(auc), float(variance), middle)[0]
            t = (auc - 0.5) / np.sqrt(at)
            found.append(scipy.stats.norm.isf(scipy.stats.t.sf(t, freedom)))
        return np.clip(np.array(found), -38, 38)

    def _around(
        self, auc: float, variance: float, at: Float[np.ndarray, " values"]
    ) -> Float[np.ndarray, " values"]:
        """Returns the variance of the AUC, were its true value each of `at`."""
        of_sources = hanley_mcneil(at, *self.sources)
        if not 0 < variance < np.inf or auc in (0.0, 1.0):
            return np.full_like(at, np.inf) if variance == np.inf else of_sources
        here = hanley_mcneil(np.array([auc]), *self.sources)[0]
        return np.maximum(of_sources * variance / here, hanley_mcneil(at, *self.rows))


def influences(
    members: Float[np.ndarray, "scores members"],
    nonmembers: Float[np.ndarray, "scores nonmembers"],
    member_units: Int[np.ndarray, " members"],
    nonmember_units: Int[np.ndarray, " nonmembers"],
) -> Influences:
    """Returns the AUCs of scores, and the contribution of each unit.

    Args:
      members: Scores of members, finite; larger = member.
      nonmembers: Scores of non-members, finite.
      member_units: The unit of each member.
      nonmember_units: The unit of each non-member; equal numbers are one unit.
    """
    m, n = members.shape[1], nonmembers.shape[1]
    units, place = np.unique(
        np.concatenate([member_units, nonmember_units]), return_inverse=True
    )
    counts = [np.bincount(x, minlength=len(units)) for x in (place[:m], place[m:])]
    sources = int((counts[0] > 0).sum()), int((counts[1] > 0).sum())
    both = int(((counts[0] > 0) & (counts[1] > 0)).sum())
    found: list[tuple[float, float, float]] = []
    totals = np.empty((len(members), len(units)), np.float32)
    for k, (one, other) in enumerate(zip(members, nonmembers, strict=True)):
        above = _below(one, np.sort(other)) / n
        beaten = 1 - _below(other, np.sort(one)) / m
        auc = float(above.mean())
        a = np.bincount(place[:m], above - auc, len(units)) / m
        b = np.bincount(place[m:], beaten - auc, len(units)) / n
        found.append((auc, *_variance(a, b, sources, both)))
        totals[k] = a + b
    auc, variance, freedom = np.array(found).reshape(-1, 3).T
    return Influences(auc, variance, freedom, totals, units, (m, n), sources)


def _variance(
    a: Float[np.ndarray, " units"],
    b: Float[np.ndarray, " units"],
    sources: tuple[int, int],
    both: int,
) -> tuple[float, float]:
    """Returns $v$ and the degrees of freedom."""
    if min(sources) < 2:
        return np.inf, 1.0
    parts = [
        count / (count - 1) * float((contributions**2).sum())
        for count, contributions in zip(sources, (a, b), strict=True)
    ]
    total = sum(parts)
    squares = sum(p**2 / (c - 1) for p, c in zip(parts, sources, strict=True))
    freedom = total**2 / squares if squares else float(min(sources) - 1)
    if both > 1:
        # What both roles share makes the AUC vary less, but never not at all.
        more = 2 * both / (both - 1) * float((a * b).sum())
        total = max(total + more, total / 10)
    return total, freedom


def adjusted(
    compared: Sequence[Influences], number: int, seed: int
) -> list[Float[np.ndarray, " scores"]]:
    """Returns p-values adjusted for all scores of all comparisons together.

    One-sided, single-step maxT: each AUC's distance above 0.5 is compared with the
    largest of all under a normal law, with correlations estimated from the units [5].

    Args:
      compared: One entry per comparison; equal numbers are the same unit.
      number: The number of draws.
      seed: The seed of the draws.

    [5] Hothorn, Bretz and Westfall, 2008. Simultaneous inference in general parametric
      models. https://doi.org/10.1002/bimj.200810425
    """
    if not compared:
        return []
    num_units = int(max(each.units.max() for each in compared)) + 1
    rng = np.random.default_rng([seed, 2])
    largest = np.full(number, -np.inf)
    step = max(1, _DRAWN // num_units)
    for start in range(0, number, step):
        some = slice(start, min(start + step, number))
        draws = rng.standard_normal((num_units, some.stop - start), np.float32)
        for each in compared:
            spread = np.sqrt((each.total**2).sum(axis=1))
            varies = spread > 0
            if varies.any():
                z = each.total[varies] @ draws[each.units] / spread[varies, None]
                largest[some] = np.maximum(largest[some], z.max(axis=0))
    largest = np.sort(largest)
    return [
        (1 + number - np.searchsorted(largest, each.z() - 1e-9)) / (number + 1)
        for each in compared
    ]


def hanley_mcneil(
    auc: Float[np.ndarray, " values"], members: int, nonmembers: int
) -> Float[np.ndarray, " values"]:
    """Returns the variance of an AUC over independent rows [4].

    Example:
      >>> hanley_mcneil(np.array([0.5]), 10, 10).round(4).tolist()
      [0.0175]
    """
    turned = np.maximum(auc, 1 - auc)  # Of exponential scores, the smaller variance.
    one, two = turned / (2 - turned), 2 * turned**2 / (1 + turned)
    total = turned * (1 - turned) + (members - 1) * (one - turned**2)
    return (total + (nonmembers - 1) * (two - turned**2)) / (members * nonmembers)


def _below(
    values: Float[np.ndarray, " values"], ranked: Float[np.ndarray, " others"]
) -> Float[np.ndarray, " values"]:
    """Counts which of the others are below each value, ties half."""
    left = np.searchsorted(ranked, values, side="left")
    return (left + np.searchsorted(ranked, values, side="right")) / 2


def _grid(auc: float) -> Float[np.ndarray, " values"]:
    """Returns values from 0 to 1, denser at the ends, with the AUC itself."""
    ends = np.geomspace(1e-6, 1e-3, 100)
    evenly = np.linspace(0, 1, _GRID)
    return np.unique(np.concatenate([evenly, ends, 1 - ends, [auc]]))


def _quantile(freedom: float) -> float:
    """Returns the quantile of Student's t of a two-sided 95 % interval."""
    import scipy.special  # Slow to import.

    return float(scipy.special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
