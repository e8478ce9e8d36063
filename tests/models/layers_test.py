"""Layouts of stacked weights: equal signals, and the weights back again."""

import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from flax import nnx
from jax.sharding import AxisType

from vidsme_jax import parallel
from vidsme_jax.base import TokenSignals
from vidsme_jax.models import attention, layers, random
from vidsme_jax.models.frames.params import SPLIT
from vidsme_jax.run import signals

NAMES = ("llava_qwen-tiny", "llava_next_video-tiny")  # q, k, v with and without bias.


def _flat(state):
    return {path: x.get_value() for path, x in nnx.to_flat_state(state)}


def _on_a_gpu(monkeypatch):
    monkeypatch.setattr(layers, "_platform", lambda _: "gpu")


def _signals(model):
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    return signals.compute(model, frames).signals


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        (NAMES[0], "float32", 1e-5),
        (NAMES[1], "float32", 1e-5),
        (NAMES[0], "bfloat16", 0),
    ],
)
def test_every_layout_gives_the_same_signals(name, dtype, tolerance, monkeypatch):
    """On a CPU to the last bit in bfloat16; joined products sum in another order."""
    with monkeypatch.context() as patch:
        patch.setattr(layers, "lay_out", lambda state: None)
        expected = _signals(random.draw(name, dtype=dtype))
    if dtype == "float32":
        _on_a_gpu(monkeypatch)
    model = random.draw(name, dtype=dtype)
    found = _signals(model)
    k_proj = model.state["language_model"]["layers"]["self_attn"]["k_proj"]["kernel"]
    leaf = jax.tree.leaves(k_proj)[0]
    assert leaf.dtype == np.uint16 if dtype == "bfloat16" else leaf.size == 0
    tower = model.state["vision_tower"]["layers"]["self_attn"]["k_proj"]["kernel"]
    assert jax.tree.leaves(tower)[0].size  # As large as q: not joined.
    for field in TokenSignals._fields:
        if field != "rank":  # Of texts alone.
            pair = getattr(found, field), getattr(expected, field)
            np.testing.assert_allclose(*pair, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("name", NAMES)
def test_stacked_weights_are_as_they_were(name, platform, monkeypatch):
    monkeypatch.setattr(layers, "_platform", lambda _: platform)
    before = _flat(random.draw(name, dtype="bfloat16").state)
    state = random.draw(name, dtype="bfloat16").state
    layers.lay_out(state)
    laid = _flat(state)
    layers.lay_out(state)  # Once more: nothing to do.
    for path, value in _flat(state).items():
        assert all(map(operator.is_, *map(jax.tree.leaves, (value, laid[path]))))
    after = _flat(layers.stacked(state))
    assert after.keys() == before.keys()
    for path, value in before.items():
        assert after[path].dtype == value.dtype
        np.testing.assert_array_equal(after[path], value)
    again = jax.tree.leaves(_flat(state))  # `stacked` has copied.
    assert all(map(operator.is_, again, jax.tree.leaves(laid)))


def _mesh_state(name, shape):
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    devices = parallel.Devices("mesh", mesh)
    place = devices.shardings(SPLIT)
    return random.draw(name, dtype="bfloat16", shardings=place).state


def test_what_is_split_over_devices_is_not_joined(monkeypatch):
    """And each layer lies as the stack did."""
    _on_a_gpu(monkeypatch)
    state = _mesh_state("llava_qwen-tiny", (4, 2))
    before = _flat(state)
    layers.lay_out(state)
    for path, value in _flat(state).items():
        if "layers" in path:
            stack = before[path]
            assert len(value) == stack.shape[0]
            for k, layer in enumerate(value):
                assert tuple(layer.sharding.spec) == tuple(stack.sharding.spec[1:])
                np.testing.assert_array_equal(layer, stack[k])
    after = _flat(layers.stacked(state))
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)


