"""Conformal p-values and what is concluded from them."""

import json

import numpy as np
import pytest
import scipy.stats

from score_tables import table as _table
from vidsme_jax.evaluation import suspects
from vidsme_jax.evaluation.validity import Procedure


def _suspects(table, fdr=0.05):
    result = suspects.suspects(table, "s", fdr, Procedure(number=199))
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


def test_each_source_of_calibration_clips_counts_once():
    calibration, units = np.array([1.0, 2.0, 2.0, 3.0, 3.0]), np.array(list("aabba"))
    p = suspects.conformal_p_values(np.array([4.0, 3.0, 2.0, 0.0]), calibration, units)
    np.testing.assert_allclose(p, [1 / 3, (4 / 3 + 1 / 2) / 3, (8 / 3) / 3, 1.0])
    rng = np.random.default_rng(8)
    for clips in (3, 7, 50):
        p = suspects.conformal_p_values(
            np.array([-9.0]), rng.normal(size=20 * clips), np.arange(20 * clips) % 20
        )
        assert p.tolist() == [1.0]


@pytest.mark.parametrize(("sources", "clips"), [(1, 1), (20, 1), (1, 20)])
def test_clips_of_few_sources_list_nobody_by_chance(sources, clips):
    """Of 20 x 50 calibration clips, ICC 0.8; with each clip for itself 6 to 20 %."""
    rng, draws = np.random.default_rng(3), 400

    def drawn(sources: int, clips: int) -> np.ndarray:
        common, own = rng.normal(size=(sources, 1)), rng.normal(size=(sources, clips))
        return (np.sqrt(0.8) * common + np.sqrt(0.2) * own).ravel()

    any_listed = []
    for _ in range(draws):
        tested, known = drawn(sources, clips), drawn(20, 50)
        p = suspects.conformal_p_values(tested, known, np.arange(1000) // 50)
        any_listed.append(suspects.benjamini_hochberg(p).min() <= 0.05)
    assert np.mean(any_listed) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_a_list_is_reported_by_sources_of_calibration_clips():
    rng = np.random.default_rng(9)
    score = np.concatenate([[50.0, 0.0], rng.normal(size=100)])
    unit = np.concatenate([[100, 101], np.arange(100) // 5])
    role = ["suspects"] * 2 + ["calibration"] * 100
    found = _suspects(_table(score, role, unit=unit))
    assert found["calibration"] == {
        "role": "calibration",
        "videos": 100,
        "sources": 20,
    }
    assert found["rows"][0]["p_value"] == 1 / 21 and found["fewest"] == 2
    assert (
        "against 100 calibration clips from 20 sources, each of which counts once: "
        "a list would need at least 2, or 39 sources of calibration clips for one "
        "suspect alone"
    ) in found["statement"]
    assert (
        "against 100 calibration clips from 20 sources: p"
        in (found["set"]["statement"])
    )


@pytest.mark.long
def test_the_false_discovery_rate_is_kept():
    rng = np.random.default_rng(1)
    proportions = []
    for _ in range(60):
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
    assert result["calibration"] == {
        "role": "calibration",
        "videos": 99,
        "sources": 99,
    }
    assert result["statement"].startswith(
        "1 of 2 suspects are listed at a false discovery rate of 0.05, against 99 "
        "calibration clips from 99 sources: one alone could be listed."
    )
    assert "exchangeable" in result["statement"]


def test_rows_of_one_calibration_video_count_once():
    score = [1.0, 0.0, *[0.0] * 50, *range(2, 21)]
    cluster = ["s", "t"] + ["c"] * 50 + [f"d{k}" for k in range(19)]
    table = _table(score, ["suspects"] * 2 + ["calibration"] * 69, cluster)
    found = _suspects(table)
    assert found["rows"][0]["p_value"] == 20 / 21
    assert found["calibration"]["videos"] == 20


def test_calibration_comes_before_nonmembers():
    score = [1.0, 0.5, *[0.0] * 20, *[2.0] * 20]
    role = ["suspects"] * 2 + ["calibration"] * 20 + ["nonmembers"] * 20
    assert _suspects(_table(score, role))["rows"][0]["p_value"] == 1 / 21
    role[2:22] = ["members"] * 20
    result = _suspects(_table(score, role))
    assert result["rows"][0]["p_value"] == 1.0
    assert "against 20 non-members" in result["statement"]


def test_the_sign_of_the_table_is_respected():
    score = np.array([-3.0, 0.9, *np.linspace(-1, 1, 39)])
    role = ["suspects"] * 2 + ["calibration"] * 39
    low_first = _suspects(_table(score, role, larger_is_member=False))["rows"]
    assert [row["score"] for row in low_first] == [-3.0, 0.9]
    assert [row["p_value"] for row in low_first] == [1 / 40, 38 / 40]


def test_a_rate_out_of_reach_is_said():
    score = np.concatenate([np.full(49, 30.0), [-1.0], np.arange(20.0)])
    found = _suspects(_table(score, ["suspects"] * 50 + ["calibration"] * 20))
    assert found["num_listed"] == 49 and found["fewest"] == 48
    assert "a list would need at least 48, or 999 sources" in (found["statement"])
    score[:49] = 3.0
    score[0] = 30.0
    found = _suspects(_table(score, ["suspects"] * 50 + ["calibration"] * 20), 0.04)
    assert found["num_listed"] == 0 and found["fewest"] == 60
    assert "none can be listed, whatever its score: it takes 1249" in found["statement"]


def test_a_set_is_found_that_lists_nobody():
    rng = np.random.default_rng(5)
    score = rng.normal(size=200) + np.repeat([0.7, 0.0], 100)
    found = _suspects(_table(score, ["suspects"] * 100 + ["calibration"] * 100))
    assert found["num_listed"] == 0
    assert found["set"]["found"] and found["set"]["p"] <= 0.01
    assert found["set"]["statement"].startswith(
        "As a set the suspects rank higher by s than the calibration clips do by chance"
    )
    nothing = rng.normal(size=200)
    found = _suspects(_table(nothing, ["suspects"] * 100 + ["calibration"] * 100))
    assert not found["set"]["found"]
    assert "do not rank higher by s" in found["set"]["statement"]


def test_suspects_that_differ_without_the_model_are_not_tested():
    rng = np.random.default_rng(6)
    score = rng.normal(size=120) + np.repeat([3.0, 0.0], 60)
    warm = rng.normal(size=120) + np.repeat([1.5, 0.0], 60)
    role = ["suspects"] * 60 + ["calibration"] * 60
    found = _suspects(_table(score, role, pixels={"red": warm}))
    assert found["exchangeable"]["differs"] and found["set"] is None
    assert found["num_listed"] is None
    assert {row["listed"] for row in found["rows"]} == {None}
    assert {row["p_value"] for row in found["rows"]} == {None}
    assert "60 suspects are ranked but not tested: they differ" in found["statement"]
    assert "red (pixels), AUC 0." in found["statement"]


def test_suspects_of_groups_have_results_of_their_own():
    rng = np.random.default_rng(7)
    score = rng.normal(size=120) + np.repeat([1.5, 0.0], [40, 80])
    group = np.array(["a"] * 40 + ["b"] * 40 + [""] * 40, object)
    role = ["suspects"] * 80 + ["calibration"] * 40
    found = _suspects(_table(score, role, group=group))["set"]["groups"]
    assert [each["group"] for each in found] == ["a", "b"]
    assert found[0]["adjusted_p"] <= 0.02 < 0.05 < found[1]["adjusted_p"]


def test_a_suspect_among_the_calibration_clips_is_refused():
    cluster = ["same", "same"] + [f"c{i}" for i in range(30)]
    table = _table(np.arange(32.0), ["suspects"] + ["calibration"] * 31, cluster)
    found = _suspects(table)
    assert (
        "1 of them are, by content, among the calibration clips" in (found["statement"])
    )
    assert found["num_listed"] is None


def test_few_calibration_sources_are_refused():
    table = _table(np.arange(20.0), ["suspects"] + ["calibration"] * 19)
    assert "are of 19 sources; it takes 20" in _suspects(table)["statement"]


def test_one_source_of_suspects_is_refused():
    """However different it is, one source alone passes a blind test."""
    rng = np.random.default_rng(10)
    red = rng.normal(size=42)
    red[:2] = 6.0
    for unit, number in ((np.arange(42), 1), ([0, 0, *range(2, 42)], 2)):
        role = ["suspects"] * number + ["calibration"] * (42 - number)
        its = _table(rng.normal(size=42), role, unit=unit, pixels={"red": red})
        found = _suspects(its)
        whose = "1 suspect is" if number == 1 else "2 suspects are"
        assert found["statement"] == (
            f"{whose} ranked but not tested: the suspects are of 1 source; it takes 2 "
            "to test whether they and the calibration clips are alike without any "
            "model."
        )
        assert found["set"] is None and found["num_listed"] is None
        assert {row["listed"] for row in found["rows"]} == {None}


@pytest.mark.parametrize(
    ("number", "told"),
    [(2, "one that separates the two"), (5, "one of AUC 0.88 or more"), (20, "")],
)
def test_what_few_suspects_do_not_show_is_reported(number, told):
    rng = np.random.default_rng(11)
    role = ["suspects"] * number + ["calibration"] * 80
    red = rng.normal(size=number + 80)
    its = _table(rng.normal(size=number + 80), role, pixels={"red": red})
    found = _suspects(its)["exchangeable"]
    assert not found["differs"]
    few = f" With {number} sources of suspects only a large difference is found: in one"
    assert (few in found["statement"]) == bool(told)
    assert told in found["statement"]


def test_files_that_differ_are_reported_and_close_nothing():
    rng = np.random.default_rng(12)
    role = ["suspects"] * 30 + ["calibration"] * 30
    its = _table(rng.normal(size=60), role)
    assert _suspects(its)["apart"] is None
    size = rng.normal(size=60) + np.repeat([4.0, 0.0], 30)
    its.traits["files"] = {"bytes": size}
    found = _suspects(its)
    assert found["apart"]["differs"] and found["set"] is not None
    assert found["apart"]["statement"].startswith(
        "The files of suspects and calibration clips differ in what the model does not "
        "read: bytes (files), AUC "
    )
    assert found["apart"]["statement"].endswith(
        "take calibration clips that were made and stored as the suspects were."
    )
    its.traits["files"] = {"bytes": rng.normal(size=60)}
    alike = _suspects(its)["apart"]
    assert not alike["differs"] and "No difference was found" in alike["statement"]


def test_known_clips_are_counted_where_nobody_is_suspected():
    its = _table(np.arange(40.0), ["nonmembers"] * 40, unit=np.arange(40) // 2)
    known = _suspects(its)["calibration"]
    assert known == {"role": "nonmembers", "videos": 40, "sources": 20}


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
    assert found["notes"] == [
        "1 of the 3 suspects have no s and are not tested.",
        "1 of the 21 calibration clips have no s and are not compared with.",
    ]
    assert not _suspects(_table([np.nan, 1.0], ["suspects", "calibration"]))[
        "num_listed"
    ]


def test_a_video_with_several_questions_has_the_mean_of_their_scores():
    score, video = (
        [1.0, 4.0, np.nan, 0.1, 0.1, 0.1, *np.arange(20.0)],
        [0, 0, 0, 1, 1, 1],
    )
    role = ["suspects"] * 6 + ["calibration"] * 20
    found = _suspects(_table(score, role, [*video, *range(2, 22)]))
    assert [row["score"] for row in found["rows"]] == [2.5, 0.1]
    assert [len(row["ids"]) for row in found["rows"]] == [3, 3]
    assert found["rows"][0]["p_value"] == 18 / 21


@pytest.mark.long
def test_more_clips_of_a_source_are_no_difference():
    """Calibration sources have five videos each, suspects one; nothing differs."""
    fired, found = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        unit = np.concatenate([np.arange(40), np.repeat(np.arange(40), 5) + 40])
        columns = rng.normal(size=(80, 4))[unit] + rng.normal(size=(240, 4))
        score = rng.normal(size=80)[unit] + rng.normal(size=240)
        its = _table(
            score,
            ["suspects"] * 40 + ["calibration"] * 200,
            unit=unit,
            pixels=dict(zip("abcd", columns.T, strict=True)),
        )
        its.group[:20] = "g"
        result = suspects.suspects(its, "s", 0.05, Procedure(number=99))
        assert result["sources"] == 40
        assert result["left_out"].startswith(
            "Tests are of 40 of 40 rows of suspects and 40 of 200 of calibration clips"
        )
        fired.append(result["exchangeable"]["differs"])
        if result["set"] is not None:
            found.append(result["set"]["p"] <= 0.05)
            assert [x["videos"] for x in result["set"]["groups"]] == [20]
    assert np.mean(fired) <= 0.15 and np.mean(found) <= 0.15
