"""LLaVA-NeXT-Video against transformers' torch class, with video."""

import json

import jax
import numpy as np
import pytest
import torch

from oracles import config_of, our_logits
from oracles import llava_next_video as oracle
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import files, loading, opening, trees
from vidsme_jax.models.interface import LoadedModel, Options
from vidsme_jax.models.llava_hf import NEXT_VIDEO

DEVICE = jax.sharding.SingleDeviceSharding
BEFORE, AFTER = (1, 5, 9), (7, 8)


def _load(folder, dtype="float32"):
    """Returns the model with its parameters, without tokenizer and preprocessing."""
    checkpoint = opening.open_checkpoint(str(folder))
    model, problems = _open(checkpoint, dtype)
    assert not problems
    graphdef, abstract = model.abstract()
    plan = loading.plan_loading(checkpoint, abstract, model.names)
    place = DEVICE(jax.devices()[0])
    state = loading.load(plan, abstract, lambda *_: place, checkpoint_name="tiny")
    return LoadedModel(model, graphdef, state)


def _open(checkpoint, dtype="float32"):
    problems: list[str] = []
    model, _ = NEXT_VIDEO.open(checkpoint, Options(dtype), problems)
    return model, problems


def _logits(loaded, pixels):
    return our_logits(loaded, pixels, BEFORE, AFTER)


@pytest.mark.parametrize(
    ("kv_heads", "frames"), [(4, 3), (2, 1), (2, 3), (2, 8), (1, 3)]
)
def test_logits_equal_transformers(tmp_path, kv_heads, frames):
    model = oracle.make_model(kv_heads=kv_heads)
    torch.manual_seed(1)
    pixels = torch.randn(frames, 3, 56, 56)
    expected = oracle.logits(model, BEFORE, pixels, AFTER).numpy()
    actual = _logits(_load(oracle.save(model, tmp_path)), pixels)
    assert expected.std() > 0.5, "weights too small for errors to show"
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("dialect", ["A", "B", "C"])
def test_every_dialect_and_a_sharded_index(tmp_path, dialect):
    model = oracle.make_model(linear_rope=dialect == "A")
    pixels = torch.randn(2, 3, 56, 56)
    expected = oracle.logits(model, BEFORE, pixels, AFTER).numpy()
    for shards in (1, 3):
        folder = oracle.save(model, tmp_path / str(shards), dialect, shards)
        actual = _logits(_load(folder), pixels)
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_transformers_own_save_pretrained(tmp_path):
    model = oracle.make_model()
    model.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 56, 56)
    expected = oracle.logits(model, BEFORE, pixels, AFTER).numpy()
    actual = _logits(_load(tmp_path), pixels)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_bfloat16_is_near(tmp_path):
    model = oracle.make_model()
    pixels = torch.randn(2, 3, 56, 56)
    expected = oracle.logits(model, BEFORE, pixels, AFTER).numpy()
    loaded = _load(oracle.save(model, tmp_path), "bfloat16")
    actual = np.asarray(_logits(loaded, pixels), np.float32)
    assert np.abs(actual - expected).mean() < 0.05 * expected.std()


def test_the_hub_form_of_the_config(tmp_path):
    """The flat, sparse form of the published 7B file, with early-revision keys."""
    raw = {
        "architectures": ["LlavaNextVideoForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": [[336, 672]],
        "image_token_index": 32001,
        "model_type": "llava_next_video",
        "projector_hidden_act": "gelu",
        "spatial_pool_mode": "average",
        "spatial_pool_stride": 2,
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5",
            "factor": 2.0,
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "pad_token_id": 0,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {"factor": 2.5, "type": "linear"},
            "torch_dtype": "bfloat16",
            "vocab_size": 32064,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_image_newline_parameter": True,
        "video_seq_length": 288,
        "video_token_index": 32000,
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    model, problems = _open(files.Checkpoint("", (tmp_path,), raw, {}), "bfloat16")
    assert not problems
    config = config_of(model)
    assert model.rows_per_frame == 144 and config.vision_depth == 23
    assert config.text.rope.factor == 2.5 and config.text.head_dim == 128
    shapes = trees.flat(model.abstract()[1])
    sizes = {p: leaf.shape for p, leaf in shapes.items()}
    assert sizes["language_model/layers/gate_proj/kernel"] == (32, 4096, 11008)
    count = sum(int(np.prod(shape)) for shape in sizes.values())
    assert count == pytest.approx(7.05e9, rel=0.01)


def test_unknown_and_unbuilt_config_is_refused_by_name(tmp_path):
    folder = oracle.save(oracle.make_model(), tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    raw["spatial_pool_modus"] = "max"
    raw["projector_hidden_act"] = "relu"
    raw["text_config"]["mrope_section"] = [1, 1, 2]
    raw["text_config"]["rope_parameters"] = {"rope_type": "yarn", "factor": 4.0}
    raw["text_config"]["hidden_size"] = "big"
    raw["text_config"]["num_hidden_layer"] = 2
    raw["vision_config"]["patch_sizes"] = 14
    _, problems = _open(files.Checkpoint("", (tmp_path,), raw, {}))
    text = "\n".join(problems)
    assert "unknown key 'spatial_pool_modus'; did you mean 'spatial_pool_mode'" in text
    assert "projector_hidden_act is 'relu'; built for 'gelu'" in text
    assert "text_config: unknown key 'mrope_section'" in text
    near = "unknown key 'num_hidden_layer'; did you mean 'num_hidden_layers'?"
    assert f"text_config: {near}" in text
    near = "unknown key 'patch_sizes'; did you mean 'patch_size'?"
    assert f"vision_config: {near}" in text
    assert "rope_type is 'yarn'" in text
    assert "hidden_size is 'big', expected int" in text


def test_every_tensor_problem_is_in_one_error(tmp_path):
    model = oracle.make_model()
    named = oracle.tensors(model, "A")
    del named["language_model.model.layers.1.mlp.up_proj.weight"]
    named["language_model.model.layers.1.mlp.surplus"] = torch.zeros(3)
    named["language_model.model.layers.7.input_layernorm.weight"] = torch.zeros(32)
    named["multi_modal_projector.linear_1.weight"] = torch.zeros(32, 31)
    named["language_model.model.norm.weight"] = torch.zeros(32, dtype=torch.int32)
    oracle.save(model, tmp_path)
    oracle.save_file(named, tmp_path / "model.safetensors")
    with pytest.raises(AuditError) as caught:
        _load(tmp_path)
    text = str(caught.value)
    assert (
        "missing: no tensor for language_model/layers/up_proj/kernel, layer 1" in text
    )
    assert "layers.1.mlp.surplus: surplus" in text
    assert "layers.7.input_layernorm.weight: surplus, the model has 2 such" in text
    assert "linear_1.weight: shape [32, 31], expected [32, 32] by the config" in text
    assert "norm.weight: dtype I32" in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_with_nan_is_named(tmp_path, dtype, value):
    model = oracle.make_model()
    named = {k: t.to(dtype) for k, t in oracle.tensors(model, "A").items()}
    named["language_model.model.layers.1.mlp.up_proj.weight"][3, 4] = value
    oracle.save(model, tmp_path)
    oracle.save_file(named, tmp_path / "model.safetensors")
    with pytest.raises(AuditError, match=r"layers\.1\.mlp\.up_proj\.weight: holds NaN"):
        _load(tmp_path)
