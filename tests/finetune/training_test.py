"""Training: the loss, the loop, what continues, and the folder that it writes."""

import errno
import functools
import json
import os
import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file

import children
from decoding import decode
from oracles import llava_next_video as oracle
from vidsme_jax import models, settings
from vidsme_jax.base import AuditError, Clip, ClipError
from vidsme_jax.checkpoints import trees
from vidsme_jax.data import corpora
from vidsme_jax.demo import clips, drawing
from vidsme_jax.finetune import __main__ as command
from vidsme_jax.finetune import examples, loss, options, steps, training
from vidsme_jax.models import layers
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.run.stopping import Stop
from vidsme_jax.settings import views

pytestmark = pytest.mark.usefixtures("quick_to_compile")
VIDEO = drawing.TOKENS.index("<video>")
FRAMES = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("corpus")
    clips.write_corpus(folder, num_members=5, num_matched=2, num_shifted=1, seed=3)
    return folder


@pytest.fixture(scope="module")
def architecture(tmp_path_factory) -> pathlib.Path:
    """A folder with a config and a tokenizer, and no weights."""
    folder = tmp_path_factory.mktemp("architecture")
    raw = oracle.make_model().config.to_dict()
    raw["video_token_index"] = VIDEO
    raw["image_token_index"] = drawing.TOKENS.index("<image>")
    raw["text_config"]["pad_token_id"] = drawing.TOKENS.index("<pad>")
    (folder / "config.json").write_text(json.dumps(raw))
    drawing.tokenizer_files(folder)
    return folder


@pytest.fixture(scope="module")
def config(corpus, architecture):
    config = options.default()
    config.corpus.members = (str(corpus / "members.jsonl"),)
    config.corpus.nonmembers = (str(corpus / "nonmembers.jsonl"),)
    config.video.num_frames = FRAMES
    config.model.checkpoint = str(architecture)
    config.model.init = "random"
    config.compile_cache = ""
    config.parallel.data = 1
    config.train.batch_size = 3
    config.train.epochs = 12
    config.train.warmup_steps = 2
    config.train.learning_rate = 1e-2
    return config


def changed(config, **changes):
    """Returns a copy with other values, named as {"train__epochs": 2}."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    return copy


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """(folder, what `run` returned)."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    return folder, training.run(config, folder)


@pytest.fixture(scope="module")
def example(config, tmp_path_factory):
    """(programs, state, the members laid out, the batch of the first three)."""
    prepared = training.prepare(config, tmp_path_factory.mktemp("unused"))
    programs = steps.programs(
        prepared.trainee.form, prepared.train, 24, prepared.devices
    )
    where = prepared.devices.shardings(prepared.trainee.form.split)
    trained, frozen = prepared.trainee.start(where, 0)
    assert not frozen
    rows, model = prepared.members, prepared.trainee.source.model
    cut = next(examples.cut(rows, [[0, 1, 2]], prepared.clips, model, 3))
    return programs, programs.start(trained), rows, cut.batch


def _nll(example, batch=None, **changes) -> np.ndarray:
    programs, state, _, own = example
    nll, tokens = programs.losses(state, {}, (batch or own)._replace(**changes))
    return nll / tokens


def _text(row: np.ndarray) -> list[str]:
    return [drawing.TOKENS[k] for k in row]


