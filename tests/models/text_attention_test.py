"""Texts that share a trunk's keys, against one causal pass over each concatenation."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType

from vidsme_jax.models import attention as adapter
from vidsme_jax.models import text_attention as kernels
from vidsme_jax.models.attention import attention
from vidsme_jax.models.text_attention import attention_of_texts

HEAD = 8


def _case(keys, shared, texts, heads=4, kv_heads=2, per_trunk=1, seed=0, size=HEAD):
    """Draws arrays; `texts` are the lengths of the segments of each text array."""
    rng = np.random.default_rng(seed)
    rows = max(sum(lengths) for lengths in texts) + 3
    segment = np.zeros((len(texts), rows), np.int32)
    for own, lengths in zip(segment, texts, strict=True):
        ids = np.repeat(1 + np.arange(len(lengths)), lengths)
        own[: len(ids)] = ids
    assert len(texts) == per_trunk * len(shared)
    q = rng.normal(size=(len(texts), rows, heads, size)) * 2
    k, v = (rng.normal(size=(len(texts), rows, kv_heads, size)) for _ in range(2))
    trunk = [rng.normal(size=(len(shared), keys, kv_heads, size)) for _ in range(2)]
    return q, k, v, segment, *trunk, np.array(shared, np.int32)


def _loop(q, k, v, segment, trunk_k, trunk_v, shared):
    """Every text behind its trunk by itself, in float64; the last row of the pass."""
    out = np.zeros(q.shape)
    groups, per_trunk = q.shape[2] // k.shape[2], len(q) // len(trunk_k)
    for n in range(len(q)):
        seen = slice(0, shared[n // per_trunk])
        for row in range(q.shape[1]):
            own = np.flatnonzero(segment[n, : row + 1] == segment[n, row])
            keys, values = (
                np.concatenate([part[n // per_trunk, seen], x[n, own]])
                for part, x in ((trunk_k, k), (trunk_v, v))
            )
            for head in range(q.shape[2]):
                scores = keys[:, head // groups] @ q[n, row, head]
                scores *= q.shape[-1] ** -0.5
                weights = np.exp(scores - scores.max())
                out[n, row, head] = weights @ values[:, head // groups] / weights.sum()
    return out


def _arrays(case, dtype=jnp.float32):
    return [jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else dtype) for x in case]


CASES = {
    "one text": ([5], [[3]], 2, 2, 1),
    "ragged trunks and texts": ([40, 1, 29], [[5, 9, 2], [30], [1, 1, 1, 1]], 4, 2, 1),
    "many heads, one key": ([33], [[7, 11]], 6, 1, 1),
    "several arrays of texts a trunk": ([31, 12], [[4, 6], [9], [2], [8, 3]], 4, 2, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_each_concatenation(name):
    shared, texts, heads, kv_heads, per_trunk = CASES[name]
    case = _case(41, shared, texts, heads, kv_heads, per_trunk)
    found = jax.jit(attention_of_texts)(*_arrays(case))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _loop(*case), atol=1e-5)


def test_the_rows_of_one_causal_pass():
    """The adapter's own result over trunk and text, a row behind the other."""
    case = _arrays(_case(20, [20], [[9]]))
    q, k, v, _, trunk_k, trunk_v, _ = (x[:, :9] if x.ndim == 4 else x for x in case)
    trunk_k, trunk_v = case[4:6]
    before = jnp.zeros((1, 20, *q.shape[2:]))
    whole = (
        jnp.concatenate(pair, axis=1)
        for pair in ((before, q), (trunk_k, k), (trunk_v, v))
    )
    expected = attention(*whole, causal=True)[:, 20:]
    found = attention_of_texts(*case)[:, :9]
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_queries_come_in_chunks(on_cpu, monkeypatch):
    """The last chunk is not full; a segment spans chunks."""
    monkeypatch.setattr(kernels, "_CHUNK", 16)
    monkeypatch.setattr(kernels, "_LARGE_CHUNK", 16)
    if not on_cpu:
        monkeypatch.setattr(kernels.parallel, "platform", lambda: "other")
    case = _case(50, [50, 17], [[21, 20], [3, 4]], 4, 2)
    found = attention_of_texts(*_arrays(case), implementation="chunked")
    np.testing.assert_allclose(found, _loop(*case), atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)]
)
def test_the_tpu_kernel_equals_each_concatenation(dtype, tolerance, monkeypatch):
    """Interpreted: three blocks of keys of which the last two are partly seen."""
    monkeypatch.setattr(adapter, "_BLOCK", 128)
    case = _case(300, [170], [[40, 90, 5, 5]], 2, 1)
    arrays = _arrays(case, dtype)
    wide = [np.asarray(x, np.float64 if x.ndim == 4 else np.int32) for x in arrays]
    with jax.default_matmul_precision("float32"), pltpu.force_tpu_interpret_mode():
        found = attention_of_texts(*arrays, implementation="splash")
    assert found.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(found, np.float32), _loop(*wide), atol=tolerance
    )


