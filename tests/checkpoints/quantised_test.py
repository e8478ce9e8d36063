"""Quantised weights are refused by the name of their method, in one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oracles import llava_next_video, llava_qwen
from oracles import llava_onevision as oracle
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import opening

LAYER = "language_model.model.layers.0.self_attn.q_proj."


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    model = oracle.make_model()
    folder = oracle.save(model, tmp_path_factory.mktemp("quantised"))
    raw = json.loads((folder / "config.json").read_text())
    return folder, raw, llava_next_video.tensors(model, "A")


@pytest.fixture
def saved(whole, tmp_path):
    """A checkpoint that a test may change: its folder, config and tensors."""
    folder, raw, tensors = whole
    return shutil.copytree(folder, tmp_path / "checkpoint"), raw, tensors


def _refused(folder, **kwargs):
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32", **kwargs)
    (problem,) = caught.value.problems
    return problem


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
BITS4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}
BITS8 = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (FP8, "quantised (fp8, blocks of [128, 128]); quantised weights are not read"),
        (FP8, "FineGrainedFP8Config(dequantize=True) in transformers and save it with"),
        ({"quant_method": "awq", "bits": 4}, "quantised (awq, 4 bits)"),
        ({"quant_method": "gptq", "bits": 4}, "give the unquantised checkpoint that"),
        (BITS4, "(bitsandbytes, 4 bits)"),
        (BITS8, "(bitsandbytes, 8 bits)"),
        (BITS8, "load it in transformers, call dequantize() on it and save it with"),
        ({"load_in_4bit": True}, "(bitsandbytes, 4 bits)"),
        ({"quant_method": "compressed-tensors"}, "CompressedTensorsConfig(dequanti"),
        ({"quant_method": "torchao"}, "(torchao)"),
        ({"quant_method": "new"}, "(new)"),
        ({"bits": 3}, "(method not named, 3 bits)"),
        ("int4", "('int4')"),
    ],
)
@pytest.mark.parametrize("where", ["", "text_config", "vision_config"])
def test_a_config_that_says_so(saved, config, text, where):
    folder, raw, _ = saved
    changed = json.loads(json.dumps(raw | {"_name_or_path": "owner/full"}))
    inner = changed[where] if where else changed
    inner["quantization_config"] = config
    (folder / "config.json").write_text(json.dumps(changed))
    said = _refused(folder)
    assert f"config.json: {where}.quant".replace(" .", " ") in said and text in said
    assert "made from ('owner/full', by its config)" in said
    assert said.endswith("quantization_config")


def test_an_empty_config_says_nothing(saved):
    folder, raw, named = saved
    empty = {"quantization_config": None, "compression_config": {}}
    (folder / "config.json").write_text(json.dumps(raw | empty))
    save_file(named, folder / "model.safetensors")
    models.inspect(str(folder), dtype="float32")


def _integers(*shape, dtype=torch.int32):
    return torch.zeros(*shape, dtype=dtype)


NAMES = {
    "fp8": {"weight_scale_inv": torch.ones(1, 1)},
    "gptq or awq": {"qweight": _integers(6, 48), "scales": torch.ones(1, 48)},
    "bitsandbytes": {
        "weight.absmax": torch.ones(36),
        "weight.quant_map": torch.ones(9),
    },
    "compressed-tensors": {"weight_packed": _integers(48, 6)},
    "torchao": {"_weight_qdata": _integers(48, 48, dtype=torch.int8)},
    "quanto": {"weight._data": _integers(48, 48, dtype=torch.int8)},
}


@pytest.mark.parametrize("method", NAMES)
def test_names_that_betray_it(saved, method):
    folder, raw, named = saved
    (folder / "config.json").write_text(json.dumps(raw))
    extra = {LAYER + name: value for name, value in NAMES[method].items()}
    save_file(named | extra, folder / "model.safetensors")
    said = _refused(folder)
    assert f"its weights are quantised ({method}): {LAYER}" in said


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.float8_e5m2, "F8_E5M2"),
        (torch.uint8, "U8"),
        (torch.int8, "I8"),
        (torch.int32, "I32"),
    ],
)
def test_types_that_betray_it(saved, dtype, text):
    folder, raw, named = saved
    (folder / "config.json").write_text(json.dumps(raw))
    every = {
        name: value.to(dtype) if value.ndim > 1 else value
        for name, value in named.items()
    }
    save_file(every, folder / "model.safetensors")
    said = _refused(folder)
    assert f".weight {text}, " in said and "more; quantised weights are not" in said


def test_the_method_stands_in_another_file(saved):
    folder, raw, named = saved
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(
        named | {LAYER + "qweight": _integers(6, 48)}, folder / "model.safetensors"
    )
    (folder / "quant_config.json").write_text("{}")
    assert "quantised (AWQ): " in _refused(folder)
    (folder / "config.json").write_text(json.dumps(raw | {"quantization_config": FP8}))
    assert "quantised (fp8, blocks" in _refused(folder)


def test_doubles_are_not_quantised(saved):
    folder, raw, named = saved
    (folder / "config.json").write_text(json.dumps(raw))
    every = {name: value.double() for name, value in named.items()}
    save_file(every, folder / "model.safetensors")
    (folder / "quant_config.json").unlink(missing_ok=True)
    models.inspect(str(folder), dtype="float32")
    found = opening.open_checkpoint(str(folder)).tensors
    for name, value in named.items():
        np.testing.assert_array_equal(found[name].read(), value.numpy())


def test_pickled_weights(saved):
    folder, raw, named = saved
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(named | {LAYER + "weight": _integers(48, 48, dtype=torch.int8)}, path)
    assert f"quantised: {LAYER}weight I8" in _refused(folder, allow_pickle=True)
    torch.save({LAYER + "weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, path)
    said = _refused(folder, allow_pickle=True)
    assert "such as 8-bit floats of a quantised model" in said


def test_a_quantised_tower_or_base(tmp_path):
    model = llava_qwen.make_model()
    folder = llava_qwen.save(model, tmp_path / "model")
    named = {k: v for k, v in llava_qwen.tensors(model).items() if "tower" not in k}
    save_file(named, folder / "model.safetensors")
    llava_qwen.tower_files(model, folder / "tower", weights=True)
    path = folder / "tower" / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"quantization_config": BITS8}))
    assert "checkpoint ./tower: config.json: quantization_config: " in _refused(folder)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(
        {"model.layers.0.weight_packed": torch.ones(2)}, folder / "model.safetensors"
    )
    lora = {"base_model_name_or_path": str(folder), "r": 1, "lora_alpha": 1}
    text = json.dumps(lora)
    (adapter / "adapter_config.json").write_text(text)
    assert "its weights are quantised (compressed-tensors)" in _refused(adapter)
