"""Intervals of the AUC over sources: against DeLong's formula and by simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from vidsme_jax.evaluation import clustered, intervals


def _drawn(rng, auc, sources, rows, ties=False):
    """Scores of two roles whose rows of a source correlate by 0.5."""
    shift = np.sqrt(2) * scipy.stats.norm.ppf(auc)

    def role(mean):
        shared = rng.normal(size=(sources, 1)) * np.sqrt(0.5 if rows > 1 else 0)
        own = rng.normal(size=(sources, rows)) * np.sqrt(0.5 if rows > 1 else 1)
        values = (shared + own + mean).ravel()
        return np.round(values) if ties else values

    return role(shift), role(0.0), np.repeat(np.arange(sources), rows)


def _influences(members, nonmembers, unit, other):
    return clustered.influences(members[None], nonmembers[None], unit, other)


def _truth(auc, ties):
    """The AUC of rounded scores."""
    if not ties:
        return auc
    shift, at = np.sqrt(2) * scipy.stats.norm.ppf(auc), np.arange(-15, 15)
    share = [
        scipy.stats.norm.cdf(at + 0.5 - mean) - scipy.stats.norm.cdf(at - 0.5 - mean)
        for mean in (shift, 0)
    ]
    below = np.cumsum(share[1]) - share[1] / 2
    return float(share[0] @ below)


def test_one_row_a_source_is_delong():
    rng = np.random.default_rng(0)
    m, n = rng.integers(2, 9, 13).astype(float), rng.integers(0, 8, 17).astype(float)
    found = _influences(m, n, np.arange(13), np.arange(17) + 13)
    psi = (m[:, None] > n) + (m[:, None] == n) / 2
    rows, columns = psi.mean(axis=1), psi.mean(axis=0)
    expected = rows.var(ddof=1) / 13 + columns.var(ddof=1) / 17
    assert found.auc[0] == pytest.approx(psi.mean())
    assert found.variance[0] == pytest.approx(expected)


def test_a_source_in_both_roles_is_obuchowskis_covariance():
    rng = np.random.default_rng(1)
    m, n, unit = _drawn(rng, 0.7, 12, 3)
    apart = _influences(m, n, unit, unit + 12).variance[0]
    found = _influences(m, n, unit, unit)
    psi = (m[:, None] > n) + (m[:, None] == n) / 2
    a = np.bincount(unit, psi.mean(axis=1) - psi.mean()) / 36
    b = np.bincount(unit, psi.mean(axis=0) - psi.mean()) / 36
    assert found.variance[0] == pytest.approx(apart + 2 * 12 / 11 * (a @ b))
    # What both have in common cancels in the AUC.
    same = rng.normal(size=(12, 1))
    m, n = (same + 0.1 * rng.normal(size=(12, 3)) for _ in range(2))
    found = _influences(m.ravel(), n.ravel(), unit, unit)
    apart = _influences(m.ravel(), n.ravel(), unit, unit + 12)
    assert found.variance[0] < 0.3 * apart.variance[0]


@pytest.mark.parametrize("sources", [10, 30])
@pytest.mark.parametrize("rows", [1, 5])
def test_intervals_hold_the_truth(sources, rows):
    rng = np.random.default_rng(2)
    for auc, ties in itertools.product((0.5, 0.9, 0.99), (False, True)):
        held, number = 0, 120
        for _ in range(number):
            m, n, unit = _drawn(rng, auc, sources, rows, ties)
            low, high = _influences(m, n, unit, unit + sources).interval(0)
            assert 0 <= low <= high <= 1
            held += low <= _truth(auc, ties) <= high
        assert held / number > 0.88, (auc, ties)
        if auc == 0.5:
            assert held / number < 0.995


def test_rows_of_one_source_do_not_narrow_the_interval():
    rng = np.random.default_rng(3)
    m, n = rng.normal(0.5, 1, 60), rng.normal(0, 1, 60)
    unit = np.repeat(np.arange(60), 9)
    few = _influences(m, n, np.arange(60), np.arange(60) + 60).interval(0)
    many = [np.repeat(each, 9) for each in (m, n)]
    same = _influences(*many, unit, unit + 60).interval(0)
    assert same == pytest.approx(few, abs=1e-3)
    narrow = _influences(*many, np.arange(540), np.arange(540) + 540).interval(0)
    assert 2.5 < (same[1] - same[0]) / (narrow[1] - narrow[0]) < 3.5


def test_perfect_separation_is_no_certainty():
    found = _influences(np.arange(5.0) + 9, np.arange(5.0), np.arange(5), np.arange(5))
    low, high = found.interval(0)
    assert 0.4 < low < 0.8 and high == 1
    one = _influences(np.ones(3), np.zeros(1), np.zeros(3, int), np.ones(1, int))
    assert one.interval(0) == (0.0, 1.0)


def test_the_tprs_interval_counts_that_the_threshold_was_found():
    rng = np.random.default_rng(4)
    held = {"both": 0, "found": 0}
    truth = scipy.stats.norm.sf(scipy.stats.norm.isf(0.1) - 1.5)
    for _ in range(150):
        m, n = rng.normal(1.5, 1, 60), rng.normal(0, 1, 60)
        low, high = intervals.rate_at_quantile(m, n, (60, 60), 0.1)
        held["both"] += low <= truth <= high
        threshold = np.sort(n)[-7]
        low, high = intervals.clopper_pearson(float((m > threshold).mean()), 60)
        held["found"] += low <= truth <= high
    assert held["both"] / 150 > 0.95 > 0.9 > held["found"] / 150


def test_the_tprs_interval_is_that_of_a_plain_loop():
    """Both ends: the threshold's order statistics, then the rate above each of them."""
    m, n = np.arange(100) * 0.31, np.arange(60) * 0.5

    def last_unlikely(tail):  # Non-members above the threshold, of 60 at 10 %.
        total = 0.0
        for k in range(61):
            total += math.comb(60, k) * 0.1**k * 0.9 ** (60 - k)
            if total >= tail:
                return k
        raise AssertionError

    ranked = sorted(n, reverse=True)
    above = [
        sum(each > ranked[k] for each in m)
        for k in (last_unlikely(0.0125) - 1, last_unlikely(0.9875))
    ]
    beta = scipy.stats.beta
    assert intervals.rate_at_quantile(m, n, (100, 60), 0.1) == pytest.approx(
        (
            beta.ppf(0.0125, above[0], 101 - above[0]),
            beta.ppf(0.9875, above[1] + 1, 100 - above[1]),
        )
    )


