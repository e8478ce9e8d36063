"""Greedy answers: generated once, stored before they are scored, the same for all."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from asked_test import assert_same, config, score, stored
from killed_run import manifest
from vidsme_jax import parallel, settings
from vidsme_jax.base import AuditError
from vidsme_jax.models import generation
from vidsme_jax.run import answering, asking, checks, contents, references
from vidsme_jax.scores import tables
from vidsme_jax.store import signals


def _config(path, **changes):
    return config(path, **{"response": "greedy", "response_tokens": 6} | changes)


def _answers(workdir):
    tables = (pq.read_table(x) for x in sorted((workdir / "answers").glob("part-*")))
    return [row for table in tables for row in table.to_pylist()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("greedy")
    _, scored = score(_config(manifest(folder / "m.jsonl", 2)), folder / "run")
    assert not scored.failures
    return folder / "run", stored(scored.runs[0])


def test_answers_are_stored_with_what_ended_them_and_scored(whole):
    folder, clips = whole
    answers = {(row["key"], row["text"]): row for row in _answers(folder)}
    assert len(answers) == 6
    for clip in clips.values():
        for text in clip.texts:
            row = answers.pop((clip.key, text.asked.key))
            assert row["content_hash"] == clip.content_hash
            assert tuple(row["ids"]) == text.asked.ids and len(row["ids"]) <= 6
            assert row["answer"] == text.asked.answer != ""
            assert row["ended"] == text.asked.ended in ("end", "length")
            said = text.tokens[text.slice == 2]
            np.testing.assert_array_equal(said, row["ids"])
            # Every token was the most likely one.
            rank = text.signals.rank[0][text.slice == 2]
            np.testing.assert_array_equal(rank, 1)
    assert not answers


def test_a_generated_answer_is_no_blind_feature(whole):
    """It is the model's: members that are known by heart would look like a shift."""
    folder, _ = whole
    given = _config(folder.parent / "m.jsonl")
    asked = asking.ask(given, model=False)
    store = signals.Signals(folder / "signals", signals.recorded(folder / "signals"))
    table, _ = tables.score_table(
        *(asked.items, store, ("response_loss",), "exact", asked.settings.motion),
        slices=asked.settings.slices,
        response="greedy",
    )
    assert set(table.answer) == {""}
    assert all(table.question)


