"""What training refuses, and what it says."""

import errno
import json
import os
import pathlib
import sys
from unittest import mock

import numpy as np
import pytest

import children
from decoding import decode
from trainings import changed
from vidsme_jax.base import AuditError, Clip, ClipError
from vidsme_jax.commands import finetune as command
from vidsme_jax.demo import clips
from vidsme_jax.finetune import examples, pool, preparing, record, training
from vidsme_jax.store import lock

FRAMES = 4


def test_a_clip_that_changes_while_training_is_named(config, corpus, tmp_path):
    copy = tmp_path / "a.mp4"
    source = sorted(corpus.glob("clips/*.mp4"))
    copy.write_bytes(source[0].read_bytes())
    prepared = preparing.prepare(config, tmp_path)
    clips = prepared.clips
    clips._left = 0
    clips(Clip(str(copy), ()))
    copy.write_bytes(source[1].read_bytes())
    with pytest.raises(ClipError, match="the file was changed"):
        clips(Clip(str(copy), ()))


def test_every_problem_is_in_one_message(config, tmp_path):
    bad = config.copy_and_resolve_references()
    with bad.unlocked():
        bad.train.learning_rat = 1.0
    bad.train.batch_size = 0
    bad.model.init = "zero"
    with pytest.raises(AuditError) as caught:
        training.run(bad, tmp_path)
    assert len(caught.value.problems) == 3
    text = str(caught.value)
    assert "config.train.learning_rat: no such key; did you mean 'train.lear" in text
    assert (
        "config.train.batch_size is 0; it must be an integer from 1 to 1000000000"
        in text
    )
    assert "config.model.init is 'zero'; it must be one of checkpoint, random" in text


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"train__method": "lora", "train__tower": "frozen"},
            "full alone; the method is lora: leave",
        ),
        ({"train__merged": True}, "config.train.merged is true, a choice of"),
        ({"train__snapshots": (13,)}, "or leave out epochs above it"),
        (
            {"train__snapshots": (3,), "train__max_steps": 5},
            "before epoch 3 .an epoch has 2.: raise config.train.max_steps",
        ),
        ({"train__learning_rate": 11.0}, "it must be a number > 0, at most 10"),
        ({"train__weight_decay": -1.0}, "it must be a number from 0 to 1e\\+06"),
        ({"train__seed": 2**64}, "config.train.seed is 18446744073709551616; it must"),
        ({"train__rank": 10**9}, "it must be an integer from 1 to 65536"),
        ({"train__snapshots": (3, 1)}, "it must be a tuple of epochs, increasing"),
        ({"train__member_share": 0.5}, "leave corpus.nonmembers out"),
        ({"train__method": "lora", "train__pattern": "("}, "missing \\), unterminated"),
        (
            {"train__method": "lora", "train__pattern": "language_model/.*_pro"},
            "which matches no dense layer of the model",
        ),
        (
            {"train__method": "lora", "train__pattern": "vision_tower/patch_.*"},
            "matches vision_tower/patch_embedding: no plain dense layer",
        ),
        ({"parallel__data": 2}, "it must be a multiple of the 2 devices"),
        ({"train__epochs": True}, "config.train.epochs is True"),
        ({"corpus__allow_duplicates": True}, "was trained on is no non-member: leave"),
    ],
)
def test_keys_that_do_not_go_together(config, tmp_path, changes, message):
    with pytest.raises(AuditError, match=message):
        training.run(changed(config, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_corpus_and_checkpoint_problems_are_reported_together(config, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    bad = changed(config, corpus__members=(str(tmp_path / "absent.jsonl"),))
    bad.model.checkpoint = str(tmp_path)
    with pytest.raises(AuditError) as caught:
        training.run(bad, tmp_path)
    text = str(caught.value)
    assert "absent.jsonl" in text
    assert "no config.json" in text
    assert "--config.overwrite=true replaces it" in text


def test_broken_rows_and_clips_are_reported_together(config, corpus, tmp_path):
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    for row in rows:
        row["video"] = str(corpus / row["video"])
    rows[0]["answer"] = " "
    rows[1]["answer"] = "a zebra"
    rows[2]["question"] = "what is <video>"
    rows[4]["answer"] = "left " * 1400
    bad = changed(config, corpus__members=(str(tmp_path / "rows.jsonl"),))
    bad.corpus.allow_outside = True

    def problems():
        """All that the texts tell, before a clip is decoded."""
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(AuditError) as caught:
            training.run(bad, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples.Clips, "look", None)
        text = problems()
    assert f"{rows[0]['id']}: no answer to learn" in text
    assert f"{rows[1]['id']}: words that the tokenizer does not know" in text
    assert f"{rows[2]['id']}: its text contains the video token" in text
    for k, answer in enumerate(("a ring", "left", "up")):
        rows[k] |= {"answer": answer, "question": "describe the video"}
    text = problems()
    assert f"{rows[4]['id']}: 4 frames, its question and its answer (1401 tok" in text
    assert "the model has positions for 1280" in text
    rows[3]["video"] = str(tmp_path / "absent.mp4")
    assert "absent.mp4: open: no such file" in problems()


def test_a_pool_is_not_written_over(config, corpus, tmp_path):
    """Neither the manifest that is given nor one that nobody trained on."""
    pool = changed(config, corpus__nonmembers=(), train__member_share=0.5)
    pool.corpus.members = (str(tmp_path / "[m]embers.jsonl"),)
    pool.corpus.video_root = str(corpus)
    text = (corpus / "members.jsonl").read_text()
    (tmp_path / "members.jsonl").write_text(text)
    with pytest.raises(AuditError, match="which the training would replace by its"):
        training.run(pool, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "nonmembers.jsonl").write_text("{}")
    with pytest.raises(
        AuditError, match="holds no training that wrote it: take another"
    ):
        training.run(pool, tmp_path / "out")
    assert (tmp_path / "members.jsonl").read_text() == text


def test_a_pool_of_one_source_is_refused_before_it_is_decoded(config, corpus, tmp_path):
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    rows = [json.dumps(row | {"source": "one film"}) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    divided = changed(config, corpus__nonmembers=(), train__member_share=0.5)
    divided.corpus.members = (str(tmp_path / "rows.jsonl"),)
    divided.corpus.video_root = str(corpus)
    with pytest.raises(AuditError, match="its 5 rows have 1 source, and members"):
        pool.check(divided, tmp_path / "out")


@pytest.mark.long
def test_a_warm_up_that_never_ends_is_remarked_on(config, tmp_path, caplog):
    short = changed(config, train__warmup_steps=500)
    with caplog.at_level("WARNING", "absl"):
        training.run(short, tmp_path)
    assert "warmup_steps is 500 and the training has 24 steps: its" in caplog.text
    assert "ends at 0.00046, config.train.learning_rate is 0.01" in caplog.text


@pytest.mark.long
def test_batches_hold_no_more_than_the_members(config, trained, tmp_path):
    """Five members in batches of a thousand are one batch of five."""
    one = preparing.prepare(changed(config, train__batch_size=1000), tmp_path)
    assert one.train.batch_size == len(one.members) == 5


def test_a_folder_that_another_training_writes_to_is_refused(config, tmp_path):
    with lock.locked(tmp_path):
        with pytest.raises(AuditError, match="another training is writing to it"):
            training.run(config, tmp_path)


@pytest.mark.parametrize("kind", ["member", "near"])
def test_members_among_nonmembers_are_refused(config, corpus, tmp_path, kind):
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    name = corpus / rows[0]["video"]
    if kind == "near":
        frames = decode(name, num_frames=8).pixels
        name = tmp_path / "again.mp4"
        clips.encode(name, np.clip(frames * 0.9, 0, 255).astype(np.uint8), 8)
    row = rows[0] | {"id": "other", "video": str(name)}
    (tmp_path / "non.jsonl").write_text(json.dumps(row))
    bad = changed(config, corpus__nonmembers=(str(tmp_path / "non.jsonl"),))
    bad.corpus.allow_outside = True
    with pytest.raises(AuditError) as caught:
        training.run(bad, tmp_path / "out")
    assert rows[0]["video"] in str(caught.value) and name.name in str(caught.value)


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.train.epochs=0", "config.train.epochs is 0"),
        (
            "--config.train.max_step=9",
            "config.train.max_step: no such key; did you mean 'train.max_steps'?",
        ),
        ("--work=x", "--work: no such flag; did you mean '--workdir'?"),
        ("--config=absent.py", "absent.py"),
    ],
)
def test_the_command_line_reports_what_is_wrong(tmp_path, flag, message):
    config = pathlib.Path(__file__).parents[2] / "configs" / "selftrain.py"
    command = [sys.executable, "-m", "vidsme_jax", "finetune", f"--config={config}"]
    out = children.run([*command, f"--workdir={tmp_path}", flag])
    assert out.returncode == 2
    assert "nothing was computed, 1 problem:" in out.stderr
    assert message in out.stderr
    assert "Traceback" not in out.stderr


def test_the_end_is_short_and_steers_no_terminal(tmp_path):
    losses = {f"nonmembers \x1b[2J{k}{'x' * 5000}": 1.0 for k in range(10_000)}
    made = {"steps": 1, "seconds": 0.1, "losses": losses}
    text = record.summary(made, tmp_path)
    assert "\x1b" not in text and len(text) < 5000
    assert "and 9980 more in training.json" in text


def test_a_folder_that_cannot_be_written_ends_before_the_training(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="file is there and no folder"):
        training.run(config, tmp_path / "file")


def test_an_error_of_the_disk_has_a_status(monkeypatch, capsys, tmp_path):
    given = mock.Mock(FLAGS=mock.Mock(workdir=str(tmp_path), check=False, control=None))
    monkeypatch.setattr(command, "flags", given)
    monkeypatch.setattr(command.commands, "usage_problem", lambda argv: "")
    monkeypatch.setattr(command.commands, "begin", lambda: None)
    monkeypatch.setattr(pool, "check", mock.Mock())
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.part")
    monkeypatch.setattr(training, "run", mock.Mock(side_effect=full))
    assert command.main(["finetune"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("the run stopped: model.part: No space left on device;")


def test_an_interrupt_has_its_own_status(monkeypatch, capsys, tmp_path):
    given = mock.Mock(FLAGS=mock.Mock(workdir=str(tmp_path), check=False, control=None))
    monkeypatch.setattr(command, "flags", given)
    monkeypatch.setattr(command.commands, "usage_problem", lambda argv: "")
    monkeypatch.setattr(command.commands, "begin", lambda: None)
    monkeypatch.setattr(pool, "check", mock.Mock())
    run = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(training, "run", run)
    assert command.main(["finetune"]) == 130
    assert "interrupted: the same command continues" in capsys.readouterr().err
