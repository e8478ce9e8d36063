"""Training: the loss, gradients, and the folder that it writes."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file

from trainings import changed
from vidsme_jax import models, settings
from vidsme_jax.base import Clip
from vidsme_jax.checkpoints import trees
from vidsme_jax.data import corpora
from vidsme_jax.demo import drawing
from vidsme_jax.finetune import examples, loss, options, preparing, steps, training
from vidsme_jax.models import gradients
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.settings import views

VIDEO = drawing.TOKENS.index("<video>")
FRAMES = 4


def _nll(example, batch=None, **changes) -> np.ndarray:
    programs, state, _, own = example
    nll, tokens = programs.losses(state, {}, (batch or own)._replace(**changes))
    return nll / tokens


def _text(row: np.ndarray) -> list[str]:
    return [drawing.TOKENS[k] for k in row]


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
    prepared = preparing.prepare(config, tmp_path)
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


def test_a_step_of_small_batches_is_that_of_a_large_one(example, config, tmp_path):
    programs, state, rows, batch = example
    prepared = preparing.prepare(config, tmp_path)
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


@pytest.mark.long
def test_layers_computed_twice_give_the_same_gradients(example, config, tmp_path):
    programs, state, _, batch = example
    train = options.train_of(changed(config, train__rematerialise=True))
    prepared = preparing.prepare(config, tmp_path)
    again = steps.programs(programs.form, train, 24, prepared.devices)
    one, other = (x.gradients(state, {}, batch, 0.1, None) for x in (programs, again))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other
    )
    batch = jax.tree.map(jnp.asarray, batch)

    def summed(trained, remat):
        with gradients.wanted(remat=remat):
            return loss.answer_nll(programs.form.module(trained, {}), batch)[0].sum()

    for remat in (False, True):
        text = str(
            jax.make_jaxpr(jax.grad(functools.partial(summed, remat=remat)))(
                state.trained
            )
        )
        assert ("remat" in text) == remat


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


def test_what_training_json_says(trained, corpus):
    folder, record = trained
    assert json.loads((folder / "training.json").read_text()) == json.loads(
        json.dumps(record)
    )
    rows = [json.loads(x) for x in (corpus / "members.jsonl").read_text().splitlines()]
    assert record["members"] == [row["id"] for row in rows]
    assert record["trained parameters"] == record["parameters"]
    assert not list(folder.glob("*.part")) and not (folder / options.STATE).exists()


@pytest.mark.long
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


@pytest.mark.long
def test_products_in_bfloat16_keep_parameters_in_float32(config, trained, tmp_path):
    record = training.run(changed(config, train__dtype="bfloat16"), tmp_path)
    np.testing.assert_allclose(record["curve"][:8], trained[1]["curve"][:8], rtol=0.05)
    values = load_file(tmp_path / "model.safetensors").values()
    assert {x.dtype.name for x in values} == {"float32"}
    assert any((x.view(np.uint32) & 0xFFFF).any() for x in values)


def test_clips_beyond_the_limit_are_not_kept(config, corpus, tmp_path):
    prepared = preparing.prepare(config, tmp_path)
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


@pytest.mark.long
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


@pytest.mark.long
def test_a_corpus_without_nonmembers_trains(config, tmp_path):
    alone = changed(config, corpus__nonmembers=(), train__max_steps=1)
    assert set(training.run(alone, tmp_path)["losses"]) == {"members"}