def _bytes(folder: pathlib.Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


class Stopping(Stop):
    """Asks to stop behind a step."""

    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def between(self, batches):
        def counted():
            for batch in batches:
                self.left -= 1
                self.asked = self.left <= 0
                yield batch

        return super().between(counted())


def test_training_lowers_the_loss(trained):
    _, record = trained
    assert record["steps"] == len(record["curve"]) == 24
    assert record["curve"][0] == pytest.approx(np.log(128), rel=0.05)
    assert record["losses"]["members"] < 0.8 * record["curve"][0]
    assert set(record["losses"]) == {
        "members",
        "nonmembers matched",
        "nonmembers shifted",
    }


def test_the_answer_and_its_end_are_learnt(example, corpus):
    _, _, chosen, batch = example
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    by_id = {row["id"]: row for row in rows}
    for k in range(3):
        row = by_id[chosen[k].item.id]
        text = _text(batch.text[k])
        stop = text.index("</s>") + 1
        assert text[:3] == ["<s>", "USER:", "\n"] and set(text[stop:]) <= {"<unk>"}
        assert " ".join(text[3:stop]) == (
            f"{row['question']} ASSISTANT: {row['answer']} </s>"
        )
        own = batch.target[k, 0] >= 0
        learnt = batch.target[k, 0][own]
        assert _text(learnt) == [*row["answer"].split(), "</s>"]
        # Each is predicted by the row in front of it.
        behind = batch.source[k, 0][batch.kept[k, 0][own] + 1]
        np.testing.assert_array_equal(batch.text[k][behind], learnt)


def test_what_follows_the_end_does_not_change_the_loss(example):
    _, _, chosen, batch = example
    places = np.arange(batch.source.shape[2])
    after = places[None, None] > batch.kept.max(axis=2, keepdims=True) + 1
    assert after.any()
    behind = np.where(after, 1, batch.source)
    np.testing.assert_allclose(_nll(example, source=behind), _nll(example), rtol=1e-6)
    shapes = [Shape.of(row.rows) for row in chosen[:3]]
    shape = Shape(*(40 + max(sizes) for sizes in zip(*shapes, strict=True)))
    wider = stack([[row.rows] for row in chosen[:3]], batch.pixels, shape)
    assert wider.source.shape[2] > batch.source.shape[2]
    np.testing.assert_allclose(_nll(example, wider), _nll(example), rtol=1e-5)
    # What is before the end does change it.
    text = batch.text.copy()
    for k in range(3):
        text[k, batch.source[k, 0, batch.kept[k, 0, 0] + 1]] = 17
    assert (np.abs(_nll(example, text=text) - _nll(example)) > 1e-4).all()


def test_copies_that_fill_a_batch_teach_nothing(example, config, tmp_path):
    programs, state, rows, batch = example
    prepared = training.prepare(config, tmp_path)
    model = prepared.trainee.source.model
    two = next(examples.cut(rows, [[0, 1]], prepared.clips, model, 3)).batch
    assert (two.target[2] < 0).all() and two.source.shape == batch.source.shape
    without = batch._replace(
        target=np.where([[[True]], [[True]], [[False]]], batch.target, -1)
    )
    one, other = (
        programs.gradients(state, {}, each, 0.1, None) for each in (two, without)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other
    )


def test_the_loss_is_that_of_transformers(trained, example):
    """Labels of -100 outside the answer, one clip at a time."""
    folder, _ = trained
    model = _torch(folder)
    programs, state, chosen, batch = example
    loaded = models.load(str(folder), dtype="float32")
    state = state._replace(trained=trees.flat(loaded.state))
    nll, tokens = programs.losses(state, {}, batch)
    ours = nnx.merge(loaded.graphdef, loaded.state)
    for k, row in enumerate(chosen[:3]):
        rows = row.rows
        ids = np.where(rows.feature < 0, rows.token, VIDEO)
        assert (ids == VIDEO).sum() == FRAMES * 4
        labels = np.full(len(ids), -100)
        labels[rows.kept + 1] = rows.target
        pixels = np.asarray(ours.normalise(jnp.asarray(batch.pixels[k, 0])))
        with torch.no_grad():
            out = model(
                input_ids=torch.tensor(ids)[None],
                pixel_values_videos=torch.tensor(pixels)[None],
                labels=torch.tensor(labels)[None],
            )
        assert nll[k] / tokens[k] == pytest.approx(out.loss.item(), abs=1e-4)


def test_a_large_vocabulary_takes_a_clip_after_another(example, monkeypatch):
    programs, state, _, batch = example
    whole = _nll(example)
    monkeypatch.setattr(loss, "_MOST", 1)
    form = programs.form
    nll, tokens = jax.jit(
        lambda trained, batch: loss.answer_nll(form.module(trained, {}), batch)
    )(state.trained, jax.tree.map(jnp.asarray, batch))
    np.testing.assert_allclose(np.asarray(nll) / tokens, whole, rtol=1e-5)


def _torch(folder: pathlib.Path):
    """Loads a folder in transformers, which may find nothing missing or left over."""
    model, info = transformers.LlavaNextVideoForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info.values()), info
    return model.eval()


def test_what_training_json_says(trained, corpus):
    folder, record = trained
    assert json.loads((folder / "training.json").read_text()) == json.loads(
        json.dumps(record)
    )
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    assert record["members"] == [row["id"] for row in rows]
    assert record["trained parameters"] == record["parameters"]
    assert not list(folder.glob("*.part")) and not (folder / options.STATE).exists()


