"""Checkpoints of Hugging Face's LLaVA classes: config, preprocessing and prompt."""

from typing import Any

import jax.numpy as jnp

from vidsme_jax.checkpoints.fields import MAX_SIDE
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import (
    preprocessing,
    processor_config,
    prompts,
)
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.llava import params as llava
from vidsme_jax.models.llava import processing
from vidsme_jax.models.llava_hf import params
from vidsme_jax.models.llava_hf.params import Kind
from vidsme_jax.models.towers.vit import VitConfig

MISTRAL = prompts.Style(
    "<<SYS>>\n{}\n<</SYS>>\n\n",
    f"[INST] {prompts.PLACEHOLDER}\n",
    " [/INST] ",
    "</s>",
)


def open_checkpoint(
    kind: Kind, checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of one of the families."""
    vision = checkpoint.config.get("vision_config")
    size = vision.get("image_size") if isinstance(vision, dict) else None
    size = size if type(size) is int and 1 <= size <= MAX_SIDE else 224
    prepare = _preprocessing(kind, checkpoint, size, problems)
    dtype = jnp.dtype(options.dtype)
    config, video_token = params.read_config(
        checkpoint.config, kind, dtype, prepare, problems
    )
    processor_config.compare(checkpoint, _counts(kind, config.vision), problems)
    checkpoint, config = llava.settle_tie(
        checkpoint, config, params.patterns(kind), params.canonical, problems
    )
    vocabulary = options.tokenizer.get_vocab() if options.tokenizer else {}
    style = _style(kind, checkpoint, vocabulary)
    model = processing.describe(
        config,
        options,
        style,
        problems,
        video_token=video_token,
        ends=prompts.ends(checkpoint, options, style, problems),
        family=kind.name,
        remarks=checkpoint.remarks,
        names=params.names(kind, config),
        prepare=prepare,
    )
    return model, checkpoint


def _counts(kind: Kind, tower: VitConfig) -> dict[str, int]:
    """Returns what the family's processor counts the tokens of a frame by."""
    if kind is params.ONEVISION:
        return {"num_image_tokens": tower.grid**2}
    counts = {"patch_size": tower.patch_size}
    if kind is params.VIDEO_LLAVA:
        counts["num_additional_image_tokens"] = tower.extra
    return counts


def _style(kind: Kind, checkpoint: Checkpoint, vocabulary: Any) -> prompts.Style:
    """Returns how a family's models are spoken to.

    A LLaVA-NeXT-Video of 7B is a Vicuna or a Mistral, one of 34B speaks ChatML.
    """
    if kind is params.ONEVISION or "<|im_start|>" in vocabulary:
        return prompts.CHATML
    text = checkpoint.config.get("text_config")
    decoder = text.get("model_type") if isinstance(text, dict) else None
    return MISTRAL if decoder == "mistral" else prompts.VICUNA


def _preprocessing(
    kind: Kind, checkpoint: Checkpoint, size: int, problems: list[str]
) -> preprocessing.Preprocessing:
    """Reads the settings for video frames; without any file they are the tower's.

    But of Video-LLaVA: its file must be there.
    """
    siglip = kind.tower == "siglip"
    default = preprocessing.siglip(size) if siglip else preprocessing.clip(size)
    if kind is params.VIDEO_LLAVA:  # Its towers are of no other repository.
        default = None
    return processor_config.read(checkpoint, kind.processor, size, problems, default)
