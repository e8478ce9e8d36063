"""What every family says that it costs is what its step takes, and how that grows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidsme_jax import models
from vidsme_jax.models import attention, random
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.models.rows import Shown
from vidsme_jax.models.tiles import Room
from vidsme_jax.run.step import make_step

SIZES = [name for family in models.FAMILIES for name in family.sizes]
TINY = [name for name in SIZES if name.endswith("-tiny")]
PUBLISHED = [name for name in SIZES if name not in TINY]


@pytest.mark.parametrize("name", TINY)
def test_cost_grows_with_frames_text_and_texts(name):
    """Frames are linear in the tower and in the head, and quadratic in attention.

    Of a tower that sees several at once these are whole groups.
    """
    model = random.describe(name, dtype="float32")
    group = model.tiling.group if model.tiling else 1
    counts = group, 2 * group, 4 * group
    one, two, four = map(model.flops, counts)
    assert min(one.vision, one.prefill, one.head) > 0 and one.texts == 0
    assert two.vision == 2 * one.vision and four.vision == 4 * one.vision
    rows = list(map(model.num_rows, counts))
    assert four.head - two.head == pytest.approx(
        (two.head - one.head) * (rows[2] - rows[1]) / (rows[1] - rows[0])
    )
    bends = (four.prefill - two.prefill) / 2 - (two.prefill - one.prefill)
    assert 0 < bends < two.prefill
    longer = model.flops(counts[1], text=200)
    assert longer.prefill > model.flops(counts[1], text=100).prefill
    assert (longer.vision, longer.head) == (two.vision, two.head)
    asked = model.flops(counts[1], texts=[(20, 5)])
    assert asked.texts > 0 and asked[:3] == two[:3]
    twice = model.flops(counts[1], texts=[(20, 5)] * 2)
    assert twice.texts == pytest.approx(2 * asked.texts)
    assert asked.pair == two.vision + 2 * (two.prefill + two.head + asked.texts)


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


def _half(q, k, v, lengths=None, *, causal):
    """The products of attention: where it is causal, over half of the keys."""
    del lengths
    seen = k.shape[1] // 2 if causal else k.shape[1]
    k, v = (jnp.repeat(x[:, :seen], q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    return jnp.einsum("bhqk,bkhd->bqhd", scores, v)


def _pixels(model, orders):
    """One clip; where clips differ in size the usual one, without any padding."""
    frames = len(orders[0])
    if model.tiling is None:
        return model.prepare(np.zeros((frames, 8, 8, 3), np.uint8))[None, None]
    (down, across), side = model.tiling.usual, model.tiling.window
    windows = -(-down // side) * -(-across // side) if side else 0
    cut = model.prepare(np.zeros((frames, 360, 640, 3), np.uint8))
    assert cut.shape[1:3] == (down, across)
    views = model.views(orders[1])
    return model.tiling.stack([cut], [views], frames, Room(down * across, windows))


@pytest.mark.long
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_step_takes_the_products_that_are_counted(name, monkeypatch):
    """Of the traced step of a published model, in which nothing is allocated."""
    monkeypatch.setitem(attention.KERNELS, "chunked", _half)
    model, frames = random.describe(name), 8
    graphdef, state = model.abstract()
    step = make_step(graphdef, second=False, memory=2**36)
    text = model.tokenise(None, Shown(frames))
    natural = np.arange(frames)
    orders = natural, natural[::-1]
    rows = [model.lay_out(Shown(frames), text, order) for order in orders]
    pixels = _pixels(model, orders)
    batch = stack([rows], pixels, Shape.of(rows[0]))
    found = _products(jax.make_jaxpr(step)(state, batch).jaxpr)
    # The head's rows are filled up to whole chunks, and one of them is text.
    assert found == pytest.approx(model.flops(frames).pair, rel=3e-3)
