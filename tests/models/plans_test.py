"""What a plan says of a model beside its shapes: operations and kernels."""

import math

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from oracles import config_of
from vidsme_jax import models, settings
from vidsme_jax.models import attention, random
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.models.rows import Shown
from vidsme_jax.run.step import make_step


@pytest.fixture(scope="module", params=["llava_qwen-tiny", "llava_next_video-tiny"])
def name(request):
    return request.param


def test_the_operations_are_those_of_the_model_with_its_own_prompt(name):
    plan = random.describe(name, dtype="float32")
    prompt = plan.tokenise()
    text = len(prompt.before) + len(prompt.after)
    assert plan.flops(3) == plan.flops(3, text=text)
    # One more token goes through the decoder, and through nothing else.
    longer = plan.flops(3, text=text + 1)
    assert longer.prefill > plan.flops(3).prefill
    assert longer.vision == plan.flops(3).vision and longer.head == plan.flops(3).head


@pytest.mark.parametrize(
    ("kind", "platform", "dtype", "expected"),
    [
        # The tower's heads are 12 wide, the decoder's 16.
        ("NVIDIA H100 80GB HBM3", "gpu", "bfloat16", ("chunked", "cudnn")),
        ("NVIDIA H100 80GB HBM3", "gpu", "float32", ("chunked", "chunked")),
        ("TPU v5 lite", "tpu", "bfloat16", ("splash", "splash")),
        ("cpu", "cpu", "bfloat16", ("chunked", "chunked")),
    ],
)
def test_the_kernels_are_those_of_the_devices_of_the_mesh(
    kind, platform, dtype, expected, monkeypatch
):
    monkeypatch.setattr(
        attention, "_refusal", lambda _, size: "not a multiple of 8" if size % 8 else ""
    )
    attention._chosen.cache_clear()
    plan = models.inspect("random:llava_qwen-tiny", dtype=dtype)
    device = AbstractDevice(device_kind=kind, num_cores=None, platform=platform)
    axes = (AxisType.Auto,) * 2
    mesh = AbstractMesh((1, 1), ("data", "model"), axes, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert tuple(plan.kernels().values()) == expected
    attention._chosen.cache_clear()
    assert plan.kernels() == {"tower": "chunked", "decoder": "chunked"}


def test_a_checkpoints_own_prompt_counts():
    plan = models.inspect(str(settings.DEMO / "checkpoint"), dtype="float32")
    longer = models.inspect(
        str(settings.DEMO / "checkpoint"), dtype="float32", prompt="a a a a <video>"
    )
    more = len(longer.tokenise().before) - len(plan.tokenise().before)
    assert more and (longer.flops(4).prefill > plan.flops(4).prefill) == (more > 0)
    assert longer.flops(4).vision == plan.flops(4).vision


def _products(jaxpr, times=1):
    """Operations of all matrix products of a program."""
    total = 0
    for each in jaxpr.eqns:
        repeats = times * each.params.get("length", 1)
        if each.primitive.name == "dot_general":
            (inner, _), _ = each.params["dimension_numbers"]
            length = math.prod(each.invars[0].aval.shape[axis] for axis in inner)
            total += 2 * times * length * math.prod(each.outvars[0].aval.shape)
        for inner in jax.tree.leaves(list(each.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                total += _products(inner, repeats)
    return total


@pytest.mark.parametrize(
    ("name", "frames"), [("llava_qwen-7b", 16), ("llava_onevision-7b", 4)]
)
def test_the_step_takes_the_products_that_are_counted(name, frames, monkeypatch):
    """Of the traced step, but for attention, which is counted half where causal."""
    monkeypatch.setitem(attention.KERNELS, "chunked", lambda q, k, v, *, causal: q)
    model = random.describe(name)
    config = config_of(model)
    graphdef, state = model.abstract()
    step = make_step(graphdef, second=False, memory=2**36)
    size, orders = config.vision.image_size, [np.arange(frames)] * 2
    text = model.tokenise()
    rows = [model.lay_out(Shown(frames), text, order) for order in orders]
    pixels = np.zeros((1, 1, frames, size, size, 3), np.uint8)
    batch = stack([rows], pixels, Shape.of(rows[0]))
    found = _products(jax.make_jaxpr(step)(state, batch).jaxpr)
    counted = model.flops(frames, text=31)
    v, t = config.vision, config.text
    rows = model.num_rows(frames) + 31
    patches = v.grid**2 + (v.kind == "clip")
    causal = t.num_hidden_layers * 2 * rows**2 * t.num_attention_heads * t.head_dim
    full = frames * config.vision_depth * 4 * patches**2 * v.hidden_size
    # The head's rows are filled up to whole chunks, and one of them is text.
    assert found == pytest.approx(counted.pair - 2 * causal - full, rel=2e-3)
