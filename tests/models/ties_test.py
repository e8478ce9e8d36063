"""Two copies of one weight, held against what transformers makes of them."""

import json

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file, save_file

from oracles import (
    config_of,
    llava_next_video,
    llava_onevision,
    llava_qwen,
    video_llama_3,
)
from vidsme_jax import models
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models.interface import Options
from vidsme_jax.models.llava_hf import NEXT_VIDEO, ONEVISION
from vidsme_jax.models.video_llama_3 import FAMILY as VIDEO_LLAMA_3

KINDS = ("llava_next_video", "llava_onevision", "llava_qwen", "video_llama_3")
CLASSES = {
    "llava_next_video": transformers.LlavaNextVideoForConditionalGeneration,
    "llava_onevision": transformers.LlavaOnevisionForConditionalGeneration,
    "llava_qwen": transformers.Qwen2ForCausalLM,
    "video_llama_3": transformers.VideoLlama3ForConditionalGeneration,
}


def _saved(kind, folder, change, **config):
    """Writes a model whose two tensors differ; `change` edits both by their names."""
    if kind == "llava_qwen":
        model = llava_qwen.make_model()
        llava_qwen.save(model, folder)
        named = llava_qwen.tensors(model)
        names = ("model.embed_tokens.weight", "lm_head.weight")
    elif kind == "video_llama_3":
        video_llama_3.save(video_llama_3.make_model(), folder)
        named = load_file(folder / "model.safetensors")
        names = ("model.language_model.embed_tokens.weight", "lm_head.weight")
    elif kind == "llava_onevision":
        model = llava_onevision.make_model()
        llava_onevision.save(model, folder)
        named = llava_next_video.tensors(model, "A")
        names = ("language_model.model.embed_tokens.weight",)
        names += ("language_model.lm_head.weight",)
    else:
        model = llava_next_video.make_model()
        llava_next_video.save_complete(model, folder)
        named = llava_next_video.tensors(model, "A")
        names = ("language_model.model.embed_tokens.weight",)
        names += ("language_model.lm_head.weight",)
    change(named, *names)
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | config))
    return folder


def _theirs(kind, folder):
    """Embedding and output layer as transformers loads them."""
    kwargs = {}
    if kind == "llava_qwen":
        raw = json.loads((folder / "config.json").read_text())
        kwargs["config"] = transformers.Qwen2Config(**raw)
    model = CLASSES[kind].from_pretrained(folder, **kwargs)
    pair = (model.get_input_embeddings().weight, model.lm_head.weight)
    return [weight.detach().numpy() for weight in pair]


def _ours(loaded):
    text = loaded.state["language_model"]
    embedding = np.asarray(text["embed_tokens"]["weight"][...])
    if config_of(loaded.model).text.tie_word_embeddings:
        assert "lm_head" not in text
        return embedding, embedding
    return embedding, np.asarray(text["lm_head"]["weight"][...])


def _same(named, embedding, head):
    named[head] = named[embedding].clone()


CHANGES = {
    "differ": lambda named, embedding, head: None,
    "equal": _same,
    "no head": lambda named, embedding, head: named.pop(head),
    "no embedding": lambda named, embedding, head: named.pop(embedding),
}
REMARKS = {
    "differ": "lm_head.weight differs from",
    "no embedding": "lm_head.weight is also the embedding (tie_word_embeddings)",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_tied_flag(tmp_path, kind, change):
    folder = _saved(kind, tmp_path, CHANGES[change], tie_word_embeddings=True)
    loaded = models.load(str(folder), dtype="float32")
    for ours, theirs in zip(_ours(loaded), _theirs(kind, folder), strict=True):
        # Of the original format rows are cut to the tokenizer's.
        np.testing.assert_array_equal(ours, theirs[: len(ours)])
    said = " ".join(loaded.model.remarks)
    assert REMARKS.get(change, "") in said
    assert ("tie_word_embeddings" in said) == (change in REMARKS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tied_flag(tmp_path, kind):
    """Without an output layer transformers would draw one."""
    folder = _saved(kind, tmp_path / "whole", _same, tie_word_embeddings=False)
    loaded = models.load(str(folder), dtype="float32")
    assert not config_of(loaded.model).text.tie_word_embeddings
    folder = _saved(kind, tmp_path / "half", CHANGES["no head"])
    with pytest.raises(AuditError) as caught:
        models.inspect(str(folder), dtype="float32")
    (problem,) = caught.value.problems
    assert "lm_head.weight, and tie_word_embeddings is false or absent" in problem
    assert "embed_tokens.weight, set tie_word_embeddings to true there" in problem


ORACLES = {
    "llava_next_video": llava_next_video,
    "llava_onevision": llava_onevision,
    "video_llama_3": video_llama_3,
}
STATES = (None, False, True)  # None: the key is absent.


@pytest.mark.parametrize(
    "family", [NEXT_VIDEO, ONEVISION, VIDEO_LLAMA_3], ids=lambda f: f.name
)
@pytest.mark.parametrize("inner", STATES)
@pytest.mark.parametrize("outer", STATES)
def test_which_config_says_it(tmp_path, family, outer, inner):
    oracle = ORACLES[family.name]
    if family is VIDEO_LLAMA_3:
        oracle.processor().save_pretrained(tmp_path)
    raw = json.loads(oracle.make_model().config.to_json_string())
    for where, state in ((raw, outer), (raw["text_config"], inner)):
        where.pop("tie_word_embeddings", None)
        if state is not None:
            where["tie_word_embeddings"] = state
    problems: list[str] = []
    opened = Checkpoint("", (tmp_path,), raw, {})
    model, _ = family.open(opened, Options("float32"), problems)
    assert not problems
    theirs = transformers.CONFIG_MAPPING[family.name].from_dict(raw)
    text = config_of(model).text
    assert text.tie_word_embeddings == theirs.tie_word_embeddings
