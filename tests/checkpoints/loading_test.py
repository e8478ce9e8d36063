"""Values that a dtype cannot hold, and how many lines a problem may take."""

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oracles import llava_next_video
from oracles import llava_onevision as oracle
from vidsme_jax import models
from vidsme_jax.base import AuditError

LAYER = "language_model.model.layers.1."


@pytest.fixture
def saved(tmp_path):
    model = oracle.make_model()
    return oracle.save(model, tmp_path), llava_next_video.tensors(model, "A")


def _refused(folder, dtype="float32"):
    with pytest.raises(AuditError) as caught:
        models.load(str(folder), dtype=dtype)
    return caught.value.problems


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32, torch.float64])
def test_values_beyond_the_range_of_float16(saved, stored):
    folder, named = saved
    named = {name: value.to(stored) for name, value in named.items()}
    named[LAYER + "mlp.up_proj.weight"][3, 4] = -131072.0
    named[LAYER + "self_attn.q_proj.bias"][0] = 65536.0
    named["language_model.model.norm.weight"][0] = 65504.0 * (stored != torch.bfloat16)
    save_file(named, folder / "model.safetensors")
    (problem,) = _refused(folder, "float16")
    assert "2 tensors hold values beyond 65504, the largest of float16: " in problem
    assert f"{LAYER}mlp.up_proj.weight (1.31e+05)" in problem
    assert f"{LAYER}self_attn.q_proj.bias (6.55e+04)" in problem
    assert problem.endswith("--config.model.dtype=bfloat16 or float32 holds them")
    loaded = models.load(str(folder), dtype="bfloat16")
    found = loaded.state["language_model"]["layers"]["up_proj"]["kernel"][...]
    assert np.asarray(found)[1, 4, 3] == ml_dtypes.bfloat16(-131072.0)


@pytest.mark.parametrize(
    ("stored", "dtype", "value", "message"),
    [
        (torch.float32, "bfloat16", 3.4e38, r"3.3895e+38, the largest of bfloat16"),
        (torch.float64, "bfloat16", -1e39, r"3.3895e+38, the largest of bfloat16"),
        (torch.float64, "float32", 1e39, r"3.4028e+38, the largest of float32"),
        (torch.float64, "float16", 1e39, "65504, the largest of float16"),
        (torch.float32, "float16", 3.4e38, "65504, the largest of float16"),
    ],
)
def test_values_beyond_the_range_of_every_dtype(saved, stored, dtype, value, message):
    folder, named = saved
    name = "language_model.model.norm.weight"
    named[name] = named[name].to(stored)
    named[name][0] = value
    save_file(named, folder / "model.safetensors")
    (problem,) = _refused(folder, dtype)
    assert f"1 tensor holds values beyond {message}: {name} (" in problem
    if abs(value) > 3.41e38:
        assert problem.endswith("no dtype of --config.model.dtype holds them")
    else:
        assert problem.endswith("; --config.model.dtype=float32 holds them")


def test_a_file_of_float16(saved):
    folder, named = saved
    named = {name: value.half() for name, value in named.items()}
    named[LAYER + "mlp.up_proj.weight"][3, 4] = 65504.0
    save_file(named, folder / "model.safetensors")
    loaded = models.load(str(folder), dtype="float16")
    found = loaded.state["language_model"]["layers"]["up_proj"]["kernel"][...]
    assert np.asarray(found)[1, 4, 3] == 65504.0


def test_no_kind_of_problem_takes_more_than_twenty_lines(saved):
    folder, named = saved
    half = {name: value for name, value in named.items() if "language" not in name}
    few = {f"language_model.model.extra.{k}": torch.ones(2) for k in range(30)}
    save_file(half | few, folder / "model.safetensors")
    problems = _refused(folder)
    missing = [problem for problem in problems if "missing: no tensor" in problem]
    surplus = [problem for problem in problems if ": surplus, the model" in problem]
    assert (len(missing), len(surplus), len(problems)) == (20, 20, 42)
    assert problems[20].endswith("and 10 more surplus tensors")
    # Of the decoder: two layers of 12 tensors, norm, embedding, output layer.
    assert problems[-1].endswith("and 7 more missing tensors")


def test_values_that_are_no_numbers_take_no_more_either(saved):
    folder, named = saved
    for name, value in named.items():
        named[name] = torch.full_like(value, torch.nan)
    save_file(named, folder / "model.safetensors")
    problems = _refused(folder)
    assert len(problems) == 21 and "holds NaN" in problems[19]
    assert "more tensors that hold NaN or infinite values" in problems[20]


def test_an_optimizer_state_is_one_line(saved):
    folder, _ = saved
    state = {f"optimizer.state.{k}.exp_avg": torch.ones(2) for k in range(50)}
    save_file(state, folder / "model.safetensors")
    (problem,) = _refused(folder)
    assert "none of its 50 tensors has a name of its config's family (" in problem
    assert "(optimizer.state.0.exp_avg, optimizer.state.1.exp_avg, " in problem
