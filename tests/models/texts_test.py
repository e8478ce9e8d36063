"""Texts about a clip, each against one causal pass over the video and it alone."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch

from oracles import config_of, llava_next_video, llava_onevision, llava_qwen
from vidsme_jax import models, parallel
from vidsme_jax.base import PROFILE_ORDERS, SLICES
from vidsme_jax.models.batches import Batch, Shape, TextShape, stack, stack_texts
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.rows import Rows, Shown, Text
from vidsme_jax.run.step import Found, make_step

TRUNK = Text((1, 5, 9), (8,))  # What stands behind the video is seen by no text.
TEXTS = (
    (
        Text((), (7, 8, 30, 31), (12, 13, 2)),
        Text((), (22,), (9, 9, 9, 9, 17, 2)),
        Text((), (14, 15), ()),
    ),
    (Text((), tuple(range(20, 45)), (3,)),),
    (Text((), (), (6, 2)), Text((), (6,), (2,))),
)
FRAMES = (4, 3, 1)
GREY = 128


class Family(NamedTuple):
    """An oracle, and how many video rows a clip of so many frames has."""

    make: Any
    save: Any
    logits: Any  # Of the oracle: model, ids, normalised frames, ids.


FAMILIES = {
    "llava_next_video": Family(
        functools.partial(llava_next_video.make_model, heads=4, kv_heads=2),
        llava_next_video.save_complete,
        llava_next_video.logits,
    ),
    "llava_onevision": Family(
        functools.partial(llava_onevision.make_model, kv_heads=1),
        llava_onevision.save,
        llava_onevision.logits,
    ),
    "llava_qwen": Family(
        functools.partial(llava_qwen.make_model, "llava_video", newline="one_token"),
        llava_qwen.save,
        lambda model, *parts: model(*parts),
    ),
}


def _batch(loaded: LoadedModel, slices=SLICES, *, blank=False) -> tuple[Batch, list]:
    """Three clips of one shape; returns the rows and the prepared frames, too."""
    model, rng = loaded.model, np.random.default_rng(0)
    most = max(FRAMES)
    rows, clips = [], []
    for count, texts in zip(FRAMES, TEXTS, strict=True):
        natural = np.arange(count)
        orders = natural, natural[::-1]
        lay_out = functools.partial(model.lay_out, Shown(count), TRUNK)
        rows.append([lay_out(order, texts, slices) for order in orders])
        frames = rng.integers(0, 256, (count, 70, 90, 3), np.uint8)
        clips.append(model.prepare(frames))
    pixels = np.zeros((len(clips), 1, most, *clips[0].shape[1:]), np.uint8)
    for k, frames in enumerate(clips):
        pixels[k, 0, : len(frames)] = frames
    sizes = [TextShape.of(x[0]) for x in rows]
    size = TextShape(*(max(x) for x in zip(*sizes, strict=True)))
    grey = _grey(model, slices, size) if blank else None
    shape = Shape.of(rows[0][0])
    return stack(rows, pixels, shape, size, grey), [rows, clips]


def _grey(model, slices, size: TextShape) -> Batch:
    """One grey clip in natural order, with the texts of all clips behind it."""
    most = max(FRAMES)
    slices = [name for name in slices if name != "video"]
    lay_out = functools.partial(model.lay_out, Shown(most), TRUNK, np.arange(most))
    laid_out = [lay_out(texts, slices) for texts in TEXTS]
    shape = Shape.of(laid_out[0])
    frames = model.prepare(np.full((most, 70, 90, 3), GREY, np.uint8))
    grey = stack([laid_out[:1]], frames[None, None], shape)
    return grey._replace(texts=stack_texts(laid_out, shape.rows, size))


def _run(loaded: LoadedModel, batch: Batch, **options) -> Found:
    step = make_step(loaded.graphdef, second=True, text_second=True, **options)
    return jax.tree.map(np.asarray, jax.jit(step)(loaded.state, batch))


def _profile(log_p):
    """The Renyi entropies of rows of log p, order after order."""
    out = []
    for order in PROFILE_ORDERS:
        if order == 1:
            out.append(-(np.exp(log_p) * log_p).sum(-1))
        elif order == np.inf:
            out.append(-log_p.max(-1))
        else:
            powers = np.log(
                np.exp(order * (log_p - log_p.max(-1, keepdims=True))).sum(-1)
            )
            out.append((powers + order * log_p.max(-1)) / (1 - order))
    return np.stack(out, -1)


def _log_p(family: Family, model, config, frames, text: Text) -> np.ndarray:
    """One causal pass of transformers; rows of the prompt's start are left out."""
    scaled = torch.tensor(frames.astype(np.float32)) / 255
    mean, std = (torch.tensor(x) for x in (config.image_mean, config.image_std))
    pixels = ((scaled - mean) / std).permute(0, 3, 1, 2)
    ids = (*text.after, *text.answer)
    logits = family.logits(model, TRUNK.before, pixels, ids)
    assert logits.std() > 0.5, "weights too small for errors to show"
    return torch.log_softmax(logits.double(), -1).numpy()[len(TRUNK.before) :]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_text_equals_transformers(tmp_path, name):
    """Ragged clips and texts, several a clip, both directions, and a grey video."""
    family = FAMILIES[name]
    oracle = family.make()
    loaded = models.load(str(family.save(oracle, tmp_path)), dtype="float32")
    config = config_of(loaded.model)
    batch, (rows, clips) = _batch(loaded, blank=True)
    found = _run(loaded, batch)
    assert found.texts.rank is not None and found.video.rank is None
    close = functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4)
    for k, (frames, texts) in enumerate(zip(clips, TEXTS, strict=True)):
        of_text: Rows = rows[k][0]
        of_text = of_text._replace(
            **{x: getattr(of_text, x)[of_text.text > 0] for x in Rows._fields[4:]}
        )
        grey = np.full((max(FRAMES), *frames.shape[1:]), GREY, np.uint8)
        for number, text in enumerate(texts, 1):
            ids = [*text.after, *text.answer]
            own = np.flatnonzero(of_text.text == number)
            for d, shown in enumerate((frames, frames[::-1], grey)):
                log_p = _log_p(family, oracle, config, shown, text)
                video, log_p = np.split(log_p, [len(log_p) - len(ids) - 1])
                log_p = log_p[: len(ids)]  # The last row predicts nothing.
                targets = log_p[np.arange(len(ids)), ids]
                if d == 2:
                    close(found.blank[k, own], targets)
                    continue
                close(found.texts.log_prob[k, d, own], targets)
                close(found.texts.renyi[k, d, own], _profile(log_p))
                rank = 1 + (log_p > targets[:, None]).sum(-1)
                np.testing.assert_array_equal(found.texts.rank[k, d, own], rank)
                means = found.texts.mean_renyi[k, d, 2 * number - 2 : 2 * number]
                cut = np.split(log_p, [len(text.after)])
                for mean, part in zip(means, cut, strict=True):
                    if len(part):
                        close(mean, _profile(np.log(np.exp(part).mean(0))))
                video = _profile(video)
                close(found.video.renyi[k, d, : len(video)], video)