def test_shapes_alone_are_laid_out_alike(monkeypatch):
    _on_a_gpu(monkeypatch)
    state = random.draw("llava_qwen-tiny").state
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    layers.lay_out(state)
    layers.lay_out(shapes)
    for one, other in zip(*map(jax.tree.leaves, (shapes, state)), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.sharding == other.sharding


def test_layers_that_lie_apart_are_not_sliced(monkeypatch):
    _on_a_gpu(monkeypatch)
    model = random.draw("llava_qwen-tiny", dtype="float32")
    layers.lay_out(model.state)

    def decode(state, rows):
        decoder = nnx.merge(model.graphdef, state).language_model
        return decoder(rows, jnp.arange(5)[None, :, None])

    size = model.state["language_model"]["norm"]["weight"].get_value().shape[0]
    rows = jnp.ones((1, 5, size))
    text = jax.jit(decode).lower(model.state, rows).as_text()
    assert "stablehlo.while" not in text.split("func.func private")[0]


def test_no_stack_is_converted_on_a_cpu():
    """XLA of jax 0.10 would convert a whole bfloat16 stack to float32 in each step."""
    model = random.draw("llava_qwen-tiny", dtype="bfloat16")
    layers.lay_out(model.state)

    def decode(state, rows):
        decoder = nnx.merge(model.graphdef, state).language_model
        return decoder(rows, jnp.arange(5)[None, :, None])

    size = model.state["language_model"]["norm"]["weight"].get_value().shape[0]
    rows = jnp.ones((1, 5, size), jnp.bfloat16)
    text = jax.jit(decode).lower(model.state, rows).compile().as_text()
    stack = model.state["language_model"]["layers"]["up_proj"]["kernel"].get_value()
    assert f"f32[{','.join(map(str, stack.shape))}]" not in text


class Stack(nnx.Module):
    """Five dense layers."""

    def __init__(self, dtype):
        self.layers = layers.stack(
            lambda rngs: layers.linear(6, 6, bias=True, dtype=dtype, rngs=rngs),
            *(5, nnx.Rngs(0)),
        )
        bias = jax.random.normal(jax.random.key(1), (5, 6), jnp.float32)
        self.layers.bias[...] = bias.astype(dtype)


def _applied(graphdef, state, x, after, span):
    stack = nnx.merge(graphdef, state).layers
    return layers.run_stack(stack, x, after=after, span=span)


def _expected(stack, x, after, span):
    """A layer after another, of weights as they are drawn."""
    kernel, bias = (np.asarray(x, np.float64) for x in (stack.kernel, stack.bias))
    first, stop = span or (0, 5)
    for place, k in enumerate(range(first, stop)):
        x = x @ kernel[k] + bias[k]
        x = x + after[place] if place < len(after) else x
    return x


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("added", [0, 1, 2])
@pytest.mark.parametrize("span", [None, (0, 2), (1, 4), (3, 5)])
def test_a_part_of_a_stack_and_what_is_added(span, added, platform, monkeypatch):
    """Stacked, and one array a layer; also where something is added to each."""
    monkeypatch.setattr(layers, "_platform", lambda _: platform)
    stack = Stack(jnp.float32)
    rng = np.random.default_rng(0)
    x, *after = rng.normal(size=(1 + added, 3, 6))
    expected = _expected(stack.layers, x, after, span)
    graphdef, state = nnx.split(stack)
    layers.lay_out(state)
    x, *after = (jnp.asarray(x, jnp.float32) for x in (x, *after))
    found = jax.jit(_applied, static_argnums=(0, 4))(graphdef, state, x, after, span)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_layers_keep_is_that_of_all(monkeypatch):
    """With something added: what each layer kept, in order, as bits and as floats."""

    def step(layer, x, _):
        return layer(x), (x,)

    for platform in ("cpu", "gpu"):
        monkeypatch.setattr(layers, "_platform", lambda _, here=platform: here)
        stack = Stack(jnp.bfloat16)
        graphdef, state = nnx.split(stack)
        layers.lay_out(state)
        x = jnp.ones((1, 6), jnp.bfloat16)
        out, (kept,) = (
            jax.tree.map(
                layers._as_floats,
                layers.walk_stack(
                    nnx.merge(graphdef, state).layers, step, x, after=[x]
                ),
            )
            if platform == "cpu"
            else _kept_apart(graphdef, state, step, x)
        )
        assert len(kept) == 5
        for k, each in enumerate(kept):
            whole = layers.run_stack(stack.layers, x, after=[x], span=(0, max(k, 1)))
            np.testing.assert_array_equal(each, whole if k else x)
        whole = layers.run_stack(stack.layers, x, after=[x])
        np.testing.assert_array_equal(out, whole)


def _kept_apart(graphdef, state, step, x):
    out, kept = layers.walk_stack(nnx.merge(graphdef, state).layers, step, x, after=[x])
    return out, ([of_layer for (of_layer,) in kept],)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_part_of_a_stack_is_not_copied(dtype):
    """Nor is a whole bfloat16 stack converted: layers are read where they lie."""
    graphdef, state = nnx.split(Stack(dtype))
    whole = _applied(graphdef, state, jnp.ones((3, 6), dtype), (), None)
    layers.lay_out(state)
    bits = jax.tree.leaves(state)[0].dtype == jnp.uint16
    assert bits == (dtype == jnp.bfloat16)
    x = jnp.ones((3, 6), dtype)
    run = jax.jit(_applied, static_argnums=(0, 4))
    np.testing.assert_array_equal(run(graphdef, state, x, (), (0, 5)), whole)
    text = run.lower(graphdef, state, x, [x], (1, 5)).compile().as_text()
    assert re.search(r"\[5,6,6\]", text)
    assert not re.search(r"\[[234],6,6\]", text), "a slice of the stack"
    made = r"\[5,6,6\]\S* (copy|convert|bitcast-convert|fusion|slice)\("
    assert not re.search(made, text), "the stack is made anew"


def test_rows_beyond_the_last_take_that_one(monkeypatch):
    table = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)), jnp.float32)
    places = jnp.asarray([[3, 0, 4, 9], [1, 1, 2, 0]], jnp.int32)
    expected = [
        np.asarray(one)[np.minimum(at, 3)]
        for one, at in zip(table, places, strict=True)
    ]
    for platform in ("cpu", "tpu"):
        monkeypatch.setattr(parallel, "platform", lambda here=platform: here)
        np.testing.assert_array_equal(layers.take_rows(table, places), expected)


