"""The pure step: its scopes, types and sizes, without batches or clips."""

import re

import jax
import numpy as np
import pytest

from vidsme_jax.base import SLICES
from vidsme_jax.models import random
from vidsme_jax.models.batches import Batch, Shape, TextShape, stack
from vidsme_jax.models.rows import Shown, Text, second_order
from vidsme_jax.motion import farneback
from vidsme_jax.run.step import make_step

TEXTS = (Text((), (5, 6), (7, 8)),)
_IN_LAYER = ("attention", "mlp")


def _batch(loaded, frames=2, texts=TEXTS) -> Batch:
    plan = loaded.model
    prompt = plan.tokenise()
    orders = np.arange(frames), second_order("reversed", frames)
    rows = [
        plan.lay_out(Shown(frames), prompt, order, texts, SLICES) for order in orders
    ]
    pixels = plan.prepare(np.zeros((frames, 8, 8, 3), np.uint8))
    shape = Shape.of(rows[0]), TextShape.of(rows[0])
    return stack([rows], pixels[None, None], *shape)


def test_the_parts_of_a_step_have_scopes():
    """A profile sums the time of its kernels by these names; with texts, too."""
    loaded = random.draw("llava_qwen-tiny", dtype="float32")
    step = make_step(loaded.graphdef, second=True)
    lowered = jax.jit(step).lower(loaded.state, _batch(loaded))
    names = set(re.findall(r'op_name="([^"]*)"', lowered.compile().as_text()))
    paths = [
        *(f"{part}/.*layer/.*{x}/" for part in ("tower", "decoder") for x in _IN_LAYER),
        *(f"head/.*{x}/" for x in ("logits", "first_pass", "second_pass", "mean")),
    ]
    for path in paths:
        assert any(re.search(path, name) for name in names), path
    frames = jax.ShapeDtypeStruct((3, 32, 32), np.uint8)
    flow = jax.jit(farneback.variances).lower(frames, farneback.scales(32, 32))
    assert "/flow/" in flow.as_text(debug_info=True)


def _equations(jaxpr):
    """Yields every equation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_products_are_in_bfloat16_and_statistics_in_float32():
    loaded = random.draw("llava_qwen-tiny", dtype="bfloat16")
    step = make_step(loaded.graphdef, second=False)
    jaxpr = jax.make_jaxpr(step)(loaded.state, _batch(loaded)).jaxpr
    kinds = {"dot_general": set(), "statistic": set()}
    narrow = {"reduce_sum", "exp", "log1p", "rsqrt", "expm1", "div", "reduce_max"}
    for equation in _equations(jaxpr):
        dtypes = {str(v.aval.dtype) for v in equation.invars if hasattr(v, "aval")}
        if equation.primitive.name == "dot_general":
            kinds["dot_general"] |= dtypes
        elif equation.primitive.name in narrow:
            kinds["statistic"] |= dtypes
    assert kinds["dot_general"] == {"bfloat16"}
    assert "bfloat16" not in kinds["statistic"], kinds


def test_a_batch_could_not_be_donated():
    """No result has the size of the pixels, so XLA would write none over them."""
    loaded = random.draw("llava_qwen-tiny", dtype="float32")
    step = make_step(loaded.graphdef, second=True)
    donating, batch = jax.jit(step, donate_argnums=(1,)), _batch(loaded, 4)
    with pytest.warns(UserWarning, match="donated buffers were not usable"):
        compiled = donating.lower(loaded.state, batch).compile()
    reused = compiled.memory_analysis().alias_size_in_bytes
    assert reused < 0.01 * batch.pixels.nbytes
