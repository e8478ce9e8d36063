"""Verdicts of a table: each reached where its rule says, and worded with numbers."""

import json

import numpy as np
import pytest
import scipy.stats

from score_tables import table
from vidsme_jax.base import AuditError
from vidsme_jax.evaluation import (
    blind,
    family_tests,
    groups,
    metrics,
    ranking,
    sources,
    validity,
)
from vidsme_jax.evaluation.sources import Labels, Sources
from vidsme_jax.evaluation.validity import Procedure

TESTS = Procedure(number=299)


def _table(phi, brightness, role, *, cluster=None, score=None, **more):
    score = np.zeros(len(role)) if score is None else score
    return table(score, role, cluster, phi=phi, brightness=brightness, **more)


def _roles(n, first="members", second="nonmembers"):
    return [first] * n + [second] * n


def _shifted(n=60, *, seed=0, factor=8.0, **kwargs):
    """Members move `factor` times as much as non-members."""
    rng = np.random.default_rng(seed)
    phi = rng.lognormal(0, 1, 2 * n) * np.repeat([factor, 1.0], n)
    return _table(phi, rng.gamma(2, 5, 2 * n), _roles(n), **kwargs)


def _judged(its, headline="s", tests=TESTS, name="all"):
    evaluation = metrics.evaluate(its, (), 100, 0, its.scores)
    result = validity.judge(its, evaluation, tests, headline)
    json.dumps(result, allow_nan=False)
    return result[name] if name else result


def _verdict(its, **kwargs):
    return _judged(its, **kwargs)["verdicts"]["s"]


def _score(auc, n=60, seed=1):
    rng = np.random.default_rng(seed)
    shift = np.sqrt(2) * scipy.stats.norm.ppf(auc)
    return rng.normal(size=2 * n) + np.repeat([shift, 0.0], n)


def test_a_shift_is_found_and_named():
    found = _judged(_shifted(score=_score(0.5)))
    assert found["blind"]["differs"] is True and found["blind"]["p"] <= 0.01
    assert found["blind"]["strongest"] == "motion" and found["blind"]["auc"] > 0.85
    assert found["blind"]["statement"].startswith(
        "Without any model members and non-members differ: motion, AUC 0."
    )
    assert found["roc"]["fpr"][0] == 0 and found["roc"]["tpr"][-1] == 1
    assert found["sources"] == {"members": 60, "nonmembers": 60}


def test_a_matched_corpus_is_not_accused_nor_cleared():
    found = [_judged(_shifted(30, seed=k, factor=1.0)) for k in range(12)]
    assert sum(each["blind"]["differs"] for each in found) <= 3
    clear = next(each["blind"] for each in found if not each["blind"]["differs"])
    assert "That does not show that there is none." in clear["statement"]


def test_chance():
    found = _verdict(_shifted(200, factor=1.0, score=_score(0.45, 200)))
    assert found["verdict"] == "chance" and found["p_s"] > 0.05
    assert "is not distinguishable from chance (AUC 0." in found["statement"]
    assert "an AUC of 0.6 or more is ruled out" in found["statement"]


def test_underpowered():
    found = _verdict(_shifted(25, factor=1.0, score=_score(0.52, 25)))
    assert found["verdict"] == "underpowered"
    assert "too few to rule out an AUC of 0.6" in found["statement"]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_that_is_motion_is_explained_by_shift(sign):
    its = _shifted()
    rng = np.random.default_rng(3)
    its.scores["s"] = sign * (np.log(its.flow_variance) + 0.3 * rng.normal(size=120))
    if sign < 0:
        its = _shifted(score=its.scores["s"], larger_is_member=False)
    found = _verdict(its)
    assert found["verdict"] == "shift" and found["p_s"] <= 0.05
    assert found["blind_auc"] > 0.8
    assert (
        "distribution shift: without any model the sets differ in"
        in (found["statement"])
    )


def test_a_shift_beyond_the_cap_supports_nothing():
    # The score is independent of motion, but motion alone tells the sets apart.
    found = _verdict(_shifted(100, score=_score(0.9, 100)))
    assert found["p_r"] <= 0.05 and found["verdict"] == "shift"
    assert "cannot be separated from distribution shift" in found["statement"]


def test_without_a_reference_model_nothing_is_supported():
    found = _verdict(_shifted(factor=1.0, score=_score(0.85)))
    assert found["verdict"] == "ranks_above_no_placebo" and found["p_d"] is None
    assert "without a reference model" in found["statement"]


