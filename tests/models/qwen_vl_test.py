"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL against transformers' classes and processors."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from oracles import every_row, texts
from oracles import qwen_vl as oracle
from vidsme_jax import models
from vidsme_jax.base import Asked, ClipError
from vidsme_jax.models import generation, prompts, random
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.qwen_vl import processing
from vidsme_jax.models.rows import Shown, Text
from vidsme_jax.models.tiles import Room
from vidsme_jax.run import signals
from vidsme_jax.run.stacking import check_positions, place, seen

KINDS = oracle.KINDS
QUESTION, ANSWER = "what happens in this video?", "it rains; größer, 17 times"
ASKED = Asked(key="", question=QUESTION, answer=ANSWER)
RATE, GAP = 10.0, 7  # Frames of the video a second, and from one shown to the next.
make_model = functools.cache(oracle.make_model)


def _frames(count, height=60, width=80, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def _smooth(count, height, width) -> np.ndarray:
    """Waves that move, whose resampled values are not clipped."""
    at = np.arange(count)[:, None, None, None] / 7
    row, column = np.ogrid[:height, :width]
    wave = row[..., None] / 9 + column[..., None] / 11 + at * np.array([1, 2, 3])
    return np.round(127.5 + 110 * np.sin(wave)).astype(np.uint8)


def _shown(count, gap=GAP) -> Shown:
    times = tuple(gap * frame / RATE for frame in range(count))
    return Shown(count, times, gap * count / RATE)


def _inputs(kind, frames, turns=None, gap=GAP, **settings):
    """What the processor makes of a clip; of Qwen3-VL it takes no single frame."""
    places = [gap * frame for frame in range(len(frames))]
    if kind == "qwen3_vl" and len(frames) == 1:
        frames, places = np.repeat(frames, 2, axis=0), places * 2
    turns = turns or texts.conversation("", QUESTION, ANSWER)
    total = gap * len(set(places))
    return oracle.inputs(kind, frames, places, total, RATE, turns, **settings)


def _sequence(kind, shown: Shown, around: Text, text: Text) -> list[int]:
    """The ids of the whole: the prompt with the rows' tokens, then a text."""
    pairs, rows = -(-shown.num_frames // 2), int(np.prod(shown.grid))
    repeats = [rows] * pairs if kind == "qwen3_vl" else [rows * pairs]
    ids = list(around.before)
    for count, between in zip(repeats, around.frames, strict=True):
        ids += [oracle.VIDEO_TOKEN] * count + list(between)
    return [*ids, *text.after, *text.answer]


def _patches(plan, cut, grid) -> np.ndarray:
    """Prepared frames as the class takes its pixels: (channel, frame, row, column)."""
    size = plan.tiling.patch_size
    cut = np.pad(cut, [(0, len(cut) % 2)] + [(0, 0)] * 3, "edge")
    cut = cut.reshape(-1, 2, *grid, 4, size, size, 3)
    cut = cut.transpose(0, 2, 3, 4, 7, 1, 5, 6).astype(np.float32) / np.float32(255)
    shape = 3, 1, 1, 1
    mean, std = (np.asarray(x, np.float32).reshape(shape) for x in _normal(plan))
    return ((cut - mean) / std).reshape(-1, 3 * 2 * size**2)


def _normal(plan):
    config = nnx.eval_shape(lambda: plan.make(nnx.Rngs(0))).config
    return config.image_mean, config.image_std


def _expected(model, kind, plan, frames, shown, ids, tokens_per_second=2):
    """Torch's logits of all rows on the package's own pixels."""
    grid = -(-len(frames) // 2), *(2 * side for side in shown.grid)
    seconds = 2 * shown.length / shown.num_frames
    places = oracle.positions(kind, ids, grid, seconds, tokens_per_second)
    patches = _patches(plan, frames, shown.grid)
    return oracle.logits(model, ids, patches, grid, places).numpy()


def _stacked(plan, frames, shown, orders, rows, room=None, every=False, more=False):
    """One clip as the device reads it; each order is a view of its own."""
    room = room or plan.tiling.room(shown.grid)
    tiles = plan.tiling.stack([frames], [tuple(orders)], len(frames), room)
    rows = [place(every_row(x) if every else x, shown.grid, room) for x in rows]
    text = TextShape.of(rows[0]) if more else None
    batch = stack([rows], tiles, Shape.of(rows[0]), text)
    return jax.tree.map(jnp.asarray, batch)


def _logits(loaded, frames, shown, around: Text, text: Text, room=None):
    """The package's logits of all rows."""
    plan, order = loaded.model, np.arange(len(frames))
    around = around._replace(after=(*text.after, *text.answer))
    rows = plan.lay_out(shown, around, order)
    batch = _stacked(plan, frames, shown, [order], [rows], room, every=True)

    @jax.jit
    def run(state, batch):
        model = nnx.merge(loaded.graphdef, state)
        hidden, _ = model.read(model.see(batch.pixels), batch)
        return hidden[0, 0] @ model.head.T

    return np.asarray(run(loaded.state, batch))


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return oracle.save(make_model(kind), kind, tmp_path_factory.mktemp(kind))


@pytest.fixture(scope="module")
def published(kind, tmp_path_factory):
    target = tmp_path_factory.mktemp(f"{kind}-published")
    return oracle.save_as_published(make_model(kind), kind, target)


@pytest.fixture(scope="module")
def loaded(folder):
    return models.load(str(folder), dtype="float32")


@pytest.mark.parametrize("prompt", ["family", "mcq"])
def test_tokens_equal_the_processors(kind, folder, prompt):
    """A system turn or the default one, and times in front of Qwen3-VL's pairs."""
    plan = models.inspect(str(folder), dtype="float32", prompt=prompt)
    system = prompts.SYSTEM["mcq"] if prompt == "mcq" else ""
    turns = texts.conversation(system, QUESTION, ANSWER)
    text = plan.tokenise(ASKED)
    for count in (1, 2, 5, 8):
        frames = _frames(count)
        shown = seen(plan, plan.prepare(frames), _shown(count))
        theirs = _inputs(kind, frames, turns)["input_ids"][0].tolist()
        around = plan.tokenise(None, shown)
        whole = _sequence(kind, shown, around, text)
        assert whole == theirs[: len(whole)]
        assert oracle.TOKENIZER.decode(theirs[len(whole) :]) == "\n"
        assert len(around.frames) == (-(-count // 2) if kind == "qwen3_vl" else 1)
    said = oracle.TOKENIZER.decode(around.before)
    assert (processing._SYSTEM in said) == (kind != "qwen3_vl" and not system)
    assert plan.timed == (kind != "qwen2_vl")
    assert plan.ends[0] == oracle.TOKENIZER.eos_token_id


def test_published_files_say_the_same(kind, folder, published):
    """The flat config, and the template in a file of its own."""
    own, other = (
        models.inspect(str(each), dtype="float32") for each in (folder, published)
    )
    shown = _shown(3)._replace(grid=(2, 3))
    assert own.tokenise(None, shown) == other.tokenise(None, shown)
    assert own.tokenise(ASKED) == other.tokenise(ASKED)
    assert own.num_bytes == other.num_bytes


def test_the_markers_are_the_tokenizers(kind):
    """Where it names them; else those of the families."""
    named = mock.MagicMock(
        vision_start_token="<begin>", vision_end_token="<end>", video_token="<frame>"
    )
    framing = processing.framing(named, timed=kind == "qwen3_vl")
    assert (framing.token, framing.close) == ("<frame>", "<end>")
    assert all(x.endswith("<begin>") for x in framing.opens(_shown(3)))
    usual = processing.framing(oracle.TOKENIZER, timed=kind == "qwen3_vl")
    assert (usual.token, usual.close) == ("<|video_pad|>", "<|vision_end|>")


def _positions(kind, plan, count, gap=GAP, tokens_per_second=2):
    """Ours, the oracle's, transformers' and which are the video's."""
    frames = _frames(count)
    shown = seen(plan, plan.prepare(frames), _shown(count, gap))
    text, around = plan.tokenise(ASKED), plan.tokenise(None, shown)
    ids = _sequence(kind, shown, around, text)
    around = around._replace(after=(*text.after, *text.answer))
    ours = plan.lay_out(shown, around, np.arange(count)).position.T
    given = _inputs(kind, frames, gap=gap)
    more, seconds = {}, 1.0
    if kind == "qwen2_5_vl":
        more["second_per_grid_ts"] = given["second_per_grid_ts"]
        seconds = float(more["second_per_grid_ts"][0])
    more |= {"video_grid_thw": given["video_grid_thw"]}
    model = make_model(
        *(kind,),
        **({"tokens_per_second": tokens_per_second} if kind == "qwen2_5_vl" else {}),
    )
    theirs, _ = model.model.get_rope_index(
        given["input_ids"], given["mm_token_type_ids"], **more
    )
    grid = given["video_grid_thw"][0]
    wanted = oracle.positions(kind, ids, grid, seconds, tokens_per_second)
    rows = np.array(ids) == oracle.VIDEO_TOKEN
    return ours, wanted, theirs[:, 0, : len(ids)].numpy(), rows


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_positions_equal_those_of_training(kind, loaded, count):
    ours, wanted, theirs, rows = _positions(kind, loaded.model, count)
    np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(ours[:, rows], theirs[:, rows])


@pytest.mark.parametrize(
    ("gap", "tokens_per_second", "count"), [(1, 2, 16), (3, 3, 15), (7, 5, 7)]
)
def test_seconds_are_positions(tmp_path, gap, tokens_per_second, count):
    kind = "qwen2_5_vl"
    model = make_model(kind, tokens_per_second=tokens_per_second)
    plan = models.inspect(str(oracle.save(model, kind, tmp_path)), dtype="float32")
    ours, wanted, theirs, rows = _positions(kind, plan, count, gap, tokens_per_second)
    np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(ours[:, rows], theirs[:, rows])


@pytest.mark.parametrize(
    ("shape", "most"),
    [((2, 3), 0.01), ((90, 160), 2.01), ((160, 90), 2.01), ((100, 100), 2.01)],
)
def test_tiles_equal_the_processors_patches(kind, loaded, shape, most):
    """In grey levels; the first frames are not resampled."""
    plan = loaded.model
    if shape == (2, 3):
        frames = _frames(3, *(side * plan.tiling.side for side in shape))
    else:
        frames = _smooth(3, *shape)
    given = _inputs(kind, frames)
    cut = plan.prepare(frames)
    pairs, *sides = given["video_grid_thw"][0].tolist()
    assert [2 * side for side in cut.shape[1:3]] == sides and pairs == 2
    ours = _patches(plan, cut, cut.shape[1:3])
    theirs = given["pixel_values_videos"].numpy()
    assert ours.shape == theirs.shape
    levels = (ours - theirs).reshape(len(ours), 3, -1) * 255
    levels *= np.array(_normal(plan)[1], np.float32)[None, :, None]
    assert np.abs(levels).max() < most


@pytest.mark.parametrize(
    ("count", "shape", "kv_heads", "tied"),
    [(1, (60, 80), 4, False), (3, (70, 150), 1, True), (2, (150, 100), 2, False)],
)
def test_logits_of_all_rows_equal_transformers(
    kind, tmp_path, count, shape, kv_heads, tied
):
    """Windows of Qwen2.5-VL are several, some of them partial."""
    model = make_model(kind, kv_heads=kv_heads, tied=tied)
    loaded = models.load(str(oracle.save(model, kind, tmp_path)), dtype="float32")
    plan, frames = loaded.model, loaded.model.prepare(_frames(count, *shape))
    shown = seen(plan, frames, _shown(count))
    around, text = plan.tokenise(None, shown), plan.tokenise(ASKED)
    ids = _sequence(kind, shown, around, text)
    expected = _expected(model, kind, plan, frames, shown, ids)
    assert expected.std() > 0.5, "weights too small for errors to show"
    room, own = plan.tiling.room(shown.grid), int(np.prod(shown.grid))
    assert room.rows > own
    found = _logits(loaded, frames, shown, around, text)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if count == 3:  # Without padding.
        windows = 2 * (kind == "qwen2_5_vl")
        exact = _logits(loaded, frames, shown, around, text, Room(own, windows))
        np.testing.assert_allclose(exact, found, atol=1e-4)


def test_published_checkpoints_are_read_as_saved_ones(kind, loaded, published):
    """Both dialects of names, and of the config's keys."""
    other = models.load(str(published), dtype="float32")
    one, two = (jax.tree.leaves(x.state) for x in (loaded, other))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    mean, std = _normal(other.model)
    assert (mean, std) == _normal(loaded.model)


def test_both_directions_equal_torch(kind, loaded):
    """Frames change places and pairs; the text between them stays, with its times."""
    model, plan, rate = make_model(kind), loaded.model, 2.0
    frames = _frames(3, 80, 50)
    asked = [(QUESTION, ANSWER)]
    found = signals.compute(loaded, frames, rate=rate, texts=asked)
    cut = plan.prepare(frames)
    shown = seen(plan, cut, Shown(3, (0.0, 0.5, 1.0), 1.5))
    around, text = plan.tokenise(None, shown), found.texts[0]
    tokens = tuple(int(x) for x in text.tokens)
    ids = np.array(_sequence(kind, shown, around, Text((), tokens)))
    visual = np.flatnonzero(ids == oracle.VIDEO_TOKEN)
    for direction, order in enumerate((cut, cut[::-1])):
        logits = _expected(model, kind, plan, order, shown, ids)
        log_p = torch.log_softmax(torch.tensor(logits).double(), -1).numpy()
        shannon = -(np.exp(log_p) * log_p).sum(-1)
        ours = found.signals.renyi[direction, :, 1]
        np.testing.assert_allclose(ours, shannon[visual], rtol=2e-4)
        start = len(ids) - len(tokens) - 1
        own = log_p[np.arange(start, len(ids) - 1), list(tokens)]
        ours = text.signals.log_prob[direction]
        np.testing.assert_allclose(ours, own, atol=2e-4)
    one, other = found.signals.renyi[..., 1]
    assert np.abs(one - other).max() > 1e-2, "reversal does nothing"


@pytest.mark.long
def test_texts_as_segments_equal_the_whole_sequence(kind, loaded):
    """Two texts about one clip, each seen by its own rows alone; both orders."""
    model, plan = make_model(kind), loaded.model
    frames = plan.prepare(_frames(4, 70, 150))
    shown = seen(plan, frames, _shown(4))
    around = plan.tokenise(None, shown)
    own = [plan.tokenise(ASKED), plan.tokenise(Asked(key="", answer="a dog runs"))]
    orders = np.arange(4), np.arange(4)[::-1]
    rows = [plan.lay_out(shown, around, order, own, ("response",)) for order in orders]
    batch = _stacked(plan, frames, shown, orders, rows, more=True)

    @jax.jit
    def run(state, batch):
        module = nnx.merge(loaded.graphdef, state)
        _, states = module.read(module.see(batch.pixels), batch)
        return states @ module.head.T

    states = np.asarray(run(loaded.state, batch))
    for number, text in enumerate(own):
        ids = _sequence(kind, shown, around, text)
        start = len(ids) - len(text.answer) - 1
        for d, order in enumerate(orders):
            expected = _expected(model, kind, plan, frames[order], shown, ids)
            kept = np.flatnonzero(rows[0].text == number + 1)
            np.testing.assert_allclose(
                states[0, d, kept], expected[start:-1], atol=2e-4
            )


@pytest.mark.long
def test_greedy_answers_equal_a_loop_of_transformers(kind, loaded):
    """Its own `generate` has other positions than training."""
    model, plan = make_model(kind), loaded.model
    frames = plan.prepare(_frames(3, seed=3))
    shown = seen(plan, frames, _shown(3))
    around = plan.tokenise(None, shown)
    text = plan.tokenise(Asked(key="", question=QUESTION))
    ids = _sequence(kind, shown, around, text)
    before = len(ids)
    for _ in range(5):
        last = _expected(model, kind, plan, frames, shown, ids)[-1]
        second, first = np.sort(last)[-2:]
        assert first - second > 1e-3, "this fixture's steps are unclear"
        ids.append(int(last.argmax()))
    order = np.arange(3)
    rows = plan.lay_out(shown, around, order, [text])
    batch = _stacked(plan, frames, shown, [order], [rows], more=True)
    step = generation.greedy(loaded.graphdef, limit=5, ends=())
    found = jax.jit(step)(loaded.state, batch)
    ((told, _),) = generation.answers(jax.tree.map(np.asarray, found), 0, 1)
    assert list(told) == ids[before:] and len(set(told)) > 1


CLASSES = {
    "qwen2_vl-2b": "Qwen2VL",
    "qwen2_vl-72b": "Qwen2VL",
    "qwen2_5_vl-3b": "Qwen2_5_VL",
    "qwen2_5_vl-7b": "Qwen2_5_VL",
    "qwen3_vl-2b": "Qwen3VL",
    "qwen3_vl-8b": "Qwen3VL",
}


@pytest.mark.parametrize("size", CLASSES)
def test_published_sizes_have_the_parameters_of_transformers(size):
    raw = dict(random.sizes()[size].sizes[size]["config.json"])
    raw.pop("model_type")
    made = getattr(transformers, CLASSES[size] + "Config")(**raw)
    with torch.device("meta"):
        model = getattr(transformers, CLASSES[size] + "ForConditionalGeneration")(made)
    count = sum(x.numel() for x in model.parameters())
    assert random.describe(size, dtype="bfloat16").num_bytes == 2 * count


def test_clips_that_the_context_does_not_hold(kind, loaded):
    """The most frames are those of the smallest size."""
    plan = loaded.model
    assert plan.max_rows == 2048
    for count, fits in ((plan.max_frames, True), (plan.max_frames + 1, False)):
        shown = plan.smallest(count)
        prompt = plan.tokenise(None, shown)
        rows = plan.lay_out(shown, prompt, np.arange(count))
        assert (len(rows.feature) <= plan.max_rows) == fits == plan.holds(count)


@pytest.mark.parametrize("rate", [1e-300, 1e-9, 1e-6])
def test_positions_of_time_beyond_any_decoder_are_refused(tmp_path, rate):
    """Such as those of a damaged file, beyond what an int32 holds."""
    kind = "qwen2_5_vl"
    folder = oracle.save(make_model(kind), kind, tmp_path)
    plan, frames = models.inspect(str(folder), dtype="float32"), _frames(4)
    shown = Shown(4, tuple(k / rate for k in range(4)), 4 / rate)
    shown = seen(plan, plan.prepare(frames), shown)
    rows = plan.lay_out(shown, plan.tokenise(None, shown), np.arange(4))
    assert rows.position.min() == 0
    with pytest.raises(ClipError, match="the model has 2048 positions"):
        check_positions(plan, shown, "80x60")
