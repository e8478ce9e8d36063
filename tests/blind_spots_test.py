"""What the paper's release does that its formulas do not say, one test a surprise.

Where the golden numbers show it, they are the witness; profile `exact` is held against
each.
"""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from vidsme_jax import scores
from vidsme_jax.base import ScoreTable, TokenSignals
from vidsme_jax.entropy import definitions, streaming
from vidsme_jax.evaluation import metrics

RATIOS = ("0%", "5.0%", "10.0%", "30.0%", "60.0%", "90.0%")
VOCABULARY = 152_064  # Qwen2's.


@pytest.fixture(scope="module")
def release(golden):
    file = golden / "longva_official" / "official_scores.json"
    return [video["scores"] for video in json.loads(file.read_text())["videos"]]


@pytest.fixture(scope="module")
def peaked():
    """Log-probabilities of a peaked row over Qwen2's vocabulary."""
    logits = np.random.default_rng(0).normal(0, 6, VOCABULARY)
    logits -= logits.max()
    return jnp.asarray(logits - np.log(np.exp(logits).sum()), jnp.float32)


def test_the_target_is_the_rows_own_argmax(release):
    """So Min-K% Prob is Max-K% Renyi-inf, and the perplexity is its mean."""
    for clip in release:
        for ratio in RATIOS:
            prob, renyi = clip[f"Min_{ratio} Prob"], clip[f"Max_{ratio} renyi_inf"]
            assert prob == pytest.approx(renyi, rel=1e-6)
        mean = clip["Max_100% renyi_inf"]
        assert math.log(clip["ppl"]) == pytest.approx(mean, rel=1e-6)


def test_names_that_mean_the_same(release):
    for clip in release:
        for order in ("05", "1", "2", "inf"):
            both = clip[f"Max_100% renyi_{order}"], clip[f"Min_100% renyi_{order}"]
            assert both[0] == pytest.approx(both[1], rel=1e-6)
        assert clip["Max_vetp"] == clip["Max_0% vetp"]
        assert clip["Min_vetp"] == clip["Min_0% vetp"]
        for name in ("Max_100% vetp", "Min_100% vetp"):
            assert clip["Mean_vetp"] == pytest.approx(clip[name], abs=1e-9)


def test_85_names_are_70_statistics():
    """By what they compute: the same rows, the same average."""
    same = {"nll": "renyi_inf", "perplexity": "renyi_inf"}

    def meaning(name, score):
        statistic = same.get(score.statistic.__name__, score.statistic.__name__)
        whole = score.tail == "mean" or score.ratio == 1.0
        return statistic, "mean" if whole else (score.tail, score.ratio)

    table = scores.PROFILES["official"].table
    assert len(table) == 85
    assert len({meaning(*pair) for pair in table.items()}) == 70
    every = scores.PROFILES["exact"].table
    exact = {name: score for name, score in every.items() if score.slice == "video"}
    assert len({meaning(*pair) for pair in exact.items()}) == len(exact) == 77


def test_renyi_half_has_a_floor():
    """Clamped at 1e-10, a certain row over 152k classes still has 1.85 nats."""
    logits = jnp.full((1, 1, VOCABULARY), -100.0).at[0, 0, 7].set(0.0)
    masks = jnp.ones((1, 2, 1), bool)
    row = streaming.token_signals(jnp.ones((1, 1, 1)), logits[0].T, masks, second=True)
    floor = 2 * math.log(1 + VOCABULARY * 1e-5)
    assert floor == pytest.approx(1.85, abs=0.005)
    assert float(row.renyi_half_clamped[0, 0]) == pytest.approx(floor, rel=1e-5)
    assert float(row.renyi[0, 0, 0]) < 1e-10


def test_q_of_1(release, peaked):
    """The clip with the most motion of every corpus gets noise for an entropy."""
    names = [name for name in release[4] if "vetp" in name]
    assert max(abs(release[4][name]) for name in names) < 5e-4
    assert min(abs(release[5][name]) for name in names) > 1e-3
    official = definitions.sharma_mittal_official(
        peaked, jnp.array(1.0), jnp.array(1.1)
    )
    exact = definitions.sharma_mittal_entropy(peaked, jnp.array(1.0), jnp.array(1.1))
    assert abs(float(official)) < 0.05 < 0.5 < float(exact)


