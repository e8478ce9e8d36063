"""Whether scores rank members above non-members: permutation of sources.

Axes: `items`, rows of both roles; `sources`; `scores`; `permutations`.
"""

import numpy as np
import scipy.stats
from jaxtyping import Float, UInt8

from vidsme_jax.evaluation.sources import Sources, p_value

_CHUNK = 1 << 23  # Numbers held at a time.


def ranks(
    values: Float[np.ndarray, "items scores"],
) -> Float[np.ndarray, "items scores"]:
    """Returns ranks from -0.5 to 0.5 of each score, ties together."""
    found = scipy.stats.rankdata(values, axis=0).reshape(values.shape)
    return (found - (len(values) + 1) / 2) / len(values)


def p_values(
    ranked: Float[np.ndarray, "items scores"],
    sources: Sources,
    permuted: UInt8[np.ndarray, "permutations sources"],
) -> Float[np.ndarray, " scores"]:
    """Returns one-sided p-values that the first role ranks above the second.

    The statistic is the AUC over rows; a source brings all its rows.

    Args:
      ranked: Of `ranks`.
      sources: With their labels.
      permuted: Those labels, dealt out anew.
    """
    sums = sources.sums(ranked)
    observed = _aucs(sums, sources, sources.label[None].astype(np.uint8))[0]
    others = _aucs(sums, sources, permuted)
    return np.array([p_value(x, y) for x, y in zip(observed, others.T, strict=True)])


def _aucs(
    sums: Float[np.ndarray, "sources scores"],
    sources: Sources,
    labels: UInt8[np.ndarray, "permutations sources"],
) -> Float[np.ndarray, "permutations scores"]:
    """Returns AUCs less 0.5: of m of N rows, their ranks' sum times N / (m (N - m))."""
    rows = sources.rows.astype(np.float64)
    total, found = rows.sum(), np.empty((len(labels), sums.shape[1]))
    step = max(1, _CHUNK // labels.shape[1])
    for start in range(0, len(labels), step):
        some = labels[start : start + step].astype(np.float64)
        first = some @ rows
        scale = total / (first * (total - first))
        found[start : start + step] = (some @ sums) * scale[:, None]
    return found
