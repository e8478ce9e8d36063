"""ROC, intervals and their refusals, against scikit-learn, scipy and the release."""

import json
import re

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from score_tables import table as _table
from vidsme_jax.evaluation import groups, intervals, metrics, splitting


def _unadjusted(result):
    return {k: v for k, v in result.items() if k != "adjusted_p"}


def _roles(members, nonmembers):
    return ["members"] * members + ["nonmembers"] * nonmembers


@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "no ties"])
def test_auc_and_curve_match_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    m = rng.integers(1, levels, size=37).astype(float)
    n = rng.integers(0, levels, size=53).astype(float)
    labels, scores = np.repeat([1, 0], [37, 53]), np.concatenate([m, n])
    assert metrics.auc(m, n) == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12
    )
    curve = metrics.roc_curve(m, n)
    assert metrics.auc(m, n) == pytest.approx(np.trapezoid(curve.tpr, curve.fpr))
    assert np.isinf(curve.thresholds[0])


@pytest.mark.parametrize("max_fpr", [0.0, 0.02, 0.05, 0.3])
def test_tpr_at_fpr_is_the_best_of_all_thresholds(max_fpr):
    rng = np.random.default_rng(1)
    m, n = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 60).round(1)
    thresholds = [np.inf, *m, *n]
    best = max(np.mean(m >= t) for t in thresholds if np.mean(n >= t) <= max_fpr)
    assert metrics.tpr_at_fpr(metrics.roc_curve(m, n), max_fpr)[0] == best


def test_the_target_itself_is_allowed_unlike_in_the_release():
    n = np.arange(20.0)
    m = np.array([19.5, 18.5, 17.5, -1.0])
    assert (
        metrics.tpr_at_fpr(metrics.roc_curve(m, n), 0.05)[0] == 0.5
    )  # One of twenty is exactly 5 %.
    assert metrics.official_tpr_at_5_fpr(m, n) == 0.25
    # Ties all along: one straight line, whose inner vertices the release drops.
    curve = metrics.roc_curve(np.arange(100.0), np.arange(100.0))
    assert metrics.tpr_at_fpr(curve, 0.05)[0] == 0.05
    assert metrics.official_tpr_at_5_fpr(np.arange(100.0), np.arange(100.0)) == 0.01


def test_accuracy_is_the_best_balanced_one():
    rng = np.random.default_rng(2)
    m, n = rng.normal(1, 1, 30), rng.normal(0, 1, 50)
    accuracy, threshold = metrics.best_accuracy(metrics.roc_curve(m, n))
    brute = [(np.mean(m >= t) + np.mean(n < t)) / 2 for t in np.concatenate([m, n])]
    assert accuracy == pytest.approx(max(brute))
    assert accuracy == pytest.approx(
        (np.mean(m >= threshold) + np.mean(n < threshold)) / 2
    )


def test_every_line_the_release_printed(golden):
    folder = golden / "longva_official"
    videos = json.loads((folder / "official_scores.json").read_text())["videos"]
    names = list(videos[0]["scores"])
    role = np.where([v["label"] == 1 for v in videos], "members", "nonmembers")
    lines = (folder / "official_auc.txt").read_text().splitlines()
    assert len(lines) == len(names) == 85
    for line in lines:
        name, *printed = re.fullmatch(
            r"(.+?) +AUC ([\d.]+), Accuracy ([\d.]+), TPR@5% FPR of ([\d.]+)", line
        ).groups()
        table = _table(
            [v["scores"][name] for v in videos], role, larger_is_member=False
        )
        result = metrics.evaluate(table, (0.5,), 100, 0)
        ours = result["comparisons"]["all"]["scores"]["s"]["official"].values()
        assert [f"{value:.4f}" for value in ours] == printed, name


