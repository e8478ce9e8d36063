"""The original llava_qwen format against an oracle of transformers' parts."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oracles import config_of, our_logits
from oracles import llava_qwen as oracle
from vidsme_jax import models, parallel
from vidsme_jax.base import AuditError
from vidsme_jax.models import random
from vidsme_jax.models.llava_qwen import towers
from vidsme_jax.models.rows import MAX_FRAMES
from vidsme_jax.run import pipeline, references, stacking
from vidsme_jax.settings import views

BEFORE, AFTER = (1, 5, 9), (7, 8)


def _pixels(frames, kind="longva"):
    torch.manual_seed(1)
    size = 56 if kind == "longva" else 70
    return torch.randn(frames, 3, size, size)


def _compare(model, folder, frames=3, **kwargs):
    pixels = _pixels(frames, model.kind)
    expected = model(BEFORE, pixels, AFTER).numpy()
    loaded = models.load(str(folder), dtype="float32", **kwargs)
    actual = our_logits(loaded, pixels, BEFORE, AFTER)
    assert expected.std() > 0.5, "weights too small for errors to show"
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    return loaded.model


@pytest.mark.parametrize(("kv_heads", "frames"), [(4, 4), (2, 1), (2, 4), (1, 4)])
def test_longva_logits(tmp_path, kv_heads, frames):
    model = oracle.make_model(kv_heads=kv_heads)
    plan = _compare(model, oracle.save(model, tmp_path), frames)
    assert plan.num_rows(frames) == 4 * frames
    assert "vocabulary is cut" in plan.remarks[0]


@pytest.mark.parametrize(
    ("newline", "per_frame", "tail"),
    [("grid", 12, 0), ("frame", 10, 0), ("one_token", 9, 1), ("no_token", 9, 0)],
)
def test_llava_video_logits(tmp_path, newline, per_frame, tail):
    model = oracle.make_model("llava_video", newline=newline)
    plan = _compare(model, oracle.save(model, tmp_path))
    assert (plan.rows_per_frame, plan.num_rows(5)) == (per_frame, 5 * per_frame + tail)


def test_both_directions_with_a_ragged_batch(tmp_path):
    """The newline behind the video and the text row follow each clip's last frame."""
    model = oracle.make_model("llava_video", newline="one_token")
    folder = oracle.save(model, tmp_path)
    loaded = models.load(str(folder), dtype="float32")
    prompt = loaded.model.tokenise()
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256, (n, 70, 90, 3), np.uint8) for n in (4, 3)]
    prepared = [stacking.Input(k, loaded.model.prepare(x)) for k, x in enumerate(clips)]
    devices = parallel.make_devices("pmap", 1, 1)
    run = pipeline.Pipeline(loaded, devices, batch_size=2, num_frames=4, second=True)
    out = {
        result.key: result.signals
        for _, batch in pipeline.stream(([(0, clip)] for clip in prepared), [run])
        for result in batch
    }
    for key, clip in enumerate(prepared):
        for direction, frames in enumerate((clip.frames, clip.frames[::-1])):
            pixels = torch.tensor(frames.astype(np.float32)).permute(0, 3, 1, 2)
            logits = model(prompt.before, (pixels / 255 - 0.5) / 0.5, prompt.after)
            log_p = torch.log_softmax(logits.double(), -1).numpy()[len(prompt.before) :]
            rows = loaded.model.num_rows(len(frames))
            assert len(log_p) == rows + 1 == 9 * len(frames) + 2
            shannon = -(np.exp(log_p) * log_p).sum(-1)
            found = out[key].renyi[direction, :, 1]
            np.testing.assert_allclose(found, shannon[:rows], rtol=2e-4)
            for k, count in enumerate((rows, rows + 1)):
                mean = np.exp(log_p[:count]).mean(0)
                entropy = -(mean * np.log(mean)).sum()
                found = out[key].mean_renyi[direction, k, 1]
                np.testing.assert_allclose(found, entropy, rtol=2e-4)


def test_the_towers_weights_from_its_own_folder(tmp_path):
    """A training that froze the tower leaves its tensors out."""
    for kind in ("longva", "llava_video"):
        model = oracle.make_model(kind)
        folder = oracle.save(model, tmp_path / kind)
        named = oracle.tensors(model)
        named = {k: v for k, v in named.items() if "vision_tower" not in k}
        save_file(named, folder / "model.safetensors")
        with pytest.raises(AuditError, match=r"no model\.safetensors in"):
            models.inspect(str(folder), dtype="float32")
        oracle.tower_files(model, folder / "tower", weights=True)
        plan = _compare(model, folder)
        assert any("the tower's tensors are those of" in r for r in plan.remarks)


@pytest.mark.parametrize("place", ["relative", "absolute"])
def test_where_the_tower_is_looked_for(tmp_path, place):
    model = oracle.make_model()
    tower = tmp_path / "elsewhere" / "tiny-clip"
    name = "../elsewhere/tiny-clip" if place == "relative" else str(tower)
    folder = oracle.save(model, tmp_path / "model", mm_vision_tower=name)
    (folder / "tower" / "config.json").unlink()
    with pytest.raises(AuditError, match="mm_vision_tower: its sizes are needed"):
        models.inspect(str(folder), dtype="float32")
    oracle.tower_files(model, tower)
    _compare(model, folder)


