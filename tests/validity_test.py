"""The blind baseline finds a shift where there is one, and says so in words."""

import json

import numpy as np
import pytest

from score_tables import table
from vidsme_jax.evaluation import groups, metrics, validity, verdicts


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


def _blind(table, **kwargs):
    result = validity.blind_baseline(table, 300, 0, **kwargs)
    json.dumps(result, allow_nan=False)
    return result["comparisons"].get("all")


def test_a_shift_is_found_and_named():
    blind = _blind(_shifted())
    assert blind["separates"] is True
    fitted = blind["cross_fitted"]
    assert 0.8 < fitted["low"] < fitted["value"] < fitted["high"] < 1
    assert blind["motion"]["direction"] == "members move more"
    assert blind["brightness"]["low"] < 0.5
    shown = f"AUC {fitted['value']:.2f} [{fitted['low']:.2f}, {fitted['high']:.2f}]"
    assert blind["statement"] == (
        "Motion and brightness alone, without any model, separate members from "
        f"non-members with {shown}: a score computed from q and r cannot be read as "
        "evidence of membership here."
    )
    assert blind["roc"]["fpr"][0] == 0 and blind["roc"]["tpr"][-1] == 1


def test_the_direction_is_told():
    blind = _blind(_shifted(factor=1 / 8))
    assert blind["motion"]["value"] > 0.8
    assert blind["motion"]["low"] < blind["motion"]["value"] < blind["motion"]["high"]
    assert blind["motion"]["direction"] == "members move less"


def test_a_difference_in_spread_is_found():
    rng = np.random.default_rng(1)
    scale = np.repeat([1.5, 0.2], 80)
    table = _table(np.exp(1 + scale * rng.normal(size=160)), np.ones(160), _roles(80))
    blind = _blind(table)
    assert blind["separates"] and blind["cross_fitted"]["value"] > 0.8
    assert blind["motion"]["low"] < 0.55


def test_a_matched_corpus_is_not_accused():
    """Nor cleared: absence of evidence is called just that."""
    blind = _blind(_shifted(factor=1.0))
    assert blind["separates"] is False
    assert blind["statement"].startswith(
        "No shift in motion or brightness between members and non-members was found at "
        "this sample size (AUC 0."
    )
    assert "does not prove there is none" in blind["statement"]
    alarms = [_blind(_shifted(30, seed=i, factor=1.0))["separates"] for i in range(12)]
    assert sum(alarms) <= 4


def test_the_classifier_never_sees_the_video_it_judges():
    """Each video twice, features of pure noise: a leak would give an AUC near 1."""
    rng = np.random.default_rng(2)
    phi, brightness = rng.lognormal(size=40), rng.gamma(2, 5, 40)
    cluster = [f"hash{i}" for i in range(40) for _ in range(2)]
    table = _table(
        np.repeat(phi, 2), np.repeat(brightness, 2), np.repeat(_roles(20), 2)[:80],
        cluster=cluster,
    )  # fmt: skip
    once = _blind(_table(phi, brightness, _roles(20)))["cross_fitted"]
    twice = _blind(table)["cross_fitted"]
    assert twice["value"] == pytest.approx(once["value"], abs=0.1)
    assert twice["high"] - twice["low"] == pytest.approx(
        once["high"] - once["low"], 0.3
    )


def test_a_video_in_both_roles_stays_in_one_fold():
    rng = np.random.default_rng(5)
    phi, brightness = rng.lognormal(size=20), rng.gamma(2, 5, 20)
    cluster = [f"hash{i}" for i in range(20)] * 2
    table = _table(np.tile(phi, 2), np.tile(brightness, 2), _roles(20), cluster=cluster)
    assert _blind(table)["cross_fitted"]["value"] == 0.5


def test_too_few_videos_are_not_tested():
    cluster = [f"m{i}" for i in range(10)] + ["n0"] * 6 + ["n1", "n2", "n3", "n3"]
    blind = _blind(_table(range(20), range(20), _roles(10), cluster=cluster))
    assert blind["separates"] is None
    assert blind["statement"].endswith("that needs at least 5 videos of each.")
    assert blind["verdicts"]["s"]["verdict"] == "not tested"


@pytest.mark.parametrize(
    "strength, verdict",
    [(0.0, "invalid: shift"), (30.0, "confounded: shift")],
)
def test_verdict_under_a_shift(strength, verdict):
    rng = np.random.default_rng(3)
    score = rng.normal(size=120) + np.repeat([strength, 0.0], 60)
    for sign in (1, -1):
        table = _shifted(score=sign * score, larger_is_member=sign == 1)
        assert _blind(table)["verdicts"]["s"]["verdict"] == verdict


