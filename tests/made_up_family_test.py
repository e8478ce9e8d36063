"""A family of its own folder, added by one line, through the whole audit."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest

from decoding import decode
from made_up_family import FAMILY
from made_up_family.processing import GRID, TIME
from vidsme_jax import audit, models, settings
from vidsme_jax.base import SLICES, AuditError
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.interface import Family
from vidsme_jax.models.rows import Shown, Text, second_order
from vidsme_jax.run.signals import compute
from vidsme_jax.run.step import make_step
from vidsme_jax.store import signals

NAME, FRAMES = "random:pairs-tiny", 5


@pytest.fixture(autouse=True)
def _family(monkeypatch):
    monkeypatch.setattr(models, "FAMILIES", (*models.FAMILIES, FAMILY))


def _log_probs(state, text, frames):
    """The model on one direction by itself, a row at a time; log p of every row."""
    weights = {name: np.float64(x[kind].get_value()) for name, kind, x in _parts(state)}
    rows, place = [], np.zeros(3, int)

    def add(vector, at):
        positions = [256 * axis + at[axis] for axis in range(3)]
        rows.append(vector + sum(weights["places"][k] for k in positions))

    for token in text.before:
        add(weights["embed"][token], place)
        place = place + 1
    shows = []
    for pair in range(-(-len(frames) // 2)):
        add(weights["embed"][TIME + pair], place)
        place = place + 1
        first, second = frames[2 * pair], frames[min(2 * pair + 1, len(frames) - 1)]
        for row in range(2):
            for column in range(2):
                cut = (slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
                pixels = np.concatenate([first[cut].ravel(), second[cut].ravel()])
                shows.append(len(rows))
                at = place + GRID[2 * row + column]
                add(np.tanh(pixels / 255 @ weights["tower"]), at)
        place = place + 2
    for token in (*text.after, *text.answer):
        add(weights["embed"][token], place)
        place = place + 1
    x, out = np.array(rows), []
    for k in range(len(x)):
        scores = (x[k] @ weights["query"]) @ x[: k + 1].T
        shares = np.exp(scores - scores.max())
        mixed = (shares / shares.sum()) @ x[: k + 1]
        logits = (x[k] + np.tanh(mixed @ weights["out"])) @ weights["lm_head"].T
        out.append(logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max())
    return np.array(out), shows


def _parts(state):
    for name in ("tower", "query", "out"):
        yield name, "kernel", state[name]
    for name in ("embed", "places", "lm_head"):
        yield name, "weight", state[name]


def _entropy(p):
    return -(p * np.log(p)).sum(-1)


@pytest.mark.usefixtures("figureless")
@pytest.mark.parametrize("against", ["reversed", "shuffled:1"])
def test_the_whole_audit_with_a_tower_that_sees_pairs(tmp_path, against):
    config = settings.variant(settings.default(), "tiny", {"tiny": NAME})
    config.video.num_frames, config.video.against = FRAMES, against
    config.corpus.max_clips, config.batch_size = 2, 2
    report = audit.run(config, tmp_path)
    assert not report.failures and report.table.num_rows.tolist() == [12] * 4
    assert np.isfinite(report.table.scores["vid_sme"]).all()
    loaded = models.load(NAME, dtype="float32")
    text = loaded.model.tokenise()
    assert len(text.after) == 1
    store = signals.Signals(
        tmp_path / "signals", signals.recorded(tmp_path / "signals")
    )
    scored = {clip.key: clip for clip in store.read(list(store.finished))}
    assert len(scored) == 4
    for key, clip in scored.items():
        decoded = decode(pathlib.Path(key), num_frames=FRAMES)
        pixels = loaded.model.prepare(decoded.pixels)
        assert len(pixels) == FRAMES
        for direction, order in enumerate(
            (np.arange(FRAMES), second_order(against, FRAMES))
        ):
            log_p, shows = _log_probs(loaded.state, text, pixels[order])
            found = clip.signals.renyi[direction, :, 1]
            expected = _entropy(np.exp(log_p))[shows]
            assert expected.std() > 0.01
            np.testing.assert_allclose(found, expected, rtol=1e-4)
            for k, rows in enumerate((shows, [*shows, shows[-1] + 1])):
                mean = _entropy(np.exp(log_p[rows]).mean(0))
                found = clip.signals.mean_renyi[direction, k, 1]
                np.testing.assert_allclose(found, mean, rtol=1e-4)
        np.testing.assert_array_equal(clip.frame, np.repeat([0, 2, 4], 4))


def test_texts_on_three_axes_equal_the_plain_loop():
    """Each as if it stood alone behind its video, in the view of its direction."""
    loaded = models.load(NAME, dtype="float32")
    prompt = loaded.model.tokenise()
    texts = Text((), (30, 31, 7), (12, 2)), Text((), (9,), (9, 8, 7, 2))
    orders = np.arange(FRAMES), second_order("reversed", FRAMES)
    clips = np.random.default_rng(0).integers(0, 256, (2, FRAMES, 8, 8, 3), np.uint8)
    lay_out = functools.partial(loaded.model.lay_out, Shown(FRAMES), prompt)
    rows = [
        [lay_out(order, asked, SLICES) for order in orders]
        for asked in (texts, texts[1:])
    ]
    pixels = np.stack([clips[:, order] for order in orders], axis=1)
    batch = stack(rows, pixels, Shape.of(rows[0][0]), TextShape.of(rows[0][0]))
    step = make_step(loaded.graphdef, second=True, text_second=True)
    found = jax.tree.map(np.asarray, jax.jit(step)(loaded.state, batch).texts)
    for k, asked in enumerate((texts, texts[1:])):
        of_text = rows[k][0].text[rows[k][0].text > 0]
        for number, text in enumerate(asked, 1):
            own, ids = of_text == number, [*text.after, *text.answer]
            own = np.flatnonzero(own)
            for d in range(2):
                whole = text._replace(before=prompt.before)
                log_p, shows = _log_probs(loaded.state, whole, pixels[k, d])
                log_p = log_p[shows[-1] : -1]
                targets = log_p[np.arange(len(ids)), ids]
                close = functools.partial(np.testing.assert_allclose, rtol=1e-4)
                close(found.log_prob[k, d, own], targets)
                close(found.renyi[k, d, own, 1], _entropy(np.exp(log_p)))
                mean = np.exp(log_p[: len(text.after)]).mean(0)
                close(found.mean_renyi[k, d, 2 * number - 2, 1], _entropy(mean))


def test_the_directions_differ_by_their_views():
    """Were the features permuted, a pair of the other order would never be seen."""
    loaded = models.load(NAME, dtype="float32")
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)
    one = compute(loaded, frames).signals
    natural = compute(loaded, frames[::-1].copy()).signals
    np.testing.assert_allclose(one.renyi[1], natural.renyi[0], rtol=1e-5)
    assert np.abs(one.renyi[1] - one.renyi[0]).max() > 1e-3


def test_what_is_wrong_with_its_config_is_said(tmp_path):
    models.random.write(tmp_path, "pairs-tiny")
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("hidden_size", "hiden_size"))
    with pytest.raises(AuditError, match="did you mean 'hidden_size'"):
        models.inspect(str(tmp_path), dtype="float32")


@pytest.mark.parametrize(
    "part",
    [x.name for x in dataclasses.fields(Family) if x.default is dataclasses.MISSING],
)
def test_a_family_that_lacks_a_part_is_refused_with_the_parts_name(part):
    parts = {x.name: getattr(FAMILY, x.name) for x in dataclasses.fields(FAMILY)}
    del parts[part]
    with pytest.raises(TypeError, match=f"'{part}'"):
        Family(**parts)
