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


def open_checkpoint(
    kind: Kind, checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of one of the two families."""
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
    checkpoint, config = llava.settle_tie(
        checkpoint, config, params.PATTERNS, params.canonical, problems
    )
    # A LLaVA-NeXT-Video of 7B is a Vicuna, one of 34B speaks ChatML.
    vocabulary = options.tokenizer.get_vocab() if options.tokenizer else {}
    chatml = kind is params.ONEVISION or "<|im_start|>" in vocabulary
    names = llava.names(config, params.PATTERNS, params.canonical)
    if kind is params.NEXT_VIDEO:
        names = names._replace(unused=lambda: params.unused(config))
    style = prompts.CHATML if chatml else prompts.VICUNA
    model = processing.describe(
        config,
        options,
        style,
        problems,
        video_token=video_token,
        ends=prompts.ends(checkpoint, options, style, problems),
        family=kind.name,
        remarks=checkpoint.remarks,
        names=names,
        prepare=prepare,
    )
    return model, checkpoint


def _video_preprocessing(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Returns the settings for video frames, wherever this version keeps them."""
    whole = checkpoint.json("processor_config.json") or {}
    for key in ("video_processor", "image_processor"):
        if isinstance(whole.get(key), dict):
            return whole[key]
    return checkpoint.json("video_preprocessor_config.json", "preprocessor_config.json")
