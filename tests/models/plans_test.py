"""What a plan says of a model beside its shapes: operations and kernels."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from vidsme_jax import models, settings
from vidsme_jax.models import attention, random


@pytest.fixture(
    scope="module",
    params=["llava_qwen-tiny", "llava_next_video-tiny", "video_llama_3-tiny"],
)
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


def test_a_clip_may_fill_all_positions(name):
    plan = random.describe(name)
    shown = plan.smallest(6)
    rows = len(plan.lay_out(shown, plan.tokenise(None, shown), np.arange(6)).feature)
    for spare in (0, 1):
        full = dataclasses.replace(plan, max_rows=rows + spare)
        assert full.holds(6) and not full.holds(7) and full.max_frames == 6
    assert not dataclasses.replace(plan, max_rows=rows - 1).holds(6)


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
