"""Scores of questions and answers, with and without a reference, by plain loops."""

import dataclasses
import hashlib
import math
import zlib

import numpy as np
import pytest

from scored_texts import log_softmax, scored_text
from vidsme_jax import scores
from vidsme_jax.base import AuditError, TokenSignals
from vidsme_jax.scores import Revealed

Q, R, CLASSES = 1.3, 1.07, 30
SLICES = np.repeat([1, 2], [11, 17])  # Of rows: the question's, then the answer's.
LAST = {"instruction": slice(0, 11), "response": slice(11, 28)}
BOTH = ("instruction", "response")


def _names(*slices, reference=False):
    return scores.resolve("all", "exact", slices, reference)


def _text(seed, sharpness=2.0, **more):
    """A text whose targets are probable, and its logits: natural, other, grey."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (3, len(SLICES), CLASSES))
    tokens = np.where(rng.random(len(SLICES)) < 0.6, logits[0].argmax(-1), 7)
    text = scored_text(logits[:2], tokens, SLICES, blank=logits[2], **more)
    return text, logits, tokens


def _compute(names, text, **more):
    return scores.compute(None, Q, R, names, text=text, **more)


def _loop(where, logits, tokens, answer):
    """Every score of a slice from its log-probabilities, a row at a time."""
    rows = list(range(len(tokens)))[LAST[where]]
    natural, other, grey = log_softmax(np.float64(logits))

    def p(row):
        return np.exp(natural[row])

    def sme(log_p):
        return (np.sum(np.exp(log_p) ** Q) ** ((1 - R) / (1 - Q)) - 1) / (1 - R)

    def renyi(log_p, order):
        if order == 1:
            return -math.fsum(np.exp(log_p) * log_p)
        if order == math.inf:
            return -max(log_p)
        return math.log(math.fsum(np.exp(log_p) ** order)) / (1 - order)

    def entropy(row):
        return renyi(natural[row], 1)

    def deviation(row):
        return math.sqrt(math.fsum(p(row) * (natural[row] + entropy(row)) ** 2))

    def ends(values, largest, k):
        count = max(1, int(len(values) * k / 100))
        return np.mean(sorted(values, reverse=largest)[:count])

    hit = [natural[row, tokens[row]] for row in rows]
    plus = [(x + entropy(i)) / deviation(i) for x, i in zip(hit, rows, strict=True)]
    ranks = [
        sorted(natural[i], reverse=True).index(natural[i, tokens[i]]) for i in rows
    ]
    found = {
        "loss": np.mean(hit),
        "loss_sum": math.fsum(hit),
        "rank": -np.mean([math.log(1 + each) for each in ranks]),
        "standardised_entropy": -np.mean(
            [entropy(i) / math.hypot(entropy(i), deviation(i)) for i in rows]
        ),
        "min_k_plus_plus_100": np.mean(plus),
    }
    for k in (0, 5, 10, 30, 60, 90):
        found[f"min_k_prob_{k}"] = ends(hit, False, k)
        found[f"min_k_plus_plus_{k}"] = ends(plus, False, k)
    for name, order in (("05", 0.5), ("1", 1), ("2", 2), ("inf", math.inf)):
        values = [renyi(natural[i], order) for i in rows]
        found[f"mean_renyi_{name}"] = -np.mean(values)
        for k in (0, 5, 10, 30, 60, 90):
            found[f"max_renyi_{name}_{k}"] = -ends(values, True, k)
            found[f"min_renyi_{name}_{k}"] = -ends(values, False, k)
    differences = [sme(natural[i]) - sme(other[i]) for i in rows]
    found["vid_sme"] = -ends(differences, False, 30)
    found["vid_sme_mean"] = -np.mean(differences)
    for k in (0, 5, 10, 60, 90):
        found[f"vid_sme_min_{k}"] = -ends(differences, False, k)
    for k in (0, 5, 10, 30, 60, 90):
        found[f"vid_sme_max_{k}"] = -ends(differences, True, k)
    first, second = (np.log(np.mean(np.exp(x[rows]), 0)) for x in (natural, other))
    found["vid_sme_sequence"] = -(sme(first) - sme(second))
    if where == "response":
        found["pmi"] = np.mean(
            [natural[i, tokens[i]] - other[i, tokens[i]] for i in rows]
        )
        against = [grey[i, tokens[i]] for i in rows]
        found["pmi_blank"] = np.mean(hit) - np.mean(against)
        found["zlib"] = math.fsum(hit) / len(zlib.compress(answer.encode(), 9))
    return {f"{where}_{name}": value for name, value in found.items()}


@pytest.mark.parametrize("where", BOTH)
def test_every_score_is_its_plain_loop(where):
    text, logits, tokens = _text(0, answer="é cat, a cat, a cat")
    expected = _loop(where, logits, tokens, text.asked.answer)
    found = _compute(_names(where), text)
    assert list(found) == list(_names(where)) and set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-5, abs=2e-6), name


def test_windows_by_a_loop():
    text, *_ = _text(1)
    gain = np.random.default_rng(1).normal(0, 1, 28).astype(np.float32)
    gain -= gain[11:].mean()  # Windows of all sizes go either way.
    log_p = text.signals.log_prob - gain
    other = dataclasses.replace(text, signals=text.signals._replace(log_prob=log_p))
    gain = np.array(text.signals.log_prob[0] - log_p[0], np.float64)[11:]
    shares = []
    for size in (2, 3, 4, 6, 9, 13, 17, 17, 17, 17):
        sums = [sum(gain[i : i + size]) for i in range(17 - size + 1)]
        shares.append(np.mean([total > 0 for total in sums]))
    assert len(set(shares)) > 5
    reference = Revealed(text=other)
    found = _compute(["response_wbc"], text, reference=reference)["response_wbc"]
    assert found == pytest.approx(np.mean(shares), abs=1e-12)
    same = _compute(["response_wbc"], text, reference=Revealed(text=text))
    assert same["response_wbc"] == 0.5
    moved = dataclasses.replace(other, tokens=(other.tokens + 1) % CLASSES)
    for lacking in (Revealed(text=moved), Revealed()):
        assert math.isnan(
            _compute(["response_wbc"], text, reference=lacking)["response_wbc"]
        )


def test_calibrated_is_less_the_reference_of_every_slice():
    text, *_ = _text(3)
    other, *_ = _text(4)
    video = [
        TokenSignals(*(None if x is None else 0.5 * k * x for x in text.signals))
        for k in (1, 2)
    ]
    video = [
        each._replace(modified=np.ones((2, 28, 3)) * k) for k, each in enumerate(video)
    ]
    video = [
        each._replace(mean_renyi=np.ones((2, 2, 15)) * np.arange(2)[:, None, None] * k)
        for k, each in enumerate(video)
    ]
    names = _names("video", *BOTH, reference=True)
    plain = [n for n in names if not n.endswith("_ref") and n != "response_wbc"]
    assert len(names) == 2 * (77 + 83 + 86) + 1
    found = scores.compute(
        video[0], Q, R, names, text=text, reference=Revealed(video[1], other)
    )
    own = scores.compute(video[0], Q, R, plain, text=text)
    others = scores.compute(video[1], Q, R, plain, text=other)
    assert list(found) == list(names)
    for name in plain:
        assert found[name] == own[name]
        assert found[f"{name}_ref"] == own[name] - others[name], name
    half = scores.compute(
        video[0],
        Q,
        R,
        ["vid_sme_ref", "response_loss_ref"],
        text=text,
        reference=Revealed(video[1]),
    )
    assert not math.isnan(half["vid_sme_ref"]) and math.isnan(half["response_loss_ref"])
    released = scores.compute(
        video[0],
        Q,
        R,
        ["Min_30.0% vetp_ref"],
        profile="official",
        reference=Revealed(video[1]),
    )
    assert released["Min_30.0% vetp_ref"] == pytest.approx(
        -found["vid_sme_ref"], rel=1e-3
    )


def test_the_more_certain_text_ranks_higher():
    """Of two texts one knows its targets, in the natural order more than otherwise."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1, (3, len(SLICES), CLASSES))
    tokens = rng.integers(CLASSES, size=len(SLICES))
    knows = logits.copy()
    knows[:, np.arange(len(SLICES)), tokens] += np.array([[9.0], [4.0], [3.0]])
    pair = [scored_text(x[:2], tokens, SLICES, blank=x[2]) for x in (knows, logits)]
    names = [n for n in _names(*BOTH, reference=True) if not n.endswith("_ref")]
    reference = Revealed(text=pair[1])
    member, other = (_compute(names, text, reference=reference) for text in pair)
    for name in names:
        assert member[name] > other[name], name


