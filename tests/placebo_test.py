"""Whether a score ranks members above beyond what a reference model's does."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from score_tables import table
from vidsme_jax.evaluation import (
    adjusted,
    family_tests,
    metrics,
    placebo,
    ranking,
    validity,
)
from vidsme_jax.evaluation.validity import Procedure


def _drawn(seed=0, n=60, *, hidden=0.0, membership=0.0, scale=1.0):
    """Two models' scores: a clip of its own, a difference of the sets, and noise."""
    rng = np.random.default_rng(seed)
    both = rng.normal(size=2 * n) + np.repeat([hidden, 0.0], n)
    own, other = 0.5 * rng.normal(size=(2, 2 * n))
    seen = np.repeat([membership, 0.0], n)
    role = ["members"] * n + ["nonmembers"] * n
    its = table(both + own + seen, role)
    its.reference["s"] = scale * (both + other)
    return its


def _verdict(its, name="s"):
    evaluation = metrics.evaluate(its, (), 100, 0, its.scores)
    judged = validity.judge(its, evaluation, Procedure(number=199), name)
    return judged["all"]["verdicts"][name]


def test_membership_beyond_the_reference_is_supported():
    found = _verdict(_drawn(membership=1.2))
    assert found["verdict"] == "supported"
    assert found["p_d"] <= 0.05 and found["p_c"] <= 0.001
    assert "if the reference model has seen neither" in found["statement"]


@pytest.mark.long
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_a_difference_that_both_models_show_is_no_membership(scale):
    verdicts = [
        _verdict(_drawn(seed, hidden=1.0, scale=scale))["verdict"] for seed in range(12)
    ]
    assert verdicts.count("supported") <= 2
    assert verdicts.count("shift") >= 9


def test_scales_are_of_no_account():
    found = [_verdict(_drawn(hidden=0.8, scale=scale)) for scale in (0.1, 1.0, 7.0)]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("what", ["constant", "noise", "opposite"])
def test_a_reference_that_says_nothing_is_no_placebo(what):
    its = _drawn(membership=1.2)
    other = its.reference["s"]
    noise = np.random.default_rng(5).normal(size=len(other))
    its.reference["s"] = {"constant": 0 * other, "noise": noise}.get(what, -other)
    found = _verdict(its)
    assert found["verdict"] == "ranks_above_no_placebo" and found["p_c"] > 0.05
    assert "does not rank non-members as the audited one does" in found["statement"]


@pytest.mark.parametrize(("rows", "said"), [(slice(60), True), (slice(60, 120), False)])
def test_non_members_tell_whether_the_reference_says_anything(rows, said):
    its = _drawn(membership=1.2)
    its.reference["s"][rows] = np.random.default_rng(6).normal(size=60)
    assert (_verdict(its)["p_c"] <= 0.05) == said


def test_p_d_is_the_larger_of_the_plain_and_the_adjusted_test():
    plain_larger = 0
    for seed in range(12):
        its = _drawn(seed, 30, membership=0.5)
        its.flow_variance[:] = np.random.default_rng(seed).lognormal(size=60)
        between = family_tests.Traits(its).between(np.arange(30), np.arange(30, 60))
        sources = between.sources
        permuted = sources.permuted(199, 0)
        adjustment = adjusted.Adjustment.of(between.reaching, sources, 0)
        own, theirs = (
            (scipy.stats.rankdata(x) - 30.5) / 60
            for x in (its.scores["s"], its.reference["s"])
        )
        beyond = (own - theirs)[:, None]
        within = adjustment.permuted(199, 0)
        both = [
            ranking.p_values(beyond, sources, permuted)[0],
            adjustment.p_values(sources.means(beyond), within)[0],
        ]
        assert _verdict(its)["p_d"] == max(both)
        plain_larger += both[0] > both[1]
    assert 0 < plain_larger < 12


def test_a_calibrated_score_is_compared_by_what_it_is_made_of():
    its = _drawn(hidden=1.0, scale=0.3)
    its.scores["s_ref"] = its.scores["s"] - its.reference["s"]
    # It ranks members above only because the reference's scale is smaller.
    assert metrics.auc(its.scores["s_ref"][:60], its.scores["s_ref"][60:]) > 0.6
    own, calibrated = _verdict(its), _verdict(its, "s_ref")
    assert calibrated["p_d"] == own["p_d"] > 0.05
    assert calibrated["p_s"] <= 0.05 and calibrated["verdict"] == "shift"


def test_a_score_that_the_reference_lacks_has_no_placebo():
    its = _drawn(membership=1.2)
    its.scores["t"] = its.scores["s"]
    found = _verdict(its, "t")
    assert found["verdict"] == "ranks_above_no_placebo"
    assert found["p_d"] is None and found["p_c"] is None


def test_the_sign_is_the_tables():
    its = _drawn(membership=1.2)
    expected = placebo.pair(its, "s")
    found = placebo.pair(dataclasses.replace(its, larger_is_member=False), "s")
    assert expected is not None and found is not None
    np.testing.assert_array_equal(found, -expected)


def test_the_correlation_is_spearmans():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 1))
    y = 0.3 * x + rng.normal(size=(40, 1))
    kept = np.arange(40) < 25
    found = placebo._unrelated(x, y, kept)
    test = scipy.stats.spearmanr(x[kept, 0], y[kept, 0], alternative="greater")
    assert found == [pytest.approx(tuple(test)[1])]