@pytest.mark.long
def test_texts_do_not_touch_the_video(tmp_path):
    """Nor one another: without the others a text has the same numbers."""
    family = FAMILIES["llava_qwen"]
    loaded = models.load(str(family.save(family.make(), tmp_path)), dtype="float32")
    batch, _ = _batch(loaded)
    whole = _run(loaded, batch)
    alone = _run(loaded, batch._replace(texts=None))
    assert alone.texts is None and alone.blank is None
    for one, other in zip(whole.video, alone.video, strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, atol=2e-5)
    other = jax.tree.map(np.copy, batch.texts)
    later = batch.texts.segment > 1
    other.token[later] = 11
    changed = _run(loaded, batch._replace(texts=other)).texts
    first = batch.texts.means[..., :2].any(-1)
    assert first.any(axis=1).all() and not first.all()
    for d in range(2):
        one, two = (x.log_prob[:, d] for x in (whole.texts, changed))
        np.testing.assert_array_equal(one[first], two[first])
        assert (one[~first] != two[~first]).any()


@pytest.mark.long
def test_the_video_is_not_scored_where_no_row_of_it_is_kept(tmp_path):
    """A new question about a clip that is scored reads the video for its keys alone."""
    family = FAMILIES["llava_qwen"]
    loaded = models.load(str(family.save(family.make(), tmp_path)), dtype="float32")
    whole = _run(loaded, _batch(loaded, SLICES)[0])
    batch, _ = _batch(loaded, SLICES[1:])
    assert batch.kept.shape[2] == 0
    found = _run(loaded, batch)
    assert found.video is None
    np.testing.assert_allclose(found.texts.log_prob, whole.texts.log_prob, atol=2e-5)


@pytest.mark.long
def test_every_grid_gives_the_numbers_of_one_device(tmp_path):
    """Of texts and of a grey video, of which each device along `data` reads one."""
    family = FAMILIES["llava_qwen"]
    folder = str(family.save(family.make(), tmp_path))
    expected = jax.tree.leaves(_on_grid(folder, "pmap", 1, 1))
    for grid in (("pmap", 8, 1), ("mesh", 4, 2)):
        found = jax.tree.leaves(_on_grid(folder, *grid))
        for one, other in zip(expected, found, strict=True):
            assert len(one) == 8
            np.testing.assert_allclose(one, other, atol=2e-5, rtol=2e-5)


def _on_grid(folder: str, *grid) -> Found:
    """Signals of eight clips, copies of the three with other words in each."""
    devices = parallel.make_devices(*grid)
    model = models.inspect(folder, dtype="float32")
    loaded = model.load(devices.shardings(model.split))
    batch, _ = _batch(loaded, blank=True)
    rng = np.random.default_rng(1)
    take = lambda x: np.concatenate([x, x, x])[:8]
    grey = batch.blank._replace(texts=None)
    batch = jax.tree.map(take, batch._replace(blank=None))
    texts = batch.texts
    token = rng.integers(3, 100, texts.token.shape, np.int32)
    batch = batch._replace(texts=texts._replace(token=token))
    size = devices.batch_size(1)
    grey = jax.tree.map(lambda x: np.concatenate([x] * size), grey)
    grey = grey._replace(texts=batch.texts)
    step = make_step(loaded.graphdef, second=True, text_second=True)
    run = devices.runner(step)
    return devices.fetch(run(loaded.state, batch._replace(blank=grey)))
