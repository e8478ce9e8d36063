"""A reference model: scored beside the target, on its texts, and never in its way."""

import json
import shutil

import numpy as np
import pytest

from asked_test import assert_same, config, score, stored
from killed_run import QUESTIONS, manifest
from vidsme_jax import audit, parallel, settings
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.commands.finished import run_record
from vidsme_jax.run import checks, pipeline, references

pytestmark = pytest.mark.usefixtures("without_figures")
REFERENCE = str(settings.DEMO / "reference")


def _config(path, **changes):
    chosen = config(path, **{"reference.checkpoint": REFERENCE} | changes)
    chosen.scores = "vid_sme,vid_sme_ref,response_loss,response_loss_ref"
    return chosen


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    _, scored = score(_config(manifest(folder / "m.jsonl", 2)), folder / "run")
    assert not scored.failures and not scored.lacking
    return folder / "run", scored


def test_both_models_score_the_same_texts(whole):
    folder, scored = whole
    target, reference = map(stored, scored.runs)
    assert (folder / "signals-reference" / "run.json").exists()
    assert target.keys() == reference.keys() and len(target) == 3
    for key, clip in target.items():
        other = reference[key]
        assert clip.content_hash == other.content_hash and clip.motion == other.motion
        for text, again in zip(clip.texts, other.texts, strict=True):
            assert text.asked == again.asked
            np.testing.assert_array_equal(text.tokens, again.tokens)
            assert (text.signals.log_prob != again.signals.log_prob).any()


def test_one_after_the_other_gives_the_same(whole, tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(parallel.Devices, "hold", lambda *_: False)
    _, scored = score(_config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    assert len(decoded) == 6
    for run, before in zip(scored.runs, whole[1].runs, strict=True):
        expected = stored(before)
        for key, clip in stored(run).items():
            assert_same(clip, expected[key])


@pytest.mark.long
def test_what_fails_on_the_reference_lacks_its_calibrated_scores(
    whole, tmp_path, monkeypatch
):
    """The target's report is as without it, and says how many rows lack it."""
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "signals-reference")
    result, asked = pipeline._result, []

    def failing(k, clip, host, rows):
        prepared = clip.key
        asked.append(prepared.place)
        if prepared.sample.clip.items[0].id.startswith("1"):
            return pipeline.Result(prepared, ClipError("signals", "no luck"))
        return result(k, clip, host, rows)

    monkeypatch.setattr(pipeline, "_result", failing)
    report = audit.run(_config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    assert len(asked) == 3 and not report.failures  # The target's were all there.
    lacks = np.isnan(report.table.scores["response_loss_ref"])
    assert set(report.table.id[lacks]) == {"1-0", "1-1"}
    assert np.isfinite(report.table.scores["response_loss"]).all()
    about = json.loads((tmp_path / "run" / "config.json").read_text())["reference"]
    assert about["rows that lack it"] == 2
    assert about["checkpoint"] == REFERENCE and "no luck" in about["causes"][0]
    assert (tmp_path / "run" / "failures.jsonl").read_text() == ""
    # The report again, and then what is missing.
    again = audit.report_again(
        tmp_path / "run",
        _config(tmp_path / "m.jsonl"),
        run_record(tmp_path / "run"),
    )
    assert np.isnan(again.table.scores["response_loss_ref"]).sum() == 2
    monkeypatch.undo()
    report = audit.run(_config(tmp_path / "m.jsonl"), tmp_path / "run")
    assert np.isfinite(report.table.scores["response_loss_ref"]).all()


def _refusing(monkeypatch, *questions):
    """The reference's tokenizer refuses some questions."""
    inspect = references.models.inspect

    def inspected(checkpoint, **options):
        model = inspect(checkpoint, **options)
        read = model.tokenise

        def refusing(asked=None, shown=None):
            if asked is not None and asked.question in questions:
                raise AuditError(["a word of another world"])
            return read(asked, shown)

        if checkpoint == REFERENCE:
            object.__setattr__(model, "tokenise", refusing)
        return model

    monkeypatch.setattr(references.models, "inspect", inspected)


@pytest.mark.long
def test_a_text_that_the_reference_cannot_read_lacks_it_alone(tmp_path, monkeypatch):
    _refusing(monkeypatch, QUESTIONS[0])
    _, scored = score(_config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    assert not scored.failures
    assert {failure.id for failure in scored.lacking} == {"0-0", "1-0", "2-0"}
    assert "a word of another world" in scored.lacking[0].cause
    assert all(len(clip.texts) == 1 for clip in stored(scored.runs[1]).values())
    assert all(len(clip.texts) == 2 for clip in stored(scored.runs[0]).values())


def test_a_reference_that_can_read_no_text_is_refused(tmp_path, monkeypatch):
    _refusing(monkeypatch, *QUESTIONS)
    with pytest.raises(AuditError) as caught:
        checks.check(_config(manifest(tmp_path / "m.jsonl", 2)))
    assert caught.value.problems == [
        f"config.reference.checkpoint is {REFERENCE}: it can score none of the texts: "
        "a word of another world"
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"reference.checkpoint": str(settings.DEMO / "checkpoint")},
            "it has the fingerprint of config.model.checkpoint",
        ),
        (
            {"reference.checkpoint": "", "reference.adapter": "off"},
            "config.reference.adapter is off: .*no LoRA adapter to leave out",
        ),
        ({"reference.adapter": "off"}, "give one of them"),
        (
            {"reference.checkpoint": "/nowhere"},
            "config.reference.checkpoint is /nowhere: .*no such folder",
        ),
    ],
)
def test_a_reference_that_cannot_be_one(changes, problem, tmp_path):
    with pytest.raises(AuditError, match=problem):
        checks.check(_config(manifest(tmp_path / "m.jsonl", 1), **changes))


def test_another_reference_in_the_same_folder_is_refused(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.copytree(REFERENCE, tmp_path / "other")
    raw = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(raw, indent=1))
    changes = {"reference.checkpoint": str(tmp_path / "other")}
    chosen = _config(manifest(tmp_path / "m.jsonl", 2), **changes)
    with pytest.raises(
        AuditError, match="signals-reference: its signals were computed"
    ):
        score(chosen, tmp_path / "run")
