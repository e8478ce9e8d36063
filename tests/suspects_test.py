"""Conformal p-values and what is concluded from them."""

import json

import numpy as np
import pytest
import scipy.stats

from score_tables import table as _table
from vidsme_jax.evaluation import suspects


def _suspects(table, fdr=0.05):
    result = suspects.suspects(table, "s", fdr)
    json.dumps(result, allow_nan=False)
    assert "was used for training" not in json.dumps(result)
    return result


def test_p_values_by_hand():
    calibration = np.array([1.0, 2.0, 2.0, 3.0])
    p = suspects.conformal_p_values(np.array([4.0, 3.0, 2.0, 0.0]), calibration)
    np.testing.assert_allclose(p, [1 / 5, 2 / 5, 4 / 5, 1.0])


def test_p_values_are_uniform_when_nothing_is_going_on():
    rng = np.random.default_rng(0)
    p = np.concatenate(
        [
            suspects.conformal_p_values(rng.normal(size=1), rng.normal(size=99))
            for _ in range(3000)
        ]
    )
    assert (
        scipy.stats.chisquare(np.histogram(p, np.arange(0.005, 1.06, 0.05))[0][:20])[1]
        > 0.001
    )
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.012)


def test_benjamini_hochberg_by_hand():
    p = np.array([0.010, 0.013, 0.014, 0.190, 0.350])
    # 5 p_(k) / k, then the running minimum from the end.
    expected = [0.07 / 3, 0.07 / 3, 0.07 / 3, 0.95 / 4, 0.35]
    np.testing.assert_allclose(suspects.benjamini_hochberg(p), expected)


def test_the_false_discovery_rate_is_kept():
    rng = np.random.default_rng(1)
    proportions = []
    for _ in range(200):
        score = rng.normal(size=300) + np.repeat([3.0, 0.0], [20, 280])
        role = ["suspects"] * 60 + ["calibration"] * 240
        rows = _suspects(_table(score, role), 0.2)["rows"]
        listed = [int(row["ids"][0][2:]) for row in rows if row["listed"]]
        proportions.append(np.mean([i >= 20 for i in listed]) if listed else 0.0)
    assert 0.05 < np.mean(proportions) < 0.2 + 0.03


def test_suspects_are_counted_by_video_most_member_like_first():
    score = [1.0, 1.0, 9.0, *np.linspace(0, 5, 99)]
    role = ["suspects"] * 3 + ["calibration"] * 99
    cluster = ["a", "a", "b"] + [f"c{i}" for i in range(99)]
    result = _suspects(_table(score, role, cluster))
    assert [row["ids"] for row in result["rows"]] == [["id2"], ["id0", "id1"]]
    assert result["rows"][0] == {
        "video": "b.mp4",
        "ids": ["id2"],
        "group": "",
        "score": 9.0,
        "p_value": 0.01,
        "adjusted_p_value": 0.02,
        "listed": True,
    }
    assert result["num_listed"] == 1
    assert result["calibration"] == {"role": "calibration", "videos": 99}
    assert result["statement"].startswith("1 of 2 suspects rank higher than the 99")
    assert "exchangeable" in result["statement"]


def test_rows_of_one_calibration_video_count_once():
    score = [1.0, *[0.0] * 50]
    table = _table(score, ["suspects"] + ["calibration"] * 50, ["s"] + ["c"] * 50)
    assert _suspects(table)["rows"][0]["p_value"] == 0.5


def test_calibration_comes_before_nonmembers():
    score = [1.0, 0.0, 2.0, 2.0]
    role = ["suspects", "calibration", "nonmembers", "nonmembers"]
    assert _suspects(_table(score, role))["rows"][0]["p_value"] == 0.5
    role[1] = "members"
    result = _suspects(_table(score, role))
    assert result["rows"][0]["p_value"] == 1.0
    assert "the 2 non-members" in result["statement"]


def test_the_sign_of_the_table_is_respected():
    score = np.array([-3.0, 0.9, *np.linspace(-1, 1, 9)])
    role = ["suspects"] * 2 + ["calibration"] * 9
    low_first = _suspects(_table(score, role, larger_is_member=False))["rows"]
    assert [row["score"] for row in low_first] == [-3.0, 0.9]
    assert [row["p_value"] for row in low_first] == [0.1, 0.9]


def test_a_rate_out_of_reach_is_said():
    score = np.arange(11.0)[::-1]
    few = _suspects(_table(score, ["suspects"] + ["calibration"] * 10))
    assert few["num_listed"] == 0
    assert "At least 19 are needed." in few["notes"][0]
    enough = _table(np.arange(20.0)[::-1], ["suspects"] + ["calibration"] * 19)
    result = _suspects(enough)
    assert result["num_listed"] == 1 and not result["notes"]


def test_a_suspect_among_the_calibration_clips_is_noted():
    cluster = ["same", "same"] + [f"c{i}" for i in range(30)]
    table = _table(np.arange(32.0), ["suspects"] + ["calibration"] * 31, cluster)
    assert "1 of the suspects are, by content, among" in _suspects(table)["notes"][0]


def test_nothing_to_compare_with():
    result = _suspects(_table([1.0, 2.0], ["suspects"] * 2))
    assert [row["p_value"] for row in result["rows"]] == [None, None]
    assert result["rows"][0]["score"] == 2.0
    assert "not tested" in result["statement"]
    assert (
        _suspects(_table([1.0], ["members"]))["statement"] == "There are no suspects."
    )
    nan = _table([np.nan, 1.0], ["suspects", "calibration"])
    assert _suspects(nan)["rows"][0]["listed"] is None


def test_videos_without_a_score_are_not_tested_and_that_is_said():
    score = [9.0, np.nan, 5.0, *np.arange(20.0), np.nan]
    role = ["suspects"] * 3 + ["calibration"] * 21
    found = _suspects(_table(score, role), 0.5)
    alone = _suspects(_table([9.0, 5.0, *np.arange(20.0)], role[1:-1]), 0.5)
    assert found["calibration"]["videos"] == alone["calibration"]["videos"] == 20
    assert [row["p_value"] for row in found["rows"]] == [
        *(row["p_value"] for row in alone["rows"]),
        None,
    ]
    last = found["rows"][-1]
    assert last["ids"] == ["id1"] and last["listed"] is None and last["score"] is None
    assert found["notes"][:2] == [
        "1 of the 3 suspects have no s and are not tested.",
        "1 of the 21 calibration clips have no s and are not compared with.",
    ]
    assert not _suspects(_table([np.nan, 1.0], ["suspects", "calibration"]))[
        "num_listed"
    ]


def test_a_video_with_several_questions_has_the_mean_of_their_scores():
    score, video = (
        [1.0, 4.0, np.nan, 0.1, 0.1, 0.1, *np.arange(9.0)],
        [0, 0, 0, 1, 1, 1],
    )
    role = ["suspects"] * 6 + ["calibration"] * 9
    found = _suspects(_table(score, role, [*video, *range(2, 11)]))
    assert [row["score"] for row in found["rows"]] == [2.5, 0.1]
    assert [len(row["ids"]) for row in found["rows"]] == [3, 3]
    assert found["rows"][0]["p_value"] == 0.7
