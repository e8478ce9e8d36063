"""What continues: after a stop, a kill, a loss that is not finite, a full disk."""

import errno
import json
import os
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from trainings import Stopping, changed, weights
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import (
    examples,
    options,
    preparing,
    record,
    states,
    steps,
    training,
)
from vidsme_jax.run.stopping import Stop

pytestmark = pytest.mark.long


def test_the_same_seed_gives_the_same_bytes(config, trained, tmp_path):
    """Also where every clip is decoded in every epoch."""
    record = training.run(changed(config, cache_mib=0), tmp_path)
    assert record["curve"] == trained[1]["curve"]
    assert record["data"] == trained[1]["data"]
    assert weights(tmp_path) == weights(trained[0])


def test_what_is_stopped_goes_on_bit_for_bit(config, trained, tmp_path):
    """Stopped within an epoch, at its end, and at once."""
    for after in (3, 1, 4):
        with pytest.raises(KeyboardInterrupt):
            training.run(config, tmp_path, Stopping(after))
        assert not list(tmp_path.glob("*.safetensors*"))
    record = training.run(config, tmp_path)
    assert record["curve"] == trained[1]["curve"]
    assert record["losses"] == trained[1]["losses"]
    assert weights(tmp_path) == weights(trained[0])


def test_accumulated_steps_go_on_bit_for_bit(config, tmp_path):
    """Three batches an epoch, two a step: the second step of an epoch has one."""
    wanted = changed(config, train__batch_size=2, train__accumulate=2, train__epochs=3)
    whole = training.run(wanted, tmp_path / "whole")
    assert whole["steps"] == 6
    for after in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            training.run(wanted, tmp_path / "parts", Stopping(after))
    assert training.run(wanted, tmp_path / "parts")["curve"] == whole["curve"]
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_accumulated_steps_see_each_member_once_an_epoch(config, tmp_path):
    """From any step on as from the first."""
    wanted = changed(config, train__batch_size=2, train__accumulate=2, train__epochs=3)
    prepared = preparing.prepare(wanted, tmp_path)
    its = training._Training(prepared, wanted, tmp_path, Stop())

    def seen(done):
        return [
            [[x.item.id for x in cut.examples] for cut in step]
            for step in its._steps(done)
        ]

    whole = seen(0)
    assert [len(step) for step in whole] == [2, 1] * 3
    everyone = sorted(row.item.id for row in prepared.members)
    for epoch in range(3):
        two = whole[2 * epoch : 2 * epoch + 2]
        assert sorted(name for step in two for cut in step for name in cut) == everyone
    assert [seen(done) for done in range(6)] == [whole[done:] for done in range(6)]


def test_other_texts_are_another_training(config, corpus, tmp_path):
    """An answer of a member; with a tokenizer of its own that of any row."""
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]

    def written(name, answer):
        own = [rows[0] | {"answer": answer}, *rows[1:]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, own)))
        return (str(tmp_path / f"{name}.jsonl"),)

    members = changed(config, corpus__members=written("members", "a ring"))
    members.corpus.video_root = str(corpus)
    others = changed(config, corpus__members=(str(corpus / "nonmembers.jsonl"),))
    others.corpus.nonmembers = written("others", "a ring")
    others.corpus.video_root = str(corpus)
    others.model.checkpoint = "random:llava_next_video-tiny"
    others.model.init = "checkpoint"
    for name, given in (("members", members), ("others", others)):
        with pytest.raises(KeyboardInterrupt):
            training.run(given, tmp_path / name / "out", Stopping(1))
        written(name, "a large blue ring")
        with pytest.raises(AuditError, match="answers was"):
            training.run(given, tmp_path / name / "out")


def test_a_checkpoint_that_changed_is_another_training(config, architecture, tmp_path):
    """Its rotary frequencies, without a change of any shape."""
    folder = shutil.copytree(architecture, tmp_path / "architecture")
    given = changed(config, model__checkpoint=str(folder))
    with pytest.raises(KeyboardInterrupt):
        training.run(given, tmp_path / "out", Stopping(1))
    raw = json.loads((folder / "config.json").read_text())
    raw["text_config"]["rope_parameters"]["rope_theta"] = 5e5
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(AuditError, match="checkpoint's fingerprint was"):
        training.run(given, tmp_path / "out")


