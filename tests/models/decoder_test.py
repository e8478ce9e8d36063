"""Decoders of every kind against transformers' classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from oracles import decoders as oracle
from oracles import every_row
from vidsme_jax import parallel
from vidsme_jax.base import SLICES
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.models import decoder_params, generation, layers
from vidsme_jax.models.batches import Shape, TextShape, stack
from vidsme_jax.models.decoder import Decoder, Visual
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.frames.params import SPLIT
from vidsme_jax.models.rope import rope_tables
from vidsme_jax.models.rows import Builder, Text
from vidsme_jax.run.step import make_step

BEFORE = (1, 5, 9)
FRAMES = tuple(range(3, 250, 4))
TEXTS = (
    Text((), (7, 8, 30, 31), (12, 13, 2)),
    Text((), tuple(range(20, 45)), (3,)),
    Text((), (22,), (9, 9, 17, 2)),
)


def _rows(texts=(), slices=("video",), frames=FRAMES, order=1):
    builder = Builder()
    builder.text(BEFORE)
    for frame in range(len(frames))[::order]:
        builder.video([frame], frame)
    for text in texts:
        builder.ask(text)
    return builder.build(slices)


def _batch(texts=(), slices=SLICES, clips=1):
    """Both directions of copies of a clip."""
    rows = [_rows(texts, slices, order=order) for order in (1, -1)]
    pixels = np.array(FRAMES, np.uint8)[None].repeat(clips, axis=0)[:, None]
    return stack([rows] * clips, pixels, Shape.of(rows[0]), TextShape.of(rows[0]))


def _close(found, expected):
    """Within 1e-4, and 1e-5 of the largest."""
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", oracle.MODELS)
def test_all_rows_equal_transformers(tmp_path, name):
    model = oracle.make_model(name)
    loaded = oracle.load(model, tmp_path)
    rows = every_row(_rows())
    batch = stack([[rows]], np.array(FRAMES, np.uint8)[None, None], Shape.of(rows))

    @jax.jit
    def run(state, batch):
        reader = nnx.merge(loaded.graphdef, state)
        hidden, _ = reader.read(reader.see(batch.pixels), batch)
        return hidden[0, 0] @ reader.head.T

    expected = oracle.logits(model, BEFORE, FRAMES, ()).numpy()
    assert expected.std() > 0.5, "weights too small for errors to show"
    found = run(loaded.state, jax.tree.map(jnp.asarray, batch))
    _close(np.asarray(found), expected)


def _log_p(model, frames, text):
    ids = (*text.after, *text.answer)
    logits = oracle.logits(model, BEFORE, frames, ids)
    log_p = torch.log_softmax(logits.double(), -1).numpy()[-len(ids) - 1 : -1]
    return log_p[np.arange(len(ids)), ids]


@pytest.mark.parametrize("name", ["llama, llama3", "qwen3"])
def test_texts_behind_a_trunk(tmp_path, name):
    """Several texts, both directions."""
    model = oracle.make_model(name)
    loaded = oracle.load(model, tmp_path)
    step = jax.jit(make_step(loaded.graphdef, second=False))
    found = step(loaded.state, _batch(TEXTS)).texts.log_prob
    _check_texts(model, np.asarray(found))


def test_a_mesh_splits_heads_that_have_norms(tmp_path):
    """Of four devices two share the keys of a head; the norms are copied."""
    model = oracle.make_model("qwen3")
    devices = parallel.make_devices("mesh", 2, 4)
    loaded = oracle.load(model, tmp_path, devices.shardings(SPLIT))
    step = make_step(loaded.graphdef, second=False)
    layers.lay_out(loaded.state)
    found = devices.runner(step)(loaded.state, _batch(TEXTS, clips=2))
    _check_texts(model, devices.fetch(found).texts.log_prob)


def _check_texts(model, found):
    """Holds log p of each clip and direction against a pass over each text alone."""
    own = _rows(TEXTS, SLICES)
    of_texts = own.text[own.text > 0]
    for number, text in enumerate(TEXTS, 1):
        ids = (*text.after, *text.answer)
        for d, frames in enumerate((FRAMES, FRAMES[::-1])):
            logits = oracle.logits(model, BEFORE, frames, ids)
            log_p = torch.log_softmax(logits.double(), -1).numpy()[-len(ids) - 1 : -1]
            expected = log_p[np.arange(len(ids)), ids]
            for clip in found[:, d, np.flatnonzero(of_texts == number)]:
                np.testing.assert_allclose(clip, expected, atol=1e-4)


@pytest.mark.parametrize(("name", "platform"), [("mistral", "cpu"), ("qwen3", "gpu")])
def test_greedy_tokens_equal_transformers(tmp_path, name, platform, monkeypatch):
    """With weights as a GPU has them, q, k and v joined, too."""
    model = oracle.make_model(name)
    loaded = oracle.load(model, tmp_path)
    questions = [Text((), text.after) for text in TEXTS]
    rows = _rows(questions)
    pixels = np.array(FRAMES, np.uint8)[None, None]
    batch = stack([[rows]], pixels, Shape.of(rows), TextShape.of(rows))
    with monkeypatch.context() as patch:
        patch.setattr(layers, "_platform", lambda _: platform)
        layers.lay_out(loaded.state)
    own = loaded.state["language_model"]["layers"]["self_attn"]
    joined = not jax.tree.leaves(own["k_proj"]["kernel"])[0].size
    assert joined == (platform == "gpu") and ("q_norm" in own) == (name == "qwen3")
    step = jax.jit(generation.greedy(loaded.graphdef, limit=5, ends=()))
    found = step(loaded.state, jax.tree.map(jnp.asarray, batch))
    for k, text in enumerate(questions):
        ids = list(text.after)
        while len(ids) < len(text.after) + 5:
            last = oracle.logits(model, BEFORE, FRAMES, ids)[-1]
            two = last.topk(2).values
            assert two[0] - two[1] > 1e-3, "this fixture's steps are unclear"
            ids.append(int(last.argmax()))
        assert found.ids[0, k].tolist() == ids[len(text.after) :]


def _read(raw, known=decoder_params.KINDS):
    problems: list[str] = []
    fields = Fields(raw, "text_config", problems)
    config = DecoderConfig.from_text(fields, "float32", tied=False, known=known)
    fields.close(decoder_params.IGNORED)
    return config, problems


@pytest.mark.parametrize("kind", decoder_params.KINDS)
@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": None}, {"hidden_size": 2048}]
)
def test_absent_keys_take_the_defaults_of_the_class(kind, changes):
    raw = {"model_type": kind, "sliding_window": None} | changes
    if kind == "mistral":  # Its class has no null there.
        raw.pop("num_key_value_heads", None)
    config, problems = _read(raw)
    assert not problems
    theirs = transformers.AutoConfig.for_model(**raw)
    for key in (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads "
        "num_key_value_heads vocab_size rms_norm_eps"
    ).split():
        assert getattr(config, key) == getattr(theirs, key), key
    size = getattr(theirs, "head_dim", None)
    assert config.head_dim == (size or theirs.hidden_size // 32)
    assert config.max_positions == theirs.max_position_embeddings
    assert config.rope.theta == theirs.rope_parameters["rope_theta"]
    assert config.rope.kind == theirs.rope_parameters["rope_type"]


MISTRAL = {"model_type": "mistral", "max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            MISTRAL,
            "sliding_window is 4096 (the default); built for null, or at least the "
            "32768 positions",
        ),
        (MISTRAL | {"sliding_window": 32767}, "sliding_window is 32767; built for"),
        (MISTRAL | {"sliding_window": "no"}, "sliding_window is 'no', expected int"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias is True"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias is True"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window"),
        (
            {"model_type": "qwen3", "layer_types": ["sliding_attention"]},
            "layer_types names 'sliding_attention'; built for full_attention",
        ),
        ({"model_type": "llama", "head_dim": 7}, "a head has the size 7"),
        (
            {"model_type": "gemma3_text"},
            "model_type is 'gemma3_text'; built for 'llama' or 'mistral' or 'qwen2' "
            "or 'qwen3'",
        ),
    ],
)
def test_what_is_not_built_is_refused(raw, message):
    _, problems = _read(raw)
    assert len(problems) == 1 and message in problems[0]


def test_a_family_has_some_kinds_only():
    config, problems = _read({}, known=("qwen3", "qwen2"))
    assert not problems and config.qk_norm and not config.attention_bias
    config, problems = _read({"model_type": "llama"}, known=("qwen2", "qwen3"))
    assert problems == [
        "text_config: model_type is 'llama'; built for 'qwen2' or 'qwen3'"
    ]
    assert config.attention_bias and not config.qk_norm


# ------------------------------------------------- features that go into several layers

PLACES = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]], np.int32)


def _deep_rows(order, texts=()):
    """Two groups of frames with positions of three axes, and text between them."""
    builder = Builder(axes=3)
    builder.text(BEFORE)
    for place, group in enumerate((0, 1)[::order]):
        builder.video(4 * group + np.arange(4), group, PLACES)
        builder.text((40 + place,))
    for text in texts:
        builder.ask(text)
    return builder.build(SLICES)


def _deep_decoder():
    """Of four layers, with weights large enough that errors show."""
    text = oracle.SIZES | {"num_hidden_layers": 4}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    del text["pad_token_id"]
    problems: list[str] = []
    config = DecoderConfig.from_qwen2_vl(
        Fields(text, "text_config", problems), jnp.dtype("float32"), tied=False
    )
    assert not problems and config.head_dim == 8
    graphdef, state = nnx.split(Decoder(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape, scale=0.3), x.dtype), state
    )
    return graphdef, state


_LENGTH = 64  # Rows are filled up behind: they see none of what follows.


@functools.partial(jax.jit, static_argnums=0)
def _layer_by_layer(graphdef, state, x, at, added):
    decoder = nnx.merge(graphdef, state)
    c = decoder.config
    cos, sin = rope_tables(at[None], c.rope, c.head_dim)
    of_layer, weights = nnx.split(decoder.layers)
    x = x[None]
    for k in range(c.num_hidden_layers):
        layer = nnx.merge(of_layer, jax.tree.map(lambda x, k=k: x[k], weights))
        x = layer(x, cos, sin)
        x = x + added[k][None] if k < len(added) else x
    return decoder.norm(x)[0]


def _plain_hidden(graphdef, state, rows, features, segments):
    """Layer after layer, of rows that all see what precedes them."""
    seen = np.flatnonzero(np.isin(rows.segment, segments))
    feature = rows.feature[seen]
    shows = feature >= 0
    laid = np.zeros((len(features), _LENGTH, features.shape[-1]), np.float32)
    laid[:, : len(seen)][:, shows] = features[:, feature[shows]]
    words = np.asarray(state["embed_tokens"]["weight"][...])[rows.token[seen]]
    laid[0, : len(seen)][~shows] = words[~shows]
    at = np.zeros((_LENGTH, 3), np.int32)
    at[: len(seen)] = rows.position[seen]
    return np.asarray(_layer_by_layer(graphdef, state, laid[0], at, laid[1:]))[
        : len(seen)
    ]


@pytest.mark.parametrize(("deep", "views"), [(1, 2), (3, 1)])
def test_deep_features_are_added_to_the_rows_of_the_video_alone(deep, views):
    """Two clips, both directions, texts behind; every row against a plain loop."""
    graphdef, state = _deep_decoder()
    directions = [_deep_rows(1, TEXTS), _deep_rows(-1)]
    shape, texts = Shape.of(directions[0]), TextShape.of(directions[0])
    features = np.random.default_rng(1).normal(size=(1 + deep, 2, views, 8, 32))
    features = features.astype(np.float32)
    batch = stack([directions] * 2, np.zeros((2, 1, 1), np.uint8), shape, texts)
    visual = Visual(jnp.asarray(features[0]), tuple(map(jnp.asarray, features[1:])))

    @jax.jit
    def run(state, visual, batch):
        decoder = nnx.merge(graphdef, state)
        return decoder(*decoder.lay_out(visual, batch)), decoder.read(visual, batch)[0]

    found, kept = run(state, visual, jax.tree.map(jnp.asarray, batch))
    found = np.asarray(found).reshape(2, 2, -1, 32)
    trunk = batch.source.shape[2]
    for clip, d in ((0, 0), (0, 1), (1, 1)):
        own = features[:, clip, min(d, views - 1)]
        rows = _deep_rows((1, -1)[d], TEXTS)
        expected = _plain_hidden(graphdef, state, rows, own, [0])
        _close(found[clip, d, : len(expected)], expected)
        of_trunk = directions[d].kept[directions[d].text == 0]
        np.testing.assert_array_equal(
            kept[clip, d, : len(of_trunk)], found[clip, d, of_trunk]
        )
        for number in range(1, 1 + len(TEXTS)):
            expected = _plain_hidden(graphdef, state, rows, own, [0, number])
            count = int((rows.segment == number).sum())
            at = trunk + np.flatnonzero(batch.texts.segment[clip] == number)
            _close(found[clip, d, at], expected[-count:])


def test_arrays_in_place_of_features_are_rows_alone():
    graphdef, state = _deep_decoder()
    decoder, rows = nnx.merge(graphdef, state), _deep_rows(1)
    batch = stack([[rows]], np.zeros((1, 1, 1), np.uint8), Shape.of(rows))
    visual = jnp.asarray(
        np.random.default_rng(1).normal(size=(1, 1, 8, 32)), jnp.float32
    )
    for one, other in zip(
        *(decoder.lay_out(x, batch)[:2] for x in (visual, Visual(visual))), strict=True
    ):
        np.testing.assert_array_equal(one, other)