def test_a_strict_level_asks_no_less_of_the_sets():
    its = _shifted(20, factor=2.6, score=_score(0.95, 20))
    loose = _judged(its)
    assert 0.005 < loose["blind"]["p"] <= 0.05
    strict = _judged(its, tests=Procedure(alpha=0.005, number=299))
    for found in (loose, strict):
        assert found["blind"]["differs"] is True
        assert found["verdicts"]["s"]["verdict"] == "shift"
    with pytest.raises(AuditError, match="below the smallest p-value of 99"):
        Procedure(alpha=0.005, number=99).check()


def test_below_chance_is_against_the_sign():
    found = _verdict(_shifted(factor=1.0, score=_score(0.1)))
    assert found["verdict"] == "chance"
    assert found["statement"].startswith("ranks members below non-members, against")
    found = _verdict(_shifted(100, factor=1.0, score=_score(0.45, 100)))
    assert found["statement"].startswith("is not distinguishable from chance")


def test_a_difference_of_files_is_in_the_verdict():
    its = _shifted(factor=1.0, score=_score(0.85))
    dates = np.repeat([2023.0, 2025.0], 60)
    its.traits["dates"] = {"date": dates}
    found = _judged(its)["verdicts"]["s"]
    assert found["verdict"] == "ranks_above_no_placebo"
    assert (
        "the files of the two differ, too (date (dates), AUC 1.00)"
        in (found["statement"])
    )


@pytest.mark.long
def test_more_clips_of_a_source_are_no_difference():
    """Nothing differs but that the non-members' sources have ten rows each."""
    p_b, p_s, p_r = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        unit = np.concatenate([np.arange(30), np.repeat(np.arange(30), 10) + 30])
        columns = rng.normal(size=(60, 3))[unit] + rng.normal(size=(330, 3))
        score = rng.normal(size=60)[unit] + rng.normal(size=330)
        role = ["members"] * 30 + ["nonmembers"] * 300
        phi, brightness = rng.lognormal(size=330), rng.gamma(2, 5, 330)
        its = _table(phi, brightness, role, score=score, unit=unit)
        its.traits["pixels"] = dict(zip("abc", columns.T, strict=True))
        found = _judged(its, tests=Procedure(number=99))
        assert found["left_out"].startswith(
            "Tests are of 30 of 30 rows of members and 30 of 300 of non-members"
        )
        verdict = found["verdicts"]["s"]
        for values, name in ((p_b, "p_b"), (p_s, "p_s"), (p_r, "p_r")):
            values.append(verdict[name] <= 0.05)
    assert max(np.mean(p_b), np.mean(p_s), np.mean(p_r)) <= 0.15
    assert _judged(_shifted(factor=1.0))["left_out"] == ""


def test_few_sources_are_not_tested():
    unit = np.repeat(np.arange(38), [2] * 2 + [1] * 36)
    its = _shifted(20, factor=1.0, score=_score(0.95, 20), unit=unit)
    found = _verdict(its)
    assert found["verdict"] == "not_tested"
    assert found["statement"] == (
        "is not tested: 18 sources of members and 20 of non-members; the rules need "
        "20 of each"
    )


def test_clips_that_nobody_looked_at_are_not_tested():
    its = _shifted(factor=1.0, score=_score(0.9))
    for pixels in ({}, {"luminance": np.full(120, np.nan)}):
        its.traits["pixels"] = pixels
        found = _judged(its)
        assert found["verdicts"]["s"]["verdict"] == "not_tested"
        assert found["blind"]["differs"] is None
        assert "is not known" in found["blind"]["statement"]


def test_pixels_are_looked_at_and_containers_apart():
    rng = np.random.default_rng(4)
    warm = rng.normal(size=120) + np.repeat([2.0, 0.0], 60)
    more = {"factor": 1.0, "score": _score(0.8)}
    its = _shifted(pixels={"red": warm, "noise": rng.normal(size=120)}, **more)
    found = _judged(its)
    assert found["blind"]["differs"] and found["apart"] is None
    assert found["blind"]["strongest"] == "red (pixels)"
    assert found["verdicts"]["s"]["verdict"] == "shift"
    assert found["matched"]["pairs"] < 40 and found["matched"]["overlap"] < 1
    its = _shifted(**more)
    codec = np.array(["h264"] * 60 + ["hevc"] * 60, object)
    its.traits["container"] = {"codec": codec}
    found = _judged(its)
    assert not found["blind"]["differs"] and found["apart"]["differs"]
    assert " (container), AUC 1.00" in found["apart"]["statement"]
    assert found["verdicts"]["s"]["verdict"] == "ranks_above_no_placebo"
    assert found["matched"]["pairs"] == 0
    assert "no subset can be compared" in found["matched"]["statement"]


