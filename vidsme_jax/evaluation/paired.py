r"""Compares two scores of the same rows: which separates members better.

The variance of the difference of the AUCs is that of the differences of each unit's
contributions [1]; its interval uses Student's t. The p-value needs no such law: where
both scores rank alike, exchanging the two within a unit changes nothing. From ranks
among all rows, each AUC is a sum over units,

$$\mathrm{AUC} - \tfrac12 = \sum_s c_s, \quad c_s
  = \tfrac1N \Bigl(\tfrac1m \sum_{i \in s} R_i - \tfrac1n \sum_{j \in s} R_j\Bigr)$$

over the members i and non-members j of unit s, with ranks R: the difference is compared
with sums of $\pm (c_s - c'_s)$ with random signs.

[1] Obuchowski, 1997. https://doi.org/10.2307/2533958; as in `clustered`.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidsme_jax.evaluation import clustered, intervals
from vidsme_jax.evaluation.ranking import ranks
from vidsme_jax.evaluation.sources import p_value

_DRAWN = 1 << 24  # Signs drawn at a time.
_SMALLEST = 1e-12  # Variance that counts as any.


def difference(
    first: Float[np.ndarray, " items"],
    second: Float[np.ndarray, " items"],
    units: Int[np.ndarray, " items"],
    num_members: int,
    *,
    number: int = 1999,
) -> dict[str, Any]:
    """Compares two scores of the same rows.

    Args:
      first: The first score of each row, finite, larger = member; members come first.
      second: The second score of each row.
      units: The unit of each row; equal numbers are one unit.
      num_members: How many rows are members; both roles have rows.
      number: The number of random exchanges for the p-value.

    Returns:
      JSON-ready: `first` and `second`, the AUCs, and `difference`, the second less the
      first, each with `value`, `low` and `high`; `difference` has the `reason` if it
      has no interval; `p`, two-sided.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> rows, label = np.arange(200), np.arange(200) < 100
      >>> weak, strong = (x * label + rng.normal(size=200) for x in (0.2, 2.0))
      >>> found = difference(weak, strong, rows, 100)
      >>> found["difference"]["value"] > 0.2 and found["p"] < 0.01
      True
    """
    both, m = np.stack([first, second]), num_members
    parts = clustered.influences(both[:, :m], both[:, m:], units[:m], units[m:])
    effective = intervals.effective(units[:m]), intervals.effective(units[m:])
    few = intervals.too_few(parts.sources, effective)
    aucs: list[dict[str, Any]] = []
    for k, value in enumerate(parts.auc.tolist()):
        low, high = (None, None) if few else parts.interval(k)
        aucs.append({"value": value, "low": low, "high": high})
    found = float(parts.auc[1] - parts.auc[0])
    ends = None if few else _ends(parts, units, m, found)
    reason = few or "the two scores order all pairs of rows alike"
    interval = {"low": None, "high": None, "reason": reason}
    if ends is not None:
        interval = {"low": ends[0], "high": ends[1]}
    return {
        "first": aucs[0],
        "second": aucs[1],
        "difference": {"value": found, **interval},
        "p": _exchanged(both, units, m, number),
    }


def _ends(
    influences: clustered.Influences,
    units: Int[np.ndarray, " items"],
    m: int,
    value: float,
) -> tuple[float, float] | None:
    """Returns the 95 % interval of a difference; None if its variance is 0."""
    import scipy.special  # Slow to import.

    total = (influences.total[1].astype(np.float64) - influences.total[0]) ** 2
    has = [np.isin(influences.units, each) for each in (units[:m], units[m:])]
    only = has[0] & ~has[1], has[1] & ~has[0], has[0] & has[1]
    parts: list[tuple[float, int]] = []
    for mask, count in zip(
        only, (*influences.sources, int(only[2].sum())), strict=True
    ):
        factor = count / (count - 1) if count > 1 else 1.0
        parts.append((factor * float(total[mask].sum()), max(1, count - 1)))
    variance = sum(part for part, _ in parts)
    if variance < _SMALLEST:
        return None
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    half = float(scipy.special.stdtrit(freedom, (1 + intervals.CONFIDENCE) / 2))
    half *= float(np.sqrt(variance))
    return max(-1.0, value - half), min(1.0, value + half)


def _exchanged(
    both: Float[np.ndarray, "2 items"],
    units: Int[np.ndarray, " items"],
    m: int,
    number: int,
) -> float:
    """Returns the two-sided p of the difference by exchange of scores within units."""
    n = both.shape[1] - m
    weight = np.repeat([1 / m, -1 / n], [m, n])
    ranked = ranks(both.T)
    _, place = np.unique(units, return_inverse=True)
    each = np.bincount(place, weight * (ranked[:, 1] - ranked[:, 0]))
    rng, null = np.random.default_rng([0, 3]), np.empty(number)
    step = max(1, _DRAWN // len(each))
    for start in range(0, number, step):
        some = min(step, number - start)
        signs = rng.integers(0, 2, (some, len(each)), np.int8) * 2 - 1
        null[start : start + some] = np.abs(signs @ each)
    return p_value(float(np.abs(each.sum())), null)
