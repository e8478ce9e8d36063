"""Ranks against a plain loop, Fisher against SciPy, uniform under the null."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from vidsme_jax.canary import key, ranks


def _set(chosen, files, name="a"):
    return key.CanarySet(
        name=name,
        clip="",
        chosen=chosen,
        files=tuple(files),
        frames=8,
        strength=2.0,
        crf=12,
        psnr=40.0,
        survival={},
    )


def _plain(scores, chosen):
    if scores[chosen] is None:
        return len(scores)
    above = 1
    for place, score in enumerate(scores):
        if place != chosen and (score is None or score >= scores[chosen]):
            above += 1
    return above


def test_ranks_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(300):
        number = int(rng.integers(2, 9))
        scores = [
            None if rng.random() < 0.15 else float(rng.integers(0, 4))
            for _ in range(number)
        ]
        chosen = int(rng.integers(number))
        given = np.array([np.nan if x is None else x for x in scores])
        assert ranks.rank(given, chosen) == _plain(scores, chosen)


def test_ties_and_what_is_missing_count_against():
    assert ranks.rank(np.array([1.0, 1.0, 1.0, 1.0]), 2) == 4
    assert ranks.rank(np.array([1.0, np.nan, 3.0, 2.0]), 2) == 2
    assert ranks.rank(np.array([1.0, 0.0, np.nan, 2.0]), 2) == 4
    assert ranks.rank(np.array([1.0, np.inf, -np.inf, 2.0]), 1) == 1


def test_fisher_s_law_is_that_of_all_ranks():
    """Counted over all that three small sets can give."""
    sizes = [4, 5, 6]
    every = list(itertools.product(*(range(1, n + 1) for n in sizes)))
    sums = [-sum(math.log(r / n) for r, n in zip(x, sizes, strict=True)) for x in every]
    for ranks_, own in list(zip(every, sums, strict=True))[::7]:
        expected = np.mean([other >= own - 1e-9 for other in sums])
        found = ranks.fisher(list(ranks_), sizes)
        assert found == pytest.approx(expected, abs=1e-9)
    assert ranks.fisher([1, 1, 1], sizes) == pytest.approx(1 / 120)
    assert ranks.fisher([4, 5, 6], sizes) == 1.0


def test_fisher_is_that_of_scipy_where_ranks_are_many_and_never_above():
    rng = np.random.default_rng(1)
    for number, size, near in ((1, 5000, 2e-3), (3, 5000, 0.01), (20, 64, 1.0)):
        drawn = rng.integers(1, size + 1, number).tolist()
        theirs = stats.combine_pvalues([r / size for r in drawn]).pvalue
        found = ranks.fisher(drawn, [size] * number)
        assert found <= theirs + 1e-9
        assert found == pytest.approx(theirs, rel=near)
    tiny = ranks.fisher([1] * 20, [64] * 20)
    assert tiny == pytest.approx(stats.chi2.sf(40 * math.log(64), 40), rel=1e-9)


def test_planted_variants_have_the_least_p():
    sets = [_set(3, [f"{name}{k}" for k in range(16)], name) for name in "abc"]
    scores = {file: float(file in {"a3", "b3", "c3"}) for x in sets for file in x.files}
    found = ranks.test(sets, scores)
    assert [each.p for each in found] == [1 / 16] * 3
    assert [each.adjusted_p for each in found] == pytest.approx([3 / 16] * 3)
    del scores["a3"], scores["b5"]
    found = ranks.test(sets, scores)
    assert [each.p for each in found] == [1.0, 2 / 16, 1 / 16]
    assert [each.missing for each in found] == [1, 1, 0]


@pytest.mark.parametrize("ties", [False, True])
def test_p_is_uniform_where_the_model_knows_nothing(ties):
    """8,000 sets of 64: any scores at all, a choice that is independent of them."""
    rng = np.random.default_rng(2)
    p_values = []
    for _ in range(8000):
        scores = rng.standard_gamma(0.3, 64) * rng.normal()
        scores = np.round(scores, 1) if ties else scores
        p_values.append(ranks.rank(scores, int(rng.integers(64))) / 64)
    p_values = np.array(p_values)
    for level in (1 / 64, 0.05, 0.25, 0.5, 0.9):
        most = np.floor(64 * level) / 64
        found = np.mean(p_values <= level)
        assert found < most + 4 * np.sqrt(most * (1 - most) / 8000)
        if not ties:
            assert found > most - 4 * np.sqrt(most * (1 - most) / 8000)
    if not ties:
        counts = np.bincount(np.rint(64 * p_values).astype(int), minlength=65)[1:]
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("sizes", [[64] * 20, [8] * 12, [64, 16, 100, 7, 31]])
def test_fisher_s_p_is_uniform_where_the_model_knows_nothing(sizes):
    rng = np.random.default_rng(3)
    drawn = [[int(rng.integers(1, n + 1)) for n in sizes] for _ in range(400)]
    found = [ranks.fisher(each, sizes) for each in drawn]
    assert stats.kstest(found, "uniform").pvalue > 0.01
