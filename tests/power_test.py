"""What numbers of clips can show: formulas, a simulation, the command."""

import json
import math
import sys

import numpy as np
import pytest
import scipy.stats

import children
from vidsme_jax import settings
from vidsme_jax.base import AuditError, Item
from vidsme_jax.commands import power as power_command
from vidsme_jax.evaluation import power, suspects
from vidsme_jax.evaluation.power import Clips
from vidsme_jax.run import asking, power_notes
from vidsme_jax.settings import views

REPORT = views.Report()


def _clips(many: int, per_source: float = 1) -> Clips:
    return Clips.of("clips", many, per_source)


@pytest.mark.parametrize(("clips", "auc"), [(30, 0.687), (100, 0.602), (500, 0.545)])
def test_the_smallest_auc(clips, auc):
    assert power.smallest_auc(_clips(clips), _clips(clips)) == pytest.approx(
        auc, abs=5e-4
    )


def test_sources_take_clips_away():
    """D = 1 + (m - 1) ICC, of both sides or of one."""
    n, m, icc = 120, 5, 0.5
    both = power.smallest_auc(_clips(n, m), _clips(n, m), icc=icc)
    z, d = 1.6448536 + 0.8416212, 1 + (m - 1) * icc
    assert both == pytest.approx(0.5 + z * math.sqrt(d * (2 * n + 1) / (12 * n * n)))
    one = power.smallest_auc(_clips(n, m), _clips(n), icc=icc)
    assert power.smallest_auc(_clips(n), _clips(n)) < one < both
    for none in (
        power.smallest_auc(_clips(n, m), _clips(n, m), icc=0),
        power.smallest_auc(_clips(n), _clips(n), icc=1),
    ):
        assert none == pytest.approx(power.smallest_auc(_clips(n), _clips(n)))


@pytest.mark.parametrize("per_source", [1, 4])
@pytest.mark.parametrize("auc", [0.55, 0.6, 0.7])
def test_so_many_clips_are_just_enough(auc, per_source):
    its = _clips(1000, per_source), _clips(1000, per_source)
    needed = power.clips_for(auc, *its)

    def least(clips: int) -> float:
        return power.smallest_auc(*(Clips(clips, per_source, 1) for _ in range(2)))

    assert least(needed) <= auc < least(needed - 1)


def _scores(rng, sources: list[int], icc: float, shift: float, draws: int):
    """Normal scores of clips, alike within a source."""
    source = np.repeat(np.arange(len(sources)), sources)
    common = rng.normal(size=(draws, len(sources)))[:, source]
    own = rng.normal(size=(draws, len(source)))
    return math.sqrt(icc) * common + math.sqrt(1 - icc) * own + shift


def _shift(auc: float) -> float:
    return math.sqrt(2) * scipy.stats.norm.ppf(auc)


@pytest.mark.parametrize("clips", [(30, 30), (100, 100), (20, 200)])
def test_the_smallest_auc_is_found_in_four_of_five_draws(clips):
    rng, draws = np.random.default_rng(0), 2000
    auc = power.smallest_auc(_clips(clips[0]), _clips(clips[1]))
    members = rng.normal(_shift(auc), size=(draws, clips[0]))
    others = rng.normal(size=(draws, clips[1]))
    test = scipy.stats.mannwhitneyu(
        *(members, others), alternative="greater", method="asymptotic", axis=1
    )
    assert abs((test.pvalue <= 0.05).mean() - power.POWER) < 0.05


@pytest.mark.parametrize(
    ("first", "second"),
    [([5] * 30, [5] * 30), ([1] * 40, [6] * 30), ([1] * 30 + [9] * 8, [3] * 40)],
    ids=["both", "one", "unequal"],
)
def test_likewise_with_sources(first, second):
    """By a test whose variance is that of the placements, source by source."""
    icc, draws, rng = 0.5, 1000, np.random.default_rng(1)
    auc = power.smallest_auc(Clips.of_sources(first), Clips.of_sources(second), icc=icc)
    sides = [
        _scores(rng, first, icc, _shift(auc), draws),
        _scores(rng, second, icc, 0.0, draws),
    ]
    ranks = scipy.stats.rankdata(np.concatenate(sides, axis=1), axis=1)
    split = np.split(ranks, [sum(first)], axis=1)
    variance = np.zeros(draws)
    for sources, side, among, other in zip(
        (first, second), sides, split, sides[::-1], strict=True
    ):
        # The share of the other side that each clip is above.
        share = (among - scipy.stats.rankdata(side, axis=1)) / other.shape[1]
        share -= share.mean(axis=1, keepdims=True)
        sums = np.add.reduceat(share, np.cumsum([0, *sources[:-1]]), axis=1)
        inflated = len(sources) / (len(sources) - 1)
        variance += inflated * (sums**2).sum(axis=1) / side.shape[1] ** 2
    above = split[0] - scipy.stats.rankdata(sides[0], axis=1)
    found = above.mean(axis=1) / sides[1].shape[1]
    power_ = ((found - 0.5) / np.sqrt(variance) > 1.645).mean()
    assert abs(power_ - power.POWER) < 0.05


