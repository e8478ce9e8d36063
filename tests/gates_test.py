"""The gate of a release: exit 4 where the lower end of an interval is above a limit."""

import json
import pathlib
import sys

import pytest

import children
from vidsme_jax import audit, exits, settings
from vidsme_jax.base import AuditError
from vidsme_jax.commands.finished import run_record
from vidsme_jax.evaluation import gates
from vidsme_jax.evaluation.gates import Limits
from vidsme_jax.run import asking

DEMO = pathlib.Path(__file__).parents[1] / "configs" / "llava.py"


def _found(auc, tpr=None):
    ends = dict(zip(("value", "low", "high"), auc, strict=True))
    rate = {"value": None, "low": None, "high": None, "reason": "refused: too few"}
    if tpr:
        rate = dict(zip(("value", "low", "high"), tpr, strict=True))
        rate["of_population"] = {"low": tpr[1] - 0.1, "high": tpr[2] + 0.1}
    return {"all": {"scores": {"s": {"auc": ends, "tpr": {"0.01": rate}}}}}


@pytest.mark.parametrize(
    ("low", "passed"), [(0.59, True), (0.6, True), (0.6001, False), (0.9, False)]
)
def test_the_lower_end_counts(low, passed):
    found = gates.judge(_found((0.95, low, 0.99)), "all", Limits("s", auc=0.6))
    assert found and found["passed"] is passed
    assert found["checks"][0]["found"] == low
    result = "passed" if passed else "exceeded"
    assert found["statement"].startswith(f"Gate {result}: the AUC of s (all) is 0.95")
    assert "\n" not in found["statement"]


def test_a_tpr_counts_at_the_threshold_found():
    found = _found((0.9, 0.8, 0.95), tpr=(0.5, 0.45, 0.6))
    judged = gates.judge(found, "all", Limits("s", tpr=0.45))
    assert judged and judged["passed"]
    assert judged["checks"][0]["found"] == 0.45
    judged = gates.judge(found, "all", Limits("s", tpr=0.44))
    assert judged and not judged["passed"]


def test_one_limit_that_is_exceeded_is_enough():
    judged = gates.judge(_found((0.9, 0.8, 0.95)), "all", Limits("s", auc=0.7, tpr=0.1))
    assert judged and judged["statement"].startswith("Gate exceeded: ")
    assert [x["result"] for x in judged["checks"]] == ["exceeded", "not evaluable"]


@pytest.mark.parametrize(
    "limits",
    [Limits("s", tpr=0.1), Limits("other", auc=0.7), Limits("s", tpr=0.1, fpr=0.5)],
)
def test_what_cannot_be_compared_is_not_passed(limits):
    judged = gates.judge(_found((0.9, 0.8, 0.95)), "all", limits)
    assert judged and not judged["passed"]
    assert judged["statement"].startswith("Gate not evaluable: ")
    other = gates.judge(_found((0.9, 0.8, 0.95)), "none", limits)
    assert other and not other["passed"]


def test_what_is_no_number_is_not_passed():
    nan = float("nan")
    judged = gates.judge(_found((0.9, nan, nan)), "all", Limits("s", auc=0.7))
    assert judged and judged["result"] == "not evaluable"


def test_a_score_against_its_sign_is_said_to_be():
    judged = gates.judge(_found((0.2, 0.1, 0.3)), "all", Limits("s", auc=0.7))
    assert judged and judged["passed"] and "against its sign" in judged["statement"]


def test_without_limits_there_is_no_gate():
    assert gates.judge(_found((0.9, 0.8, 0.95)), "all", Limits("s")) is None


def test_the_gate_comes_before_failures():
    exceeded, passed = {"passed": False}, {"passed": True}
    assert exits.ended(failures=True, gate=exceeded) == 4
    assert exits.ended(failures=False, gate=exceeded) == 4
    assert exits.ended(failures=True, gate=passed) == 3
    assert exits.ended(failures=False, gate=None) == 0


def _config(**changes):
    config = settings.variant(
        settings.default(), "tiny", {"tiny": "random:llava_qwen-tiny"}
    )
    config.scores = "vid_sme,perplexity"
    config.update_from_flattened_dict({f"gate.{k}": x for k, x in changes.items()})
    return config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"max_auc": 0.7, "score": "vid_sm"},
            "config.gate.score is 'vid_sm', a score that is not computed; take one of "
            "config.scores, or the headline; did you mean 'vid_sme'?",
        ),
        ({"score": "perplexity"}, "config.gate.score: give config.gate.max_auc or"),
        ({"max_tpr": 0.1, "fpr": 0.02}, r"config.gate.fpr is 0.02, and no TPR is est"),
        ({"max_auc": 1.5}, r"config.gate.max_auc is 1.5; it must be an AUC in"),
    ],
)
def test_a_gate_that_nothing_could_pass_is_refused_before_the_run(changes, said):
    with pytest.raises(AuditError, match=said.replace("(", r"\(").replace("?", r"\?")):
        asking.ask(_config(**changes), model=False)


def test_a_gate_without_two_sets_is_refused():
    config = _config(max_auc=0.7)
    config.corpus.suspects, config.corpus.members = config.corpus.members, ()
    config.corpus.calibration, config.corpus.nonmembers = config.corpus.nonmembers, ()
    with pytest.raises(AuditError, match="a gate compares members with nonmembers"):
        asking.ask(config, model=False)


@pytest.mark.long
@pytest.mark.usefixtures("figureless")
def test_an_audit_and_a_report_have_a_gate(tmp_path):
    """Of eight clips no interval is given, so that nothing is passed."""
    found = audit.run(_config(max_auc=0.7), tmp_path)
    gate = json.loads((tmp_path / "metrics.json").read_text())["gate"]
    assert gate["statement"] in found.summary()
    assert gate["statement"].startswith("Gate not evaluable: the AUC of vid_sme (all)")
    arguments = ["report", "--workdir", str(tmp_path)]
    done = children.run([sys.executable, "-m", "vidsme_jax", *arguments])
    assert done.returncode == exits.EXCEEDED
    about = run_record(tmp_path)["config"]
    assert about["gate.max_auc"] == 0.7
    done = children.run(
        [sys.executable, "-m", "vidsme_jax", *arguments, "--config.gate.max_auc=None"]
    )
    assert done.returncode == exits.OK and "Gate" not in done.stdout