def test_perfect_separation_is_not_called_certain():
    table = _table(np.arange(20.0)[::-1], _roles(10, 10))
    result = metrics.evaluate(table, (0.1,), 200, 0)["comparisons"]["all"]["scores"][
        "s"
    ]
    assert result["auc"]["value"] == result["auc"]["high"] == 1
    assert 0.7 < result["auc"]["low"] < 0.8
    assert result["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 10))


def test_clopper_pearson():
    assert intervals.clopper_pearson(0.0, 100) == pytest.approx((0, 1 - 0.025**0.01))
    # The ends are quantiles of beta distributions.
    beta = scipy.stats.beta
    expected = beta.ppf(0.025, 7, 14), beta.ppf(0.975, 8, 13)
    assert intervals.clopper_pearson(0.35, 20) == pytest.approx(expected)
    low, high = intervals.clopper_pearson(
        0.36, 20
    )  # 7.2 of 20: the ends of 7 and of 8.
    assert low == pytest.approx(expected[0]) and high > expected[1]


def test_tpr_counts_videos():
    rng = np.random.default_rng(7)
    score, role = rng.normal(size=100), _roles(50, 50)
    once = metrics.evaluate(_table(score, role), (0.1,), 100, 0)
    clusters = [f"hash{i}" for i in range(100) for _ in range(5)]
    table = _table(np.repeat(score, 5), np.repeat(role, 5), clusters)
    repeated = metrics.evaluate(table, (0.1,), 100, 0)
    one, many = (
        result["comparisons"]["all"]["scores"]["s"]["tpr"]["0.1"]
        for result in (once, repeated)
    )
    assert one == many
    assert one["fpr"]["low"] < 0.1 < one["fpr"]["high"]


def test_unequal_videos_count_less():
    assert intervals.effective(np.array(["a", "a", "b", "b"])) == 2
    assert intervals.effective(np.array(["a"] * 98 + ["b", "c"])) == 1


def test_a_rate_below_the_resolution_is_refused():
    clusters = [f"m{i}" for i in range(20)] + [f"n{i}" for i in range(19)] + ["n0"]
    table = _table(np.arange(40.0), _roles(20, 20), clusters)
    tpr = metrics.evaluate(table, (0.05, 0.1), 100, 0)["comparisons"]["all"]["scores"]
    refused, given = tpr["s"]["tpr"]["0.05"], tpr["s"]["tpr"]["0.1"]
    assert refused["value"] is None
    assert refused["reason"] == (
        "refused: a false-positive rate of 5 % needs at least 20 sources of "
        "non-members; there are 18"
    )
    assert given["value"] is not None and "reason" not in given


def test_groups():
    role = ["members"] * 4 + ["nonmembers"] * 6
    group = ["a", "a", "", "c", "a", "a", "b", "b", "", "all"]
    table = _table(np.arange(10.0), role, group=group)
    found = groups.comparisons(table)
    assert list(found) == ["all", "a", "group all", "b"]
    assert found["a"].members.tolist() == [0, 1]
    assert found["a"].nonmembers.tolist() == [4, 5]
    assert found["b"].members.tolist() == [0, 1, 2, 3]
    assert found["b"].description == "all members and non-members of group 'b'"
    assert len(found["all"].nonmembers) == 6
    counts = metrics.evaluate(table, (0.5,), 100, 0)["comparisons"]["a"]["counts"]
    assert counts["members"] == {"items": 2, "videos": 2, "sources": 2}


def test_the_sign_of_the_table_is_respected():
    score = np.concatenate([np.full(10, 2.0), np.full(10, 1.0)])
    for larger, expected in ((True, 1.0), (False, 0.0)):
        table = _table(score, _roles(10, 10), larger_is_member=larger)
        result = metrics.evaluate(table, (0.5,), 100, 0)["comparisons"]["all"]
        assert result["scores"]["s"]["auc"]["value"] == expected
        assert ("official" in result["scores"]["s"]) is not larger


def test_suspects_only_gives_counts_only():
    table = _table(np.arange(3.0), ["suspects", "suspects", "calibration"])
    result = metrics.evaluate(table, (0.05,), 100, 0)
    assert result["comparisons"] == {}
    assert result["counts"]["suspects"] == {"items": 2, "videos": 2, "sources": 2}
    assert result["counts"]["members"] == {"items": 0, "videos": 0, "sources": 0}


def test_the_result_is_strict_json():
    score = np.arange(6.0)
    score[2] = np.inf
    table = _table(score, _roles(3, 3))
    table.scores["t"] = np.arange(6.0)
    one_video = _table(score, _roles(3, 3), ["v"] * 3 + ["a", "b", "c"])
    one_video.scores["t"] = np.arange(6.0)
    for case in (table, one_video):
        result = metrics.evaluate(case, (0.5,), 100, 0)
        json.dumps(result, allow_nan=False)
        scores = result["comparisons"]["all"]["scores"]
        assert scores["s"]["auc"]["reason"] == "1 of the scores are not finite"
        assert scores["t"]["auc"]["value"] == 0.0
    reason = scores["t"]["auc"]["reason"]
    assert reason == (
        "no interval: 1 source of members and 3 of non-members; it takes 10 of each"
    )


def test_rows_without_a_score_are_left_out_for_that_score():
    rng = np.random.default_rng(9)
    s, t = rng.normal(size=(2, 60)).round(1)
    role, cluster = np.array(_roles(30, 30)), np.arange(60) // 2
    gone = np.isin(np.arange(60), [3, 4, 5, 41])
    table = _table(s, role, cluster)
    table.scores["t"] = np.where(gone, np.nan, t)
    found = metrics.evaluate(table, (0.1,), 300, 0)["comparisons"]["all"]["scores"]
    kept = _table(t[~gone], role[~gone], cluster[~gone])
    alone = metrics.evaluate(kept, (0.1,), 300, 0)["comparisons"]["all"]["scores"]["s"]
    dropped = {"dropped": {"members": 3, "nonmembers": 1}}
    assert _unadjusted(found["t"]) == _unadjusted(alone | dropped)
    whole = metrics.evaluate(_table(s, role, cluster), (0.1,), 300, 0)
    whole = whole["comparisons"]["all"]["scores"]["s"]
    assert _unadjusted(found["s"]) == _unadjusted(whole)
    table.scores["t"] = np.where(role == "members", np.nan, t)
    found = metrics.evaluate(table, (0.1,), 300, 0)["comparisons"]["all"]["scores"]
    assert found["t"]["auc"]["reason"] == "30 of the scores are not finite"


def test_equal_columns_are_reported_once():
    score = np.array([0.0, 1.0, 2.0, np.nan, 4.0, 5.0])
    table = _table(score, _roles(3, 3))
    score_v = np.array([-0.0, 1.0, 2.0, -np.nan, 4.0, 5.0])
    table.scores.update({"t": -score, "u": score.copy(), "v": score_v})
    scores = metrics.evaluate(table, (0.5,), 100, 0)["comparisons"]["all"]["scores"]
    assert list(scores) == ["s", "t"]
    assert scores["s"]["same_as"] == ["u", "v"] and "same_as" not in scores["t"]
    assert metrics.same_columns(table, ["u"]) == {"t": [], "u": ["s", "v"]}
    both = metrics.same_columns(table, ["u", "v"])
    assert both == {"t": [], "u": ["s"], "v": []}
    released = _table(score, _roles(3, 3), larger_is_member=False)
    released.scores["t"] = score.copy()
    assert metrics.same_columns(released) == {"s": [], "t": []}


def test_a_reference_model_is_evaluated_by_what_was_declared():
    rng = np.random.default_rng(10)
    member = np.array(_roles(20, 20)) == "members"
    table = _table(rng.normal(size=40) + member, _roles(20, 20))
    table.reference["s"] = rng.normal(size=40)
    table.reference["s"][[0, 25]] = np.nan
    table.reference["t"] = rng.normal(size=40)
    found = metrics.evaluate(table, (0.5,), 100, 0, ["s", "s_ref"])["comparisons"]
    alone = _table(table.reference["s"], _roles(20, 20))
    alone = metrics.evaluate(alone, (0.5,), 100, 0)["comparisons"]["all"]["scores"]["s"]
    keys = ("auc", "dropped")
    assert found["all"]["reference"] == {"s": {key: alone[key] for key in keys}}
    assert "reference" not in metrics.evaluate(table, (0.5,), 100, 0)["comparisons"]


def test_the_accuracy_is_that_of_the_other_halfs_threshold():
    rng = np.random.default_rng(11)
    found = []
    for seed in range(60):
        table = _table(rng.normal(size=80), _roles(40, 40))
        result = metrics.evaluate(table, (), 100, seed)["comparisons"]["all"]
        found.append(result["scores"]["s"]["accuracy"])
    # The best of all thresholds has 0.59 where there is nothing to be found.
    assert abs(np.mean([each["value"] for each in found]) - 0.5) < 0.03
    assert np.mean([each["low"] > 0.5 for each in found]) <= 0.1


@pytest.mark.parametrize("rows", [1, 3])
def test_the_accuracys_interval_is_of_t_over_sources(rows):
    # Either half's best threshold is between 0 and 1.
    m = np.repeat([1.0] * 15 + [0.0] * 5, rows)
    n = np.repeat([1.0] * 4 + [0.0] * 16, rows)
    unit = np.arange(20 * rows) // rows
    found = splitting.accuracy(m, n, unit, unit + 20, 0)
    shares = np.arange(20) < 15, np.arange(20) < 16
    variance = sum(float(np.var(each, ddof=1)) / 20 for each in shares) / 4
    width = scipy.stats.t.ppf(0.975, 19) * variance**0.5
    assert found["value"] == pytest.approx(0.775)
    assert found["low"] == pytest.approx(0.775 - width)
    assert found["high"] == pytest.approx(0.775 + width)


def test_an_adjusted_p_is_of_all_scores_and_groups():
    rng = np.random.default_rng(12)
    level = []
    for seed in range(60):
        table = _table(rng.normal(size=80), _roles(40, 40), group=["a", "b"] * 40)
        for name in "tuvwxyz":
            table.scores[name] = rng.normal(size=80)
        found = metrics.evaluate(table, (), 300, seed)["comparisons"]
        p = [x["adjusted_p"] for c in found.values() for x in c["scores"].values()]
        assert len(p) == 24
        level.append(min(p) <= 0.05)
    assert np.mean(level) <= 0.1
    table.scores["t"] = np.repeat([1.0, 0.0], 40) + 0.1 * rng.normal(size=80)
    found = metrics.evaluate(table, (), 300, 0)["comparisons"]["all"]["scores"]
    assert found["t"]["adjusted_p"] < 0.01 < found["u"]["adjusted_p"]


def test_no_interval_below_ten_sources():
    rng = np.random.default_rng(13)
    for sources, has in ((9, False), (10, True)):
        rows = 6 * sources
        unit = np.arange(2 * rows) // 6
        table = _table(rng.normal(size=2 * rows), _roles(rows, rows), unit=unit)
        found = metrics.evaluate(table, (0.2,), 100, 0)["comparisons"]["all"]
        result = found["scores"]["s"]
        tpr = result["tpr"]["0.2"]
        assert tpr["value"] is not None
        assert (result["accuracy"]["value"] is not None) == has
        ends = result["auc"]["low"], tpr["low"], tpr["fpr"]["low"], tpr["of_population"]
        assert [end is not None for end in ends] == [has] * 4


def test_one_source_with_most_of_the_rows_has_no_interval():
    """Twenty sources of which one has 200 of 219 rows amount to one."""
    unit = np.concatenate([np.zeros(200, int), np.arange(1, 20)])
    unit = np.concatenate([unit, unit + 20])
    table = _table(
        np.random.default_rng(14).normal(size=438), _roles(219, 219), unit=unit
    )
    found = metrics.evaluate(table, (0.2,), 100, 0)["comparisons"]["all"]["scores"]["s"]
    assert found["auc"]["value"] is not None and found["auc"]["low"] is None
    assert found["auc"]["reason"] == (
        "no interval: 20 sources of members and 20 of non-members, whose rows are so "
        "unequal in number that they amount to 1 and 1; it takes 10 of each"
    )
    assert found["adjusted_p"] is None
    assert found["accuracy"]["value"] is None
