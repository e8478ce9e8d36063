"""Models that are not read are refused by the reason, before anything heavy."""

import json
import subprocess
import sys

import pytest
import torch
from transformers.models.gemma4 import configuration_gemma4, modeling_gemma4
from transformers.models.gemma4_unified import (
    configuration_gemma4_unified,
    modeling_gemma4_unified,
)
from transformers.models.molmo2 import configuration_molmo2, modeling_molmo2

from vidsme_jax import models, settings
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import refused
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.run import asking, checks

GEMMA4 = {"text_config": {"use_bidirectional_attention": "vision"}}
SAID = {
    "molmo2": ({}, "all rows of images and frames see each other, so that a row of"),
    "gemma4": (GEMMA4, "in the sliding layers of its decoder all rows of a frame see"),
    "gemma4_unified": ({}, "in the sliding layers of its decoder all rows of a frame"),
    "gemma3": ({}, "all rows of an image see each other, so that a row of the video"),
    "paligemma": ({}, "an image and its prompt see each other"),
    "internvl_chat": ({}, "such as OpenGVLab/InternVL3-8B-hf (model_type internvl)"),
    "llava": ({"vision_config": {}}, "it is a model of images"),
    "llava_llama": ({"mm_video_tower": "v"}, "LanguageBind/Video-LLaVA-7B-hf is ano"),
    "llava_next": ({}, "it is a model of images"),
    "idefics3": ({}, "such as HuggingFaceTB/SmolVLM2-2.2B-Instruct (model_type smol"),
    "videollama3_qwen2": ({}, "take a repository in transformers' format, such as"),
    "qwen3_vl_moe": ({}, "its decoder mixes experts"),
    "qwen2_5_omni": ({}, "it is not built yet: it also has audio input"),
    "qwen3_omni_moe": ({}, "its decoder mixes experts"),
    "qwen3_5": ({}, "three of four layers of its decoder are linear attention"),
    "qwen3_5_moe": ({}, "three of four layers of its decoder are linear attention"),
    "minicpmv4_6": ({}, "three of four layers of its decoder are linear attention"),
    "minicpmv4_7": ({}, "three of four layers of its decoder are linear attention"),
    "minicpmv": ({}, "it is not built yet"),
    "glm4v": ({}, "its decoder has norms after attention and MLP"),
    "glm46v": ({}, "its decoder has norms after attention and MLP"),
    "glm4v_moe": ({}, "its decoder mixes experts"),
    "kimi_k25": ({}, "its decoder mixes experts"),
}


def _said(config):
    with pytest.raises(AuditError) as caught:
        models.family_of(Checkpoint("given", (), config, {}))
    (problem,) = caught.value.problems
    return problem


def test_every_refusal_is_tested():
    assert set(SAID) == set(refused.MODEL_TYPES)


@pytest.mark.parametrize("named", SAID)
def test_each_is_refused_by_its_reason(named):
    more, said = SAID[named]
    config = {"model_type": named} | more
    assert not any(family.reads(config) for family in models.FAMILIES)
    problem = _said(config)
    known = ", ".join(family.name for family in models.FAMILIES)
    assert problem.startswith(f"checkpoint given: model_type '{named}' is not read: ")
    assert said in problem and problem.endswith(f"; known: {known}")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model_type": "qwen3_vl_text"},
            "it is only the decoder of a model; take the repository of the whole "
            "model (model_type 'qwen3_vl')",
        ),
        ({"model_type": "siglip_vision"}, "it is only the tower of a model; take"),
        ({"model_type": "qwen3_vl_moe_text"}, "not built yet: its decoder mixes exp"),
        ({"model_type": "_text"}, "unknown family"),
        ({"model_type": "aya_vision", "vision_config": {}}, "unknown family"),
        ({"model_type": "gemma4"}, "not built yet: a decoder of sliding and global"),
        (
            {
                "model_type": "gemma4_unified",
                "text_config": {"use_bidirectional_attention": None},
            },
            "not built yet: a decoder of sliding and global",
        ),
        (
            {
                "model_type": "gemma4",
                "text_config": {"use_bidirectional_attention": "all"},
            },
            "in its decoder all rows see each other (text_config.use_bidirectional_att",
        ),
        ({"model_type": "gemma4", "text_config": 3}, "it is not built yet"),
    ],
)
def test_masks_and_parts_are_reported(config, said):
    assert said in _said(config)


def test_an_unknown_one_lists_the_known_and_the_nearest():
    problem = _said({"model_type": "llava_onevison", "architectures": ["Llava"]})
    assert "unknown family (model_type 'llava_onevison', architectures ['Ll" in problem
    assert "; known: llava_qwen, llava_next_video, llava_onevision" in problem
    assert problem.endswith("; did you mean 'llava_onevision'?")
    for odd in (
        {},
        {"model_type": None},
        {"model_type": ["molmo2"]},
        {"model_type": 3},
    ):
        assert "unknown family (model_type" in _said(odd)
    # What others made of LLaVA's code is not said to be of images.
    assert "unknown family" in _said({"model_type": "llava", "bert_type": "qformer"})