def test_a_stop_behind_the_weights_is_continued(config, trained, tmp_path):
    """Weights without their record are of a training that is not done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "write", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.run(config, tmp_path)
    assert list(tmp_path.glob("*.safetensors"))
    assert training.run(config, tmp_path)["curve"] == trained[1]["curve"]
    assert weights(tmp_path) == weights(trained[0])
    with pytest.raises(AuditError, match=r"holds a checkpoint .*; --config\.overwrite"):
        training.run(config, tmp_path)


def test_an_old_record_does_not_stay_with_new_weights(config, tmp_path):
    """Else a training that was stopped behind its weights would count as done."""
    training.run(changed(config, train__max_steps=1), tmp_path)
    anew = changed(config, train__max_steps=2, overwrite=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "write", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.run(anew, tmp_path)
    assert not (tmp_path / options.RECORD).exists()
    assert training.run(changed(anew, overwrite=False), tmp_path)["steps"] == 2


def test_a_gradient_that_is_not_finite_is_named(config, tmp_path):
    old = steps.Programs.gradients

    def gradients(self, *args):
        found, loss = old(self, *args)
        return jax.tree.map(lambda x: x * np.float32(np.nan), found), loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps.Programs, "gradients", gradients)
        with pytest.raises(AuditError, match="the norm of its gradient nan at step 1"):
            training.run(config, tmp_path)


def test_a_kill_loses_the_steps_since_the_last_state(config, trained, tmp_path):
    often = changed(config, train__checkpoint_every=5)
    with pytest.raises(RuntimeError, match="killed"):
        with pytest.MonkeyPatch.context() as patch:
            count = iter(range(12))

            def update(self, *args, old=steps.Programs.update):
                if next(count, None) is None:
                    raise RuntimeError("killed")
                return old(self, *args)

            patch.setattr(steps.Programs, "update", update)
            training.run(often, tmp_path)
    (kept,) = (p.name for p in (tmp_path / options.STATE).iterdir() if p.is_dir())
    assert kept == "10"
    assert training.run(often, tmp_path)["curve"] == trained[1]["curve"]
    assert weights(tmp_path) == weights(trained[0])


def test_a_state_of_another_training_is_refused(config, corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training.run(config, tmp_path, Stopping(2))
    other = changed(config, train__learning_rate=5e-3, video__num_frames=5)
    with pytest.raises(AuditError) as caught:
        training.run(other, tmp_path)
    text = str(caught.value)
    assert "train.learning_rate was 0.01, and is 0.005" in text
    assert "video.num_frames was 4, and is 5" in text
    assert "--config.overwrite=true starts again" in text
    lora = changed(config, train__method="lora", train__merged=True)
    with pytest.raises(AuditError, match="shapes of what learns was"):
        training.run(lora, tmp_path)
    anew = changed(other, overwrite=True, train__max_steps=1)
    assert training.run(anew, tmp_path)["steps"] == 1


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", None])
def test_a_state_without_what_it_is_of_is_refused(config, tmp_path, content):
    with pytest.raises(KeyboardInterrupt):
        training.run(config, tmp_path, Stopping(1))
    path = tmp_path / options.STATE / "run.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(AuditError) as caught:
        training.run(changed(config, train__learning_rate=5e-3), tmp_path)
    (problem,) = caught.value.problems
    assert "is missing or cannot be read: --config.overwrite=true starts" in problem


@pytest.mark.parametrize("record", [{}, {"curve": [1.0]}, {"steps": 2}])
def test_a_state_whose_record_is_of_other_steps_is_refused(config, tmp_path, record):
    def save(self, step, state, _, old=states.States.save):
        old(self, step, state, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states.States, "save", save)
        with pytest.raises(KeyboardInterrupt):
            training.run(config, tmp_path, Stopping(2))
    with pytest.raises(AuditError, match="its record has not the losses of 2 steps"):
        training.run(config, tmp_path)


def test_a_damaged_state_is_named(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training.run(config, tmp_path, Stopping(2))
    for path in (tmp_path / options.STATE / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    with pytest.raises(AuditError, match=r"the state in .*state cannot be read"):
        training.run(config, tmp_path)


def test_it_stops_at_the_target(config, trained, tmp_path):
    curve = trained[1]["curve"]
    means = [np.mean(curve[k : k + 2]) for k in range(0, 24, 2)]
    target = (means[3] + min(means[:3])) / 2
    first = next(k for k, mean in enumerate(means) if mean < target)
    record = training.run(changed(config, train__target_loss=float(target)), tmp_path)
    assert record["steps"] == 2 * (first + 1) < 24


def test_snapshots_and_losses_of_epochs(config, trained, tmp_path):
    wanted = changed(config, train__snapshots=(1, 3), train__evaluate_every=4)
    record = training.run(wanted, tmp_path)
    assert weights(tmp_path) == weights(trained[0])
    assert [epoch for epoch, _ in record["losses by epoch"]] == [4, 8, 12]
    assert record["losses by epoch"][-1][1] == record["losses"]
    short = changed(config, train__snapshots=(1,), train__max_steps=3)
    training.run(short, tmp_path / "short")
    names = {path.name for path in tmp_path.glob("epoch-*")}
    assert names == {"epoch-1", "epoch-3"}
    one, three = (
        models.load(str(tmp_path / n), dtype="float32") for n in sorted(names)
    )
    assert any(
        np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-4
        for a, b in zip(*map(jax.tree.leaves, (one.state, three.state)), strict=True)
    )


def test_a_loss_that_is_not_finite_keeps_the_state_before_it(config, trained, tmp_path):
    """The step is named with its clips, nothing after it counts, and it goes on."""
    old = steps.Programs.gradients
    count = iter(range(100))

    def gradients(self, state, frozen, batch, weight, total):
        wrong = np.nan if next(count) == 5 else 1.0
        return old(self, state, frozen, batch, weight * wrong, total)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps.Programs, "gradients", gradients)
        with pytest.raises(AuditError) as caught:
            training.run(config, tmp_path)
    (problem,) = caught.value.problems
    assert "the loss is nan at step 6, of the clips clips/" in problem
    assert "Lower config.train.learning_rate" in problem
    assert next(count) <= 9, "it went on for long"
    assert (tmp_path / options.STATE / "5").is_dir()
    record = training.run(config, tmp_path)
    assert record["curve"] == trained[1]["curve"]
    assert weights(tmp_path) == weights(trained[0])


def test_a_full_disk_keeps_the_state_before(config, trained, tmp_path, monkeypatch):
    often = changed(config, train__checkpoint_every=4)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old, count = ocp.CheckpointManager.save, iter(range(1))

    def save(self, *args, **kwargs):
        if next(count, None) is None:
            raise full
        return old(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", save)
        with pytest.raises(OSError, match=r"state: .*No space left on device"):
            training.run(often, tmp_path)
    assert training.run(often, tmp_path)["curve"] == trained[1]["curve"]


def test_a_stop_while_results_are_written_keeps_all_steps(config, trained, tmp_path):
    """Also where the training ended at its target."""
    curve = trained[1]["curve"]
    first = float(np.mean(curve[:2]))
    for folder, target in ((tmp_path / "a", 0.0), (tmp_path / "b", first + 0.1)):
        wanted = changed(config, train__target_loss=target)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training._Training, "_measure", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                training.run(wanted, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps.Programs, "gradients", None)  # No step is made.
            record = training.run(wanted, folder)
        assert record["curve"] == curve[: 2 if target else 24]


def _interrupted(*_):
    raise KeyboardInterrupt


def test_a_clip_that_is_gone_costs_no_step(config, trained, tmp_path, monkeypatch):
    """What was sent before counts, so that state and curve stay in step."""
    old, count = examples.Clips.of, iter(range(3))

    def of(self, chosen):
        broken = next(count, None) is None
        for k, frames in enumerate(old(self, chosen)):
            if broken and k == 4:
                raise AuditError(["clips/0001.mp4: open: no such file"])
            yield frames

    with monkeypatch.context() as patch:
        patch.setattr(examples.Clips, "of", of)
        with pytest.raises(AuditError, match="no such file"):
            training.run(config, tmp_path)
    record = training.run(config, tmp_path)
    assert record["curve"] == trained[1]["curve"]
    assert weights(tmp_path) == weights(trained[0])


def test_snapshots_of_an_earlier_training_do_not_stay(config, tmp_path):
    stale = tmp_path / "epoch-7"
    stale.mkdir()
    (stale / "adapter_config.json").write_text("{}")
    with pytest.raises(AuditError, match="holds snapshots of another training"):
        training.run(config, tmp_path)
    short = changed(config, overwrite=True, train__max_steps=2, train__snapshots=(1,))
    training.run(short, tmp_path)
    assert [path.name for path in tmp_path.glob("epoch-*")] == ["epoch-1"]
