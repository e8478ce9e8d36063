"""Tests whether scores rank members above non-members by permutation of sources.

Axes: `items`, rows of both roles; `sources`; `scores`; `permutations`.
"""

import numpy as np
import scipy.stats
from jaxtyping import Float

from vidsme_jax.evaluation.sources import Labels, Sources, p_value


def ranks(
    values: Float[np.ndarray, "items scores"],
) -> Float[np.ndarray, "items scores"]:
    """Returns ranks from -0.5 to 0.5 of each score, ties together.

    Example:
      >>> ranks(np.array([[3.0], [1.0], [1.0], [2.0]])).ravel().tolist()
      [0.375, -0.25, -0.25, 0.125]
    """
    found = scipy.stats.rankdata(values, axis=0).reshape(values.shape)
    return (found - (len(values) + 1) / 2) / len(values)


def p_values(
    ranked: Float[np.ndarray, "items scores"],
    sources: Sources,
    permuted: Labels,
) -> Float[np.ndarray, " scores"]:
    """Returns one-sided p-values that the first role ranks above the second.

    The statistic is the AUC over rows; all rows of a source have its label.

    Args:
      ranked: The result of `ranks`.
      sources: The sources, with their labels.
      permuted: Permutations of the labels.
    """
    sums = sources.sums(ranked)
    observed = _aucs(sums, sources, Labels.of(sources.label[None]))[0]
    others = _aucs(sums, sources, permuted)
    return np.array([p_value(x, y) for x, y in zip(observed, others.T, strict=True)])


def _aucs(
    sums: Float[np.ndarray, "sources scores"],
    sources: Sources,
    labels: Labels,
) -> Float[np.ndarray, "permutations scores"]:
    """Returns AUCs less 0.5: the sum of ranks of m of N rows times N / (m (N - m))."""
    rows = sources.rows.astype(np.float64)
    total, found = rows.sum(), np.empty((len(labels), sums.shape[1]))
    for some, label in labels.chunks():
        first = label @ rows
        scale = total / (first * (total - first))
        found[some] = (label @ sums) * scale[:, None]
    return found