def test_the_kernel_is_chosen_and_a_slow_one_is_logged(monkeypatch):
    lines = []
    monkeypatch.setattr(
        logging, "warning", lambda text, *args: lines.append(text % args)
    )
    attention._chosen.cache_clear()
    assert attention.kernel("float32", 64) == "chunked" and not lines
    monkeypatch.setattr(parallel, "platform", lambda: "tpu")
    assert attention.kernel("bfloat16", 72) == "splash" and not lines
    monkeypatch.setattr(parallel, "platform", lambda: "nvidia")
    monkeypatch.setattr(attention, "_refusal", lambda dtype, size: "")
    assert attention.kernel(jnp.bfloat16, 128) == "cudnn" and not lines
    monkeypatch.setattr(attention, "_refusal", lambda dtype, size: "too large")
    assert attention.kernel(jnp.bfloat16, 512) == "chunked"
    assert attention.kernel(jnp.bfloat16, 512) == "chunked"
    assert attention.kernel(jnp.float32, 128) == "chunked"
    assert len(lines) == 2 and "heads of 512 in bfloat16: too large" in lines[0]
    assert "no fused kernel takes float32" in lines[1]
    monkeypatch.setattr(parallel, "platform", lambda: "other")
    assert attention.kernel(jnp.bfloat16, 64) == "chunked" and len(lines) == 3
    attention._chosen.cache_clear()


def test_an_implementation_can_be_asked_for():
    q = jnp.ones((1, 3, 2, 8))
    found = attention.attention(q, q, q, causal=True, implementation="chunked")
    np.testing.assert_allclose(found, q)
    with pytest.raises(ValueError, match=r"'flash'; known: .*cudnn"):
        attention.attention(q, q, q, causal=True, implementation="flash")
    with pytest.raises((RuntimeError, NotImplementedError, ValueError)):
        q = q.astype(jnp.bfloat16)  # Not on a CPU: no silent fallback.
        attention.attention(q, q, q, causal=True, implementation="cudnn")