def test_texts_count_where_they_are_scored():
    its = _shifted(30, factor=1.0, score=_score(0.5, 30))
    texts = [f"a ball number {k}" for k in range(30)]
    texts += [f"on the left two large cubes move, clip {k}" for k in range(30)]
    texts = np.array(texts, object)
    more = {"question": np.array([""] * 60, object), "answer": texts}
    apart = table(its.scores["s"], its.role, phi=its.flow_variance, **more)
    found = _judged(apart)
    assert not found["blind"]["differs"] and found["apart"]["differs"]
    more["num_response_rows"] = np.full(60, 4)
    scored = table(its.scores["s"], its.role, phi=its.flow_variance, **more)
    found = _judged(scored)
    assert found["blind"]["differs"] and "answer" in found["blind"]["strongest"]
    assert found["blind"]["families"]["text"] == found["blind"]["p"]


def test_matched_sources_are_alike():
    rng = np.random.default_rng(6)
    its = _shifted(100, factor=3.0, score=_score(0.5, 200)[:200])
    its.scores["s"] = np.log(its.flow_variance) + 0.3 * rng.normal(size=200)
    found = _judged(its)
    whole = found["verdicts"]["s"]
    assert whole["verdict"] == "shift"
    matched = found["matched"]
    assert 30 < matched["pairs"] < 100
    auc = metrics.auc(its.scores["s"][:100], its.scores["s"][100:])
    assert auc > 0.7 > matched["auc"]["value"]
    assert matched["auc"]["low"] < 0.5 < matched["auc"]["high"]
    assert f"{matched['pairs']} pairs of sources" in matched["statement"]
    assert found["roc"]["auc"] > 0.75 and 0.3 < matched["blind_auc"] < 0.65
    assert f"has AUC {matched['blind_auc']:.2f}." in matched["statement"]


def test_a_score_that_is_not_finite_has_no_verdict():
    found = _judged(_shifted(score=np.repeat([np.nan, 0.0], 60)))
    assert found["verdicts"]["s"]["verdict"] == "not_tested"
    assert "of the scores are not finite" in found["verdicts"]["s"]["statement"]


def test_rows_without_a_score_are_left_out_of_its_verdict():
    whole = _shifted(factor=1.0, score=_score(0.8))
    gone = np.isin(np.arange(120), [2, 3, 80])
    whole.scores["t"] = np.where(gone, np.nan, whole.scores["s"])
    found = _judged(whole)["verdicts"]["t"]
    kept = table(
        whole.scores["s"][~gone],
        whole.role[~gone],
        whole.cluster[~gone],
        phi=whole.flow_variance[~gone],
        brightness=whole.brightness_std[~gone],
    )
    alone = _verdict(kept)
    assert {k: found[k] for k in ("p_s", "p_r", "p_b")} == {
        k: alone[k] for k in ("p_s", "p_r", "p_b")
    }


def test_videos_in_both_roles_are_not_tested():
    its = _shifted(factor=1.0, score=_score(0.9))
    its.cluster[70] = its.cluster[3]
    found = _verdict(its)
    assert found["verdict"] == "not_tested"
    assert "member and non-member at once" in found["statement"]


def test_duplicates_are_stated():
    cluster = [f"hash{i}" for i in range(20)]
    cluster[13] = cluster[2]
    found = _judged(_table(range(20), range(20), _roles(10), cluster=cluster))
    assert found["duplicates"] == {
        "count": 1,
        "sources": 0,
        "statement": "1 video is listed both as member and as non-member: the labels "
        "are wrong.",
        "reason": "1 video is member and non-member at once",
        "videos": [{"hash": "hash2", "members": ["id2"], "nonmembers": ["id13"]}],
    }
    assert _judged(_shifted())["duplicates"]["count"] == 0
    # Others are of one source: by name, or as near-duplicates.
    unit = np.arange(20)
    unit[14:16] = 4, 5
    its = _table(range(20), range(20), _roles(10), cluster=cluster, unit=unit)
    found = _judged(its)["duplicates"]
    assert (found["count"], found["sources"], found["reason"]) == (
        1,
        2,
        "1 video is member and non-member at once",
    )
    assert "2 sources have rows among the members and" in found["statement"]
    its = _table(range(20), range(20), _roles(10), unit=unit)
    found = _judged(its)["duplicates"]
    assert found["count"] == 0 and found["reason"] == ""
    assert found["statement"].startswith("2 sources have rows among the members")