@pytest.mark.parametrize("prefix", ["base_model.model.", "model."])
def test_names_that_the_family_does_not_know(tmp_path, prefix):
    """They are the cause, not the tower, of which no name is known either."""
    model = oracle.make_model()
    folder = oracle.save(model, tmp_path)
    named = {prefix + name: value for name, value in oracle.tensors(model).items()}
    save_file(named, folder / "model.safetensors")
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    (problem,) = caught.value.problems
    assert f"none of its {len(named)} tensors has a name of its config" in problem


def test_known_towers_need_no_files():
    """The published sizes, by hub id or by the last part of somebody's path."""
    for name in ("openai/clip-vit-large-patch14-336", "/x/clip-vit-large-patch14-336"):
        raw = towers.known(name)
        config = towers.read(raw, jnp.dtype("float32"), [])
        assert (config.hidden_size, config.grid, config.num_hidden_layers) == (
            *(1024, 24),
            24,
        )
    assert towers.known("openai/clip-vit-huge") is None


@pytest.mark.parametrize(
    ("name", "rows", "tail", "depth", "theta"),
    [
        ("llava_qwen-7b", 144, 0, 23, 1e9),
        ("llava_video-7b", 210, 0, 26, 1e6),
        ("llava_onevision-7b", 196, 1, 26, 1e6),
        ("llava_onevision-0.5b", 196, 1, 26, 1e6),
        ("llava_next_video-7b", 144, 0, 23, 1e4),
    ],
)
def test_the_published_sizes(name, rows, tail, depth, theta):
    model = random.describe(name)
    config = config_of(model)
    assert (model.rows_per_frame, model.num_rows(2)) == (rows, 2 * rows + tail)
    assert config.vision_depth == depth and config.text.rope.theta == theta
    count = model.num_bytes / 2
    billions = {"7b": 7.7, "0.5b": 0.9}[name.split("-")[1]]
    assert count / 1e9 == pytest.approx(billions, rel=0.1)