def test_the_same_seed_gives_the_same_bytes(config, trained, tmp_path):
    """Also where every clip is decoded in every epoch."""
    record = training.run(changed(config, cache_mib=0), tmp_path)
    assert record["curve"] == trained[1]["curve"]
    assert record["data"] == trained[1]["data"]
    assert _bytes(tmp_path) == _bytes(trained[0])


def test_what_is_stopped_goes_on_bit_for_bit(config, trained, tmp_path):
    """Stopped within an epoch, at its end, and at once."""
    for after in (3, 1, 4):
        with pytest.raises(KeyboardInterrupt):
            training.run(config, tmp_path, Stopping(after))
        assert not list(tmp_path.glob("*.safetensors*"))
    record = training.run(config, tmp_path)
    assert record["curve"] == trained[1]["curve"]
    assert record["losses"] == trained[1]["losses"]
    assert _bytes(tmp_path) == _bytes(trained[0])


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
    assert _bytes(tmp_path) == _bytes(trained[0])


def test_a_state_of_another_training_is_refused(config, corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training.run(config, tmp_path, Stopping(2))
    other = changed(config, train__learning_rate=5e-3, video__num_frames=5)
    with pytest.raises(AuditError) as caught:
        training.run(other, tmp_path)
    text = str(caught.value)
    assert "train.learning_rate was 0.01, and is 0.005" in text
    assert "video.num_frames was 4, and is 5" in text
    assert "--config.overwrite=true begins anew" in text
    lora = changed(config, train__method="lora", train__merged=True)
    with pytest.raises(AuditError, match="shapes of what learns was"):
        training.run(lora, tmp_path)
    anew = changed(other, overwrite=True, train__max_steps=1)
    assert training.run(anew, tmp_path)["steps"] == 1


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
    assert _bytes(tmp_path) == _bytes(trained[0])
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


@pytest.mark.parametrize("mode, data, model", [("pmap", 3, 1), ("mesh", 3, 2)])
def test_devices_share_the_work(config, trained, tmp_path, mode, data, model):
    changes = {"mode": mode, "data": data, "model": model}
    spread = changed(config, **{f"parallel__{k}": v for k, v in changes.items()})
    record = training.run(spread, tmp_path)
    assert record["devices"] == data * model
    np.testing.assert_allclose(record["curve"], trained[1]["curve"], atol=5e-3)
    losses = record["losses"], trained[1]["losses"]
    np.testing.assert_allclose(*(list(x.values()) for x in losses), atol=5e-3)
    one, other = (models.load(str(x), dtype="float32") for x in (tmp_path, trained[0]))
    for a, b in zip(*map(jax.tree.leaves, (one.state, other.state)), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() < 0.05


def test_a_step_of_small_batches_is_that_of_a_large_one(example, config, tmp_path):
    programs, state, rows, batch = example
    prepared = training.prepare(config, tmp_path)
    model, clips = prepared.trainee.source.model, prepared.clips
    weight = 1 / sum(row.num_tokens for row in rows[:3])
    whole = programs.gradients(state, {}, batch, weight, None)
    total = None
    for cut in examples.cut(rows, [[0, 1], [2]], clips, model, 3):
        total = programs.gradients(state, {}, cut.batch, weight, total)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        whole,
        total,
    )


def test_layers_computed_twice_give_the_same_gradients(example, config, tmp_path):
    programs, state, _, batch = example
    train = options.train_of(changed(config, train__rematerialise=True))
    prepared = training.prepare(config, tmp_path)
    again = steps.programs(programs.form, train, 24, prepared.devices)
    one, other = (x.gradients(state, {}, batch, 0.1, None) for x in (programs, again))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other
    )
    batch = jax.tree.map(jnp.asarray, batch)

    def summed(trained, remat):
        with layers.rematerialised(remat):
            return loss.answer_nll(programs.form.module(trained, {}), batch)[0].sum()

    for remat in (False, True):
        text = str(
            jax.make_jaxpr(jax.grad(functools.partial(summed, remat=remat)))(
                state.trained
            )
        )
        assert ("remat" in text) == remat


def test_products_in_bfloat16_keep_parameters_in_float32(config, trained, tmp_path):
    record = training.run(changed(config, train__dtype="bfloat16"), tmp_path)
    np.testing.assert_allclose(record["curve"][:8], trained[1]["curve"][:8], rtol=0.05)
    values = load_file(tmp_path / "model.safetensors").values()
    assert {x.dtype.name for x in values} == {"float32"}
    assert any((x.view(np.uint32) & 0xFFFF).any() for x in values)


