"""The p of random subsets of sources, against all labellings in a plain loop."""

import itertools
import time

import numpy as np
import pytest

from score_tables import table
from vidsme_jax.evaluation import growth, metrics, sets, validity
from vidsme_jax.evaluation.sources import Sources

RNG = np.random.default_rng(3)


def _exact(scores, unit, label):
    """One-sided p over all ways to choose which units are members, in plain loops."""
    units = sorted(set(zip(label, unit, strict=True)), key=lambda each: not each[0])
    first = sum(is_member for is_member, _ in units)

    def auc(chosen):
        pairs = [
            (x > y) + 0.5 * (x == y)
            for x, a in zip(scores, zip(label, unit, strict=True), strict=True)
            if a in chosen
            for y, b in zip(scores, zip(label, unit, strict=True), strict=True)
            if b not in chosen
        ]
        return sum(pairs) / len(pairs)

    own = auc(set(units[:first]))
    every = [auc(set(some)) for some in itertools.combinations(units, first)]
    return sum(each >= own - 1e-9 for each in every) / len(every)


def test_a_subset_has_the_p_of_all_labellings():
    unit = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4, 5])
    label = np.arange(10) < 6
    scores = np.round(RNG.normal(0, 1, 10) + 0.8 * label, 1)
    sources = Sources.of(unit[:6], unit[6:])
    assert sources.counts == (3, 3)
    (p,) = sets.p_of_subsets(
        [sets.Subset.of(scores, unit, 6, np.arange(6))], 999, np.random.default_rng(0)
    )
    assert p == pytest.approx(_exact(scores, unit, label), abs=1e-12)
    # One point of a curve is the median of such subsets, each with all rows of its own.
    found = growth.growth(scores, sources, 0.5, 0.05, 1999, 0)
    expected = [
        _exact(scores[kept], unit[kept], label[kept])
        for pair in itertools.product(
            itertools.combinations(range(3), 2), itertools.combinations(range(3, 6), 2)
        )
        for kept in [np.isin(unit, np.concatenate(pair))]
    ]
    assert found["curve"][0]["members"] == found["curve"][0]["nonmembers"] == 2
    assert min(expected) <= found["curve"][0]["p"] <= max(expected)
    drawn = np.random.default_rng([0, 7])
    medians = []
    for _ in range(sets.SUBSETS):
        rank = growth._ranks(drawn, sources)
        kept = rank[sources.source] < 2
        medians.append(_exact(scores[kept], unit[kept], label[kept]))
    assert found["curve"][0]["p"] == pytest.approx(np.median(medians), abs=1e-12)


def test_p_falls_with_the_number_of_sources_and_ends_with_that_of_all():
    unit = np.arange(160)
    scores = RNG.normal(0, 1, 160) + 1.0 * (unit < 60)
    sources = Sources.of(unit[:60], unit[60:])
    found = growth.growth(scores, sources, 0.0005, 0.05, 1999, 0)
    sizes = [(each["members"], each["nonmembers"]) for each in found["curve"]]
    assert sizes == [(2, 2), (5, 5), (10, 10), (20, 20), (50, 50), (60, 100)]
    p = [each["p"] for each in found["curve"]]
    assert p[-1] == 0.0005 and p[0] > 0.1 and p[-2] < 0.01
    assert all(x >= 0.9 * y for x, y in itertools.pairwise(p))
    assert found["enough"] in (10, 20)
    assert f"half of the random subsets of {found['enough']} or" in found["statement"]
    again = growth.growth(scores, sources, 0.0005, 0.05, 1999, 0)
    assert again == found


def test_of_equal_sets_the_median_is_in_the_middle_and_nothing_is_enough():
    unit = np.arange(400)
    sources = Sources.of(unit[:200], unit[200:])
    scores = np.random.default_rng(5).normal(size=400)
    found = growth.growth(scores, sources, 0.4, 0.05, 999, 1)
    assert all(0.15 < each["p"] < 0.85 for each in found["curve"])
    assert found["enough"] is None and "are not found" in found["statement"]


def test_the_words_where_only_all_sources_find_it():
    curve = [{"members": 2, "nonmembers": 2, "p": 0.5}]
    curve.append({"members": 9, "nonmembers": 12, "p": 0.04})
    enough = growth._enough(curve, 0.05)
    assert enough == 9
    said = growth._statement(curve, enough, 0.05)
    assert "9 sources of members and 12 of non-members (p = 0.040), but in" in said
    alone = growth._statement(curve[1:], enough, 0.05)
    assert "subsets" not in alone and "p = 0.040" in alone


def test_judge_follows_the_headline_of_the_largest_comparisons():
    number = 30
    role = ["members"] * number + ["nonmembers"] * 8 * number
    group = [""] * number + [f"g{k // number}" for k in range(8 * number)]
    its = table(RNG.normal(size=9 * number), role, group=group)
    its.scores["s"][:5] += 3
    evaluation = metrics.evaluate(its, (0.05,), 100, 0)
    tests = validity.Procedure(number=99)
    judged = validity.judge(its, evaluation, tests, "s")
    have = [name for name, each in judged.items() if each["growth"]]
    assert len(judged) == 9 and len(have) == growth.MOST and "all" in have
    for name in have:
        last = judged[name]["growth"]["curve"][-1]
        assert last["p"] == judged[name]["verdicts"]["s"]["p_s"]
        assert last["members"] == judged[name]["sources"]["members"]
    judged = validity.judge(its, evaluation, tests)
    assert all(each["growth"] is None for each in judged.values())


def test_a_hundred_thousand_rows_take_seconds():
    unit = np.arange(100_000)
    scores = RNG.normal(size=100_000)
    sources = Sources.of(unit[:50_000], unit[50_000:])
    begun = time.process_time()
    found = growth.growth(scores, sources, 0.4, 0.05, 1999, 0)
    assert [x["members"] for x in found["curve"][-2:]] == [1000, 50_000]
    assert time.process_time() - begun < 20
