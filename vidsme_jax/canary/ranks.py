"""The exact test: does a model rank what was published above its other variants?

Which of N variants is published is drawn by chance, each with probability 1 / N, and
before the model is trained. If the model was not trained on it, nothing that the model
does can depend on the draw: the rank of the published variant among the N is uniform,
whatever the model, the clip and the score. So the part of the variants that score at
least as high is a p-value that needs no model of scores, no non-members and no
assumption about the clips [1]. Sets are drawn independently, and Fisher's statistic,
-2 times the sum of ln p, has a chi-square law of twice as many degrees of freedom as
there are sets; p-values that are multiples of 1 / N, as here, make it a bit smaller
than that law says, and the result conservative.

Axes: `variants` of a set; `sets`.

[1] Zhang et al., 2024. Membership Inference Attacks Cannot Prove that a Model Was
Trained On Your Data. https://arxiv.org/abs/2409.19798
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vidsme_jax.canary.key import Set
from vidsme_jax.evaluation.sets import holm

MOST_MISSING = 0.1  # Of the variants of all sets.


class Tested(NamedTuple):
    """A set, tested.

    Attributes:
      name: Of the clip.
      variants: How many it has.
      rank: Of the published one, from 1; those without a score are above it.
      missing: Variants without a score.
      p: Exact.
      adjusted_p: Holm's, over the sets.
    """

    name: str
    variants: int
    rank: int
    missing: int
    p: float
    adjusted_p: float


def rank(scores: Float[np.ndarray, " variants"], chosen: int) -> int:
    """Returns the rank of a variant, from 1; whatever is in doubt counts against it.

    Args:
      scores: Larger = member; NaN where there is none.
      chosen: Which one was published.

    Returns:
      How many variants, itself among them, score as high, or have no score. It has the
      last rank if it has no score itself.

    Example:
      >>> rank(np.array([0.1, 0.9, 0.5, 0.5]), 2), rank(np.array([0.1, np.nan, 0.5]), 2)
      (3, 2)
    """
    # Nothing is smaller than NaN, and NaN is not smaller than anything.
    return int(np.sum(~(scores < scores[chosen])))


def fisher(p_values: Sequence[float]) -> float:
    """Combines independent p-values to one.

    Args:
      p_values: Above 0, one at least.

    Example:
      >>> round(fisher([0.05]), 6), round(fisher([0.1, 0.1, 0.1]), 4)
      (0.05, 0.0319)
    """
    from scipy import stats

    statistic = -2 * np.log(np.asarray(p_values, np.float64)).sum()
    return float(stats.chi2.sf(statistic, 2 * len(p_values)))


def test(sets: Sequence[Set], scores: Mapping[str, float]) -> list[Tested]:
    """Tests every set.

    Args:
      sets: Of the key.
      scores: Larger = member, by the SHA-256 of the variant's file.

    Example:
      >>> published = ("a", "b", "c", "d")
      >>> one = Set(name="x", clip="", chosen=1, files=published, frames=8,
      ...     strength=2.0, crf=12, psnr=40.0, survival={})
      >>> test([one], {"a": 0.1, "b": 0.5, "c": 0.2, "d": 0.3})[0].p
      0.25
    """
    ranks, missing = [], []
    for each in sets:
        its = np.array([scores.get(file, np.nan) for file in each.files], np.float64)
        ranks.append(rank(its, each.chosen))
        missing.append(int(np.isnan(its).sum()))
    p_values = [r / len(each.files) for r, each in zip(ranks, sets, strict=True)]
    found = zip(sets, ranks, missing, p_values, holm(p_values), strict=True)
    return [
        Tested(each.name, len(each.files), above, lacking, p, adjusted)
        for each, above, lacking, p, adjusted in found
    ]