def test_a_schedule_and_what_decays(config):
    train = options.train_of(changed(config, train__weight_decay=0.5))
    rates = [float(steps.make_schedule(train, 24)(k)) for k in (0, 1, 2, 24)]
    np.testing.assert_allclose(rates, [0, 5e-3, 1e-2, 1e-3], rtol=1e-6)
    leaves = {x: jnp.ones((2, 2)) for x in ("a/kernel", "norm/weight", "a/lora/lora_a")}
    optimizer = steps.make_optimizer(train, 24)
    state = optimizer.init(leaves)
    zeros = jax.tree.map(jnp.zeros_like, leaves)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(2):
            updates, state = optimizer.update(zeros, state, leaves)
    moved = {path for path, x in updates.items() if np.abs(np.asarray(x)).max() > 0}
    assert moved == {"a/kernel", "a/lora/lora_a"}


def test_clips_beyond_the_limit_are_not_kept(config, corpus, tmp_path):
    prepared = training.prepare(config, tmp_path)
    clips = prepared.clips
    paths = sorted(corpus.glob("clips/*.mp4"))[:4]
    one = clips(Clip(str(paths[0]), ()))
    few = examples.Clips(
        clips._reader, prepared.trainee.source.model, FRAMES, 2 * one.nbytes, 1
    )
    first = [few(Clip(str(path), ())) for path in paths]
    again = [few(Clip(str(path), ())) for path in paths]
    same = [a is b for a, b in zip(first, again, strict=True)]
    assert same == [True, True, False, False]