def test_the_smallest_share_is_that_of_the_set():
    its = _clips(50), _clips(200)
    least = power.smallest_auc(*its)
    for auc in power.OF_USED:
        share = power.smallest_share(auc, *its)
        assert 0.5 + share * (auc - 0.5) == pytest.approx(least)
    assert power.smallest_share(0.51, *its) > 1


@pytest.mark.parametrize("fdr", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize(
    ("tested", "clips"), [(50, 200), (50, 19), (7, 100), (50, 999)]
)
def test_the_smallest_list_is_what_benjamini_and_hochberg_list(tested, clips, fdr):
    least = power.least_listed(tested, clips, fdr)
    for above in range(1, tested + 1):
        p = np.array([1 / (clips + 1)] * above + [1.0] * (tested - above))
        listed = suspects.benjamini_hochberg(p) <= fdr * (1 + 1e-12)
        assert listed.any() == (above >= least), above


def test_sources_for_one_suspect():
    assert power.sources_for_one(50, 0.05) == 999
    for tested, fdr in ((1, 0.05), (7, 0.3), (50, 0.1), (3, 0.07)):
        needed = power.sources_for_one(tested, fdr)
        assert power.least_listed(tested, needed, fdr) == 1
        assert needed == 1 or power.least_listed(tested, needed - 1, fdr) > 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: _clips(0), "clips is 0; it must be an integer >= 1"),
        (lambda: _clips(10, 0.5), "per_source is 0.5; it must be a number >= 1"),
        (lambda: _clips(10, math.nan), "per_source is nan; it must be a number >= 1"),
        (lambda: _clips(3, 5), "per_source is 5, more than the 3 clips"),
        (
            lambda: power.smallest_auc(_clips(9), _clips(9), icc=1.5),
            "icc is 1.5; it must be a number in [0, 1]",
        ),
        (
            lambda: power.smallest_auc(_clips(9), _clips(9), alpha=0.5),
            "alpha is 0.5; it must be a number in (0, 0.5)",
        ),
        (
            lambda: power.smallest_auc(_clips(9), _clips(9), power=1),
            "power is 1; it must be a number in [0.5, 1)",
        ),
        (
            lambda: power.clips_for(0.5, _clips(9), _clips(9)),
            "auc is 0.5; it must be a number in (0.5, 1)",
        ),
        (
            lambda: power.smallest_share(0.5, _clips(9), _clips(9)),
            "auc is 0.5; it must be a number in (0.5, 1]",
        ),
        (lambda: power.least_listed(0, 9, 0.1), "suspects is 0; it must be an integer"),
        (lambda: power.least_listed(9, 0, 0.1), "sources is 0; it must be an integer"),
        (lambda: power.sources_for_one(9, 0.0), "fdr is 0.0; it must be a number in ("),
    ],
)
def test_numbers_that_cannot_be(wrong, told):
    with pytest.raises(AuditError) as caught:
        wrong()
    (problem,) = caught.value.problems
    assert problem.startswith(told)


def test_what_is_said_of_members():
    (found,) = power_notes.of_pairs((_clips(30), _clips(30)), None, REPORT)
    assert found == (
        "30 members against 30 non-members",
        [
            "the smallest AUC that a one-sided test at level 0.05 finds with 80 % "
            "power is 0.69; 0.60, the smallest of interest, takes about 104 clips a "
            "role",
            "a TPR at a false-positive rate of 0.1 % cannot be estimated: it "
            "takes 1000 sources of non-members",
            "a TPR at a false-positive rate of 1 % cannot be estimated: it "
            "takes 100 sources of non-members",
            "a TPR at a false-positive rate of 5 % can be estimated: it "
            "takes 20 sources of non-members",
        ],
    )


