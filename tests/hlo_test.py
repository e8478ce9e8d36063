"""The reader of compiled programs: a GPU's text, and a program compiled here."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

# A loop over four layers that copies a layer's weights, multiplies with them and adds a
# bias, as XLA's GPU compiler writes it; then a reduction, and an update in place.
TEXT = """\
HloModule jit_f, is_scheduled=true

%cut (p.0: bf16[4,8,16], p.1: s32[]) -> bf16[8,16] {
  %p.0 = bf16[4,8,16]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %c.0 = s32[] constant(0)
  %slice.1 = bf16[1,8,16]{2,1,0} dynamic-slice(%p.0, %p.1, %c.0, %c.0), dynamic_slice_sizes={1,8,16}
  ROOT %copy.1 = bf16[8,16]{1,0} bitcast(%slice.1)
}

%biased (p.2: f32[2,16], p.3: f32[4,16], p.4: s32[]) -> f32[2,16] {
  %p.2 = f32[2,16]{1,0} parameter(0)
  %p.3 = f32[4,16]{1,0} parameter(1)
  %p.4 = s32[] parameter(2)
  %c.1 = s32[] constant(0)
  %slice.2 = f32[1,16]{1,0} dynamic-slice(%p.3, %p.4, %c.1), dynamic_slice_sizes={1,16}
  %flat = f32[16]{0} bitcast(%slice.2)
  %wide = f32[2,16]{1,0} broadcast(%flat), dimensions={1}
  %sum = f32[2,16]{1,0} add(%p.2, %wide)
  ROOT %exp = f32[2,16]{1,0} exponential(%sum)
}

%next (p.5: s32[]) -> s32[] {
  %p.5 = s32[] parameter(0)
  %c.2 = s32[] constant(1)
  ROOT %add.1 = s32[] add(%p.5, %c.2)
}

