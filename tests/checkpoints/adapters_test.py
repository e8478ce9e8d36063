"""LoRA and its relatives against PEFT, and what is refused by name."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from oracles import adapters as oracle
from oracles import every_row
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import adapter_config, opening
from vidsme_jax.models.batches import Shape, stack
from vidsme_jax.models.rows import Shown, Text

Q = r".*(language_model|decoder)\.(.*\.)?(q_proj|down_proj)"  # Of the decoder.
_DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


@functools.partial(jax.jit, static_argnums=0)
def _run(graphdef, state, pixels, batch):
    model = nnx.merge(graphdef, state)
    features = model.encode_frames(pixels)
    visual = features.reshape(1, 1, -1, features.shape[-1])
    if model.config.newline == "video":
        end = model.image_newline[...][None, None, None]
        visual = jnp.concatenate([end, visual], axis=2)
    hidden, _ = model.read(visual, batch)
    return hidden[0, 0] @ model.head.T


def _logits(made, **known):
    """The package's logits; one compilation for all adapters of a family."""
    found = models.inspect(str(made.folder), dtype="float32", **known)
    loaded = found.load(lambda *_: _DEVICE)
    pixels = jnp.asarray(made.pixels.numpy())
    text, order = Text(oracle.BEFORE, oracle.AFTER), np.arange(len(pixels))
    rows = every_row(found.lay_out(Shown(len(pixels)), text, order))
    batch = stack([[rows]], np.asarray(pixels)[None, None], Shape.of(rows))
    batch = jax.tree.map(jnp.asarray, batch)
    return np.asarray(_run(loaded.graphdef, loaded.state, pixels, batch)), found


def _is_peft(made, **known):
    actual, found = _logits(made, **known)
    expected = made.logits()
    assert expected.std() > 0.5, "weights too small for errors to show"
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    return found


FAMILIES = ("llava_next_video", "llava_onevision")
PATTERNS = {
    "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 3, "1.self_attn": 5},
    "alpha_pattern": {"layers.0.self_attn.q_proj": 3.5, ".*down_proj": 9},
}
SAVED = ["multi_modal_projector"]
TOWER = r".*vision_tower.*(q_proj|fc1|patch_embedding)|.*projector\.linear_1"
HEAD = ["embed_tokens", "lm_head"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dialect", ["A", "B", "C"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dialect_of_base_and_adapter(tmp_path, family, dialect, old):
    """Adapters of today's trainers on published bases, and the other way round."""
    lora = {"target_modules": Q, "modules_to_save": SAVED}
    found = _is_peft(oracle.make(family, tmp_path, dialect=dialect, old=old, **lora))
    assert "LoRA: 4 weights of " in found.remarks[0]
    assert "low-rank updates, 4 tensors are replaced" in found.remarks[0]


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": Q, "use_rslora": True, **PATTERNS},
        {"target_modules": "all-linear", "modules_to_save": SAVED},
        {"target_modules": Q, "modules_to_save": SAVED, "bias": "all"},
        {"target_modules": Q, "bias": "lora_only", "fan_in_fan_out": True},
        {
            "target_modules": ["q_proj", "up_proj"],
            "layers_to_transform": [1],
            "layers_pattern": "layers",
        },
        {"target_modules": TOWER},
        {"target_modules": TOWER, "use_dora": True},
        {"target_modules": [*HEAD, "k_proj"], "modules_to_save": ["norm"]},
        {"target_modules": ["embed_tokens", "o_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "lora_bias": True},
        {"target_modules": Q, "modules_to_save": HEAD},
        {"target_modules": ["o_proj"], "velora_config": {"num_groups": 4}},
        {"target_modules": Q, "save": {"save_embedding_layers": True}},
    ],
    ids=lambda lora: "-".join(lora),
)
def test_what_peft_knows(tmp_path, lora):
    _is_peft(oracle.make("llava_onevision", tmp_path, **lora))


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": HEAD, "use_dora": True},
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": Q, "modules_to_save": ["embed_tokens"]},
        {"target_modules": Q, "modules_to_save": ["lm_head"]},
        {
            "target_modules": Q,
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
    ],
    ids=lambda lora: "-".join(str(v) for v in lora.values()),
)
def test_tied_heads(tmp_path, lora):
    """PEFT changes the module that it names; the other keeps the base's values."""
    _is_peft(oracle.make("llava_onevision", tmp_path, tied=True, **lora))


@pytest.mark.parametrize("lora", [PATTERNS, {"use_dora": True, "bias": "lora_only"}])
def test_the_original_format(tmp_path, lora):
    lora = {"target_modules": Q, "modules_to_save": ["mm_projector"], **lora}
    _is_peft(oracle.make("llava_qwen", tmp_path, **lora))
