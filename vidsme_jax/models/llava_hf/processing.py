"""Checkpoints of Hugging Face's LLaVA classes: config, preprocessing and prompt."""

import jax.numpy as jnp

from vidsme_jax.checkpoints.fields import MAX_SIDE
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, preprocessor_config, prompts
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.llava import params as llava
from vidsme_jax.models.llava import processing
from vidsme_jax.models.llava_hf import params
from vidsme_jax.models.llava_hf.params import Kind
from vidsme_jax.models.preprocessing import Preprocessing


def open_checkpoint(
    kind: Kind, checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of one of the two families."""
    vision = checkpoint.config.get("vision_config")
    size = vision.get("image_size") if isinstance(vision, dict) else None
    size = size if type(size) is int and 1 <= size <= MAX_SIDE else 224
    prepare = _preprocessing(kind, checkpoint, size, problems)
    dtype = jnp.dtype(options.dtype)
    config, video_token = params.read_config(
        checkpoint.config, kind, dtype, prepare, problems
    )
    checkpoint, config = llava.settle_tie(
        checkpoint, config, params.PATTERNS, params.canonical, problems
    )
    # A LLaVA-NeXT-Video of 7B is a Vicuna, one of 34B speaks ChatML.
    vocabulary = options.tokenizer.get_vocab() if options.tokenizer else {}
    largest = max(vocabulary.values(), default=0)
    if largest >= config.text.vocab_size:
        problems.append(
            f"tokenizer: it has a token of number {largest}, and the model "
            f"{config.text.vocab_size} embeddings: is it another model's tokenizer?"
        )
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


def _preprocessing(
    kind: Kind, checkpoint: Checkpoint, size: int, problems: list[str]
) -> Preprocessing:
    """Reads the settings for video frames; without any file they are the tower's."""
    siglip = kind.tower == "siglip"
    known = preprocessor_config.ONEVISION if siglip else preprocessor_config.NEXT_VIDEO
    found = preprocessor_config.of_video(checkpoint, known, size, problems)
    if found is not None:
        return found
    return preprocessing.siglip(size) if siglip else preprocessing.clip(size)