%body (arg: (s32[], f32[2,16], bf16[4,8,16], f32[4,16], /*index=4*/bf16[2,8])) -> (s32[], f32[2,16], bf16[4,8,16], f32[4,16], /*index=4*/bf16[2,8]) {
  %arg = (s32[], f32[2,16]{1,0}, bf16[4,8,16]{2,1,0}, f32[4,16]{1,0}, /*index=4*/bf16[2,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %w = bf16[4,8,16]{2,1,0} get-tuple-element(%arg), index=2
  %b = f32[4,16]{1,0} get-tuple-element(%arg), index=3
  %x = bf16[2,8]{1,0} get-tuple-element(%arg), index=4
  %loop_dynamic_slice_fusion = bf16[8,16]{1,0} fusion(%w, %i), kind=kLoop, calls=%cut, metadata={op_name="jit(f)/layers/while/body/dynamic_slice"}
  %custom-call.1 = (f32[2,16]{1,0}, s8[4194304]{0}) custom-call(%x, %loop_dynamic_slice_fusion), custom_call_target="__cublas$gemm", metadata={op_name="jit(f)/layers/while/body/dot"}
  %y = f32[2,16]{1,0} get-tuple-element(%custom-call.1), index=0
  %loop_fusion = f32[2,16]{1,0} fusion(%y, %b, %i), kind=kLoop, calls=%biased, metadata={op_name="jit(f)/layers/while/body/exp"}
  %counter = s32[] fusion(%i), kind=kLoop, calls=%next
  ROOT %tuple.1 = (s32[], f32[2,16]{1,0}, bf16[4,8,16]{2,1,0}, f32[4,16]{1,0}, /*index=4*/bf16[2,8]{1,0}) tuple(%counter, %loop_fusion, %w, %b, %x)
}

%less (p.6: s32[]) -> pred[] {
  %p.6 = s32[] parameter(0)
  %c.3 = s32[] constant(4)
  ROOT %lt = pred[] compare(%p.6, %c.3), direction=LT
}

%condition (arg.1: (s32[], f32[2,16], bf16[4,8,16], f32[4,16], /*index=4*/bf16[2,8])) -> pred[] {
  %arg.1 = (s32[], f32[2,16]{1,0}, bf16[4,8,16]{2,1,0}, f32[4,16]{1,0}, /*index=4*/bf16[2,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%arg.1), index=0
  ROOT %loop_compare_fusion = pred[] fusion(%j), kind=kLoop, calls=%less
}

%plus (p.7: f32[], p.8: f32[]) -> f32[] {
  %p.7 = f32[] parameter(0)
  %p.8 = f32[] parameter(1)
  ROOT %add.2 = f32[] add(%p.7, %p.8)
}

%summed (p.9: f32[2,16]) -> f32[2] {
  %p.9 = f32[2,16]{1,0} parameter(0)
  %c.4 = f32[] constant(0)
  %square = f32[2,16]{1,0} multiply(%p.9, %p.9)
  ROOT %reduce.1 = f32[2]{0} reduce(%square, %c.4), dimensions={1}, to_apply=%plus
}

%written (p.10: f32[9,2], p.11: f32[2], p.12: s32[]) -> f32[9,2] {
  %p.10 = f32[9,2]{1,0} parameter(0)
  %p.11 = f32[2]{0} parameter(1)
  %p.12 = s32[] parameter(2)
  %c.5 = s32[] constant(0)
  %row = f32[1,2]{1,0} bitcast(%p.11)
  ROOT %dynamic-update-slice.1 = f32[9,2]{1,0} dynamic-update-slice(%p.10, %row, %p.12, %c.5)
}

ENTRY %main (a.0: bf16[4,8,16], a.1: f32[4,16], a.2: bf16[2,8], a.3: f32[2,16], a.4: s32[], a.5: f32[9,2]) -> f32[9,2] {
  %a.0 = bf16[4,8,16]{2,1,0} parameter(0)
  %a.1 = f32[4,16]{1,0} parameter(1)
  %a.2 = bf16[2,8]{1,0} parameter(2)
  %a.3 = f32[2,16]{1,0} parameter(3)
  %a.4 = s32[] parameter(4)
  %a.5 = f32[9,2]{1,0} parameter(5)
  %start = (s32[], f32[2,16]{1,0}, bf16[4,8,16]{2,1,0}, f32[4,16]{1,0}, /*index=4*/bf16[2,8]{1,0}) tuple(%a.4, %a.3, %a.0, %a.1, %a.2)
  %while.1 = (s32[], f32[2,16]{1,0}, bf16[4,8,16]{2,1,0}, f32[4,16]{1,0}, /*index=4*/bf16[2,8]{1,0}) while(%start), condition=%condition, body=%body
  %out = f32[2,16]{1,0} get-tuple-element(%while.1), index=1
  %input_reduce_fusion = f32[2]{0} fusion(%out), kind=kInput, calls=%summed, metadata={op_name="jit(f)/head/reduce_sum"}
  ROOT %update = f32[9,2]{1,0} fusion(%a.5, %input_reduce_fusion, %a.4), kind=kLoop, calls=%written
}
"""  # noqa: E501


@pytest.fixture
def hlo(monkeypatch):
    """The reader, which is no part of the package."""
    root = pathlib.Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("_hlo")


def test_the_kernels_of_a_text(hlo):
    found = {kernel.name: kernel for kernel in hlo.kernels(TEXT)}
    about = lambda k: (k.kind, k.runs, k.read, k.written)
    assert {name: about(kernel) for name, kernel in found.items()} == {
        "loop_dynamic_slice_fusion": ("dynamic-slice", 4, 256 + 4, 256),
        "custom-call.1": ("gemm", 4, 32 + 256, 128),
        "loop_fusion": ("elementwise", 4, 128 + 64 + 4, 128),
        "counter": ("scalar", 4, 4, 4),
        "input_reduce_fusion": ("reduce", 1, 128, 8),
        "update": ("dynamic-update-slice", 1, 8 + 4, 8),
    }
    assert found["custom-call.1"].opcode == "custom-call:__cublas$gemm"
    assert found["loop_fusion"].transcendental == 32
    assert found["loop_fusion"].elementwise == 32
    assert found["input_reduce_fusion"].elementwise == 32 + 32


def test_a_scatter_in_place_counts_its_updates(hlo):
    text = """
ENTRY %main (x: f32[64,32], i: s32[5,1], u: f32[5,32]) -> f32[64,32] {
  %x = f32[64,32]{1,0} parameter(0)
  %i = s32[5,1]{1,0} parameter(1)
  %u = f32[5,32]{1,0} parameter(2)
  ROOT %s = f32[64,32]{1,0} scatter(%x, %i, %u), to_apply=%replace
}
"""
    (found,) = hlo.kernels(text)
    assert (found.read, found.written) == (5 * 4 + 5 * 32 * 4, 5 * 32 * 4)


def test_sums_over_kernels(hlo):
    found = hlo.kernels(TEXT)
    assert hlo.launches(found) == 4 * 4 + 2
    assert hlo.traffic(hlo.select(found, r"\bhead\b")) == 128 + 8
    assert [k.name for k in hlo.select(found, "gemm")] == ["custom-call.1"]
    assert len(hlo.select(found, "/layers/")) == 3
    assert [k.name for k in hlo.moving(found, least=100)] == [
        "loop_dynamic_slice_fusion"
    ]
    assert hlo.traffic(hlo.moving(found)) == 4 * 516 + 20
    assert hlo.operations(found)["exponential"] == 4 * 32


def test_a_loop_without_a_count_is_refused(hlo):
    with pytest.raises(ValueError, match=r"while.1: its trip count is not known"):
        hlo.kernels(TEXT.replace("constant(4)", "parameter(1)"))
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.kernels("HloModule jit_f")


def test_a_program_compiled_here(hlo):
    def function(weights, x):
        def body(x, i):
            with jax.named_scope("layer"):
                return jnp.tanh(weights[i] * x), None

        x, _ = jax.lax.scan(body, x, jnp.arange(7))
        with jax.named_scope("product"):
            return x.T @ x

    text = jax.jit(function).lower(jnp.ones((9, 64, 32)), jnp.ones((64, 32))).compile()
    found = hlo.kernels(text.as_text())
    size = 64 * 32 * 4
    [layer] = [k for k in hlo.select(found, "layer") if k.transcendental]
    assert layer.runs == 7 and layer.transcendental == 64 * 32
    assert 2 * size <= layer.read < 2.1 * size and layer.written == size
    [product] = hlo.select(found, "^gemm$")
    assert product.read in (size, 2 * size) and product.written == 32 * 32 * 4
    assert "product" in product.op_name
