"""Ahead-of-time compilation: what it prints, and one real program for a TPU slice."""

import importlib.util
import json
import pathlib
import sys

import jax
import numpy as np
import pytest

import children
from vidsme_jax import parallel
from vidsme_jax.models import FAMILIES, random
from vidsme_jax.run.step import make_step

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


def _run(*arguments):
    command = [sys.executable, str(BENCHMARKS / "aot.py"), *arguments]
    root = BENCHMARKS.parent
    return children.run(command, cwd=root)


@pytest.fixture(scope="module")
def aot():
    """The script as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("aot", BENCHMARKS / "aot.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["aot"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("aot", None)


def test_collectives_are_counted_with_the_largest(aot):
    text = """
  %a = bf16[4,1024,512]{2,1,0:T(8,128)} all-reduce(%x), channel_id=1
  %b = (f32[256,1024]{1,0}, f32[8]{0}) all-reduce-start(%x, %y), channel_id=2
  %c = f32[256,1024]{1,0} all-reduce-done(%b)
  %d = u8[1048576]{0} all-gather(%x), dimensions={0}
"""
    assert aot.collectives(text) == {
        "all-gather": {"count": 1, "largest_mib": 1.0},
        "all-reduce": {"count": 2, "largest_mib": 4.0},
    }


@pytest.mark.parametrize(
    "name", [x for f in FAMILIES for x in f.sizes if x.endswith("-tiny")]
)
def test_the_step_of_every_family_takes_the_arguments(aot, name):
    """On a mesh, with the text that stands between frames; nothing is compiled."""
    case = aot.Case(name, 4, 2, "v5e", "2x2", (1, 4), texts=2)
    devices = parallel.make_devices("mesh", 1, 4)
    model = random.describe(name, dtype="float32")
    graphdef, args, held = aot.arguments(model, devices, case)
    assert model.num_bytes / 4 < held < model.num_bytes
    step = make_step(graphdef, second=True, text_second=True)
    with jax.set_mesh(devices.mesh):
        found = jax.eval_shape(step, *args)
    rows, tiling = model.num_rows(4), model.tiling
    if tiling is not None:  # Frames are padded, and their text is not.
        grid = model.prepare(np.zeros((4, *aot._models.PIXELS, 3), np.uint8)).shape[1:3]
        rows = tiling.groups(4) * tiling.room(grid).rows
    assert found.video.renyi.shape[:3] == (2, 2, rows + 1)
    assert found.texts.renyi.shape[:2] == (2, 2) and found.texts.rank is not None


@pytest.mark.long
@pytest.mark.parametrize("method", ["full", "lora", "projector"])
def test_training_is_lowered_as_it_runs(aot, method):
    """On a mesh; parameters, moments and gradients lie as in a training."""
    case = aot.Case("qwen3_vl-tiny", 4, 2, "v5e", "2x2", (1, 4), train=method)
    devices = parallel.make_devices("mesh", 1, 4)
    model = random.describe(case.model)
    made = aot.training(model, devices, case)
    gradients, update = made.lower()
    (state, total), _ = update.args_info
    trained = {k: x for k, x in state.trained.items() if "q_proj" in k}
    assert trained or method == "projector"
    assert state.trained.keys() == total[0].keys() == gradients.out_info[0].keys()
    assert len(made.beside) == 2 and made.held < 4 * model.num_bytes
    assert {"full": 0}.get(method, 1) <= made.beside[1]


def test_the_recorded_results_are_those_of_the_cases(aot):
    recorded = json.loads((BENCHMARKS / "results" / "aot.json").read_text())
    assert [line["name"] for line in recorded] == [case.name for case in aot.CASES]
    assert all(line["fits"] and line["value"] < line["limit"] for line in recorded)
    long = {line["name"]: line["value"] for line in recorded}
    assert long["aot/llava_qwen-7b/128 frames/H100:1"] < 40


def test_a_small_model_compiles_for_a_tpu_slice():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("the compiler for TPUs, libtpu, is not installed")
    done = _run("--only", "tiny")
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout)
    assert line["fits"] and line["kernels"] == {"tpu_custom_call": 2}
    assert line["collectives"]["all-reduce"]["count"] == 4
