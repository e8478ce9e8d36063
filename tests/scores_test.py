"""Scores against the release's numbers, and against plain loops."""

import dataclasses
import hashlib
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vidsme_jax import scores
from vidsme_jax.base import AuditError, TokenSignals
from vidsme_jax.entropy import streaming
from vidsme_jax.scores import statistics


@jax.jit
def _head(logits):
    vocab = logits.shape[-1]
    mask = jnp.ones((len(logits), 2, logits.shape[1]), bool)
    eye = jnp.eye(vocab, dtype=jnp.float32)
    return streaming.token_signals(logits, eye, mask, second=True)


def _names(profile):
    """The scores of the video's rows."""
    return scores.resolve("all", profile)


def _signals(logits):
    """Logits (2, rows, vocab) to signals on the host."""
    found = _head(jnp.asarray(logits))
    return TokenSignals(*(x if x is None else np.asarray(x) for x in found))


@pytest.fixture(scope="module")
def release(golden):
    folder = golden / "longva_official"
    table = json.loads((folder / "official_scores.json").read_text())
    return table, np.load(folder / "official_arrays.npz")


@pytest.mark.parametrize("clip", [0, 1])
def test_the_release_from_its_own_logits(release, clip):
    """Every score of the natural direction, and the entropy of every row."""
    table, arrays = release
    record = table["videos"][clip]
    rows = record["slice_rows"] - 1  # The release's slice has a text row behind.
    logits = arrays[f"logits_{clip}"]
    starts = [
        s
        for s in range(len(logits) - rows)
        if abs(_nll(logits[s : s + rows]) - np.log(record["scores"]["ppl"])) < 1e-6
    ]
    assert len(starts) == 1, "the video rows are not where ppl says"
    video = logits[starts[0] :][:rows]
    signals = _signals(np.stack([video, video]))
    q, r = record["q"], record["r"]
    names = [n for n in record["scores"] if "vetp" not in n]
    found = scores.compute(signals, q, r, names, profile="official")
    for name in names:
        expected = pytest.approx(record["scores"][name], rel=1e-4, abs=5e-5)
        assert found[name] == expected, name
    sme = scores.PROFILES["official"].sharma_mittal(signals, q, r)[0]
    expected = arrays[f"sme_nat_{clip}"]
    np.testing.assert_allclose(sme, expected, rtol=1e-4, atol=5e-5)


def _nll(logits):
    x = logits.astype(np.float64)
    log_norm = np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1))
    return log_norm.mean()


def test_difference_scores_from_the_release_rows(release):
    """Sorting and averaging of all vetp names, from its own entropies of each row."""
    table, arrays = release
    nothing = TokenSignals(None, None, None, None)
    for k, record in enumerate(table["videos"]):
        if record["q"] == 1:
            continue
        rows = arrays[f"sme_nat_{k}"] - arrays[f"sme_rev_{k}"]
        names = [n for n in record["scores"] if "vetp" in n and n != "sequence_vetp"]
        official = scores.PROFILES["official"]
        table = {
            name: dataclasses.replace(
                official.table[name], statistic=lambda c, rows=rows: rows
            )
            for name in names
        }
        found = dataclasses.replace(official, table=table).compute(
            nothing, 1.5, 1.0, names
        )
        for name in names:
            assert found[name] == pytest.approx(record["scores"][name], abs=1e-6), name


def test_the_official_names_are_the_release_names(release):
    assert list(scores.PROFILES["official"].table) == list(
        release[0]["videos"][0]["scores"]
    )


def test_names_and_their_order_stay():
    """The columns of scores.csv, of both profiles."""
    names = [name for profile in scores.PROFILES for name in _names(profile)]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert len(names) == 162
    assert digest == "331eefef29878aae3d74f9b0d226054c9c2a73dec283fe9552683613afb7e231"


def test_each_name_stands_in_the_source():
    folder = pathlib.Path(scores.__file__).parent
    for profile in scores.PROFILES.values():
        files = [profile.name, "texts"] if profile.name == "exact" else [profile.name]
        text = "".join((folder / f"{file}.py").read_text() for file in files)
        for name in profile.table:
            assert re.search(rf"(?<![\w%]){re.escape(name)}(?![\w%])", text), name


