"""Texts asked about clips: computed once, together, and only what is missing."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from killed_run import QUESTIONS, asking, manifest
from vidsme_jax import models, parallel, settings
from vidsme_jax.base import AuditError, ScoredClip, TokenSignals
from vidsme_jax.data import decoders
from vidsme_jax.models.batches import TextShape
from vidsme_jax.models.rows import Builder, Text
from vidsme_jax.run import checks, contents, processes, scoring, stacking
from vidsme_jax.run import signals as door
from vidsme_jax.run.stopping import Stop
from vidsme_jax.store.signals import BLANK, SECOND

SLICES = ("video", "instruction", "response")


def config(path, **changes):
    """Two clips a batch."""
    return asking(path, **{"batch_size": 2, "scores": "all"} | changes)


def score(chosen, workdir):
    setup = checks.check(chosen)
    with processes.together(workdir) as team:
        runs = checks.open_runs(setup, team)
        parts = setup.samples, setup.reader, setup.devices
        return setup, scoring.score(runs, *parts, team=team, stop=Stop())


def stored(run) -> dict[str, ScoredClip]:
    return {clip.key: clip for clip in run.store.read(run.store.finished)}


def assert_same(found: ScoredClip, wanted: ScoredClip, **close):
    """Compares all numbers of a clip, bit by bit or closely."""
    equal = np.testing.assert_allclose if close else np.testing.assert_array_equal
    pairs = [(found.signals, wanted.signals)]
    texts = {text.asked.key: text for text in wanted.texts}
    assert texts.keys() == {text.asked.key for text in found.texts}
    for text in found.texts:
        other = texts[text.asked.key]
        assert text.asked == other.asked
        np.testing.assert_array_equal(text.tokens, other.tokens)
        np.testing.assert_array_equal(text.slice, other.slice)
        equal(text.blank, other.blank, **close)
        pairs.append((text.signals, other.signals))
    for one, other in pairs:
        assert (one is None) == (other is None)
        for name in TokenSignals._fields if one is not None else ():
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None), name
            if a is not None:
                equal(a, b, err_msg=name, **close)


def parts(workdir):
    found = sorted((workdir / "signals").glob("part-*.parquet"))
    return {part.name: part.read_bytes() for part in found}


def rows(workdir):
    tables = (pq.read_table(x) for x in sorted((workdir / "signals").glob("part-*")))
    return [(row["key"], row["text"]) for t in tables for row in t.to_pylist()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three clips with two questions each, scored at once: the store, the clips."""
    folder = tmp_path_factory.mktemp("whole")
    _, scored = score(config(manifest(folder / "m.jsonl", 2)), folder / "run")
    assert not scored.failures
    return folder / "run", stored(scored.runs[0])


def test_what_is_stored_of_a_text(whole):
    _, clips = whole
    assert len(clips) == 3
    for clip in clips.values():
        assert clip.signals is not None and clip.signals.rank is None
        assert [text.asked.question for text in clip.texts] == list(QUESTIONS[:2])
        for text in clip.texts:
            count, found = len(text.tokens), text.signals
            assert set(text.slice) == {1, 2} and text.asked.ended == "given"
            assert found.renyi.shape == (2, count, 15)
            assert found.log_prob.shape == found.rank.shape == (2, count)
            assert found.mean_renyi.shape == (2, 2, 15)
            assert text.blank.shape == (count,)
            # Of the instruction, and of the response.
            assert np.isfinite(found.mean_renyi).all()
            assert (found.rank >= 1).all()


def test_the_video_s_rows_are_as_without_texts(whole, tmp_path):
    _, clips = whole
    chosen = config(manifest(tmp_path / "m.jsonl", 1))
    chosen.slices = ("video",)
    _, scored = score(chosen, tmp_path / "run")
    for key, clip in stored(scored.runs[0]).items():
        assert not clip.texts
        for name, value in zip(TokenSignals._fields, clip.signals, strict=True):
            if value is not None:
                other = getattr(clips[key].signals, name)
                np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_new_question_reads_the_video_and_stores_its_own_rows(
    whole, tmp_path, monkeypatch, caplog
):
    shutil.copytree(whole[0], tmp_path / "run")
    before, shapes = parts(tmp_path / "run"), []
    batch = stacking.Stacker.batch
    monkeypatch.setattr(
        stacking.Stacker,
        "batch",
        lambda own, group, *args: (
            shapes.append(group.shape) or batch(own, group, *args)
        ),
    )
    chosen = config(manifest(tmp_path / "m.jsonl", 3))
    with caplog.at_level("INFO", "absl"):
        setup, scored = score(chosen, tmp_path / "run")
    assert "3 clips, 0 scored before" in caplog.text
    assert "9 texts about them, 6 scored before" in caplog.text
    assert {shape.video for shape in shapes} == {False}
    after = parts(tmp_path / "run")
    assert {name: after[name] for name in before} == before
    assert len(rows(tmp_path / "run")) == 3 * (1 + 3)
    found, clips = stored(scored.runs[0]), whole[1]
    for key, clip in found.items():
        assert [text.asked.question for text in clip.texts] == list(QUESTIONS[:3])
        assert_same(dataclasses.replace(clip, texts=clip.texts[:2]), clips[key])
    now = contents.Contents(setup.reader)
    assert not any(now.missing(sample, scored.runs[0]) for sample in setup.samples)


