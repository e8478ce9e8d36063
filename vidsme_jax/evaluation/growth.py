"""Follows the p-value of a score over random subsets of growing size.

The p-value of k sources a role varies with which sources are drawn. Its median over
random subsets shows from how many sources on such an audit finds members to rank above
in half of the cases, and whether the result depends on the last few sources.

Axes: `rows`, those of members first; `sources`.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import metrics, placebo, sets
from vidsme_jax.evaluation.family_tests import Between
from vidsme_jax.evaluation.sources import Sources
from vidsme_jax.evaluation.verdicts import p_is
from vidsme_jax.wording import counted

MOST = 6  # Comparisons with a curve, the largest.
_SIZES = tuple(n for n in sets.POINTS if 2 <= n <= 1000)  # With one each, p >= 1/2.


def of_score(
    table: ScoreTable,
    score: str,
    between: Between,
    p: float | None,
    alpha: float,
    number: int,
    seed: int,
) -> dict[str, Any] | None:
    """Computes the curve of one score of a table; see `growth`.

    Rows without the score, or without the reference model's where there is one, are
    left out. `p` is that members rank above on the others; without it, because the
    score was not tested, the result is None.
    """
    if p is None:
        return None
    values = metrics.oriented(table, score)[between.rows]
    finite = np.isfinite(values)
    if (pair := placebo.pair(table, score)) is not None:
        finite &= np.isfinite(pair[:, between.rows]).all(axis=0)
    sources = between.sources.kept(finite)
    return growth(values[finite], sources, p, alpha, number, seed)


def growth(
    scores: Float[np.ndarray, " rows"],
    sources: Sources,
    p: float,
    alpha: float,
    number: int,
    seed: int,
) -> dict[str, Any]:
    """Returns the median p of random subsets of equally many sources a role.

    A subset contains all rows of its sources. Ranks are computed within it, and its p
    is that of `ranking.p_values`: over all labellings where they are few, else over
    random ones, standardised and pooled (`sets.p_of_subsets`). Smaller subsets are
    parts of larger ones, for a smooth curve.

    Args:
      scores: The score of each row, finite; larger = member.
      sources: The sources of the rows.
      p: The p-value of all sources.
      alpha: The level of the test.
      number: The number of permutations behind `p`; the p of a subset is at least
        1 / (number + 1) too.
      seed: The seed of subsets and permutations.

    Returns:
      `curve`, points with `members` and `nonmembers` (numbers of sources) and `p`, the
      last with all sources and `p` as given; `alpha`; `enough`, the smallest number of
      sources a role from which on the median p is <= alpha, or None; `statement`.
    """
    rng = np.random.default_rng([seed, 7])
    first, second = sources.counts
    orders = [_ranks(rng, sources) for _ in range(sets.SUBSETS)]
    label = sources.label[sources.source]
    unit = sources.unit[sources.source]
    curve: list[dict[str, Any]] = []
    for size in (n for n in _SIZES if n < min(first, second)):
        subsets: list[sets.Subset] = []
        for rank in orders:
            rows = rank[sources.source] < size
            count = int((rows & label).sum())
            subsets.append(
                sets.Subset.of(scores[rows], unit[rows], count, np.arange(count))
            )
        median = float(np.median(sets.p_of_subsets(subsets, number, rng)))
        median = max(median, 1 / (number + 1))
        curve.append({"members": size, "nonmembers": size, "p": median})
    curve.append({"members": first, "nonmembers": second, "p": p})
    enough = _enough(curve, alpha)
    return {
        "curve": curve,
        "alpha": alpha,
        "enough": enough,
        "statement": _statement(curve, enough, alpha),
    }


def _ranks(rng: np.random.Generator, sources: Sources) -> Int[np.ndarray, " sources"]:
    """Returns the place of each source in a random order of those of its role."""
    ranks = np.empty(len(sources.label), np.int64)
    for role in (True, False):
        places = np.flatnonzero(sources.label == role)
        ranks[rng.permutation(places)] = np.arange(len(places))
    return ranks


def _enough(curve: list[dict[str, Any]], alpha: float) -> int | None:
    """Returns the smallest size from which on every median is <= alpha."""
    found = None
    for point in reversed(curve):
        if point["p"] > alpha:
            break
        found = min(point["members"], point["nonmembers"])
    return found


def _statement(curve: list[dict[str, Any]], enough: int | None, alpha: float) -> str:
    """Returns one sentence on where members are found to rank above."""
    last = curve[-1]
    whole = (
        f"{counted(last['members'], 'source')} of members and {last['nonmembers']} of "
        f"non-members ({p_is(last['p'])})"
    )
    if enough is None:
        return f"At level {alpha:g} members are not found to rank above with {whole}."
    found = f"At level {alpha:g} members are found to rank above with"
    if len(curve) == 1:
        return f"{found} {whole}."
    if enough == min(last["members"], last["nonmembers"]):
        return (
            f"{found} all sources, {whole}, but in less than half of the random "
            "subsets of fewer."
        )
    return (
        f"{found} {whole}, and in at least half of the random subsets of {enough} or "
        "more sources a role."
    )
