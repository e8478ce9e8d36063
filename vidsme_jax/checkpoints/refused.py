"""Refuses well-known models that are not read, by their `config.json` alone.

There are two kinds: models whose video rows attend to later rows, so that no next-token
distribution exists for them; and models that are not built yet. The attention masks are
those of transformers 5.24: `create_masks_for_generate` of a model with
`mm_token_type_ids`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vidsme_jax.checkpoints import content

_SEES_LATER = (
    "{}, so that a row of the video has no next-token distribution, and no score of "
    "its rows is defined"
)
_NOT_BUILT = "it is not built yet: {}"
_OF_IMAGES = "it is a model of images, without a processor of videos"
_SPEAKS = "it also has audio input and output, and its checkpoints have three parts"
_GLM = "its decoder has norms after attention and MLP, and rotates half of each head"
_DELTA = "three of four layers of its decoder are linear attention"
_MIXED = "its decoder mixes experts"
_PARTS = {"text": "decoder", "vision": "tower"}


def reason(config: Mapping[str, Any]) -> str:
    """Returns why a checkpoint is not read, or "" if it is.

    Args:
      config: Its `config.json`.

    Example:
      >>> reason({"model_type": "minicpmv4_6"})[:47]
      "model_type 'minicpmv4_6' is not read: it is not"
    """
    named = config.get("model_type")
    whole, part = _part(config, named if isinstance(named, str) else "")
    why = MODEL_TYPES.get(whole, part)
    why = why if isinstance(why, str) else why(config)
    return f"model_type {content.shown(named)} is not read: {why}" if why else ""


def _part(config: Mapping[str, Any], named: str) -> tuple[str, str]:
    """Returns the `model_type` of a whole model, and why its part alone is not read.

    A whole model may have the name of a part, such as `aya_vision`; it has configs of
    parts.
    """
    whole, _, part = named.rpartition("_")
    has_parts = not config.keys().isdisjoint(("text_config", "vision_config"))
    if not whole or part not in _PARTS or has_parts:
        return named, ""
    return whole, (
        f"it is only the {_PARTS[part]} of a model; take the repository of the whole "
        f"model (model_type {content.shown(whole)})"
    )


def _gemma4(config: Mapping[str, Any], default: str | None = None) -> str:
    """Returns why a Gemma 4 is not read; only the smaller models have causal masks."""
    text = config.get("text_config")
    key = "use_bidirectional_attention"
    value = text.get(key, default) if isinstance(text, Mapping) else default
    match value:
        case "vision":
            sees = "in the sliding layers of its decoder all rows of a frame see each"
        case "all":
            sees = "in its decoder all rows see each"
        case _:
            return _NOT_BUILT.format("a decoder of sliding and global layers")
    return _SEES_LATER.format(f"{sees} other (text_config.{key} is {value!r})")


def _gemma4_unified(config: Mapping[str, Any]) -> str:
    return _gemma4(config, "vision")


def _llava(config: Mapping[str, Any]) -> str:
    """Returns why a model of LLaVA's `model_type` is not read, "" for LLaVA's own.

    Models of images and Video-LLaVA in its original format have this `model_type`, too.
    """
    if "vision_config" in config:
        return _OF_IMAGES
    if "mm_video_tower" not in config:
        return ""
    return (
        "it is Video-LLaVA in its original format, whose tower attends over eight "
        "frames; LanguageBind/Video-LLaVA-7B-hf is another model, without that "
        "attention (model_type video_llava)"
    )


MODEL_TYPES: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "molmo2": _SEES_LATER.format(
        "in its decoder all rows of images and frames see each other"
    ),
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4_unified,
    "gemma3": _SEES_LATER.format("in its decoder all rows of an image see each other"),
    "paligemma": _SEES_LATER.format(
        "in its decoder an image and its prompt see each other"
    ),
    "internvl_chat": (
        "it is InternVL in its original format; take the repository whose name ends in "
        "-hf, such as OpenGVLab/InternVL3-8B-hf (model_type internvl)"
    ),
    "llava": _llava,
    "llava_llama": _llava,
    "llava_next": _OF_IMAGES,
    "idefics3": (
        f"{_OF_IMAGES}; SmolVLM2 is the one of videos, such as "
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct (model_type smolvlm)"
    ),
    "videollama3_qwen2": (
        "it is VideoLLaMA3 in its original format; take a repository in transformers' "
        "format, such as lkhl/VideoLLaMA3-2B-Image-HF (model_type video_llama_3)"
    ),
    "qwen3_vl_moe": _NOT_BUILT.format(_MIXED),
    "qwen2_5_omni": _NOT_BUILT.format(_SPEAKS),
    "qwen3_omni_moe": _NOT_BUILT.format(f"{_SPEAKS}; {_MIXED}"),
    "qwen3_5": _NOT_BUILT.format(_DELTA),
    "qwen3_5_moe": _NOT_BUILT.format(f"{_DELTA}; {_MIXED}"),
    "minicpmv4_6": _NOT_BUILT.format(_DELTA),
    "minicpmv4_7": _NOT_BUILT.format(_DELTA),
    "minicpmv": _NOT_BUILT.format("its code is in its own repository alone"),
    "glm4v": _NOT_BUILT.format(_GLM),
    "glm46v": _NOT_BUILT.format(_GLM),
    "glm4v_moe": _NOT_BUILT.format(_MIXED),
    "kimi_k25": _NOT_BUILT.format(_MIXED),
}