def test_the_tprs_interval_with_ties():
    rng = np.random.default_rng(6)
    # Of 0 to 4, one non-member in five is each; none may be above the threshold, 4.
    held = 0
    for _ in range(100):
        m, n = rng.integers(2, 6, 100), rng.integers(0, 5, 100)
        low, high = intervals.rate_at_quantile(
            m.astype(float), n.astype(float), (100, 100), 0.1
        )
        held += low <= 0.25 <= high
    assert held >= 95


def test_adjusted_p_values_are_those_of_the_largest():
    rng = np.random.default_rng(5)
    unit = np.arange(40)
    level = []
    for seed in range(80):
        x = rng.normal(size=(6, 40)) + rng.normal(size=40)
        found = clustered.influences(x[:, :20], x[:, 20:], unit[:20], unit[20:])
        level.append(clustered.adjusted([found], 400, seed)[0].min() <= 0.05)
    assert np.mean(level) <= 0.1
    # Equal columns count once; independent ones each.
    x = rng.normal(size=(1, 40)) + (unit < 20)
    one = clustered.influences(x[:, :20], x[:, 20:], unit[:20], unit[20:])
    p = clustered.adjusted([one], 2000, 0)[0][0]
    assert clustered.adjusted([one, one], 2000, 0)[1][0] == p
    noise = rng.normal(size=(50, 40))
    more = clustered.influences(noise[:, :20], noise[:, 20:], unit[:20], unit[20:])
    assert clustered.adjusted([one, more], 2000, 0)[0][0] > 5 * p


def test_the_interval_is_no_narrower_than_that_of_independent_clips():
    """Near 1 the sources' own variance is often far too small."""
    # One clip of each source but one is below a fifth of the non-members.
    n = np.arange(100.0) % 5
    m = np.where((n == 0) & (np.arange(100) > 0), 3.5, 10.0)
    unit = np.arange(100) // 5
    found = _influences(m, n, unit, unit + 20)
    low, high = found.interval(0)
    least = np.sqrt(clustered.hanley_mcneil(np.array([low]), 100, 100)[0])
    assert found.auc[0] < 1 and (found.auc[0] - low) / least > 1.95
    assert low < found.auc[0] < high
