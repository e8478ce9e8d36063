"""Checkpoints of Hugging Face's LLaVA classes: config, preprocessing and prompt."""

import pathlib

import jax.numpy as jnp

from vidsme_jax.checkpoints import files
from vidsme_jax.checkpoints.fields import MAX_SIDE
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, preprocessor_config, prompts
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
) -> preprocessing.Preprocessing:
    """Reads the settings for video frames from the file that transformers takes.

    That is `video_processor` in `processor_config.json`, else
    `video_preprocessor_config.json`: of an adapter, else of its base. Without them it
    is `preprocessor_config.json`, which may be of images alone, and without any the
    tower's own settings are taken.
    """
    siglip = kind.tower == "siglip"
    known = preprocessor_config.ONEVISION if siglip else preprocessor_config.NEXT_VIDEO
    images = False
    names = "processor_config.json", "video_preprocessor_config.json"
    for folder in checkpoint.folders:
        for path in filter(pathlib.Path.is_file, (folder / name for name in names)):
            raw, where = files.read_json(path), path.name
            if path.name == names[0]:
                images |= "image_processor" in raw
                raw, where = raw.get("video_processor"), f"{where}: video_processor"
            if raw is not None:
                return preprocessor_config.read(raw, known, size, problems, where)
    if (raw := checkpoint.json(preprocessor_config.FILE)) is not None:
        where = preprocessor_config.FILE
        return preprocessor_config.read(raw, known, size, problems, where)
    if images:
        problems.append(
            "processor_config.json: it has an image_processor but no video_processor, "
            "and neither video_preprocessor_config.json nor preprocessor_config.json "
            "is beside it: nothing says what is done to frames; save the model's "
            f"{known.name} there"
        )
    return preprocessing.siglip(size) if siglip else preprocessing.clip(size)