def test_verdict_takes_the_strongest_blind_result():
    def result(name, value):
        return {"name": name, "value": value, "low": 0.6, "high": 0.9}

    blind = {
        "separates": True,
        "cross_fitted": result("motion and brightness", 0.7),
        "motion": result("motion", 0.8),
        "brightness": result("changes of brightness", 0.65),
    }
    verdict = verdicts.of_score(blind, 0.75)
    assert verdict["verdict"] == "invalid: shift"
    assert (
        "AUC 0.75, and AUC 0.80 [0.60, 0.90] from motion alone"
        in (verdict["statement"])
    )
    assert verdicts.of_score(blind, 0.8)["verdict"] == "invalid: shift"
    assert verdicts.of_score(blind, 0.81)["verdict"] == "confounded: shift"


def test_a_score_that_is_not_finite_has_no_verdict():
    table = _shifted(score=np.repeat([np.nan, 0.0], 60))
    blind = _blind(table, headline="s")
    assert blind["verdicts"]["s"]["verdict"] == "no result"
    assert blind["headline_minus_blind"] is None


def test_verdict_without_a_shift_promises_nothing():
    table = _shifted(factor=1.0, score=np.repeat([1.0, 0.0], 60))
    verdict = _blind(table)["verdicts"]["s"]
    assert verdict["verdict"] == "not shown to be confounded"
    assert (
        "Other differences between the two sets were not tested."
        in (verdict["statement"])
    )


def test_the_headline_is_compared_resample_by_resample():
    table = _shifted()
    phi = table.flow_variance
    table.scores.update(
        copy=np.log(phi), noise=np.random.default_rng(4).normal(size=120)
    )
    copy = _blind(table, headline="copy")["headline_minus_blind"]
    assert copy["low"] < copy["value"] < copy["high"]
    assert copy["high"] - copy["low"] < 0.1  # Paired: much narrower than either.
    noise = _blind(table, headline="noise")["headline_minus_blind"]
    assert noise["high"] < 0


def test_duplicates_are_stated():
    cluster = [f"hash{i}" for i in range(20)]
    cluster[13] = cluster[2]
    blind = _blind(_table(range(20), range(20), _roles(10), cluster=cluster))
    assert blind["duplicates"] == {
        "count": 1,
        "statement": "1 video is listed both as member and as non-member: the labels "
        "are wrong.",
        "videos": [{"hash": "hash2", "members": ["id2"], "nonmembers": ["id13"]}],
    }
    assert _blind(_shifted())["duplicates"]["count"] == 0


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
    found = _blind(table)["duplicates"]
    assert found["count"] == 1
    parts = (
        "1 video has some parts among the members and others among the non-members: "
        "parts of one video are not independent."
    )
    assert ("the labels are wrong" in found["statement"]) == wrong
    assert (found["statement"] == parts) != wrong


def test_suspects_are_held_against_their_calibration():
    table = _shifted(factor=20.0)
    roles = np.array(_roles(60, "suspects", "calibration"))
    table = _table(table.flow_variance, table.brightness_std, roles)
    result = validity.blind_baseline(table, 200, 0)
    assert result["comparisons"] == {}
    assert result["suspects"]["separates"]
    assert "not exchangeable" in result["suspects"]["statement"]
    alone = _table([1.0], [1.0], ["suspects"])
    assert validity.blind_baseline(alone, 200, 0)["suspects"] is None


def test_equal_features_separate_nothing():
    blind = _blind(_table(np.ones(40), np.zeros(40), _roles(20)))
    assert blind["separates"] is False
    assert blind["motion"]["value"] == blind["cross_fitted"]["value"] == 0.5


def test_features_that_are_not_finite_are_refused():
    table = _table([np.nan] * 40, np.zeros(40), _roles(20))
    assert "not finite" in _blind(table)["statement"]


def test_every_group_is_tested():
    table = _shifted()
    table.group[60:90] = "g"
    blind = validity.blind_baseline(table, 100, 0)["comparisons"]
    assert list(blind) == list(groups.comparisons(table)) == ["all", "g"]


def test_rows_without_a_score_are_left_out_of_its_verdict():
    rng = np.random.default_rng(11)
    role = np.array(["members"] * 30 + ["nonmembers"] * 30)
    score, phi = rng.normal(size=(2, 60))
    phi = np.exp(phi)
    gone = np.isin(np.arange(60), [2, 3, 50])
    whole = table(score, role, phi=phi, brightness=rng.normal(size=60) ** 2)
    whole.scores["t"] = np.where(gone, np.nan, score)
    whole.scores["none"] = np.where(role == "members", np.nan, score)
    found = validity.blind_baseline(whole, 200, 0, "t")["comparisons"]["all"]
    expected = metrics.auc(score[:30][~gone[:30]], score[30:][~gone[30:]])
    assert f"AUC {expected:.2f}" in found["verdicts"]["t"]["statement"]
    assert found["verdicts"]["none"]["verdict"] == "no result"
    against = found["headline_minus_blind"]
    assert against["low"] < against["value"] < against["high"]
    none = validity.blind_baseline(whole, 200, 0, "none")["comparisons"]["all"]
    assert none["headline_minus_blind"] is None
