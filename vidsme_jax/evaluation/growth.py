"""How p falls with the number of sources: random subsets of members and non-members.

Of k sources a role, drawn at random, the p-value that members rank above is another one
at each draw. Its median says from how many sources on such an audit finds as much in
half of the cases, and whether the whole rests on the last few.

Axes: `rows`, those of members first; `sources`.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import metrics, placebo, sets
from vidsme_jax.evaluation.family_tests import Between
from vidsme_jax.evaluation.sources import Sources
from vidsme_jax.evaluation.verdicts import p_is
from vidsme_jax.wording import counted

MOST = 6  # Comparisons that are looked at, the largest.
_SIZES = tuple(n for n in sets.POINTS if 2 <= n <= 1000)  # Of one each, p >= 1/2.


def of_score(
    table: ScoreTable,
    score: str,
    between: Between,
    p: float | None,
    alpha: float,
    number: int,
    seed: int,
) -> dict[str, Any] | None:
    """Follows the p of a score as sources are added; see `growth`.

    Args:
      table: The scores.
      score: Its name.
      between: Members and non-members.
      p: That members rank above, of all rows that have the score (and the reference
        model's, where there is one); None where it is not tested, and so is nothing.
      alpha: See `growth`, as for the others.
      number: Likewise.
      seed: Likewise.
    """
    if p is None:
        return None
    values = metrics.oriented(table, score)[between.rows]
    kept = np.isfinite(values)
    if (pair := placebo.pair(table, score)) is not None:
        kept &= np.isfinite(pair[:, between.rows]).all(axis=0)
    sources = between.sources.kept(kept)
    return growth(values[kept], sources, p, alpha, number, seed)


def growth(
    scores: Float[np.ndarray, " rows"],
    sources: Sources,
    p: float,
    alpha: float,
    number: int,
    seed: int,
) -> dict[str, Any]:
    """Returns the median p of random subsets of equally many sources a role.

    A source brings all of its rows. Ranks are computed within each subset, and its p
    is that of `ranking.p_values`, over all labellings where they are few, else over
    random ones, standardised and put together (`sets.p_of_subsets`). A smaller subset
    is part of a larger one, for a smooth curve.

    Args:
      scores: Finite; larger = member.
      sources: Of the rows.
      p: Of all sources.
      alpha: The level of the test.
      number: Of the permutations that this p is from; no subset's is below
        1 / (number + 1) either.
      seed: Of subsets and permutations.

    Returns:
      `curve`: `members` and `nonmembers`, how many sources, and `p`; the last point is
      of all sources, with the p given. `alpha`. `enough`, the smallest number of
      sources a role from which on the median p is <= alpha; None if there is none.
      `statement`.
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
            kept = rank[sources.source] < size
            count = int((kept & label).sum())
            given = scores[kept], unit[kept], count, np.arange(count)
            subsets.append(sets.Subset.of(*given))
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


def _ranks(rng: np.random.Generator, sources: Sources) -> np.ndarray:
    """Deals the sources of each role out in a random order; returns their places."""
    ranks = np.empty(len(sources.label), np.int64)
    for role in (True, False):
        its = np.flatnonzero(sources.label == role)
        ranks[rng.permutation(its)] = np.arange(len(its))
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
    last = curve[-1]
    whole = (
        f"{counted(last['members'], 'source')} of members and {last['nonmembers']} of "
        f"non-members ({p_is(last['p'])})"
    )
    if enough is None:
        return f"That members rank above is not found at level {alpha:g} with {whole}."
    if len(curve) == 1 or enough == min(last["members"], last["nonmembers"]):
        return (
            f"That members rank above is found at level {alpha:g} with all sources, "
            f"{whole}; of the random subsets of fewer, less than half find it."
            if len(curve) > 1
            else f"That members rank above is found at level {alpha:g} with {whole}."
        )
    return (
        f"That members rank above is found at level {alpha:g} with {whole}, and from "
        f"{enough} sources a role on in at least half of random subsets."
    )