def test_a_family_is_a_name_without_k():
    for profile in scores.PROFILES.values():
        families = {}
        for name, score in profile.table.items():
            if score.tail != "mean" and not re.match(".*vid_sme|M", name):
                assert name == f"{score.family}_{round(100 * score.ratio)}"
            if score.tail != "mean":
                key = score.slice, score.statistic, score.tail
                families.setdefault(key, score.family)
        assert len(set(families.values())) == len(families), profile.name


@pytest.mark.parametrize(("row", "value"), [("uniform", np.log(50)), ("certain", 0.0)])
def test_statistics_of_a_row_whose_value_is_known(row, value):
    logits = np.zeros((2, 3, 50), np.float32)
    logits[..., 7] = 0.0 if row == "uniform" else 200.0
    clip = statistics.ClipView(_signals(logits), 1.4, 1.05, lambda renyi, q, r: renyi)
    for of in ("renyi_05", "renyi_1", "renyi_2", "renyi_inf", "nll"):
        found = getattr(statistics, of)(clip)
        np.testing.assert_allclose(found, value, atol=1e-5, err_msg=of)
    np.testing.assert_allclose(statistics.perplexity(clip), [np.exp(value)], rtol=1e-5)
    np.testing.assert_allclose(statistics.min_k_plus_plus(clip), 0.0, atol=1e-3)


def test_many_orders_at_once_are_those_one_by_one():
    logits = np.random.default_rng(5).normal(0, 3, (2, 9, 60)).astype(np.float32)
    clip, q, r = _signals(logits), [1.4, 1.0, 1.4], [1.05, 1.0, 1.1]
    for profile in scores.PROFILES.values():
        found = profile.sharma_mittal(clip, q, r)
        for point, both in enumerate(zip(q, r, strict=True)):
            alone = profile.sharma_mittal(clip, *both)
            np.testing.assert_array_equal(found[point], alone)