def test_limits_of_a_certain_and_of_a_uniform_row():
    certain = np.zeros((2, 28, CLASSES))
    certain[..., 3] = 300.0
    tokens = np.full(28, 3)
    names = [n for n in _names(*BOTH) if "zlib" not in n]
    found = _compute(names, scored_text(certain, tokens, SLICES, blank=certain[0]))
    assert all(abs(value) < 1e-6 for value in found.values()), found
    uniform = np.zeros((2, 28, CLASSES))
    found = _compute(names, scored_text(uniform, tokens, SLICES, blank=uniform[0]))
    log = math.log(CLASSES)
    assert found["response_loss"] == pytest.approx(-log)
    assert found["response_loss_sum"] == pytest.approx(-17 * log)
    assert found["response_mean_renyi_inf"] == pytest.approx(-log)
    assert found["instruction_standardised_entropy"] == pytest.approx(-1)
    assert found["instruction_rank"] == pytest.approx(-math.log((CLASSES + 1) / 2))
    for name in ("response_pmi", "response_pmi_blank", "response_vid_sme_sequence"):
        assert found[name] == pytest.approx(0, abs=1e-6), name


def test_a_slice_without_rows_has_no_score():
    text, *_ = _text(6)
    text = dataclasses.replace(text, slice=np.full(28, 2, np.int8))
    found = _compute(["instruction_loss", "response_loss"], text)
    assert math.isnan(found["instruction_loss"]) and found["response_loss"] < 0


