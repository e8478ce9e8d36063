"""Adapters that hold a weight which embedding and output layer share."""

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles import adapters as oracle
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import opening

NAMES = ("lm_head.weight", "model.language_model.embed_tokens.weight")
Q = ["q_proj"]
PEFTS = "base_model.model."


def _noise(value):
    generator = torch.Generator().manual_seed(0)
    return value + 0.3 * torch.randn(value.shape, generator=generator)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_plain_copy_is_loaded_into_the_shared_weight(tmp_path, name, both):
    import peft

    made = oracle.make("llava_onevision", tmp_path, tied=True, target_modules=Q)
    new = _noise(made.fresh().lm_head.weight.detach())
    oracle.tensors(made.folder, lambda found: found | {f"{PEFTS}{name}": new})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of names that torch has changed.
        theirs = peft.PeftModel.from_pretrained(made.fresh(), made.folder).eval()
    assert torch.equal(theirs.get_input_embeddings().weight, new)
    assert torch.equal(theirs.get_output_embeddings().weight, new)
    if both:  # The base's file, too.

        def doubled(found):
            (old,) = (key for key in found if key.endswith("embed_tokens.weight"))
            return found | {"language_model.lm_head.weight": found[old].clone()}

        oracle.tensors(tmp_path / "base", doubled, "model.safetensors")
    oracle.compare(made._replace(model=theirs))


@pytest.mark.parametrize("stored", ["embedding", "head", "both"])
def test_the_trainers_own_file_of_a_tied_model(tmp_path, stored):
    """LLaVA's loader puts it into the shared weight, with an adapter and without."""
    made = oracle.make("llava_qwen", tmp_path, target_modules=Q)
    file = tmp_path / "base" / "model.safetensors"
    found = load_file(file)
    old = found.pop("model.embed_tokens.weight")
    found.pop("lm_head.weight", None)
    if stored != "head":
        found["model.embed_tokens.weight"] = old
    if stored != "embedding":
        found["lm_head.weight"] = old.clone()
    save_file(found, file, metadata={"format": "pt"})
    config = tmp_path / "base" / "config.json"
    raw = json.loads(config.read_text()) | {"tie_word_embeddings": True}
    config.write_text(json.dumps(raw))
    new = _noise(old)
    trained = {f"{PEFTS}model.embed_tokens.weight": new}
    torch.save(trained, made.folder / "non_lora_trainables.bin")
    for adapter in (True, False):
        known = {"dtype": "float32", "allow_pickle": True, "adapter": adapter}
        model = models.inspect(str(made.folder), **known)
        state = model.load(lambda *_: _device()).state["language_model"]
        assert "lm_head" not in state
        actual = np.asarray(state["embed_tokens"]["weight"][...])
        np.testing.assert_array_equal(actual, new[: len(actual)])
        assert ", 1 tensors are replaced" in model.remarks[0]


def _device():
    import jax

    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.mark.parametrize("names", [("lm_head",), ("lm_head", "model.embed_tokens")])
def test_the_prefix_of_the_trainers_own_file(tmp_path, names):
    made = oracle.make("llava_qwen", tmp_path, target_modules=Q)
    found = load_file(tmp_path / "base" / "model.safetensors")
    new = {f"{PEFTS}{name}.weight": found[f"{name}.weight"] + 1 for name in names}
    torch.save(new, made.folder / "non_lora_trainables.bin")
    known = {"dtype": "float32", "allow_pickle": True}
    models.inspect(str(made.folder), **known)
    checkpoint = opening.open_checkpoint(str(made.folder), allow_pickle=True)
    for name in names:
        value = checkpoint.tensors[f"{name}.weight"].read()
        np.testing.assert_array_equal(value, found[f"{name}.weight"] + 1)
    new |= {f"module.{PEFTS}lm_head.weight": found["lm_head.weight"]}
    torch.save(new, made.folder / "non_lora_trainables.bin")
    with pytest.raises(AuditError, match="are one tensor of the model, and their valu"):
        models.inspect(str(made.folder), **known)