@pytest.mark.long
def test_the_answer_that_ends_by_itself(tmp_path):
    """A memorised answer comes out whole, with the token that ends it."""
    path = manifest(tmp_path / "m.jsonl", 1)
    lines = (settings.DEMO / "corpus/members.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:2]]
    path.write_text("\n".join(map(json.dumps, rows)))
    chosen = config(path, response="greedy", response_tokens=64)
    chosen.video.num_frames = 8
    _, scored = score(chosen, tmp_path / "run")
    for clip, row in zip(stored(scored.runs[0]).values(), rows, strict=True):
        (text,) = clip.texts
        assert text.asked.ended == "end"
        assert text.asked.answer == row["answer"]


def test_what_is_answered_is_not_generated_again(whole, tmp_path, monkeypatch):
    """Killed between answering and scoring: scored from the stored answers."""
    shutil.copytree(whole[0], tmp_path / "run")
    before = _answers(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "signals")

    def never(*_):
        raise AssertionError("generated again")

    with monkeypatch.context() as patch:
        patch.setattr(answering.Answering, "_generate", never)
        chosen = _config(manifest(tmp_path / "m.jsonl", 2))
        _, scored = score(chosen, tmp_path / "run")
    for key, clip in stored(scored.runs[0]).items():
        assert_same(clip, whole[1][key])
    # A new question is answered alone.
    _, scored = score(_config(manifest(tmp_path / "m.jsonl", 3)), tmp_path / "run")
    after = _answers(tmp_path / "run")
    assert after[: len(before)] == before and len(after) == 9
    assert all(len(clip.texts) == 3 for clip in stored(scored.runs[0]).values())


def test_answers_are_stored_before_they_are_scored(tmp_path, monkeypatch):
    write, there = signals.Signals.write, []

    def watched(store, clips, *args):
        clips = list(clips)
        keys = {row["key"] for row in _answers(tmp_path / "run")}
        there.append({clip.key for clip in clips} <= keys)
        return write(store, clips, *args)

    monkeypatch.setattr(signals.Signals, "write", watched)
    score(_config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    assert there and all(there)


def test_a_clip_that_cannot_be_answered_is_alone(whole, tmp_path, monkeypatch, caplog):
    generate, batches = answering.Answering._generate, []
    fetch = parallel.Devices.fetch

    def watched(own, group):
        batches.append([clip.key.sample.clip.items[0].id for clip in group.clips])
        return generate(own, group)

    def failing(devices, out):
        if isinstance(out, generation.Answers) and "1-0" in batches[-1]:
            raise jax.errors.JaxRuntimeError("INTERNAL: no answer")
        return fetch(devices, out)

    monkeypatch.setattr(answering.Answering, "_generate", watched)
    monkeypatch.setattr(parallel.Devices, "fetch", failing)
    _, scored = score(_config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    assert batches == [["0-0", "1-0"], ["0-0"], ["1-0"], ["1-0"], ["2-0"]]
    assert {(f.id, f.cause) for f in scored.failures} == {
        ("1-0", "INTERNAL: no answer"),
        ("1-1", "INTERNAL: no answer"),
    }
    assert "a batch of 2 clips failed, halved" in caplog.text
    clips = stored(scored.runs[0])
    assert len(clips) == 2
    for key, clip in clips.items():
        assert_same(clip, whole[1][key])


@pytest.mark.parametrize("together", [True, False])
def test_a_reference_scores_the_target_s_answers(
    together, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(parallel.Devices, "hold", lambda *_: together)
    changes = {"reference.checkpoint": str(settings.DEMO / "reference")}
    chosen = _config(manifest(tmp_path / "m.jsonl", 2), **changes)
    _, scored = score(chosen, tmp_path / "run")
    assert not scored.failures and not scored.lacking
    target, reference = map(stored, scored.runs)
    assert len(_answers(tmp_path / "run")) == 6
    for key, clip in target.items():
        assert_same(clip, whole[1][key])
        for text, other in zip(clip.texts, reference[key].texts, strict=True):
            assert text.asked == other.asked
            np.testing.assert_array_equal(text.tokens, other.tokens)


def test_a_reference_has_tokens_of_its_own_for_a_generated_answer(
    tmp_path, monkeypatch
):
    whole = references.check

    def other_words(*args):
        found = whole(*args)

        def tokenise(asked=None, shown=None):
            text = found.tokenise(asked, shown)
            if asked is None or asked.ids:
                return text
            return text._replace(answer=tuple(x + 1 for x in text.answer))

        return dataclasses.replace(found, tokenise=tokenise)

    monkeypatch.setattr(references, "check", other_words)
    changes = {"reference.checkpoint": str(settings.DEMO / "reference")}
    chosen = _config(manifest(tmp_path / "m.jsonl", 1), **changes)
    setup, scored = score(chosen, tmp_path / "run")
    target, reference = map(stored, scored.runs)
    assert target.keys() == reference.keys()
    for key, clip in reference.items():
        answered = {text.asked.key: text.asked for text in target[key].texts}
        for text in clip.texts:
            assert text.asked == answered[text.asked.key]
            own = dataclasses.replace(text.asked, ids=())
            its = setup.model.tokenise(own).answer
            said = text.tokens[text.slice == 2]
            np.testing.assert_array_equal(said, [x + 1 for x in its])


def test_fewer_clips_at_a_time_where_memory_lacks(whole, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(answering.generation, "fit", lambda *_: 1)
    with caplog.at_level("INFO", "absl"):
        _, scored = score(_config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    (line,) = [x for x in caplog.messages if x.startswith("answers of")]
    assert "at most 6 tokens, 1 clips at a time; their keys and values take" in line
    for key, clip in stored(scored.runs[0]).items():
        assert [x.asked for x in clip.texts] == [x.asked for x in whole[1][key].texts]


def test_what_cannot_be_answered_is_refused_before_the_model_is_read(
    whole, tmp_path, monkeypatch
):
    path = manifest(tmp_path / "m.jsonl", 2)
    shutil.copytree(whole[0], tmp_path / "run")
    longer = _config(path, response_tokens=7)
    with pytest.raises(AuditError, match="response_tokens = 6, this run has 7"):
        score(longer, tmp_path / "run")
    two = property(lambda _: 2)
    monkeypatch.setattr(parallel.Devices, "num_processes", two)
    with pytest.raises(AuditError) as caught:
        checks.check(_config(path))
    (problem,) = caught.value.problems
    assert problem.startswith("config.response is greedy, and the model spans 2 proc")


@pytest.mark.parametrize("headline", ["response_min_k_plus_plus_100", "response_rank"])
def test_a_headline_that_generated_answers_invert(tmp_path, headline):
    given = _config(manifest(tmp_path / "m.jsonl", 2), headline=headline)
    with pytest.raises(AuditError, match=f"config.headline is {headline}, but with"):
        checks.check(given)
    given.response = "given"
    assert checks.check(given).headline == headline


@pytest.mark.long
def test_a_run_of_the_questions_alone_leaves_the_answers(whole, tmp_path):
    path = manifest(tmp_path / "m.jsonl", 2)
    shutil.copytree(whole[0], tmp_path / "run")
    asks = _config(path, headline="instruction_loss", scores="instruction_loss")
    asks.slices = ("instruction",)
    score(asks, tmp_path / "run")
    setup = checks.check(_config(path))
    run = checks.open_run(setup, tmp_path / "run")
    now = contents.Contents(setup.reader)
    assert not any(now.missing(sample, run) for sample in setup.samples)
    for key, clip in stored(run).items():
        kept = {text.asked.key: text for text in clip.texts}
        for text in whole[1][key].texts:
            np.testing.assert_array_equal(kept[text.asked.key].tokens, text.tokens)


def test_answers_that_are_deleted_are_scored_again(whole, tmp_path):
    path = manifest(tmp_path / "m.jsonl", 2)
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "answers")
    _, scored = score(_config(path, response_tokens=3), tmp_path / "run")
    for clip in stored(scored.runs[0]).values():
        for text in clip.texts:
            assert len(text.asked.ids) <= 3 == np.sum(text.slice == 2)


@pytest.mark.long
def test_answers_of_a_file_that_changed_do_not_count(whole):
    folder, clips = whole
    clip = next(iter(clips.values()))
    store = signals.recorded(folder / "signals")
    assert "response_tokens" not in store
    record = json.loads((folder / "answers" / "run.json").read_text())
    answers = answering.Answers(
        folder / "answers", {k: v for k, v in record.items() if k != "format"}
    )
    key = clip.texts[0].asked.key
    assert answers.find(clip.key, key, clip.content_hash) is not None
    assert answers.find(clip.key, key, "another") is None
    asked = dataclasses.replace(clip.texts[0].asked, answer="", ended="", ids=())
    found = answers.find(clip.key, key, clip.content_hash)
    assert found.completes(asked) == clip.texts[0].asked