def test_77_exact_names_are_77_rankings():
    """70 of the release's 85 are distinct; Min-K%++ adds 7."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, rng.uniform(1, 6, (60, 1, 40, 1)), (60, 2, 40, 60))
    clips = [_signals(x.astype(np.float32)) for x in logits]
    for profile, distinct in (("exact", 77), ("official", 70)):
        names = _names(profile)
        values = np.array(
            [
                list(scores.compute(c, 1.4, 1.05, names, profile=profile).values())
                for c in clips
            ]
        )
        rankings = {tuple(np.argsort(column)) for column in values.T}
        assert len(rankings) == distinct, profile


def test_exact_is_the_official_value_with_the_sign_turned():
    logits = np.random.default_rng(1).normal(0, 3, (2, 40, 60)).astype(np.float32)
    clip = _signals(logits)
    exact = scores.compute(clip, 1.4, 1.05, _names("exact"))
    official = scores.compute(clip, 1.4, 1.05, _names("official"), profile="official")
    pairs = {
        "vid_sme": "Min_30.0% vetp",
        "vid_sme_max_0": "Max_vetp",
        "vid_sme_mean": "Mean_vetp",
        "vid_sme_sequence": "sequence_vetp",
        "min_k_prob_5": "Min_5.0% Prob",
        "modified_renyi_05": "Modified_renyi_05",
        "max_prob_gap": "Max_Prob_Gap",
        "max_renyi_2_60": "Max_60.0% renyi_2",
        "min_renyi_inf_90": "Min_90.0% renyi_inf",
    }
    for ours, theirs in pairs.items():
        assert exact[ours] == pytest.approx(-official[theirs], rel=1e-4, abs=1e-6), ours
    assert exact["perplexity"] == pytest.approx(-np.log(official["ppl"]))


def test_by_plain_loops():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (2, 17, 30)).astype(np.float32)
    found = scores.compute(_signals(logits), 1.3, 1.07, _names("exact"))
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)

    def sme(row):
        return ((row**1.3).sum() ** ((1 - 1.07) / (1 - 1.3)) - 1) / (1 - 1.07)

    d = sorted(sme(a) - sme(b) for a, b in zip(*p, strict=True))
    assert found["vid_sme"] == pytest.approx(-np.mean(d[:5]), rel=1e-4)
    assert found["vid_sme_max_10"] == pytest.approx(-np.mean(d[-1:]), rel=1e-4)
    mean = p.mean(1)
    sequence = sme(mean[0]) - sme(mean[1])
    assert found["vid_sme_sequence"] == pytest.approx(-sequence, rel=1e-3, abs=1e-6)
    plus = []
    for row in p[0]:
        mu = (row * np.log(row)).sum()
        sigma = np.sqrt((row * np.log(row) ** 2).sum() - mu**2)
        plus.append((np.log(row.max()) - mu) / sigma)
    lowest = np.mean(sorted(plus)[:5])
    assert found["min_k_plus_plus_30"] == pytest.approx(lowest, rel=1e-4)


def test_every_natural_score_ranks_confident_clips_as_members():
    rng = np.random.default_rng(3)
    names = [n for n in _names("exact") if not n.startswith("vid_sme")]
    # On members' rows one class stands out more.
    values, labels = [], []
    for label in (0, 1):
        for _ in range(12):
            x = rng.normal(0, 1, (2, 24, 40)).astype(np.float32)
            x[..., 0] += 2 + 4 * label + rng.normal(0, 0.1, (2, 24))
            clip = scores.compute(_signals(x), 1.4, 1.05, names)
            values.append([clip[name] for name in names])
            labels.append(label)
    for name, column in zip(names, np.array(values).T, strict=True):
        if "min_k_plus_plus" not in name:  # Standardised: not monotone in confidence.
            assert roc_auc_score(labels, column) > 0.9, name


def test_vid_sme_ranks_clips_more_certain_in_natural_order_as_members():
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (2, 24, 40)).astype(np.float32)
    x[0] *= 3  # The natural order is more certain: lower entropy.
    member = scores.compute(_signals(x), 1.4, 1.05, ["vid_sme"])["vid_sme"]
    other = scores.compute(_signals(x[::-1].copy()), 1.4, 1.05, ["vid_sme"])["vid_sme"]
    assert member > 0 > other


def test_resolving_names():
    assert scores.resolve("vid_sme, perplexity", "exact") == ("vid_sme", "perplexity")
    for several in (("vid_sme", "perplexity"), ["vid_sme", "perplexity", "vid_sme"]):
        assert scores.resolve(several, "exact") == ("vid_sme", "perplexity")
    assert len(scores.resolve("all", "official")) == 85
    for name, slices, other in (
        ("response_loss", ("video",), "score of the video, such as vid_sme"),
        ("vid_sme", ("response",), "of the response, such as response_mean_renyi_1"),
    ):
        said = f"config.slices, or set config.headline to a .*{other}$"
        with pytest.raises(AuditError, match=said):
            scores.headline(name, "exact", slices)
    with pytest.raises(AuditError, match=r"to config\.slices$"):
        scores.headline("vid_sme", "official", ("response",))
    assert scores.resolve(("all",), "exact") == scores.resolve("all", "exact")
    with pytest.raises(AuditError) as caught:
        scores.resolve("vid_smee,min_k", "exact")
    assert len(caught.value.problems) == 2
    assert "unknown score 'vid_smee'" in str(caught.value)
    assert "did you mean 'vid_sme'" in str(caught.value)
    assert scores.headline("vid_sme", "official") == "Min_30.0% vetp"
    with pytest.raises(AuditError, match=r"config\.headline: unknown score 'vid'"):
        scores.headline("vid", "exact")


def test_the_second_pass_is_asked_for_by_scores():
    assert not scores.needs_second_pass(["vid_sme", "max_renyi_05_0"], "exact")
    assert scores.needs_second_pass(["modified_entropy"], "exact")
    assert scores.needs_second_pass(["vid_sme_sequence"], "exact")
    assert scores.needs_second_pass(["Max_0% renyi_05"], "official")


def test_each_score_has_a_line():
    text = scores.describe("exact")
    assert len(text.splitlines()) == 77 + 83 + 87 + 1
    assert all(len(line.split("  ")) >= 2 for line in text.splitlines())


def test_rows_are_averaged_in_float64():
    signals = _signals(np.random.default_rng(0).normal(size=(2, 97, 11)))
    found = scores.compute(signals, 1.5, 1.0, ["mean_renyi_1"])["mean_renyi_1"]
    exact = -math.fsum(signals.renyi[0, :, 1].tolist()) / 97
    assert found == pytest.approx(exact, rel=1e-13)