def test_unknown_names_and_lacking_signals_are_reported():
    text, *_ = _text(7)
    with pytest.raises(
        AuditError, match=r"unknown score 'respons_loss'.*'response_loss'"
    ):
        _compute(["respons_loss"], text)
    with pytest.raises(AuditError, match="unknown score 'response_wbc_ref'"):
        _compute(["response_wbc_ref"], text, reference=Revealed(text=text))
    with pytest.raises(AuditError, match="response_loss_ref needs a reference"):
        _compute(["response_loss_ref"], text)
    with pytest.raises(AuditError, match="vid_sme is of the video's rows"):
        _compute(["vid_sme"], text)
    with pytest.raises(AuditError, match="text is None"):
        _compute(["response_loss"], None)
    for field, name in (
        ("mean_renyi", "response_vid_sme_sequence"),
        ("rank", "instruction_rank"),
    ):
        bare = dataclasses.replace(text, signals=text.signals._replace(**{field: None}))
        with pytest.raises(AuditError, match=f"the signals lack {field}"):
            _compute([name], bare)
    with pytest.raises(AuditError, match="the signals lack blank"):
        _compute(["response_pmi_blank"], dataclasses.replace(text, blank=None))


def test_names_of_texts_and_their_order_stay():
    names = "\n".join(_names(*BOTH, reference=True))
    digest = hashlib.sha256(names.encode()).hexdigest()
    assert digest == "416ed0098b5a194cb6a5b46dc33b24338cc7016aa44e63b7bb24c026c3cf0598"


def test_names_are_those_of_the_slices_and_the_reference():
    assert len(_names("video")) == 77
    assert {n.split("_")[0] for n in _names("response")} == {"response"}
    assert {n.partition("_")[2] for n in _names("instruction")} < {
        n.partition("_")[2] for n in _names("response")
    }
    assert "response_wbc" not in _names(*BOTH)
    assert "response_wbc" in _names("response", reference=True)
    assert len(scores.resolve("all", "official", ("video", "response"))) == 85
    with pytest.raises(AuditError, match="of which profile official has no scores"):
        scores.resolve("all", "official", ("response",))


@pytest.mark.parametrize(
    ("name", "profile", "expected"),
    [
        (
            "response_loss",
            "exact",
            "a score of the response slice, and config.slices is",
        ),
        ("vid_sme_ref", "exact", "compares with a reference model, and there is none"),
        ("response_loss", "official", "config.profile=exact has it"),
        ("instruction_los", "exact", "unknown score 'instruction_los'"),
    ],
)
def test_a_score_that_cannot_be_computed_is_reported_with_the_remedy(
    name, profile, expected
):
    slices = ("video", "instruction")
    with pytest.raises(AuditError, match=r"^- config\.scores: ") as caught:
        scores.resolve(
            f"ppl, {name}" if profile == "official" else name, profile, slices
        )
    assert expected in str(caught.value) and len(caught.value.problems) == 1
    with pytest.raises(AuditError, match=r"^- config\.headline: ") as caught:
        scores.headline(name, profile, slices)
    assert expected in str(caught.value)


def test_what_a_score_needs():
    assert not scores.needs_second_pass(["response_vid_sme_sequence"], "exact")
    assert scores.needs_text_second_pass(["response_vid_sme_sequence"], "exact")
    assert not scores.needs_text_second_pass(
        ["vid_sme_sequence", "response_loss"], "exact"
    )
    assert scores.needs_second_pass(["modified_entropy_ref"], "exact")
    assert scores.needs_blank(["response_pmi_blank_ref"], "exact")
    assert not scores.needs_blank(["response_pmi", "vid_sme"], "exact")


def test_the_score_next_to_the_headline_is_a_rule():
    names = _names("video", "response", reference=True)
    beside = scores.beside("response_loss", names, "exact")
    assert beside == ("vid_sme", "control")
    assert scores.beside("vid_sme_ref", names, "exact") == ("vid_sme", "control")
    second = scores.beside("vid_sme", names, "exact")
    assert second == ("response_min_k_plus_plus_100", "second score")
    greedy = scores.beside("vid_sme", names, "exact", greedy=True)
    assert greedy == ("response_mean_renyi_1", "second score")
    assert scores.beside("vid_sme", _names("video"), "exact") is None
    assert scores.beside("response_loss", _names("response"), "exact") is None
    released = scores.beside("ppl", scores.resolve("all", "official"), "official")
    assert released == ("Min_30.0% vetp", "control")
