"""What training writes of every family, in the hands of transformers, PEFT and ours."""

import copy
import warnings
from typing import Any, NamedTuple

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file

import exporting
from exporting import Clip, Exported, assert_equal, exported, in_torch
from vidsme_jax import models
from vidsme_jax.finetune import export

ORIGINAL = "llava_qwen"  # The family of which transformers has no class.
NAMES = tuple(
    name
    for family in models.FAMILIES
    for name in family.sizes
    if name.endswith("-tiny") and family.name != ORIGINAL
)
# Adapters of some layers: their names are those of the tower's, too.
SOME = ("llava_onevision-tiny", "internvl-tiny")
torch.set_num_threads(1)  # On tiny models more only wait for one another.


class Held(NamedTuple):
    """A model that was written, a clip, and transformers' model with its logits."""

    exported: Exported
    clip: Clip
    theirs: Any
    logits: np.ndarray


@pytest.fixture(scope="module", params=NAMES)
def held(request, tmp_path_factory) -> Held:
    folder = tmp_path_factory.mktemp(request.param) / "whole"
    made = exported(f"random:{request.param}", folder)
    clip = Clip(made.loaded)
    theirs = in_torch(folder, made.loaded.model.family)
    return Held(made, clip, theirs, clip.theirs(theirs))


def test_every_family_has_a_class_or_the_original_format():
    assert export.CLASSES.keys() | {ORIGINAL} == {x.name for x in models.FAMILIES}


@pytest.mark.long
def test_transformers_gives_the_logits(held):
    made, clip, _, logits = held
    before = clip.ours(exporting.unchanged(made))
    assert logits.std() > 0.5, "weights too small for errors to show"
    assert np.abs(logits - before).max() > 0.5, "changes too small for errors to show"
    np.testing.assert_allclose(clip.ours(made.loaded.state), logits, atol=1e-4)


@pytest.mark.long
def test_what_is_read_again_is_equal(held):
    made = held.exported
    again = models.load(str(made.folder), dtype="float32")
    assert_equal(again.state, made.loaded.state)
    assert again.model.tokenise() == made.loaded.model.tokenise()
    assert again.model.prompt == made.loaded.model.prompt
    for path in made.folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, path


@pytest.mark.long
@pytest.mark.parametrize("name", [f"{ORIGINAL}-tiny", "llava_video-tiny"])
def test_the_original_format_is_read_again(tmp_path, name):
    """With an adapter, too; the tower's config lies in a folder of its own."""
    made = exported(f"random:{name}", tmp_path / "whole")
    again = models.load(str(tmp_path / "whole"), dtype="float32")
    assert_equal(again.state, made.loaded.state)
    factors = exporting.factors_of(made.loaded.model)
    state = exporting.write_adapter(made, tmp_path / "adapter", factors)
    again = models.load(str(tmp_path / "adapter"), dtype="float32")
    exporting.assert_merged(again.state, state, made.loaded.state, factors)


def _compare_adapter(held: Held, folder, only: str = "", rslora: bool = False) -> int:
    """Writes an adapter, loads it here and in PEFT; returns its number of factors."""
    made = held.exported
    factors = exporting.factors_of(made.loaded.model, only)
    state = exporting.write_adapter(made, folder, factors, rslora=rslora)
    again = models.load(str(folder), dtype="float32")
    exporting.assert_merged(again.state, state, made.loaded.state, factors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Of an attribute that it reads.
        base = copy.deepcopy(held.theirs)
        adapted = peft.PeftModel.from_pretrained(base, folder).eval()
    stored = load_file(folder / "adapter_model.safetensors")
    layers = [x for x in adapted.modules() if isinstance(x, peft.tuners.lora.LoraLayer)]
    assert 2 * len(layers) == len(stored) > 0
    result = adapted.load_adapter(folder, "default")
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora_" in key]
    found = held.clip.theirs(adapted)
    assert np.abs(found - held.logits).max() > 0.1
    np.testing.assert_allclose(held.clip.ours(state), found, atol=1e-4)
    return len(factors)


@pytest.mark.long
def test_peft_and_we_load_an_adapter_of_all_layers(held, tmp_path):
    assert _compare_adapter(held, tmp_path) > 9


@pytest.mark.long
@pytest.mark.parametrize("held", SOME, indirect=True)
def test_an_adapter_of_some_layers_leaves_others_alone(held, tmp_path):
    """Of the decoder's queries, and rank-stabilised."""
    only = "language_model/layers/self_attn/q_proj"
    assert _compare_adapter(held, tmp_path, only, rslora=True) == 1
