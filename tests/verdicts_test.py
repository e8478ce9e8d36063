"""Each verdict at the limits of its rule, and in one sentence."""

import pytest

from vidsme_jax.evaluation import verdicts


@pytest.mark.parametrize("verdict", verdicts.NAMES)
def test_a_verdict_is_one_sentence(verdict):
    auc = {"value": 0.7, "low": 0.6, "high": 0.8}
    evidence = verdicts.Evidence(
        auc, 0.01, 0.3, 0.02, 0.03, 0.05, 0.6, "motion", (30, 30)
    )
    changes = {
        "supported": {},
        "ranks_above_no_placebo": {"p_d": None},
        "chance": {"p_s": 0.4, "auc": auc | {"high": 0.59}},
        "shift": {"p_b": 0.01, "p_r": 0.2},
        "underpowered": {"p_s": 0.2},
        "not_tested": {"sources": (19, 30)},
    }[verdict]
    found = verdicts.of_score(evidence._replace(**changes), 0.05, 0.6)
    assert found["verdict"] == verdict
    text = verdicts.sentence("The score s", found)
    assert text.startswith("The score s ") and text.endswith(".")
    assert ". " not in text and "proves" not in text


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"p_b": 0.05, "blind_auc": 0.71}, "shift"),
        ({"p_b": 0.05, "blind_auc": 0.70}, "supported"),
        ({"p_b": 0.051, "blind_auc": 0.9}, "supported"),
        ({"p_d": 0.051}, "shift"),
        ({"p_c": 0.051}, "ranks_above_no_placebo"),
        ({"p_c": 0.051, "p_d": 0.3}, "ranks_above_no_placebo"),
        ({"p_r": 0.051}, "underpowered"),
        ({"p_s": 0.051}, "underpowered"),
        ({"p_b": None}, "not_tested"),
        ({"auc": {"value": None, "reason": "why"}}, "not_tested"),
    ],
)
def test_the_rules_at_their_limits(changes, verdict):
    auc = {"value": 0.7, "low": 0.6, "high": 0.8}
    evidence = verdicts.Evidence(
        auc, 0.05, 0.3, 0.05, 0.05, 0.05, 0.6, "motion", (20, 20)
    )
    found = verdicts.of_score(evidence._replace(**changes), 0.05, 0.6)
    assert found["verdict"] == verdict


def test_what_was_not_shown_is_not_said_to_be_absent():
    auc = {"value": 0.7, "low": 0.6, "high": 0.8}
    evidence = verdicts.Evidence(
        auc, 0.01, 0.01, 0.059, None, None, 0.6, "motion", (20, 20)
    )
    found = verdicts.of_score(evidence, 0.05, 0.6)
    assert found["verdict"] == "shift"
    assert found["statement"].endswith("and nothing more was shown (p = 0.059)")


def test_a_reference_that_separates_is_reported():
    auc = {"value": 0.8, "low": 0.7, "high": 0.9}
    found = {"comparisons": {"all": {"reference": {"s": {"auc": auc}}}}}
    text = verdicts.of_reference(found, "all", "s")
    assert text.startswith("The reference model's own s separates members from")
    assert "the two sets differ" in text and ". " not in text
    assert verdicts.of_reference({"comparisons": {}}, "all", "s") == ""
    auc["value"], auc["reason"] = None, "why"
    assert verdicts.of_reference(found, "all", "s").endswith("s has no result: why.")