def test_what_is_said_of_sources():
    ((head, lines),) = power_notes.of_pairs(
        (_clips(300, 5), _clips(20, 20)), None, REPORT
    )
    assert head == "300 members of 60 sources against 20 non-members of 1 source"
    assert lines[0].startswith(
        "there is no AUC that a one-sided test at level 0.05 fin"
    )
    assert "correlate by 0.5 (ICC, assumed); 0.60, the smallest of" in lines[0]
    assert lines[1] == (
        "if scores of one source did not correlate at all, it would be 0.67"
    )
    told = "there will be no verdict: the non-members have 1 source, and it takes 20"
    assert lines[2] == told
    assert "5 % cannot be estimated: it takes 20 sources" in lines[-1]
    ((_, lines),) = power_notes.of_pairs((_clips(200), _clips(200)), None, REPORT)
    assert lines[0].endswith("is 0.57; 0.60, the smallest of interest, is within reach")


def test_what_is_said_of_suspects():
    ((head, lines),) = power_notes.of_pairs(None, (_clips(50), _clips(200)), REPORT)
    assert head == "50 suspects against 200 calibration clips"
    assert lines == [
        "if used videos score with AUC 0.65, the set is found with 80 % power where "
        "76 % or more were",
        "if used videos score with AUC 0.80, the set is found with 80 % power where "
        "38 % or more were",
        "if used videos score with AUC 0.90, the set is found with 80 % power where "
        "29 % or more were",
        "at a false discovery rate of 0.05 no suspect is listed unless at least 5 rank "
        "above every calibration clip; to list one alone takes 999 sources of "
        "calibration clips",
    ]
    ((_, lines),) = power_notes.of_pairs(None, (_clips(8), _clips(20)), REPORT)
    assert lines[0].endswith(
        "the set is not found with 80 % power, not even where all were"
    )
    ((_, lines),) = power_notes.of_pairs(None, (_clips(50), _clips(20)), REPORT, icc=1)
    assert lines[-1].endswith(
        "no suspect is listed unless at least 48 rank above every calibration clip; to "
        "list one alone takes 999 sources of calibration clips"
    )
    ((_, lines),) = power_notes.of_pairs(None, (_clips(2), _clips(39)), REPORT)
    assert (
        lines[-1] == "at a false discovery rate of 0.05 one suspect alone can be listed"
    )


def test_a_list_goes_by_sources_of_calibration_clips():
    ((_, lines),) = power_notes.of_pairs(None, (_clips(50), _clips(1000, 50)), REPORT)
    assert "unless at least 48 rank above every calibration clip" in lines[-1]


def test_too_few_sources_are_reported_before_all_else():
    told = "nothing will be tested or listed: the {}, and it takes {}"
    for pair, its in (
        (
            (_clips(30), _clips(19)),
            told.format("calibration clips have 19 sources", 20),
        ),
        (
            (_clips(30), _clips(95, 5)),
            told.format("calibration clips have 19 sources", 20),
        ),
        ((_clips(5, 5), _clips(40)), told.format("suspects have 1 source", 2)),
    ):
        ((_, lines),) = power_notes.of_pairs(None, pair, REPORT)
        assert lines == [its]


def test_an_audit_logs_that_there_will_be_no_result():
    sizes = {"members": 30, "nonmembers": 19, "suspects": 30, "calibration": 19}
    items = [_item(f"{r}{k}", r) for r, many in sizes.items() for k in range(many)]
    first, second, third = power_notes.brief(items, REPORT)
    assert first.startswith("the smallest AUC that a one-sided test")
    assert second == (
        "there will be no verdict: the non-members have 19 sources, and it takes 20"
    )
    assert third == (
        "nothing will be tested or listed: the calibration clips have 19 sources, and "
        "it takes 20"
    )


def test_numbers_that_differ_look_different():
    said = power.found_auc(_clips(104), _clips(104), 0.05, 0.5999)
    assert "power is 0.5998; 0.5999, the smallest of interest, is within" in said
    said = power.found_auc(_clips(103), _clips(103), 0.05, 0.6)
    assert "power is 0.6003; 0.6000, the smallest of interest, takes about 104" in said
    said = power.found_auc(_clips(30), _clips(30), 0.05, 0.5 + 1e-10)
    assert said.endswith(
        "the smallest of interest, takes more than a million clips a role"
    )


def _item(name: str, role: str, source: str = "", group: str = "") -> Item:
    return Item(f"{name}-{role}", name, name, role, group, source=source)