def test_q_near_1(peaked):
    """For 1 < q < 1 + (r - 1) / 100 the exponent's clip distorts the entropy."""
    r = 1.1

    def both(q):
        orders = jnp.array(q), jnp.array(r)
        return (
            float(definitions.sharma_mittal_official(peaked, *orders)),
            float(definitions.sharma_mittal_entropy(peaked, *orders)),
        )

    for q, least in ((1.0001, 0.5), (1.0005, 0.3), (1.0009, 0.05)):
        official, exact = both(q)
        assert official < (1 - least) * exact, q
    official, exact = both(1.01)
    assert official == pytest.approx(exact, rel=1e-2)
    official, exact = both(1.5)
    assert official == pytest.approx(exact, rel=1e-4)


def test_q_and_r_of_1(peaked):
    """A hundred-thousandfold entropy: the clamp's mass over 1e-10."""
    one = jnp.array(1.0)
    official = float(definitions.sharma_mittal_official(peaked, one, one))
    exact = float(definitions.sharma_mittal_entropy(peaked, one, one))
    assert exact == pytest.approx(float(definitions.shannon_entropy(peaked)), rel=1e-5)
    assert 5e3 < official < 1.6e5 and exact < 12


def test_the_sequence_score_averages_a_text_row_too_many():
    """For a tokenizer that puts nothing in front of a text, such as Qwen2's."""
    rng = np.random.default_rng(1)
    video, text = rng.normal(0, 3, (2, 8, 40)), rng.normal(0, 3, (2, 1, 40))
    p = np.exp(np.concatenate([video, text], axis=1))
    p /= p.sum(-1, keepdims=True)

    def sme(q, r, rows):
        power = (rows.mean(0) ** q).sum() ** ((1 - r) / (1 - q))
        return (power - 1) / (1 - r)

    logits = jnp.asarray(np.log(p), jnp.float32)
    masks = np.ones((2, 2, 9), bool)
    masks[:, 0, 8] = False
    eye = jnp.eye(40, dtype=jnp.float32)
    out = streaming.token_signals(logits, eye, jnp.asarray(masks), second=True)
    clip = TokenSignals(*(x if x is None else np.asarray(x) for x in out))
    found = {
        profile: scores.compute(clip, 1.5, 1.05, [name], profile=profile)[name]
        for profile, name in (
            ("official", "sequence_vetp"),
            ("exact", "vid_sme_sequence"),
        )
    }
    nine = sme(1.5, 1.05, p[0]) - sme(1.5, 1.05, p[1])
    eight = sme(1.5, 1.05, p[0, :8]) - sme(1.5, 1.05, p[1, :8])
    assert found["official"] == pytest.approx(nine, rel=1e-4)
    assert found["exact"] == pytest.approx(-eight, rel=1e-4)
    assert abs(nine - eight) > 5e-3


def test_rows_of_one_video_are_counted_as_many():
    """NExT-QA has 17,128 rows on 4,501 videos: their scores are copies."""
    rng = np.random.default_rng(2)
    videos, copies = 60, 4
    score = np.repeat(rng.normal(size=2 * videos), copies)
    role = np.repeat(["members", "nonmembers"], videos * copies).astype(object)

    def width(cluster):
        count = len(score)
        table = ScoreTable(
            id=np.arange(count).astype(str).astype(object),
            video=cluster,
            role=role,
            group=np.full(count, "", object),
            cluster=cluster,
            num_rows=np.full(count, 8),
            flow_variance=np.ones(count),
            brightness_std=np.ones(count),
            q=np.ones(count),
            r=np.ones(count),
            scores={"s": score},
        )
        found = metrics.evaluate(table, (0.05,), 400, 0)
        auc = found["comparisons"]["all"]["scores"]["s"]["auc"]
        return auc["high"] - auc["low"]

    by_video = np.repeat(np.arange(2 * videos), copies).astype(str).astype(object)
    by_row = np.arange(2 * videos * copies).astype(str).astype(object)
    assert width(by_video) > 1.7 * width(by_row)