@pytest.mark.parametrize(
    ("one", "other", "wrong"),
    [
        ("a#t=0,1", "a#t=1,2", False),
        ("a#t=0,1", "a#t=0.5,", True),
        ("a#t=3,", "b#t=0,3", False),
        ("a", "a#t=0,1", True),
    ],
)
def test_parts_in_both_roles_are_no_wrong_labels(one, other, wrong):
    cluster = [f"hash{i}" for i in range(20)]
    cluster[13] = cluster[2]
    table = _table(range(20), range(20), _roles(10), cluster=cluster)
    table.video[[2, 13]] = one, other
    found = _judged(table)["duplicates"]
    assert found["count"] == 1
    parts = (
        "1 video has some parts among the members and others among the non-members: "
        "parts of one video are not independent."
    )
    assert ("the labels are wrong" in found["statement"]) == wrong
    assert (found["statement"] == parts) != wrong


def test_every_group_is_tested():
    its = _shifted(score=_score(0.5))
    its.group[60:90] = "g"
    found = _judged(its, name="")
    assert list(found) == list(groups.comparisons(its)) == ["all", "g"]
    assert found["g"]["sources"] == {"members": 60, "nonmembers": 30}


def test_ranking_is_a_permutation_of_sources():
    rng = np.random.default_rng(7)
    values, unit = (
        rng.normal(size=14),
        np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 6, 7, 8]),
    )
    of = Sources.of(unit[:7], unit[7:])
    dealt = of.permuted(400, 0)
    p = ranking.p_values(ranking.ranks(values[:, None]), of, dealt)[0]

    def auc(label):
        first = label[of.source].astype(bool)
        return metrics.auc(values[first], values[~first])

    observed = auc(of.label)
    above = sum(auc(each) >= observed - 1e-9 for each in dealt[:])
    assert p == pytest.approx((1 + above) / 401)


def test_labels_are_a_bit_each_and_are_used_in_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    first, others = (rng.random((rows, 19)) < 0.4 for rows in (1, 10))
    labels = Labels.of(first).before(Labels.of(others))
    every = np.concatenate([first, others]).astype(np.uint8)
    assert np.array_equal(labels[:], every) and labels.bits.nbytes == 11 * 3
    assert np.array_equal(labels[3:5], every[3:5])
    monkeypatch.setattr(sources, "_CHUNK", 4 * 19 + 3)
    chunks = list(labels.chunks())
    assert [rows for rows, _ in chunks] == [slice(0, 4), slice(4, 8), slice(8, 11)]
    assert np.array_equal(np.concatenate([some for _, some in chunks]), every)


def test_numbers_out_of_range_are_refused():
    its = _shifted(factor=1.0)
    for wrong in (Procedure(alpha=1.0), Procedure(smallest=0.5), Procedure(number=0)):
        with pytest.raises(Exception, match="must be"):
            _judged(its, tests=wrong)


def test_traits_of_units_are_means():
    its = _shifted(20, factor=1.0, unit=np.repeat(np.arange(20), 2))
    between = family_tests.Traits(its).between(np.arange(20), np.arange(20, 40))
    assert between.sources.counts == (10, 10)
    (motion,) = between.reaching
    means = np.log1p(its.flow_variance).reshape(20, 2).mean(axis=1)
    expected = (means - means.mean()) / means.std()
    np.testing.assert_allclose(motion.values[:, 0], expected)
    assert blind.auc(expected, between.sources) == metrics.auc(means[:10], means[10:])


def test_what_cannot_be_compared_has_a_sentence():
    rng = np.random.default_rng(8)
    equal = _verdict(_table(np.ones(60), np.ones(60), _roles(30), score=np.ones(60)))
    assert equal["statement"] == "is not tested: all of its values are equal"
    unit = np.zeros(60, int)
    one = _verdict(_shifted(30, factor=1.0, unit=unit, score=_score(0.9, 30)))
    assert one["statement"].startswith("is not tested: 1 source of members and 1 of")
    names = [f"g{k}" for k in range(60)]
    many = _shifted(30, factor=1.0, group=names, unit=np.arange(60) // 3)
    many.scores["s"] = rng.normal(size=60)
    told = groups.summary(many)["statement"]
    assert told == (
        "30 groups of non-members are of 10 sources: groups that share a source are "
        "not independent"
    )
    assert not groups.summary(_shifted(factor=1.0))["statement"]