def test_bfloat16_keeps_its_sums_in_float32():
    """Rounded to bfloat16 the two sums would be wrong by more than the values are."""
    case = _arrays(_case(300, [300], [[40, 60]]), jnp.bfloat16)
    wide = [np.asarray(x, np.float64 if x.ndim == 4 else np.int32) for x in case]
    found = np.asarray(attention_of_texts(*case), np.float32)
    assert np.abs(found - _loop(*wide)).max() < 0.02
    far = kernels.chunked(case[0], *case[4:6], case[6], causal=False)
    assert far.log_sum.dtype == jnp.float32


@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 8), (7, 1), (14, 2), (12, 6)])
@pytest.mark.parametrize("grid", [(1, 8), (2, 4)])
def test_heads_split_over_devices(grid, heads, kv_heads):
    case = _case(13, [13, 6], [[2, 3], [4], [1], [1, 2]], heads, kv_heads, 2)
    mesh = jax.make_mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        found = jax.jit(attention_of_texts)(*_arrays(case))
    np.testing.assert_allclose(found, _loop(*case), atol=1e-5)


def test_memory_is_far_below_the_whole_matrix():
    texts, keys, heads = 1024, 4096, 32
    shapes = [(1, texts, heads, 16)] * 3 + [(1, texts)] + [(1, keys, heads, 16)] * 2
    kinds = [jnp.float32] * 3 + [jnp.int32] + [jnp.float32] * 2 + [jnp.int32]
    arguments = map(jax.ShapeDtypeStruct, [*shapes, (1,)], kinds)
    compiled = jax.jit(attention_of_texts).lower(*arguments).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < texts * keys * heads * 4 / 4


def test_the_nvidia_kernel_keeps_sums_in_float32_and_makes_no_mask(monkeypatch):
    """Two calls, lowered without a GPU; jax's public function would round the sums."""
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    run = functools.partial(attention_of_texts, implementation="cudnn")
    kinds = [jnp.bfloat16] * 3 + [jnp.int32] + [jnp.bfloat16] * 2 + [jnp.int32]
    shapes = [(4, 64, 6, 16), (4, 64, 2, 16), (4, 64, 2, 16), (4, 64)]
    shapes += [(2, 500, 2, 16)] * 2 + [(2,)]
    traced = jax.jit(run).trace(*map(jax.ShapeDtypeStruct, shapes, kinds))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"custom_call @__cudnn.(fmha\w+)\(.*-> (.*)", text)
    assert [name for name, _ in calls] == ["fmhaSoftmax", "fmhaScaleBiasSoftmax"]
    # The two texts of a trunk are queries of one call to its keys.
    assert "tensor<2x6x128xf32>" in calls[0][1]
    assert "tensor<4x6x64xf32>" in calls[1][1]
    assert "PADDING" in text and not re.search(r"tensor<[\dx]*(64|128)x500x", text)


def test_what_the_nvidia_kernel_is_asked_for(monkeypatch):
    """The kernel itself in plain operations: masks, lengths, the order of its sums."""

    def plain(q, k, v, *, scale, return_residual, mask_type, mask=None, **lengths):
        assert return_residual
        groups = q.shape[2] // k.shape[2]
        k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
        rows, columns = jnp.arange(q.shape[1]), jnp.arange(k.shape[1])
        if mask_type == fused.MaskType.CAUSAL:
            seen = mask & (columns[None] <= rows[:, None])[None, None]
        else:
            assert mask_type == fused.MaskType.PADDING
            asked = rows[None] < lengths["q_seqlen"][:, None]
            q = jnp.where(asked[:, :, None, None], q, jnp.nan)  # Of no query.
            seen = (columns[None] < lengths["kv_seqlen"][:, None])[:, None, None]
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale
        scores = jnp.where(seen, scores, -jnp.inf)
        sums = jax.nn.logsumexp(scores, axis=-1)
        weights = jnp.exp(scores - sums[..., None])
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v), sums

    monkeypatch.setattr(fused, "dot_product_attention", plain)
    case = _case(41, *CASES["several arrays of texts a trunk"])
    run = functools.partial(attention_of_texts, implementation="cudnn")
    found = jax.jit(run)(*_arrays(case))
    np.testing.assert_allclose(found, _loop(*case), atol=1e-5)


def test_an_unknown_implementation_is_named():
    with pytest.raises(ValueError, match="'flash'; known: "):
        attention_of_texts(*_arrays(_case(3, [3], [[2]])), implementation="flash")