def _lora(folder, base, model, rank=2, alpha=6, **changes):
    """Writes what a LoRA training leaves, and updates the oracle by hand."""
    folder.mkdir()
    raw = oracle.raw_config(model) | {"mm_vision_tower": str(base / "tower")}
    (folder / "config.json").write_text(json.dumps(raw))
    adapter = {
        "base_model_name_or_path": str(base),
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "bias": "none",
        "target_modules": ["q_proj", "down_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter | changes))
    factors = {}
    torch.manual_seed(5)
    scale = alpha / (rank**0.5 if changes.get("use_rslora") else rank)
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if not name.endswith(("q_proj.weight", "down_proj.weight")):
                continue
            a = 0.3 * torch.randn(rank, parameter.shape[1])
            b = 0.3 * torch.randn(parameter.shape[0], rank)
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{stem}.lora_A.weight"], factors[f"{stem}.lora_B.weight"] = a, b
            parameter += scale * b @ a
        model.mm_projector[0].bias += 1.0
    save_file(factors, folder / "adapter_model.safetensors")
    full = {
        f"base_model.model.model.mm_projector.{name}": value
        for name, value in model.mm_projector.state_dict().items()
    }
    torch.save(full, folder / "non_lora_trainables.bin")
    return folder


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_is_merged(tmp_path, rslora):
    model = oracle.make_model()
    base = oracle.save(model, tmp_path / "base")
    folder = _lora(tmp_path / "lora", base, model, use_rslora=rslora)
    plan = _compare(model, folder, allow_pickle=True)
    assert "LoRA: 4 weights" in plan.remarks[0] and "4 tensors" in plan.remarks[0]
    # Without it the base's projector would pass for the trained one.
    with pytest.raises(AuditError, match=r"allow_pickle=true reads it"):
        models.inspect(str(folder), dtype="float32")
    assert plan.fingerprint != models.inspect(str(base), dtype="float32").fingerprint


def test_a_checkpoint_without_its_lora(tmp_path):
    """What was trained in full stays: here the projector."""
    model = oracle.make_model()
    base = oracle.save(model, tmp_path / "base")
    without = copy.deepcopy(model)
    folder = _lora(tmp_path / "lora", base, model)
    without.mm_projector.load_state_dict(model.mm_projector.state_dict())
    pixels = _pixels(3)
    known: dict = {"dtype": "float32", "allow_pickle": True}
    found = models.inspect(str(folder), adapter=False, **known)
    assert "without low-rank updates, 4 tensors" in found.remarks[0]
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    actual = our_logits(found.load(lambda *_: device), pixels, BEFORE, AFTER)
    expected = without(BEFORE, pixels, AFTER).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    assert np.abs(model(BEFORE, pixels, AFTER).numpy() - expected).max() > 0.1
    # As a reference of the whole one.
    given = views.Settings(
        model=views.Checkpoint(checkpoint=str(folder), **known),
        reference=views.Reference(adapter="off"),
    )
    whole = models.inspect(str(folder), **known)
    reference = references.check(given, whole, ())
    assert reference is not None
    assert reference.fingerprint == found.fingerprint != whole.fingerprint


def test_video_xl_runs_as_a_plain_qwen2_and_says_so(tmp_path):
    model = oracle.make_model()
    beacons = {"enable_beacon": True, "beacon_window": 1440, "beacon_ratio": [2, 4, 8]}
    folder = oracle.save(model, tmp_path, **beacons)
    named = oracle.tensors(model)
    named["model.beacon_embed_tokens.weight"] = torch.ones(1, 48)
    named["model.layers.0.self_attn.beacon_q_proj.weight"] = torch.ones(48, 48)
    save_file(named, folder / "model.safetensors")
    plan = _compare(model, folder)
    assert "2 beacon tensors of Video-XL are ignored" in plan.remarks[-1]
    assert "not the model as published" in plan.remarks[-1]


def test_pickled_weights_and_early_names(tmp_path):
    model = oracle.make_model()
    folder = oracle.save(model, tmp_path)
    (folder / "model.safetensors").unlink()
    named = {
        k.replace("model.mm_projector", "model.vision_resampler.mm_projector"): v
        for k, v in oracle.tensors(model).items()
    }
    torch.save(named, folder / "pytorch_model.bin")
    _compare(model, folder, allow_pickle=True)
    with pytest.raises(AuditError, match=r"--config\.model\.allow_pickle=true reads"):
        models.inspect(str(folder), dtype="float32")


def test_a_model_type_of_qwen2_is_recognised_by_its_architecture(tmp_path):
    model = oracle.make_model()
    folder = oracle.save(model, tmp_path, model_type="qwen2")
    assert models.inspect(str(folder), dtype="float32").family == "llava_qwen"
    raw = json.loads((folder / "config.json").read_text())
    raw["architectures"] = ["Qwen2ForCausalLM"]
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(AuditError, match=r"unknown family \(model_type 'qwen2'"):
        models.inspect(str(folder), dtype="float32")


def test_the_tokenizer(tmp_path):
    model = oracle.make_model()
    folder = oracle.save(model, tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    for size, text in ((5000, "has 102 tokens and the model 5000"), (60, "model 60")):
        (folder / "config.json").write_text(json.dumps(raw | {"vocab_size": size}))
        with pytest.raises(AuditError, match=text):
            models.inspect(str(folder), dtype="float32")
    (folder / "config.json").write_text(json.dumps(raw))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    with pytest.raises(AuditError, match="no usable tokenizer"):
        models.inspect(str(folder), dtype="float32")


def test_positions_are_the_smaller_of_two_limits(tmp_path):
    model = oracle.make_model()
    folder = oracle.save(model, tmp_path, tokenizer_model_max_length=100)
    plan = models.inspect(str(folder), dtype="float32")
    text = len(plan.tokenise().before) + len(plan.tokenise().after)
    assert plan.max_frames == (100 - text) // 4


@pytest.mark.parametrize("positions", [224_000, 1_000, 30])
def test_frames_that_positions_hold(tmp_path, positions):
    folder = oracle.save(oracle.make_model(), tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"max_position_embeddings": positions, "tokenizer_model_max_length": None}
    (folder / "config.json").write_text(json.dumps(raw))
    plan = models.inspect(str(folder), dtype="float32")
    text = len(plan.tokenise().before) + len(plan.tokenise().after)
    fitting = max((positions - text) // 4, 0)
    assert plan.max_frames == min(fitting, MAX_FRAMES)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'; built for"),
        ({"mm_resampler_type": "qformer"}, "mm_resampler_type is 'qformer'"),
        ({"mm_spatial_pool_mode": "max"}, "mm_spatial_pool_mode is 'max'"),
        ({"mm_vision_select_feature": "cls_patch"}, "is 'cls_patch'"),
        ({"mm_vision_select_layer": -9}, "mm_vision_select_layer is -9"),
        ({"mm_hidden_size": 31}, "mm_hidden_size is 31, the tower's hidden_size 32"),
        ({"mm_patch_merge_type": "pyramid"}, "mm_patch_merge_type is 'pyramid'"),
        (
            {"mm_patch_merge_type": "spatial", "mm_newline_position": "grid"},
            "without 'unpad'",
        ),
        ({"mm_vision_tower": None}, "mm_vision_tower is None"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"unheard_of": 1}, "unknown key 'unheard_of'"),
        ({"add_faster_video": True}, "add_faster_video is True"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "config.json.rope_parameters: rope_type is 'linear'; built for 'default'",
        ),
        (
            {"rope_parameters": {"rope_theta": 0}},
            "rope_theta is 0, expected a number from 0.001",
        ),
        ({"rope_theta": -1.0}, "rope_theta is -1.0, expected a number from 0.001"),
    ],
)
def test_configurations_that_are_refused(tmp_path, changes, text):
    folder = oracle.save(oracle.make_model(), tmp_path, **changes)
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert text in str(caught.value)
