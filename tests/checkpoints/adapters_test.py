"""LoRA and its relatives against PEFT, and tensors that are refused."""

import numpy as np
import pytest

from oracles import adapters as oracle
from oracles import our_logits
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import opening

Q = r".*(language_model|decoder)\.(.*\.)?(q_proj|down_proj)"  # Of the decoder.


FAMILIES = ("llava_next_video", "llava_onevision")
PATTERNS = {
    "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 3, "1.self_attn": 5},
    "alpha_pattern": {"layers.0.self_attn.q_proj": 3.5, ".*down_proj": 9},
}
SAVED = ["multi_modal_projector"]
TOWER = r".*vision_tower.*(q_proj|fc1|patch_embedding)|.*projector\.linear_1"
DECODER = "language_model"
HEAD = ["embed_tokens", "lm_head"]
ORIGINAL = {"modules_to_save": ["mm_projector"], "bias": "lora_only", **PATTERNS}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dialect", ["A", "B", "C"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dialect_of_base_and_adapter(tmp_path, family, dialect, old):
    """Adapters of today's trainers on published bases, and the other way round."""
    lora = {"target_modules": Q, "modules_to_save": SAVED}
    found = oracle.compare(
        oracle.make(family, tmp_path, dialect=dialect, old=old, **lora)
    )
    assert "LoRA: 4 weights of " in found.remarks[0]
    assert "low-rank updates, 4 tensors are replaced" in found.remarks[0]


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": Q, "use_rslora": True, **PATTERNS},
        {"target_modules": "all-linear", "modules_to_save": SAVED},
        {"target_modules": Q, "modules_to_save": SAVED, "bias": "all"},
        {"target_modules": Q, "modules_to_save": ["linear_1", "norm"], "bias": "all"},
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
        {
            "target_modules": Q,
            "modules_to_save": HEAD,
            "save": {"save_embedding_layers": True},
        },
    ],
    ids=lambda lora: "-".join(lora),
)
def test_what_peft_knows(tmp_path, lora):
    oracle.compare(oracle.make("llava_onevision", tmp_path, **lora))


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
        {
            "target_modules": ["embed_tokens", "q_proj"],
            "ensure_weight_tying": True,
            "rank_pattern": {"embed_tokens": 2},
            "alpha_pattern": {"lm_head": 3},
        },
    ],
    ids=lambda lora: "-".join(str(v) for v in lora.values()),
)
def test_tied_heads(tmp_path, lora):
    """PEFT changes the module that it names; the other keeps the base's values."""
    oracle.compare(oracle.make("llava_onevision", tmp_path, tied=True, **lora))


def test_a_base_of_which_the_head_alone_is_stored(tmp_path):
    lora = {"target_modules": ["embed_tokens"], "tied": True}
    made = oracle.make("llava_onevision", tmp_path, **lora)
    old, new = f"{DECODER}.model.embed_tokens.weight", f"{DECODER}.lm_head.weight"

    def rename(found):
        return {new if key == old else key: value for key, value in found.items()}

    oracle.tensors(tmp_path / "base", rename, "model.safetensors")
    models.inspect(str(tmp_path / "base"), dtype="float32")
    oracle.tensors(made.folder, lambda f: {k: f[k] for k in f if "base_layer" not in k})
    oracle.compare(made)


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("llava_next_video", {"target_modules": Q, "modules_to_save": SAVED}),
        ("llava_onevision", {"target_modules": ["embed_tokens"], "tied": True}),
        ("llava_qwen", {"target_modules": ["q_proj"], "use_dora": True, **ORIGINAL}),
    ],
)
def test_through_the_loader(tmp_path, family, lora):
    made = oracle.make(family, tmp_path, **lora)
    if family == "llava_qwen":
        oracle.tower_elsewhere(made)  # Its factors belong onto those tensors.
    loaded = models.load(str(made.folder), dtype="float32")
    actual = our_logits(loaded, made.pixels, oracle.BEFORE, oracle.AFTER)
    np.testing.assert_allclose(actual, made.logits(), atol=1e-4)
    assert "LoRA: " in loaded.model.remarks[0]


def test_a_vocabulary_that_grew(tmp_path):
    """Its embeddings are in the adapter; the base has none for the new tokens."""

    def grow(model):
        model.resize_token_embeddings(140)

    made = oracle.make(
        "llava_onevision",
        tmp_path,
        prepare=grow,
        target_modules=Q,
        save={"save_embedding_layers": True},
    )
    assert oracle.compare(made).config["text_config"]["vocab_size"] == 140
    assert models.inspect(str(made.folder), dtype="float32").vocab_size == 140
    with pytest.raises(AuditError, match=r"grew to 140 tokens.*checkpoint=.*base$"):
        opening.open_checkpoint(str(made.folder), adapter=False)


def test_without_the_adapter(tmp_path):
    """As PEFT's disable_adapter: the modules that were saved are those of the base."""
    lora = {"target_modules": Q, "modules_to_save": SAVED}
    made = oracle.make("llava_onevision", tmp_path, **lora)
    found = models.inspect(str(made.folder), dtype="float32", adapter=False)
    assert found.remarks == (
        f"LoRA: weights of {tmp_path / 'base'} are read without low-rank updates and "
        "without its copies of multi_modal_projector, 0 tensors are replaced",
    )
    checkpoint = opening.open_checkpoint(str(made.folder), adapter=False)
    tensors = checkpoint.merged(found.names).tensors
    base = opening.open_checkpoint(str(tmp_path / "base")).tensors
    assert tensors == base
    whole = models.inspect(str(made.folder), dtype="float32")
    assert whole.fingerprint != found.fingerprint
    with made.model.disable_adapter():
        np.testing.assert_allclose(made.logits(), made.logits(made.fresh()), atol=1e-6)


def test_a_pissa_that_peft_converted(tmp_path):
    """PiSSA moves weight into its factors; PEFT can move it back when saving."""
    folder = tmp_path / "start"

    def start(trained):
        trained.peft_config["default"].init_lora_weights = True
        trained.save_pretrained(folder)
        trained.peft_config["default"].init_lora_weights = "pissa"

    lora = {"target_modules": Q, "init_lora_weights": "pissa"}
    convert = {"save": {"path_initial_model_for_weight_conversion": folder}}
    made = oracle.make(
        "llava_onevision", tmp_path / "a", start=start, **lora, **convert
    )
    oracle.compare(made)
    made = oracle.make("llava_onevision", tmp_path / "b", **lora)
    with pytest.raises(AuditError, match=r"init_lora_weights is 'pissa': it changes"):
        opening.open_checkpoint(str(made.folder))
