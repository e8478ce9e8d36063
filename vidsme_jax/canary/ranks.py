"""The exact test: does a model rank the published variant above the others?

Which of N variants is published is drawn at random, each with probability 1 / N, before
the model is trained. If the model was not trained on it, the model cannot depend on the
draw: the rank of the published variant among the N is uniform, whatever the model, the
clip and the score. So the share of the variants that score at least as high is a
p-value that needs no model of scores, no non-members and no assumption about the clips
[1]. Sets are drawn independently, and combined by Fisher's statistic, the sum of -ln p.
For continuous p-values, twice the sum has a chi-square distribution, which is too
conservative for multiples of 1 / N (of 20 sets of 64, p <= 0.05 in 2 % of draws instead
of 5 %). So the exact distribution is used, the convolution of those of the sets.

Axes: `variants` of a set; `sets`.

[1] Zhang et al., 2024. Membership Inference Attacks Cannot Prove that a Model Was
Trained On Your Data. https://arxiv.org/abs/2409.19798
"""

import collections
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vidsme_jax.canary.key import CanarySet
from vidsme_jax.evaluation.sets import holm

MOST_MISSING = 0.1  # Share of the variants of all sets.
_STEPS = 1 << 18  # Of the range of Fisher's statistic.
_ERROR = 1e-12  # Largest error of a probability from a convolution.


class Tested(NamedTuple):
    """The result of one set.

    Attributes:
      name: The name of the set.
      variants: The number of its variants.
      rank: Of the published one, from 1; variants without a score count as above it.
      missing: The number of variants without a score.
      p: The exact p-value, rank / variants.
      adjusted_p: By Holm over the sets.
    """

    name: str
    variants: int
    rank: int
    missing: int
    p: float
    adjusted_p: float


def rank(scores: Float[np.ndarray, " variants"], chosen: int) -> int:
    """Returns the rank of a variant, from 1; ties and missing scores count against it.

    Args:
      scores: Larger = member; NaN for none.
      chosen: The index of the variant.

    Returns:
      The number of variants, including itself, that score at least as high or have no
      score; all of them if it has no score itself.

    Example:
      >>> rank(np.array([0.1, 0.9, 0.5, 0.5]), 2), rank(np.array([0.1, np.nan, 0.5]), 2)
      (3, 2)
    """
    # Nothing is smaller than NaN, and NaN is not smaller than anything.
    return int(np.sum(~(scores < scores[chosen])))


def fisher(ranks: Sequence[int], sizes: Sequence[int]) -> float:
    """Combines the ranks of independent sets into one p-value, by Fisher's statistic.

    Its distribution is the convolution of those of the sets, of -ln p rounded up to
    multiples of a small step. The most that rounding may add is subtracted from the
    observed value, so ties count and p is never too small. Below about 1e-11, where the
    convolution has no digits left, p is that of the chi-square distribution, which is
    never too small either.

    Args:
      ranks: Of the published variants, from 1.
      sizes: The number of variants of each set, at least 2.

    Example:
      >>> round(fisher([1], [20]), 9), round(fisher([1, 1], [4, 4]), 9)
      (0.05, 0.0625)
      >>> fisher([1] * 20, [64] * 20) < 1e-15
      True
    """
    from scipy import stats

    places, tail = _distribution(tuple(sorted(sizes)))
    found = sum(int(places[n][r - 1]) for r, n in zip(ranks, sizes, strict=True))
    exact = float(tail[max(0, found - len(sizes) + 1)])
    logs = [math.log(r / n) for r, n in zip(ranks, sizes, strict=True)]
    bound = float(stats.chi2.sf(-2 * math.fsum(logs), 2 * len(sizes)))
    return min(1.0, exact + _ERROR, bound)


@functools.lru_cache(maxsize=4)
def _distribution(
    sizes: tuple[int, ...],
) -> tuple[dict[int, Int[np.ndarray, " ranks"]], Float[np.ndarray, " sums"]]:
    """Returns the distribution of Fisher's statistic of uniform ranks.

    Args:
      sizes: The number of variants of each set.

    Returns:
      By number of variants, -ln p of each rank in steps, rounded up; and for each sum
      of them the probability of this or a larger sum.
    """
    step = sum(map(math.log, sizes)) / _STEPS
    places = {
        n: np.ceil(np.log(n / np.arange(1, n + 1)) / step).astype(np.int64)
        for n in set(sizes)
    }
    length = 1 + sum(int(places[n][0]) for n in sizes)
    padded = 1 << length.bit_length()
    transform = np.ones(padded // 2 + 1, np.complex128)
    for n, count in collections.Counter(sizes).items():
        transform *= np.fft.rfft(np.bincount(places[n]) / n, padded) ** count
    probabilities = np.maximum(np.fft.irfft(transform, padded)[:length], 0.0)
    return places, np.cumsum(probabilities[::-1])[::-1]


def test(sets: Sequence[CanarySet], scores: Mapping[str, float]) -> list[Tested]:
    """Tests every set.

    Args:
      sets: The sets of the key.
      scores: Larger = member, by the SHA-256 of the variant's file.

    Example:
      >>> published = ("a", "b", "c", "d")
      >>> one = CanarySet(name="x", clip="", chosen=1, files=published, frames=8,
      ...     strength=2.0, crf=12, psnr=40.0, survival={})
      >>> test([one], {"a": 0.1, "b": 0.5, "c": 0.2, "d": 0.3})[0].p
      0.25
    """
    ranks, missing = list[int](), list[int]()
    for each in sets:
        values = np.array([scores.get(x, np.nan) for x in each.files], np.float64)
        ranks.append(rank(values, each.chosen))
        missing.append(int(np.isnan(values).sum()))
    p_values = [r / len(each.files) for r, each in zip(ranks, sets, strict=True)]
    found = zip(sets, ranks, missing, p_values, holm(p_values), strict=True)
    return [
        Tested(each.name, len(each.files), above, lacking, p, adjusted)
        for each, above, lacking, p, adjusted in found
    ]
