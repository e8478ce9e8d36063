"""The statistics of the controlled benchmark, against plain loops."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from vidsme_jax import scores

pytestmark = pytest.mark.usefixtures("beside_scripts")


def _scored(seed: int, clips: int = 60, shift: float = 1.0):
    """Scores of a model whose members have a higher likelihood."""
    import _evidence

    rng = np.random.default_rng([7, seed])
    # Two seeds have the two halves of one split: each clip is in for half of them.
    halves = np.random.default_rng([6, seed // 2])
    member = halves.permutation(np.arange(clips) % 2 == 0) ^ bool(seed % 2)
    easy = np.random.default_rng(1).normal(size=clips)
    log_p = easy + shift * member + 0.5 * rng.normal(size=clips)
    noise = rng.normal(size=clips)
    noise[:6] = noise[0]  # Ties.
    return _evidence.Scored(
        names=("vid_sme", "response_loss", "response_loss_ref"),
        values=np.stack([noise, log_p, log_p - easy]),
        member=member,
        ids=np.array([f"{k:03d}" for k in range(clips)]),
        motion=rng.normal(size=(2, clips)),
        tokens=rng.integers(5, 9, clips),
    )


def _setting(count: int = 5, shift: float = 1.0):
    import _evidence

    seeds = {seed: _scored(seed, shift=shift) for seed in range(count)}
    return _evidence.Setting("drawn", "full", "3", "", "pool", seeds)


def test_the_sample_has_the_auc_and_the_tpr_of_scikit_learn():
    import _evidence

    setting = _setting()
    draws = _evidence.Resampled(setting, {})
    for name in ("vid_sme", "response_loss"):
        aucs, tprs = [], []
        for scored in setting.seeds.values():
            aucs.append(roc_auc_score(scored.member, scored.of(name)))
            fpr, tpr, _ = roc_curve(scored.member, scored.of(name))
            tprs.append(tpr[fpr <= 0.05].max())
        its = _evidence.by_seed(setting, name)
        auc, tpr = draws.of(its, 0.05)
        assert auc[0] == pytest.approx(np.mean(aucs))
        assert tpr[0] == pytest.approx(np.mean(tprs))


def test_a_resample_counts_sources_as_often_as_they_are_drawn():
    """A loop that repeats clips gives the same, with the same sources in all seeds."""
    import _evidence

    setting = _setting(3)
    sources = {f"{k:03d}": f"film {k // 4}" for k in range(60)}
    draws = _evidence.Resampled(setting, sources)
    its = _evidence.by_seed(setting, "response_loss")
    its[0][[3, 9, 11]] = np.nan  # As the smallest of all.
    low = {seed: np.nan_to_num(values, nan=-99.0) for seed, values in its.items()}
    found = draws.of(its, 0.1)
    for k in (1, 2, 500):
        values, tprs = [], []
        for seed, times in zip(draws.seeds, draws._chosen[k], strict=True):
            scored, weights = setting.seeds[seed], draws._weights[seed][:, k]
            of_source = {}
            for clip, weight in zip(scored.ids, weights, strict=True):
                of_source.setdefault(sources[clip], set()).add(weight)
            assert all(len(x) == 1 for x in of_source.values())
            rows = np.repeat(np.arange(60), weights.astype(int))
            ranked = scored.member[rows], low[seed][rows]
            values += [roc_auc_score(*ranked)] * times
            fpr, tpr, _ = roc_curve(*ranked)
            tprs += [tpr[fpr <= 0.1 + 1e-9].max()] * times
        assert found[0][k] == pytest.approx(np.mean(values), abs=1e-6)
        assert found[1][k] == pytest.approx(np.mean(tprs), abs=1e-6)


def test_intervals_cover_chance_of_scores_that_say_nothing():
    import _evidence

    outside = 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        setting = _setting(5)
        its = {seed: rng.normal(size=60) for seed in setting.seeds}
        found = _evidence.interval(
            _evidence.Resampled(setting, {}, trial).of(its, 0.1)[0]
        )
        outside += not found["low"] <= 0.5 <= found["high"]
    assert outside <= 6


def test_every_score_that_is_shown_or_summed_has_its_name():
    import _combination
    import _headline
    import _tables

    known = {"lira", "rmia"}
    known |= set(scores.resolve("all", "exact", ("video", "response"), True))
    for names in (_combination.GIVEN, _combination.GREEDY, _tables.SHOWN):
        assert set(names) <= known
    assert set(_headline.GIVEN) | set(_headline.GREEDY) <= known


def test_greedy_scores_are_next_to_those_of_the_video():
    import _evidence

    plain = _scored(0)
    greedy = dataclasses.replace(
        plain,
        names=("instruction_loss", "response_loss"),
        values=np.stack([plain.values[0], plain.values[1] + 1]),
    )
    found = _evidence._joined(greedy, plain)
    assert found.names == ("vid_sme", "response_loss")
    np.testing.assert_array_equal(found.values, [plain.values[0], plain.values[1] + 1])
    with pytest.raises(ValueError, match="other clips"):
        other = dataclasses.replace(greedy, ids=greedy.ids[::-1])
        _evidence._joined(other, plain)


def test_lira_and_rmia_are_those_of_plain_loops():
    import _lira

    seeds = {seed: _scored(seed) for seed in range(8)}
    found = _lira.ceilings(seeds)
    for key in (0, 5):
        target = seeds[key]
        others = [seeds[k] for k in seeds if k != key]
        log_p, spread, count = target.of("response_loss"), [0.0, 0.0], [0, 0]
        means = np.zeros((2, 60))
        for clip in range(60):
            for k in (0, 1):
                its = [
                    x.of("response_loss")[clip] for x in others if x.member[clip] == k
                ]
                means[k, clip] = np.mean(its)
                spread[k] += sum((v - means[k, clip]) ** 2 for v in its)
                count[k] += len(its) - 1
        sigma = [math.sqrt(a / b) + 1e-3 for a, b in zip(spread, count, strict=True)]
        wanted = [
            stats.norm.logpdf(log_p[c], means[1, c], sigma[1])
            - stats.norm.logpdf(log_p[c], means[0, c], sigma[0])
            for c in range(60)
        ]
        np.testing.assert_allclose(found["lira"][key], wanted, rtol=1e-6, atol=1e-9)
        ratio = []
        for clip in range(60):
            halves = [
                np.mean(
                    [
                        math.exp(x.of("response_loss")[clip])
                        for x in others
                        if x.member[clip] == k
                    ]
                )
                for k in (0, 1)
            ]
            ratio.append(log_p[clip] - math.log(np.mean(halves)))
        for clip in range(60):
            z = [c for c in range(60) if not target.member[c] and c != clip]
            share = np.mean([ratio[clip] > ratio[c] for c in z])
            assert found["rmia"][key][clip] == pytest.approx(share, abs=1e-6)
    aucs = {
        name: np.mean([roc_auc_score(seeds[k].member, its[k]) for k in seeds])
        for name, its in found.items()
    }
    plain = np.mean(
        [roc_auc_score(x.member, x.of("response_loss")) for x in seeds.values()]
    )
    assert min(aucs.values()) > plain + 0.05, (aucs, plain)


def test_a_clip_that_no_reference_has_takes_the_others_mean():
    import _lira

    values = np.array([[1.0, 2.0, 5.0], [3.0, 4.0, 7.0], [2.0, 3.0, 6.0]])
    member = np.array([[True, False, False], [False, True, False], [True, True, False]])
    own, out = _lira._means(values, member)
    np.testing.assert_allclose(own[:2], [1.5, 3.5])
    np.testing.assert_allclose(out, [3.0, 2.0, 6.0])
    assert own[2] == 6 + np.mean([1.5 - 3.0, 3.5 - 2.0])
    swapped = _lira._means(values, ~member)
    np.testing.assert_allclose(swapped[0], out)
    np.testing.assert_allclose(swapped[1][:2], own[:2])


@pytest.mark.parametrize(
    "count, there", [(1, False), (2, False), (7, False), (8, True)]
)
def test_few_seeds_have_no_ceiling(count, there):
    """Rather than one of a single other model; a table leaves its row out."""
    import _evidence
    import _lira
    import _tables

    setting = _setting(count)
    assert set(_lira.ceilings(setting.seeds)) == ({"lira", "rmia"} if there else set())
    found = _evidence.evaluated(setting, {})
    assert ({"lira", "rmia"} <= set(found["scores"])) == there
    table = _tables.markdown([found], ("response_loss", "lira", "rmia"))
    assert ("`rmia`" in table) == ("`lira`" in table) == there


def test_a_clip_that_all_references_have_has_a_ratio_in_rmia():
    """Moved by what others gain, it would have a likelihood of -0.59: by hand."""
    import _lira

    likely = np.array([[0.01, 0.9, 0.2], [0.01, 0.3, 0.8], [0.01, 0.3, 0.8]])
    member = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 1]], bool)
    others = np.array([False, True, True])
    # Ratios: of the first 0.02 / 0.01, then 0.004 / 0.01; of the others 1 and 1/2.
    for own, wanted in ((0.02, [1, 1, 0]), (0.004, [0, 1, 0])):
        log_p = np.log([own, 0.6, 0.25])
        for side in (member, ~member):  # That all have, and that none has.
            found = _lira.rmia(log_p, np.log(likely), side, others)
            np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("pool, fpr", [("drawn", 0.01), ("film", 0.05)])
def test_the_rate_of_false_positives_of_a_pool(pool, fpr):
    """Of the drawn pool, which is larger, a smaller one."""
    import _evidence

    setting = dataclasses.replace(_setting(3), pool=pool)
    found = _evidence.evaluated(setting, {})
    assert found["fpr"] == fpr
    tprs = []
    for scored in setting.seeds.values():
        its, tpr, _ = roc_curve(scored.member, scored.of("response_loss"))
        tprs.append(tpr[its <= fpr].max())
    value = found["scores"]["response_loss"]["tpr"]["value"]
    assert value == pytest.approx(np.mean(tprs))


def test_what_is_reported_of_a_setting():
    import _evidence

    found = _evidence.evaluated(_setting(8), {})
    assert found["seeds"] == 8 and found["members"] == 30
    assert set(found["scores"]) == {
        *("vid_sme", "response_loss", "response_loss_ref", "lira", "rmia")
    }
    auc = {name: x["auc"] for name, x in found["scores"].items()}
    assert auc["vid_sme"]["low"] < 0.5 < auc["vid_sme"]["high"]
    assert auc["response_loss_ref"]["low"] > auc["response_loss"]["value"] > 0.6
    assert found["scores"]["response_loss_ref"]["tpr_less_vid_sme"]["low"] > 0
    alone = found["reference"]["response_loss"]["auc"]
    assert alone["low"] < 0.5 < alone["high"]
    gain = found["scores"]["response_loss_ref"]["auc_less_plain"]
    assert gain["value"] == pytest.approx(
        auc["response_loss_ref"]["value"] - auc["response_loss"]["value"]
    )
    assert 0.7 < found["gap"] < 1.3
    assert set(found["blind"]) == {"motion", "brightness", "answer_tokens"}


def test_clips_that_a_set_test_needs():
    """By simulation of the rank-sum test, one-sided at 5 %."""
    import _evidence

    needed = _evidence.clips_needed(0.65, 100)
    rng, shift, hits = np.random.default_rng(0), 2**0.5 * stats.norm.ppf(0.65), 0
    for _ in range(400):
        one, other = rng.normal(shift, 1, needed), rng.normal(0, 1, 100)
        test = stats.mannwhitneyu(one, other, alternative="greater")
        hits += test.pvalue <= 0.05
    assert 0.74 < hits / 400 < 0.88
    assert _evidence.clips_needed(0.5, 100) is None
    # By trying: the variance of the AUC by chance is (m + n + 1) / (12 m n).
    for auc, others in ((0.6, 100), (0.7, 100), (0.8, 20), (0.65, 500), (0.9, 7)):
        least = (
            m
            for m in range(1, 10**4)
            if 2.487 * math.sqrt((m + others + 1) / (12 * m * others)) <= auc - 0.5
        )
        assert _evidence.clips_needed(auc, others) == next(least)
    assert _evidence.clips_needed(0.55, 100) is None
    assert _evidence.clips_needed(0.55, 500) == 352


def test_words_without_a_network():
    import _answers

    answers = ["a red ball", "a blue ball", "a red cube", "a green cone"]
    member = [True, True, False, False]
    one = _answers.ngram_scores(answers, member, 1)
    words = {"a": 2, "red": 1, "ball": 2, "blue": 1, "</s>": 2}
    vocabulary = {w for x in answers for w in x.split()} | {"<s>", "</s>"}
    total = sum(words.values()) + 0.1 * len(vocabulary)
    wanted = [
        np.mean(
            [math.log((words.get(w, 0) + 0.1) / total) for w in [*x.split(), "</s>"]]
        )
        for x in answers
    ]
    np.testing.assert_allclose(one, wanted)
    # The first one's own words taken out: "a blue ball </s>" is all that is left.
    words, total = {"a": 1, "ball": 1, "blue": 1, "</s>": 1}, 4 + 0.1 * len(vocabulary)
    left = _answers.ngram_scores(answers, member, 1, left_out=True)
    logs = [
        math.log((words.get(w, 0) + 0.1) / total) for w in ["a", "red", "ball", "</s>"]
    ]
    assert left[0] == pytest.approx(np.mean(logs))
    # A non-member is ranked by one of the two as well, whichever is drawn.
    for place, common in ((2, (("red", "a"), ("a",))), (3, (("a",), ("a",)))):
        hits = [len(x) + 1 for x in common]  # And the end.
        wanted = [
            (k * math.log(1.1 / total) + (4 - k) * math.log(0.1 / total)) / 4
            for k in hits
        ]
        assert min(abs(left[place] - x) for x in wanted) < 1e-9
    two = _answers.ngram_scores(answers, member, 2)
    assert two[:2].min() > two[2:].max()
    pairs = _answers.ngram_scores(["x y", "x y", "y"], [1, 1, 0], 2, left_out=True)
    # "<s> x", "x y" and "y </s>", once each in the other: four words in all.
    np.testing.assert_allclose(pairs[:2], math.log(1.1 / 1.4))
    alone = _answers.ngram_scores(["x y", "z"], [True, False], 2, left_out=True)
    np.testing.assert_allclose(alone[0], math.log(0.1 / 0.5))  # Nothing is left.
    # Where no answer has a word of another, members are told by no more than chance.
    strange = _answers.ngram_scores(
        list("abcdef"), [1, 1, 1, 0, 0, 0], 1, left_out=True
    )
    assert np.ptp(strange) == pytest.approx(0, abs=1e-12)
    assert _answers.shared(["a", "b"], ["b", "c"]) == 0.5
    overlap = _answers.overlaps({"x": "a red cube"}, {"x": "a red ball", "y": "a"})
    assert overlap == {"x": pytest.approx(2 / 3), "y": 0}


def test_cells_are_read_back(tmp_path):
    """Only those that are done; clips in one order; parts apart."""
    import _evidence

    scored = _scored(3)
    order = np.random.default_rng(0).permutation(60)
    arrays = {
        "pool/id": scored.ids[order],
        "pool/names": np.array(scored.names),
        "pool/scores": scored.values[:, order].astype("f4"),
        "pool/member": scored.member[order],
        "pool/motion": scored.motion[:, order],
        "pool/tokens": scored.tokens[order],
    }
    names = ["drawn-full-03-10", "drawn-full-04-10", "drawn-lora-03-end"]
    for name in (*names, "drawn-lora-03-end-greedy"):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for name in ("drawn-full-03", "drawn-lora-03"):
        (tmp_path / f"{name}.json").write_text(json.dumps({}))
    one, plain, other = _evidence.settings(tmp_path)
    assert plain.kind == "" and plain.name == "drawn lora end"
    assert (one.method, one.snapshot, one.kind) == ("full", "10", "")
    assert (other.method, other.snapshot, other.kind) == ("lora", "end", "-greedy")
    assert list(one.seeds) == [3] and not _evidence.settings(tmp_path, "shifted")
    np.testing.assert_array_equal(one.seeds[3].ids, scored.ids)
    np.testing.assert_allclose(one.seeds[3].values, scored.values, rtol=1e-6)
    assert one.seeds[3].gap == pytest.approx(scored.gap, abs=1e-6)


@pytest.mark.long
def test_training_is_compared_with_a_loop_of_torch(capsys, monkeypatch):
    import training

    few = ["--steps", "3", "--rounds", "2", "--batch", "2"]
    assert training.main(few) == 0
    ours, theirs = map(json.loads, capsys.readouterr().out.splitlines())
    assert (
        ours["difference"] < 1e-4 and ours["equal"] and ours["peer"] == "transformers"
    )
    np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=1e-4)
    assert ours["value"] > 0 and ours["ratio_of"] == "cpu seconds"
    old = training.steps.make_schedule  # Of the other side, once ours is compiled.
    monkeypatch.setattr(
        training.steps, "make_schedule", lambda *args: lambda k: 3 * old(*args)(k)
    )
    assert training.main(few) == 1