def test_rows_that_ask_the_same_are_computed_once(whole, tmp_path):
    path = manifest(tmp_path / "m.jsonl", 2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    again = [row | {"id": f"{row['id']} again"} for row in lines]
    path.write_text("\n".join(map(json.dumps, lines + again)))
    setup, _ = score(config(path), tmp_path / "run")
    assert len(setup.items) == 12 and len(rows(tmp_path / "run")) == 3 * (1 + 2)


def test_two_answers_to_one_question_are_two_texts(tmp_path):
    path = manifest(tmp_path / "m.jsonl", 1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    other = [
        row | {"id": f"{row['id']} other", "answer": "the small red ring"}
        for row in lines
    ]
    path.write_text("\n".join(map(json.dumps, lines + other)))
    _, scored = score(config(path), tmp_path / "run")
    for clip in stored(scored.runs[0]).values():
        true, false = clip.texts
        assert true.asked.question == false.asked.question
        assert false.asked.answer == "the small red ring"
        assert true.signals.log_prob[0].mean() > false.signals.log_prob[0].mean()


@pytest.mark.long
def test_slices_and_scores_are_added_on_the_same_folder(whole, tmp_path):
    path, run = manifest(tmp_path / "m.jsonl", 2), tmp_path / "run"

    def add(slices, scores):
        chosen = config(path)
        chosen.slices, chosen.scores, chosen.headline = slices, scores, "response_loss"
        before = len(rows(run)) if run.exists() else 0
        _, scored = score(chosen, run)
        assert not scored.failures
        return len(rows(run)) - before, scored.runs[0]

    wrote, its = add(("response",), "response_loss")
    assert wrote == 6
    for clip in stored(its).values():
        assert clip.signals is None and not clip.num_rows
        for text in clip.texts:
            assert set(text.slice) == {2} and text.blank is None
            assert text.signals.modified is None
    assert add(("video", "response"), "vid_sme,response_loss")[0] == 3
    assert add(("response",), "response_loss")[0] == 0
    assert add(("video", "response"), "vid_sme_sequence,response_loss")[0] == 3
    wrote, its = add(SLICES, "all")
    assert wrote == 6
    assert its.store.holds(video=True) == {SECOND}
    assert its.store.holds(video=False) == {"instruction", "response", SECOND, BLANK}
    for key, clip in stored(its).items():
        assert_same(clip, whole[1][key], rtol=1e-4, atol=1e-5)
    # What is there is not computed with less.
    chosen = config(manifest(tmp_path / "m.jsonl", 3))
    chosen.slices, chosen.scores = ("response",), "response_loss"
    chosen.headline = "response_loss"
    _, scored = score(chosen, run)
    for clip in stored(scored.runs[0]).values():
        assert len(clip.texts) == 3
        assert all(set(x.slice) == {1, 2} and x.blank is not None for x in clip.texts)


# ----------------------------------------------------- what fails, and what it changes


def test_a_text_that_is_not_finite_fails_its_sample_alone(whole, tmp_path, monkeypatch):
    fetch = parallel.Devices.fetch

    def spoilt(devices, out):
        host = fetch(devices, out)
        log_prob = host.texts.log_prob.copy()
        log_prob[0, 1, 40] = np.nan  # A row of the second text.
        return host._replace(texts=host.texts._replace(log_prob=log_prob))

    monkeypatch.setattr(parallel.Devices, "fetch", spoilt)
    _, scored = score(config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    failed = {failure.id for failure in scored.failures}
    assert failed == {"0-0", "0-1", "2-0", "2-1"}  # Each first in its batch.
    cause = "not finite: log_prob of the text 'what happens in this video'"
    assert {failure.cause for failure in scored.failures} == {cause}
    (clip,) = stored(scored.runs[0]).values()
    assert_same(clip, whole[1][clip.key])


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_halves_and_other_shares_change_no_bit(whole, dtype, tmp_path, monkeypatch):
    path = manifest(tmp_path / "m.jsonl", 2)
    chosen = config(path, **{"model.dtype": dtype})
    expected = whole[1]
    if dtype != "float32":
        expected = stored(score(chosen, tmp_path / "whole")[1].runs[0])
    fetch, failed = parallel.Devices.fetch, []

    def failing(devices, out):
        failed.append(out)
        if len(failed) == 1:  # The first batch of two, then its halves.
            raise jax.errors.JaxRuntimeError("INTERNAL: once")
        return fetch(devices, out)

    with monkeypatch.context() as patch:
        patch.setattr(parallel.Devices, "fetch", failing)
        _, scored = score(chosen, tmp_path / "halved")
    assert len(failed) == 4 and not scored.failures
    for key, clip in stored(scored.runs[0]).items():
        assert_same(clip, expected[key])
    # A share of the clips, in another order.
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[4:] + lines[:2]))
    _, scored = score(chosen, tmp_path / "share")
    clips = stored(scored.runs[0])
    assert len(clips) == 2
    for key, clip in clips.items():
        assert_same(clip, expected[key])


def test_a_clip_that_fails_lists_the_rows_that_lack_something(
    whole, tmp_path, monkeypatch
):
    shutil.copytree(whole[0], tmp_path / "run")
    monkeypatch.setattr(
        decoders, "ask", lambda *_, **__: (_ for _ in ()).throw(OSError("gone"))
    )
    _, scored = score(config(manifest(tmp_path / "m.jsonl", 3)), tmp_path / "run")
    assert {failure.id for failure in scored.failures} == {"0-2", "1-2", "2-2"}


# ------------------------------------------------------------------------ programs


def test_a_corpus_of_questions_takes_few_programs_with_little_padding():
    """200 clips with 1 to 8 questions of 5 to 200 tokens; no model is needed."""
    rng = np.random.default_rng(0)
    shapes, own, padded = set(), 0, 0
    for _ in range(200):
        builder = Builder()
        builder.video([0], frame=0)
        for length in rng.integers(5, 201, rng.integers(1, 9)):
            builder.ask(Text((), (1,) * (length - length // 3), (2,) * (length // 3)))
        laid_out = builder.build(("instruction", "response"))
        shape = TextShape.of(laid_out)
        assert shape is not None
        shapes.add(shape)
        own += int((laid_out.segment > 0).sum())
        padded += shape.rows
    assert len(shapes) <= 6, shapes
    assert own / padded >= 0.8, own / padded


def test_programs_and_padding_are_logged_once(tmp_path, caplog):
    with caplog.at_level("INFO", "absl"):
        score(config(manifest(tmp_path / "m.jsonl", 2)), tmp_path / "run")
    (line,) = [x for x in caplog.messages if "program" in x]
    assert line.startswith("1 program, one for each padded shape; ")
    assert line.endswith("% of the text rows are padding")


# ------------------------------------------------------------------------ from Python


def test_the_door_gives_what_an_audit_stores(whole, tmp_path):
    _, clips = whole
    key, clip = next(iter(clips.items()))
    loaded = models.load(str(settings.DEMO / "checkpoint"), dtype="float32")
    frames = checks.check(config(manifest(tmp_path / "m.jsonl", 2))).reader.read(
        key, {2}
    )(2)[0]
    texts = [(text.asked.question, text.asked.answer) for text in clip.texts]
    found = door.compute(loaded, frames.pixels, texts=texts)
    again = dataclasses.replace(clip, signals=found.signals, texts=found.texts)
    assert_same(again, clip, rtol=1e-4, atol=1e-5)
    with pytest.raises(AuditError, match="does not know"):
        door.compute(loaded, frames.pixels, texts=[("zyx", "zyx")])


def test_texts_asked_together_are_as_alone(whole):
    clip = next(iter(whole[1].values()))
    loaded = models.load(str(settings.DEMO / "checkpoint"), dtype="float32")
    frames = np.random.default_rng(4).integers(0, 256, (3, 60, 80, 3), np.uint8)
    texts = [(text.asked.question, text.asked.answer) for text in clip.texts]
    assert len(texts) == 2
    together = door.compute(loaded, frames, texts=texts)
    for number, text in enumerate(texts):
        alone = door.compute(loaded, frames, texts=[text])
        pair = together.texts[number : number + 1], alone.texts
        both = (dataclasses.replace(clip, texts=each) for each in pair)
        assert_same(*both, rtol=1e-4, atol=1e-5)
