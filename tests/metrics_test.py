"""ROC, intervals and their refusals, against scikit-learn, scipy and the release."""

import json
import re
import time

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from score_tables import table as _table
from vidsme_jax.evaluation import bootstrap, groups, intervals, metrics


def _roles(members, nonmembers):
    return ["members"] * members + ["nonmembers"] * nonmembers


def _bootstrap(members, nonmembers, m_clusters, n_clusters, **kwargs):
    return bootstrap.bootstrap(
        np.asarray(members, float)[None],
        np.asarray(nonmembers, float)[None],
        np.asarray(m_clusters),
        np.asarray(n_clusters),
        **{"thresholds": np.zeros(1), "num_bootstrap": 500, "seed": 0} | kwargs,
    )


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


def test_resampled_auc_is_the_auc_of_the_resampled_rows():
    rng = np.random.default_rng(3)
    m, n = rng.integers(0, 6, 12).astype(float), rng.integers(0, 5, 14).astype(float)
    m_clusters, n_clusters = rng.integers(0, 5, 12), rng.integers(0, 6, 14)
    seen = {metrics.auc(m, n)}
    groups = [
        [np.flatnonzero(c == value) for value in np.unique(c)]
        for c in (m_clusters, n_clusters)
    ]
    weights = rng.integers(0, 4, size=(20, 6)).astype(np.uint8) + np.uint8(1)
    _, columns_m = np.unique(m_clusters, return_inverse=True)
    _, columns_n = np.unique(n_clusters, return_inverse=True)
    ranked = bootstrap._entries(m, columns_m), bootstrap._entries(n, columns_n)
    wins = bootstrap._weighted_wins(*ranked, weights, weights)
    for row, won in zip(weights.astype(int), wins, strict=True):
        rows_m, rows_n = (
            np.concatenate([np.repeat(g, row[i]) for i, g in enumerate(rows)])
            for rows in groups
        )
        expected = metrics.auc(m[rows_m], n[rows_n])
        assert won / (len(rows_m) * len(rows_n)) == pytest.approx(expected, abs=1e-12)
        seen.add(expected)
    assert len(seen) > 10


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(4)
    truth = scipy.stats.norm.cdf(0.8 / np.sqrt(2))
    covered = 0
    for seed in range(200):
        m, n = rng.normal(0.8, 1, 40), rng.normal(0, 1, 40)
        found = _bootstrap(m, n, range(40), range(40), num_bootstrap=400, seed=seed)
        low, high = intervals.percentile_interval(found.auc[0], 40)
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.985


def test_rows_of_one_video_do_not_narrow_the_interval():
    rng = np.random.default_rng(5)
    m, n = np.repeat(rng.normal(0.5, 1, 60), 9), np.repeat(rng.normal(0, 1, 60), 9)
    video = np.repeat(np.arange(60), 9)

    def width(clusters):
        found = _bootstrap(m, n, clusters, clusters, num_bootstrap=1000)
        low, high = intervals.percentile_interval(found.auc[0], 60)
        return high - low

    assert 2.6 < width(video) / width(np.arange(540)) < 3.4  # sqrt(9) = 3.


def test_resamples_are_seeded_and_shared_by_all_scores():
    rng = np.random.default_rng(6)
    m, n = rng.normal(1, 1, 30), rng.normal(0, 1, 30)
    both = bootstrap.bootstrap(
        np.stack([m, m]),
        np.stack([n, n]),
        np.arange(30),
        np.arange(30),
        thresholds=np.zeros(2),
        num_bootstrap=100,
        seed=3,
    )
    np.testing.assert_array_equal(*both.auc)
    again = _bootstrap(m, n, range(30), range(30), num_bootstrap=100, seed=3)
    other = _bootstrap(m, n, range(30), range(30), num_bootstrap=100, seed=4)
    np.testing.assert_array_equal(both.auc[:1], again.auc)
    assert (again.auc != other.auc).any()


def test_perfect_separation_is_not_called_certain():
    table = _table(np.arange(20.0)[::-1], _roles(10, 10))
    result = metrics.evaluate(table, (0.1,), 200, 0)["comparisons"]["all"]["scores"][
        "s"
    ]
    assert result["auc"]["value"] == result["auc"]["high"] == 1
    assert result["auc"]["low"] == pytest.approx(0.025 ** (1 / 10))
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
    assert intervals.effective_videos(np.array(["a", "a", "b", "b"])) == 2
    assert intervals.effective_videos(np.array(["a"] * 98 + ["b", "c"])) == 1


def test_a_rate_below_the_resolution_is_refused():
    clusters = [f"m{i}" for i in range(20)] + [f"n{i}" for i in range(19)] + ["n0"]
    table = _table(np.arange(40.0), _roles(20, 20), clusters)
    tpr = metrics.evaluate(table, (0.05, 0.1), 100, 0)["comparisons"]["all"]["scores"]
    refused, given = tpr["s"]["tpr"]["0.05"], tpr["s"]["tpr"]["0.1"]
    assert refused["value"] is None
    assert refused["reason"] == (
        "refused: a false-positive rate of 5 % needs at least 20 non-member videos; "
        "there are 19"
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
    assert counts["members"] == {"items": 2, "videos": 2}


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
    assert result["counts"]["suspects"] == {"items": 2, "videos": 2}
    assert result["counts"]["members"] == {"items": 0, "videos": 0}


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
    assert scores["t"]["auc"]["reason"] == "no interval: a role has only one video"


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
    assert found["t"] == alone | {"dropped": {"members": 3, "nonmembers": 1}}
    whole = metrics.evaluate(_table(s, role, cluster), (0.1,), 300, 0)
    assert found["s"] == whole["comparisons"]["all"]["scores"]["s"]
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


def test_a_bootstrap_is_cheap():
    rng = np.random.default_rng(8)
    scores = rng.normal(size=(77, 300))
    start = time.process_time()
    bootstrap.bootstrap(
        scores[:, :150],
        scores[:, 150:],
        np.arange(150),
        np.arange(150),
        thresholds=np.zeros(77),
        num_bootstrap=1000,
        seed=0,
    )
    assert time.process_time() - start < 10
