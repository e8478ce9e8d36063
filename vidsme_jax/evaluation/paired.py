r"""Two scores on the same rows: which of them separates members better.

The difference of the AUCs has the variance of the differences of what each unit
contributes to them [1], and an interval by Student's law. The test needs no such law:
where both scores rank alike, exchanging the two within a unit changes nothing. Ranked
among all rows, each AUC is a sum over units,

$$\mathrm{AUC} - \tfrac12 = \sum_s c_s, \quad c_s
  = \tfrac1N \Bigl(\tfrac1m \sum_{i \in s} R_i - \tfrac1n \sum_{j \in s} R_j\Bigr)$$

over its members i and non-members j of ranks R: the difference is compared with sums of
$\pm (c_s - c'_s)$, signs drawn at random.

[1] Obuchowski, 1997. https://doi.org/10.2307/2533958; as in `clustered`.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidsme_jax.evaluation import clustered, intervals
from vidsme_jax.evaluation.ranking import ranks
from vidsme_jax.evaluation.sources import p_value

_DRAWN = 1 << 24  # Signs drawn at a time.
_SMALLEST = 1e-12  # A variance.


def difference(
    first: Float[np.ndarray, " items"],
    second: Float[np.ndarray, " items"],
    units: Int[np.ndarray, " items"],
    num_members: int,
    *,
    number: int = 1999,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares two scores of the same rows.

    Args:
      first: Finite, larger = member; those of members come first.
      second: Likewise, of the same rows.
      units: Of each row; equal numbers are one unit.
      num_members: How many rows are members; both roles have rows.
      number: Of exchanges for the p-value.
      seed: Of them.

    Returns:
      JSON-ready: `first` and `second`, the AUCs with `low` and `high`; `difference`,
      of the second less the first, likewise, or the `reason` why there is no interval;
      `p`, two-sided.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> rows, label = np.arange(200), np.arange(200) < 100
      >>> weak, strong = (x * label + rng.normal(size=200) for x in (0.2, 2.0))
      >>> found = difference(weak, strong, rows, 100)
      >>> found["difference"]["value"] > 0.2 and found["p"] < 0.01
      True
    """
    both, m = np.stack([first, second]), num_members
    of = clustered.influences(both[:, :m], both[:, m:], units[:m], units[m:])
    few = intervals.too_few(
        of.sources, (intervals.effective(units[:m]), intervals.effective(units[m:]))
    )
    aucs: list[dict[str, Any]] = []
    for k, value in enumerate(of.auc.tolist()):
        low, high = (None, None) if few else of.interval(k)
        aucs.append({"value": value, "low": low, "high": high})
    found = float(of.auc[1] - of.auc[0])
    ends = None if few else _ends(of, units, m, found)
    reason = few or "the two scores order all pairs of rows alike"
    interval = {"low": None, "high": None, "reason": reason}
    if ends is not None:
        interval = {"low": ends[0], "high": ends[1]}
    return {
        "first": aucs[0],
        "second": aucs[1],
        "difference": {"value": found, **interval},
        "p": _exchanged(both, units, m, number, seed),
    }


def _ends(
    of: clustered.Influences, units: Int[np.ndarray, " items"], m: int, found: float
) -> tuple[float, float] | None:
    """Returns the ends of the 95 % interval; None where nothing varies."""
    import scipy.special  # Heavy; a mistake is refused without it.

    total = (of.total[1].astype(np.float64) - of.total[0]) ** 2
    has = [np.isin(of.units, each) for each in (units[:m], units[m:])]
    only = has[0] & ~has[1], has[1] & ~has[0], has[0] & has[1]
    parts: list[tuple[float, int]] = []
    for mask, count in zip(only, (*of.sources, int(only[2].sum())), strict=True):
        factor = count / (count - 1) if count > 1 else 1.0
        parts.append((factor * float(total[mask].sum()), max(1, count - 1)))
    variance = sum(part for part, _ in parts)
    if variance < _SMALLEST:
        return None
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    half = float(scipy.special.stdtrit(freedom, (1 + intervals.CONFIDENCE) / 2))
    half *= float(np.sqrt(variance))
    return max(-1.0, found - half), min(1.0, found + half)


def _exchanged(
    both: Float[np.ndarray, "2 items"],
    units: Int[np.ndarray, " items"],
    m: int,
    number: int,
    seed: int,
) -> float:
    """Returns the two-sided p of the difference, the scores exchanged within units."""
    n = both.shape[1] - m
    weight = np.repeat([1 / m, -1 / n], [m, n])
    ranked = ranks(both.T)
    _, place = np.unique(units, return_inverse=True)
    each = np.bincount(place, weight * (ranked[:, 1] - ranked[:, 0]))
    rng, found = np.random.default_rng([seed, 3]), np.empty(number)
    step = max(1, _DRAWN // len(each))
    for start in range(0, number, step):
        some = min(step, number - start)
        signs = rng.integers(0, 2, (some, len(each)), np.int8) * 2 - 1
        found[start : start + some] = np.abs(signs @ each)
    return p_value(float(np.abs(each.sum())), found)
