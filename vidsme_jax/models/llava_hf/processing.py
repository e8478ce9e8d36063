"""Checkpoints of Hugging Face's LLaVA classes: config, preprocessing and prompt."""

from typing import Any

import jax.numpy as jnp

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, prompts
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.llava import params as llava
from vidsme_jax.models.llava import processing
from vidsme_jax.models.llava_hf import params
from vidsme_jax.models.llava_hf.params import Kind


def open_next_video(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a LLaVA-NeXT-Video: 7B is a Vicuna, 34B speaks ChatML."""
    chatml = options.tokenizer and "<|im_start|>" in options.tokenizer.get_vocab()
    style = prompts.CHATML if chatml else prompts.VICUNA
    return _open(params.NEXT_VIDEO, style, checkpoint, options, problems)


def open_onevision(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a LLaVA-OneVision."""
    return _open(params.ONEVISION, prompts.CHATML, checkpoint, options, problems)


def _open(
    kind: Kind,
    style: prompts.Style,
    checkpoint: Checkpoint,
    options: Options,
    problems: list[str],
) -> tuple[Model, Checkpoint]:
    vision = checkpoint.config.get("vision_config")
    size = vision.get("image_size") if isinstance(vision, dict) else None
    read = preprocessing.from_json
    if kind.tower == "siglip":
        read = preprocessing.straight_from_json
    size = size if isinstance(size, int) else 224
    prepare = read(_video_preprocessing(checkpoint), size, problems)
    dtype = jnp.dtype(options.dtype)
    config, video_token = params.read_config(
        checkpoint.config, kind, dtype, prepare, problems
    )
    prompt, tokenise = prompts.around_video(
        options, style, problems, video_token=video_token
    )
    names = llava.names(config, params.PATTERNS, params.canonical)
    if kind is params.NEXT_VIDEO:
        names = names._replace(unused=lambda: params.unused(config))
    model = processing.describe(
        config,
        family=kind.name,
        dtype=options.dtype,
        remarks=checkpoint.remarks,
        prompt=prompt,
        names=names,
        prepare=prepare,
        tokenise=tokenise,
    )
    return model, checkpoint


def _video_preprocessing(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Returns the settings for video frames, wherever this version keeps them."""
    whole = checkpoint.json("processor_config.json") or {}
    for key in ("video_processor", "image_processor"):
        if isinstance(whole.get(key), dict):
            return whole[key]
    return checkpoint.json("video_preprocessor_config.json", "preprocessor_config.json")
