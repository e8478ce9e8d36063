"""Training of every family: the loss of answers, and the gradients of three kinds."""

import json
import shutil

import jax
import numpy as np
import pytest

from decoding import decode
from families import Plain
from vidsme_jax import models
from vidsme_jax.base import Asked
from vidsme_jax.finetune import examples, options, preparing, steps
from vidsme_jax.models import random
from vidsme_jax.settings import DEMO

TINY = [x for family in models.FAMILIES for x in family.sizes if x.endswith("-tiny")]
PRUNED = "video_llama_3-tiny, rows left out"
FRAMES = 4
CLIPS = 2
# With the row behind each grid row, with windows, and with features for several layers.
KINDS = ("llava_qwen-tiny", "qwen2_5_vl-tiny", "qwen3_vl-tiny")
METHODS = ("full", "lora", "projector")
SEEDS = dict(zip(METHODS, (1, 2, 3), strict=True))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Two of the demo's members."""
    lines = (DEMO / "corpus/members.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:CLIPS]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns the checkpoint of a name."""

    def of(name: str):
        if name != PRUNED:
            return random.folder(name)
        target = tmp_path_factory.mktemp("pruned") / "checkpoint"
        shutil.copytree(random.folder(name.split(",")[0]), target)
        path = target / "video_preprocessor_config.json"
        raw = json.loads(path.read_text()) | {"use_token_compression": True}
        path.write_text(json.dumps(raw))
        return target

    return of


@pytest.fixture(scope="module")
def prepare(rows, tmp_path_factory):
    """Prepares a training of the two clips from a checkpoint."""
    folder = tmp_path_factory.mktemp("rows")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "members.jsonl").write_text(text)

    def make(checkpoint, **changes) -> preparing.Prepared:
        config = options.default()
        config.corpus.members = (str(folder / "members.jsonl"),)
        config.corpus.video_root = str(DEMO / "corpus")
        config.video.num_frames = FRAMES
        config.model.checkpoint = str(checkpoint)
        config.compile_cache = ""
        config.parallel.mode, config.parallel.data = "pmap", 1
        config.train.batch_size = CLIPS
        config.train.update(changes)
        return preparing.prepare(config, folder / "unused")

    return make


def _begun(prepared: preparing.Prepared):
    """Returns the programs, the first state, what does not learn, and the batch."""
    where = prepared.devices.shardings(prepared.trainee.form.split)
    programs = steps.programs(
        prepared.trainee.form, prepared.train, 9, prepared.devices
    )
    trained, frozen = prepared.trainee.start(where, 0)
    plan = [list(range(CLIPS))]
    model = prepared.trainee.source.model
    (cut,) = examples.cut(prepared.rows, plan, prepared.clips, model, CLIPS)
    return programs, programs.start(trained), frozen, cut.batch


@pytest.mark.long
@pytest.mark.parametrize("name", [*TINY, PRUNED])
def test_the_loss_is_that_of_a_plain_pass(name, rows, prepare, folders):
    """All rows, one causal pass, all logits; each answer behind its own video."""
    checkpoint = folders(name)
    prepared = prepare(checkpoint)
    programs, state, frozen, batch = _begun(prepared)
    nll, tokens = programs.losses(state, frozen, batch)
    plain = Plain(models.load(str(checkpoint), dtype="float32"))
    found = []
    for k, row in enumerate(rows):
        assert prepared.rows[k].item.id == row["id"]
        frames = decode(DEMO / "corpus" / row["video"], num_frames=FRAMES)
        asked = Asked(key="", question=row["question"], answer=row["answer"])
        text = plain.model.tokenise(asked)
        pixels = plain.model.prepare(frames.pixels)
        _, log_p = plain.log_p(frames, text, np.arange(FRAMES), pixels)
        ids = np.array(text.answer)
        own = log_p[len(text.after) :][: len(ids)]
        found.append(-own[np.arange(len(ids)), ids].sum())
        assert tokens[k] == len(ids) == prepared.rows[k].num_tokens
    np.testing.assert_allclose(nll, found, rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", KINDS)
def test_the_gradient_is_the_slope(name, method, prepare, folders):
    """Along a random direction in which the loss should rise."""
    more = {"rank": 4} if method == "lora" else {}
    prepared = prepare(folders(name), method=method, **more)
    programs, state, frozen, batch = _begun(prepared)
    rng = np.random.default_rng(SEEDS[method])
    trained = {path: np.asarray(x) for path, x in state.trained.items()}
    if method == "lora":  # B is zero, and with it the gradient of A.
        for path in [path for path in trained if path.endswith("lora_b")]:
            drawn = rng.standard_normal(trained[path].shape, np.float32)
            trained[path] = 0.05 * drawn

    def at(values):
        return state._replace(trained=jax.tree.map(jax.numpy.asarray, values))

    weight = 1 / sum(row.num_tokens for row in prepared.rows)
    found, loss = programs.gradients(at(trained), frozen, batch, weight, None)
    assert found.keys() == trained.keys() == prepared.trainee.form.trained
    direction, slope = {}, 0.0
    for path, gradient in sorted(found.items()):
        gradient = np.asarray(gradient, np.float64)
        size = max(float(trained[path].std()), 1e-2)
        drawn = np.abs(rng.standard_normal(gradient.shape)) * np.sign(gradient) * size
        direction[path] = drawn
        slope += float((drawn * gradient).sum())

    def moved(step: float) -> float:
        values = {
            path: (value + step * direction[path]).astype(np.float32)
            for path, value in trained.items()
        }
        nll, _ = programs.losses(at(values), frozen, batch)
        return weight * float(nll.astype(np.float64).sum())

    assert moved(0.0) == pytest.approx(float(loss), rel=1e-5)
    step = 3e-3 / slope
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=0.02)