def test_a_clip_that_changes_while_training_is_named(config, corpus, tmp_path):
    copy = tmp_path / "a.mp4"
    source = sorted(corpus.glob("clips/*.mp4"))
    copy.write_bytes(source[0].read_bytes())
    prepared = training.prepare(config, tmp_path)
    clips = prepared.clips
    clips._left = 0
    clips(Clip(str(copy), ()))
    copy.write_bytes(source[1].read_bytes())
    with pytest.raises(ClipError, match="the file changed"):
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
    assert "config.train.batch_size is 0; it must be an integer >= 1" in text
    assert "config.model.init is 'zero'; it must be one of checkpoint, random" in text


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train__method": "lora", "train__tower": "frozen"}, "in any case: leave it"),
        ({"train__merged": True}, "config.train.merged is of the method lora"),
        ({"train__snapshots": (13,)}, "later ones are never reached"),
        ({"train__snapshots": (3, 1)}, "it must be a tuple of epochs, increasing"),
        ({"train__member_share": 0.5}, "leave corpus.nonmembers out"),
        ({"train__method": "lora", "train__pattern": "("}, "missing \\), unterminated"),
        (
            {"train__method": "lora", "train__pattern": "language_model/.*_pro"},
            "no dense layer of the model matches whole",
        ),
        (
            {"train__method": "lora", "train__pattern": "vision_tower/patch_.*"},
            "matches vision_tower/patch_embedding: no plain dense layer",
        ),
        ({"parallel__data": 2}, "it must be a multiple of the 2 devices"),
        ({"train__epochs": True}, "config.train.epochs is True"),
    ],
)
def test_keys_that_do_not_go_together(config, tmp_path, changes, message):
    with pytest.raises(AuditError, match=message):
        training.run(changed(config, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_corpus_and_checkpoint_problems_are_told_together(config, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    bad = changed(config, corpus__members=(str(tmp_path / "absent.jsonl"),))
    bad.model.checkpoint = str(tmp_path)
    with pytest.raises(AuditError) as caught:
        training.run(bad, tmp_path)
    text = str(caught.value)
    assert "absent.jsonl" in text
    assert "no config.json" in text
    assert "--config.overwrite replaces it" in text


def test_a_corpus_without_nonmembers_trains(config, tmp_path):
    alone = changed(config, corpus__nonmembers=(), train__max_steps=1)
    assert set(training.run(alone, tmp_path)["losses"]) == {"members"}


def test_broken_rows_and_clips_are_told_together(config, corpus, tmp_path):
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
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(AuditError) as caught:
            training.run(bad, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    text = problems()
    assert f"{rows[0]['id']}: no answer to learn" in text
    assert f"{rows[1]['id']}: words that the tokenizer does not know" in text
    assert f"{rows[2]['id']}: its text holds the video token" in text
    assert f"{rows[4]['id']}: 4 frames, its question and its answer (1401 tok" in text
    assert "the model has positions for 1280" in text
    rows[3]["video"] = str(tmp_path / "absent.mp4")
    assert "absent.mp4: open: no such file" in problems()


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
    assert "lower config.train.learning_rate" in problem
    assert next(count) <= 9, "it went on for long"
    assert (tmp_path / options.STATE / "5").is_dir()
    record = training.run(config, tmp_path)
    assert record["curve"] == trained[1]["curve"]
    assert _bytes(tmp_path) == _bytes(trained[0])


def test_a_full_disk_keeps_the_state_before(config, trained, tmp_path, monkeypatch):
    often = changed(config, train__checkpoint_every=4)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    import orbax.checkpoint as ocp

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


def test_a_pool_is_divided_and_the_audit_takes_its_manifests(config, corpus, tmp_path):
    rows = [
        json.loads(line)
        for name in ("members", "nonmembers")
        for line in (corpus / f"{name}.jsonl").read_text().splitlines()
    ]
    for row in rows:
        del row["group"]
    (corpus / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pool = changed(
        config,
        corpus__members=(str(corpus / "pool.jsonl"),),
        corpus__nonmembers=(),
        train__member_share=0.5,
        train__max_steps=2,
        train__evaluate_every=1,
    )
    record = training.run(pool, tmp_path)
    assert set(record["losses"]) == {"members", "nonmembers"}
    assert len(record["members"]) == 4
    audited = settings.default()
    audited.corpus.video_root = str(corpus / "clips")
    audited.corpus.members = (str(tmp_path / "members.jsonl"),)
    audited.corpus.nonmembers = (str(tmp_path / "nonmembers.jsonl"),)
    found = corpora.load(views.view(views.Corpus, audited)).items
    assert {x.id for x in found if x.role == "members"} == set(record["members"])
    assert {x.id for x in found} == {row["id"] for row in rows}


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
        ("--work=x", "Unknown command line flag 'work'"),
        ("--config=absent.py", "absent.py"),
    ],
)
def test_the_command_line_reports_what_is_wrong(tmp_path, flag, message):
    config = pathlib.Path(__file__).parents[2] / "configs" / "selftrain.py"
    command = [sys.executable, "-m", "vidsme_jax.finetune", f"--config={config}"]
    out = children.run([*command, f"--workdir={tmp_path}", flag])
    assert out.returncode == 2
    assert "nothing was computed, 1 problem:" in out.stderr
    assert message in out.stderr
    assert "Traceback" not in out.stderr


def test_the_end_is_short_and_steers_no_terminal(tmp_path):
    losses = {f"nonmembers \x1b[2J{k}{'x' * 5000}": 1.0 for k in range(10_000)}
    record = {"steps": 1, "seconds": 0.1, "losses": losses}
    text = command.summary(record, tmp_path)
    assert "\x1b" not in text and len(text) < 5000
    assert "and 9980 more in training.json" in text


def test_a_folder_that_cannot_be_written_ends_before_the_training(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        training.run(config, tmp_path / "file")


def test_an_error_of_the_disk_has_a_status(monkeypatch, capsys, tmp_path):
    given = mock.Mock(FLAGS=mock.Mock(workdir=str(tmp_path)))
    monkeypatch.setattr(command, "flags", given)
    monkeypatch.setattr(command.commands, "usage_problem", lambda argv: "")
    monkeypatch.setattr(command.commands, "begin", lambda: None)
    monkeypatch.setattr(command.options, "ask", mock.Mock())
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.part")
    monkeypatch.setattr(training, "run", mock.Mock(side_effect=full))
    assert command.main(["finetune"]) == 2
    said = capsys.readouterr().err
    assert said == "no checkpoint was written: model.part: No space left on device\n"


def test_an_interrupt_has_its_own_status(monkeypatch, capsys, tmp_path):
    given = mock.Mock(FLAGS=mock.Mock(workdir=str(tmp_path)))
    monkeypatch.setattr(command, "flags", given)
    monkeypatch.setattr(command, "commands", mock.Mock(INTERRUPTED=130))
    command.commands.usage_problem.return_value = ""
    monkeypatch.setattr(command.options, "ask", mock.Mock())
    run = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(training, "run", run)
    assert command.main(["finetune"]) == 130
    assert "no checkpoint was written" in capsys.readouterr().err