def test_the_clips_of_a_corpus():
    """Videos count, not rows; a group's members where it has any."""
    items = [
        *(_item("a", "members", "film"), _item("a", "members", "film")),
        *(_item("b", "members", "film", "x"), _item("film", "members")),
        *(_item("c", "nonmembers", "", "x"), _item("d", "nonmembers", "", "y")),
        *(_item("e", "suspects"), _item("f", "suspects", "show")),
    ]
    members, nonmembers = power_notes.roles(items, "all")
    assert members == Clips(3, 5 / 3, 2) and nonmembers == Clips(2, 1.0, 2)
    assert power_notes.roles(items, "x") == (Clips(1, 1.0, 1), Clips(1, 1.0, 1))
    assert power_notes.roles(items, "y") == (members, Clips(1, 1.0, 1))
    assert power_notes.suspects(items) == (Clips(2, 1.0, 2), nonmembers)
    calibrated = [*items, _item("g", "calibration")]
    assert power_notes.suspects(calibrated)[1] == Clips(1, 1.0, 1)
    assert power_notes.roles(items[4:], "all") is None
    assert power_notes.suspects(items[:6]) is None


def test_the_corpus_of_a_configuration(tmp_path):
    """As an audit reads it, with no model, and no video decoded."""
    config = settings.default()
    for role in ("members", "nonmembers"):
        (tmp_path / role).mkdir()
        rows = [{"video": f"{role}/{k}.mp4", "source": str(k // 2)} for k in range(8)]
        for row in rows:
            (tmp_path / row["video"]).write_bytes(b"none" + row["video"].encode())
        (tmp_path / f"{role}.json").write_text(json.dumps(rows))
        config.corpus[role] = (str(tmp_path / f"{role}.json"),)
    ((head, _),) = power_command.of_corpus(config)
    assert head == "8 members of 4 sources against 8 non-members of 4 sources"
    config.report.comparison, config.report.alpha = "film", 0.7
    with pytest.raises(AuditError) as caught:
        power_command.of_corpus(config)
    first, second = caught.value.problems
    assert "config.report.alpha is 0.7; it must be a level in (0, 0.5)" in first
    assert "config.report.comparison is 'film'; it must be all, or the name" in second


def _vidsme(*given: str):
    done = children.run([sys.executable, "-m", "vidsme_jax", "power", *given])
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_the_command():
    numbers = ("--members=30", "--nonmembers=30", "--per_source=5", "--icc=0.2")
    status, said, error = _vidsme(*numbers, "--config.report.smallest_auc=0.75")
    assert status == 0 and not error, error
    assert "30 members of 6 sources against" in said and "by 0.2 (ICC" in said
    assert "0.750, the smallest of interest, takes about 31" in said
    status, said, error = _vidsme(
        "--members=0", "--suspects=5", "--config.report.alpha=2"
    )
    assert status == 2 and not said
    for problem in (
        "- config.report.alpha is 2.0; it must be a level in (0, 0.5)",
        "- --members without --nonmembers: a comparison needs both",
        "- members is 0; it must be an integer >= 1",
        "- --suspects without --calibration: a comparison needs both",
    ):
        assert problem in error
    for wrong, told in (
        (
            ("--members=5", "--nonmembers=5", "--per_source=inf"),
            "per_source is inf; it must be a number >= 1",
        ),
        ((), "give --config, or numbers: --members and --nonmembers, or --suspects"),
        (("--members=5", "--config=configs/llava.py"), "--members and --config: give"),
    ):
        status, said, error = _vidsme(*wrong)
        assert status == 2 and error.count(told) == 1 and not said


def test_answers_that_are_not_scored_are_named(tmp_path):
    rows = [{"video": f"{k}.mp4", "answer": "A door opens." * (k > 0)} for k in (0, 1)]
    for row in rows:
        (tmp_path / row["video"]).write_bytes(row["video"].encode())
    (tmp_path / "m.json").write_text(json.dumps(rows))
    config = settings.default()
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    config.corpus.suspects = (str(tmp_path / "m.json"),)
    (said,) = power_notes.unscored(asking.ask(config, model=False))
    assert said.startswith("1 of 2 rows have answers, which are not scored")
    assert "--config.headline=response_min_k_plus_plus_100" in said
    config.slices, config.headline = ("video", "response"), "response_loss"
    rows[0]["answer"] = "It closes."
    (tmp_path / "m.json").write_text(json.dumps(rows))
    assert not power_notes.unscored(asking.ask(config, model=False))