def _seen(kind, config, types):
    """Which row sees which, by the kind of a layer, as transformers has it."""
    text = config.get_text_config()
    text._attn_implementation = "eager"
    rows = len(types)
    masks = kind.create_masks_for_generate(
        config,
        torch.zeros(1, rows, text.hidden_size),
        torch.ones(1, rows, dtype=torch.long),
        None,
        torch.arange(rows)[None],
        mm_token_type_ids=torch.tensor([types]),
    )
    masks = masks if isinstance(masks, dict) else {"all": masks}
    return {name: (mask[0, 0] == 0).numpy() for name, mask in masks.items()}


GEMMA = modeling_gemma4.Gemma4ForConditionalGeneration, configuration_gemma4
UNIFIED = (
    modeling_gemma4_unified.Gemma4UnifiedForConditionalGeneration,
    configuration_gemma4_unified,
)


def test_molmo_2_sees_all_later_rows_of_the_video():
    """Its processor marks the rows of frames, and what is around each, by 1."""
    kind = modeling_molmo2.Molmo2ForConditionalGeneration
    (seen,) = _seen(
        kind, configuration_molmo2.Molmo2Config(), (0, 1, 1, 0, 1, 1, 0)
    ).values()
    assert seen[1, [2, 4, 5]].all() and not seen[1, [3, 6]].any()
    assert not seen[3, 4:].any()


@pytest.mark.parametrize(
    ("family", "given"), [(GEMMA, "vision"), (GEMMA, None), (UNIFIED, "default")]
)
def test_gemma_4_sees_later_rows_of_the_same_frame(family, given):
    """In its sliding layers; the smaller models, whose setting is null, do not."""
    kind, configuration = family
    if given == "default":
        config = configuration.Gemma4UnifiedConfig()
    else:
        text = {"use_bidirectional_attention": given, "sliding_window": 512}
        config = configuration.Gemma4Config(text_config=text)
    seen = _seen(kind, config, (0, 2, 2, 0, 2, 2, 0))
    assert set(seen) == {"full_attention", "sliding_attention"}
    assert not seen["full_attention"][1, 2:].any()
    later = seen["sliding_attention"][1, 2:].tolist()
    assert later == [given is not None, False, False, False, False]
    raw = {"model_type": config.model_type, "text_config": {}}
    if given != "default":
        raw["text_config"] = {"use_bidirectional_attention": given}
    assert ("see each other" in _said(raw)) == (given is not None)


def _config(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "molmo2"}))
    config = settings.default()
    config.corpus.members = (str(settings.DEMO / "corpus/members.jsonl"),)
    config.corpus.nonmembers = (str(settings.DEMO / "corpus/nonmembers.jsonl"),)
    config.model.checkpoint = str(folder)
    config.headline = "vidsme"
    return config


def test_it_is_said_early_with_other_problems(tmp_path):
    """Nothing is read of the weights, which are not even there."""
    config = _config(tmp_path)
    for ask in (asking.ask, checks.check):
        with pytest.raises(AuditError) as caught:
            ask(config)
        text = "\n".join(caught.value.problems)
        assert "unknown score 'vidsme'" in text
        assert f"checkpoint {tmp_path}: model_type 'molmo2' is not read" in text
    config.headline, config.reference.checkpoint = "vid_sme", str(tmp_path)
    config.model.checkpoint = str(settings.DEMO / "checkpoint")
    with pytest.raises(AuditError, match=r"config\.reference\.checkpoint is .*molmo2"):
        asking.ask(config)


def test_nothing_heavy_is_imported_for_it(tmp_path):
    _config(tmp_path)
    script = (
        "import sys\n"
        "from vidsme_jax.base import AuditError\n"
        "from vidsme_jax.run import asking\n"
        "try:\n"
        "    asking.find_local(sys.argv[1])\n"
        "except AuditError as error:\n"
        "    print(error, sorted({'jax', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert "'molmo2' is not read" in done.stdout, done.stderr
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("named", "said"),
    [("molmo2", "model_type 'molmo2' is not"), ("internvl4", "unknown family .*known")],
)
def test_no_weights_are_fetched_of_what_is_refused(tmp_path, monkeypatch, named, said):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": named}))
    asked = []

    def download(repository, *, revision, allow_patterns):
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(AuditError, match=f"checkpoint owner/name: {said}"):
        models.inspect("owner/name", dtype="float32")
    assert "*.json" in asked and "*.safetensors" not in asked
