"""The bootstrap over videos: many resamples of many scores, in bounded memory.

Axes: `scores`; `members`, `nonmembers`, rows of the two roles; `resamples`; `clusters`,
distinct videos, of which `entries` are the rows with a value of their own.
"""

import concurrent.futures
import functools
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt

from vidsme_jax.arguments import count, require

_CHUNK = 2**20  # Weights held at a time, by a thread of the bootstrap.
_ROWS = 4  # Resamples at a time: they fit the cache of a core.
_THREADS = min(8, os.cpu_count() or 1)


class Resamples(NamedTuple):
    """Values of a statistic over bootstrap resamples."""

    auc: Float[np.ndarray, "scores resamples"]
    accuracy: Float[np.ndarray, "scores resamples"]


def _cluster_weights(
    num_clusters: int, num_resamples: int, rng: np.random.Generator
) -> UInt[np.ndarray, "resamples clusters"]:
    """How often each cluster was drawn, with replacement, in each resample.

    In the narrowest type that holds the counts: what is read in random order later fits
    a core's own cache.
    """
    draws = rng.integers(num_clusters, size=(num_resamples, num_clusters))
    counts = np.stack([np.bincount(row, minlength=num_clusters) for row in draws])
    return counts.astype(np.min_scalar_type(int(counts.max())))


class _Entries(NamedTuple):
    """The rows of one score and role, merged where video and value are the same."""

    values: Float[np.ndarray, " entries"]  # Ascending.
    cluster: Int[np.ndarray, " entries"]
    num_rows: Int[np.ndarray, " entries"]


def _entries(
    values: Float[np.ndarray, " items"], cluster: Int[np.ndarray, " items"]
) -> _Entries:
    order = np.lexsort((cluster, values))
    values, cluster = values[order], cluster[order]
    new = (np.diff(values, prepend=np.nan) != 0) | (np.diff(cluster, prepend=-1) != 0)
    starts = np.flatnonzero(new)
    counts = np.diff(starts, append=len(values))
    return _Entries(values[starts], cluster[starts], counts)


def bootstrap(
    member_scores: Float[np.ndarray, "scores members"],
    nonmember_scores: Float[np.ndarray, "scores nonmembers"],
    member_clusters: Shaped[np.ndarray, " members"],
    nonmember_clusters: Shaped[np.ndarray, " nonmembers"],
    *,
    thresholds: Float[np.ndarray, " scores"],
    num_bootstrap: int,
    seed: int,
) -> Resamples:
    """Resamples videos and recomputes AUC and accuracy at fixed thresholds.

    Drawing videos again is giving each an integer weight. With all rows ranked once,
    a weighted AUC is one cumulative sum over the non-members' weights, read off at the
    members' ranks: O(rows) a resample. All scores see the same resamples, so that
    differences between their values are paired.

    Args:
      member_scores: Finite; larger = member.
      nonmember_scores: Likewise.
      member_clusters: Which video each row shows; a video brings all its rows.
      nonmember_clusters: Likewise; resampled separately.
      thresholds: At or above it a row is called a member; of the accuracy only.
      num_bootstrap: Number of resamples.
      seed: Same seed and same videos, same resamples.

    Raises:
      AuditError: A role has no rows, lengths differ, or a score is not finite.
    """
    count("num_bootstrap", num_bootstrap)
    of_members, of_others = np.shape(member_scores), np.shape(nonmember_scores)
    shapes = of_members, of_others, np.shape(thresholds)
    clusters = len(member_clusters), len(nonmember_clusters)
    require(
        all(len(shape) == 2 for shape in shapes[:2])
        and (of_members[1], of_others[1]) == clusters
        and of_members[:1] == of_others[:1] == shapes[2]
        and min(clusters),
        f"scores and thresholds have shapes {shapes} over {clusters} clusters; they "
        "must be (scores, members), (scores, nonmembers) and (scores,), not empty",
    )
    finite = np.isfinite(member_scores).all() and np.isfinite(nonmember_scores).all()
    require(finite, "some of the scores are not finite; leave out their rows")
    _, members = np.unique(member_clusters, return_inverse=True)
    _, nonmembers = np.unique(nonmember_clusters, return_inverse=True)
    ranked = [
        (_entries(m, members), _entries(n, nonmembers))
        for m, n in zip(member_scores, nonmember_scores, strict=True)
    ]
    called = (
        member_scores >= thresholds[:, None],
        nonmember_scores < thresholds[:, None],
    )
    hits = np.stack([np.bincount(members, weights=c) for c in called[0]])
    passes = np.stack([np.bincount(nonmembers, weights=c) for c in called[1]])
    member_rows = np.bincount(members).astype(float)
    nonmember_rows = np.bincount(nonmembers).astype(float)

    rng = np.random.default_rng(seed)
    aucs = np.empty((len(member_scores), num_bootstrap))
    accuracies = np.empty_like(aucs)
    step = max(1, _CHUNK // max(len(members), len(nonmembers)))
    threads = concurrent.futures.ThreadPoolExecutor(_THREADS)  # NumPy lets them run.
    for start in range(0, num_bootstrap, step):
        chunk = slice(start, min(start + step, num_bootstrap))
        num = chunk.stop - chunk.start
        w_members = _cluster_weights(len(member_rows), num, rng)
        w_nonmembers = _cluster_weights(len(nonmember_rows), num, rng)
        m_total, n_total = w_members @ member_rows, w_nonmembers @ nonmember_rows
        win = functools.partial(
            _weighted_wins, member_weights=w_members, nonmember_weights=w_nonmembers
        )
        wins = threads.map(win, *zip(*ranked, strict=True))
        aucs[:, chunk] = np.stack(list(wins)) / (m_total * n_total)
        tpr, tnr = hits @ w_members.T / m_total, passes @ w_nonmembers.T / n_total
        accuracies[:, chunk] = (tpr + tnr) / 2
    threads.shutdown()
    return Resamples(aucs, accuracies)


def _weighted_wins(
    members: _Entries,
    nonmembers: _Entries,
    member_weights: UInt[np.ndarray, "resamples member_clusters"],
    nonmember_weights: UInt[np.ndarray, "resamples nonmember_clusters"],
) -> Float[np.ndarray, " resamples"]:
    """Weighted pairs where the member is above, ties counting half.

    All that is summed is whole, or half of it, so that no order of summing rounds.
    """
    left = np.searchsorted(nonmembers.values, members.values, side="left")
    right = np.searchsorted(nonmembers.values, members.values, side="right")
    tied = bool((left != right).any())
    wins = np.empty(len(member_weights))
    for start in range(0, len(wins), _ROWS):
        rows = slice(start, start + _ROWS)
        weights = _row_weights(nonmember_weights[rows], nonmembers)
        below = np.zeros((len(weights), weights.shape[1] + 1), np.int64)
        np.cumsum(weights, axis=1, out=below[:, 1:])
        beaten = below.take(left, axis=1)
        if tied:
            beaten = (beaten + below.take(right, axis=1)) / 2
        weights = _row_weights(member_weights[rows], members)
        wins[rows] = np.einsum("re,re->r", weights, beaten, dtype=np.float64)
    return wins


def _row_weights(
    weights: UInt[np.ndarray, "resamples clusters"], entries: _Entries
) -> Shaped[np.ndarray, "resamples entries"]:
    """The weight of each entry: its video's, once for each of its rows."""
    taken = weights.take(entries.cluster, axis=1)
    return taken if entries.num_rows.max() == 1 else taken * entries.num_rows
