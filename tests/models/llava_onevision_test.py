"""LLaVA-OneVision against transformers' torch class, with video."""

import json

import numpy as np
import pytest
import torch
import transformers

from oracles import llava_onevision as oracle
from oracles import our_logits
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.run import signals

BEFORE, AFTER = (1, 5, 9), (7, 8)


def _logits(folder, pixels):
    loaded = models.load(str(folder), dtype="float32")
    return our_logits(loaded, pixels, BEFORE, AFTER)


@pytest.mark.parametrize(
    ("frames", "kv_heads", "dialect", "tied"),
    [(1, 4, "A", False), (4, 2, "B", False), (3, 1, "C", True)],
)
def test_logits_equal_transformers(tmp_path, frames, kv_heads, dialect, tied):
    model = oracle.make_model(kv_heads=kv_heads, tied=tied)
    torch.manual_seed(1)
    pixels = torch.randn(frames, 3, 70, 70)
    expected = oracle.logits(model, BEFORE, pixels, AFTER).numpy()
    actual = _logits(oracle.save(model, tmp_path, dialect), pixels)
    assert expected.std() > 0.5, "weights too small for errors to show"
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_transformers_own_save_pretrained(tmp_path):
    model = oracle.make_model()
    oracle.save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 70, 70)
    expected = oracle.logits(model, BEFORE, pixels, AFTER).numpy()
    np.testing.assert_allclose(_logits(tmp_path, pixels), expected, atol=1e-4)


def test_both_directions_equal_torch(tmp_path):
    model = oracle.make_model()
    loaded = models.load(str(oracle.save(model, tmp_path)), dtype="float32")
    plan = loaded.model
    assert plan.prompt == "<|im_start|>user\n<video>\n"
    frames = np.random.default_rng(0).integers(0, 256, (3, 80, 50, 3), np.uint8)
    found = signals.compute(loaded, frames).signals
    assert found.gap.shape == (2, plan.num_rows(3)) == (2, 28)
    small = plan.prepare(frames)
    for direction, order in enumerate((small, small[::-1])):
        pixels = torch.tensor(order.astype(np.float32)).permute(0, 3, 1, 2)
        pixels = (pixels / 255 - 0.5) / 0.5
        prefix = plan.tokenise().before
        logits = oracle.logits(model, prefix, pixels, AFTER)[len(prefix) : -2]
        log_p = torch.log_softmax(logits.double(), -1).numpy()
        shannon = -(np.exp(log_p) * log_p).sum(-1)
        np.testing.assert_allclose(found.renyi[direction, :, 1], shannon, rtol=2e-4)


def test_preprocessing_equals_transformers(tmp_path):
    folder = oracle.save(oracle.make_model(), tmp_path)
    plan = models.inspect(str(folder), dtype="float32")
    frames = np.random.default_rng(0).integers(0, 256, (2, 80, 51, 3), np.uint8)
    processor = transformers.SiglipImageProcessorPil(
        size={"height": 70, "width": 70}, resample=3
    )
    theirs = processor(list(frames), return_tensors="np")["pixel_values"]
    ours = (plan.prepare(frames).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("where", "change", "text"),
    [
        ("config.json", {"vision_feature_select_strategy": "default"}, "is 'default'"),
        ("config.json", {"video_token_index": 99}, "the video token 99 0 times"),
        ("config.json", {"novel": 1}, "unknown key 'novel'"),
        (
            "preprocessor_config.json",
            {"size": {"shortest_edge": 70}},
            "the tower takes",
        ),
        (
            "preprocessor_config.json",
            {"do_center_crop": True},
            "crop_size is missing; do_center_crop needs it",
        ),
    ],
)
def test_what_is_refused(tmp_path, where, change, text):
    folder = oracle.save(oracle.make_model(), tmp_path)
    raw = json.loads((folder / where).read_text())
    (folder / where).write_text(json.dumps(raw | change))
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    assert text in str(caught.value)
