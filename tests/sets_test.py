"""Sets of suspects: found as a whole long before any one of them is listed."""

import itertools

import numpy as np
import pytest
import scipy.stats

from vidsme_jax.evaluation import sets
from vidsme_jax.evaluation.sources import Sources


def _sources(suspects, calibration, rows=1):
    unit = np.arange(suspects + calibration) // rows
    return Sources.of(unit[:suspects], unit[suspects:])


def test_a_catalogue_that_was_used_as_a_whole_is_found():
    rng = np.random.default_rng(0)
    shift = np.sqrt(2) * scipy.stats.norm.ppf(0.65)
    of = _sources(100, 100)
    found = 0
    for seed in range(40):
        scores = rng.normal(size=200) + np.repeat([shift, 0], 100)
        found += sets.p_of_set(scores, of, 299, seed) <= 0.05
    assert found >= 37


@pytest.mark.parametrize("rows", [1, 5])
def test_the_level_is_kept(rows):
    rng = np.random.default_rng(1)
    of, p = _sources(50, 100, rows), []
    for seed in range(150):
        shared = np.repeat(rng.normal(size=150 // rows), rows)
        p.append(sets.p_of_set(shared + rng.normal(size=150), of, 199, seed))
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)


def test_groups_are_tested_each_and_adjusted_by_holm():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=120) + np.repeat([2.0, 0.0, 0.0], 40)
    group = np.array(["used"] * 40 + ["other"] * 40 + [""] * 40, object)
    found = sets.by_group(scores, group, np.arange(120), 80, 999, 0)
    assert [each["group"] for each in found] == ["other", "used"]
    other, used = found
    assert used["p"] == 0.001 and used["adjusted_p"] == 0.002
    assert other["adjusted_p"] == pytest.approx(other["p"]) and other["p"] > 0.05
    assert used["videos"] == used["sources"] == 40
    assert (
        sets.by_group(scores, np.full(120, "a", object), np.arange(120), 80, 99, 0)
        == []
    )
    assert sets.holm([]) == [] and sets.holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_curve_falls_with_the_number_of_videos():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=160) + np.repeat([0.8, 0], [60, 100])
    found = sets.curve(scores, np.arange(160), 60, 0.002, 499, 0)
    assert [each["videos"] for each in found] == [1, 2, 5, 10, 20, 50, 60]
    assert found[-1]["p"] == 0.002 < 0.1 < found[0]["p"]


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_curve_is_smooth_and_ends_with_the_set(rows, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=130) + np.repeat([1.0, 0], [30, 100])
    scores[:50] = rng.permutation(scores[:50])
    units = np.arange(130) // rows
    p = sets.p_of_set(scores, Sources.of(units[:50], units[50:]), 1999, seed)
    found = [each["p"] for each in sets.curve(scores, units, 50, p, 1999, seed)]
    assert found[-1] == p and min(found) >= 1 / 2000
    assert found[0] >= 1 / (1 + 80 // rows)
    for before, after in itertools.pairwise(found):
        assert after <= 1.3 * before + 0.002


def test_the_p_of_a_subset_is_that_of_all_labellings(monkeypatch):
    """Also where it takes many, and where sources have several rows each."""
    rng = np.random.default_rng(5)
    for size, units in (
        (1, np.arange(40)),
        (2, np.arange(40)),
        (6, np.arange(26) // 2),
        (4, np.arange(26)),
    ):
        scores = rng.normal(size=len(units)) + (np.arange(len(units)) < size)
        its = sets.Subset.of(scores, units, size, np.arange(size))
        label = its.sources.label
        ranked = scipy.stats.rankdata(scores)
        aucs = []
        for some in itertools.combinations(range(len(label)), int(label.sum())):
            chosen = np.isin(its.sources.source, some)
            aucs.append(ranked[chosen].mean() - ranked[~chosen].mean())
        own = ranked[:size].mean() - ranked[size:].mean()
        exact = np.mean(np.array(aucs) >= own - 1e-9)
        (p,) = sets.p_of_subsets([its], 1999, rng)
        assert p == pytest.approx(exact)
        with monkeypatch.context() as patch:
            patch.setattr(sets, "_EXACT", 0)
            sampled = sets.p_of_subsets([its] * 100, 1999, rng)
        assert np.mean(sampled) == pytest.approx(exact, rel=0.1, abs=0.003)


def test_dataset_inference():
    rng = np.random.default_rng(4)
    of, p, found = _sources(40, 40), [], []
    for seed in range(120):
        columns = {name: rng.normal(size=80) for name in "abcdefgh"}
        p.append(sets.dataset_inference(columns, of, seed)["p"])
        columns["c"] = columns["c"] + np.repeat([1.3, 0], 40)
        found.append(sets.dataset_inference(columns, of, seed)["p"])
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)
    assert np.mean(np.array(found) <= 0.05) > 0.8
    assert sets.dataset_inference(columns, _sources(9, 71), 0) is None
    assert sets.dataset_inference({"a": np.ones(80)}, of, 0) is None
    result = sets.dataset_inference(columns, of, 0)
    assert result["sources"] == [20, 20] and result["scores"] == 8


def test_groups_whose_sources_have_fewer_rows_keep_the_level():
    found = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        of = np.concatenate([np.arange(20), 20 + np.arange(20).repeat(10)])
        of = np.concatenate([of, 40 + np.arange(100).repeat(10)])
        scores = np.sqrt(0.1) * rng.normal(size=140)[of]
        scores += np.sqrt(0.9) * rng.normal(size=len(of))
        group = np.where(np.arange(len(of)) < 20, "single", "ten")
        both = sets.by_group(scores, group, of, 220, 99, seed)
        assert [x["group"] for x in both] == ["single", "ten"]
        assert [x["sources"] for x in both] == [20, 20]
        found.append(both[0]["p"] <= 0.05)
    assert np.mean(found) <= 0.1
