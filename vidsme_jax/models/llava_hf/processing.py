"""Checkpoints of Hugging Face's LLaVA classes: config, preprocessing and prompt."""

import pathlib
from typing import Any

import jax.numpy as jnp

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import files
from vidsme_jax.checkpoints.fields import MAX_SIDE
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, preprocessor_config, prompts
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.llava import params as llava
from vidsme_jax.models.llava import processing
from vidsme_jax.models.llava_hf import params
from vidsme_jax.models.llava_hf.params import Kind

MISTRAL = prompts.Style(
    "<<SYS>>\n{}\n<</SYS>>\n\n",
    f"[INST] {prompts.PLACEHOLDER}\n",
    " [/INST] ",
    "</s>",
)
ORIGINAL_TOWER = "mm_video_tower"  # Of Video-LLaVA's own format alone.
_ORIGINAL = (
    "config.json: a Video-LLaVA in its original format, whose tower "
    "(LanguageBind_Video_merge) attends from frame to frame, so that a reversed video "
    "has other features and eight frames are one clip; built for the format of "
    "transformers (model_type video_llava, such as LanguageBind/Video-LLaVA-7B-hf)"
)


def open_checkpoint(
    kind: Kind, checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of one of the families.

    Raises:
      AuditError: It is a Video-LLaVA in the original format.
    """
    if ORIGINAL_TOWER in checkpoint.config:
        raise AuditError([_ORIGINAL])
    vision = checkpoint.config.get("vision_config")
    size = vision.get("image_size") if isinstance(vision, dict) else None
    size = size if type(size) is int and 1 <= size <= MAX_SIDE else 224
    prepare = _preprocessing(kind, checkpoint, size, problems)
    dtype = jnp.dtype(options.dtype)
    config, video_token = params.read_config(
        checkpoint.config, kind, dtype, prepare, problems
    )
    checkpoint, config = llava.settle_tie(
        checkpoint, config, params.patterns(kind), params.canonical, problems
    )
    vocabulary = options.tokenizer.get_vocab() if options.tokenizer else {}
    largest = max(vocabulary.values(), default=0)
    if largest >= config.text.vocab_size:
        problems.append(
            f"tokenizer: it has a token of number {largest}, and the model "
            f"{config.text.vocab_size} embeddings: is it another model's tokenizer?"
        )
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
    """Reads the settings for video frames from the file that transformers takes.

    That is `video_processor` in `processor_config.json`, else
    `video_preprocessor_config.json`: of an adapter, else of its base. Without them it
    is `preprocessor_config.json`, which may be of images alone. Without any the tower's
    own settings are taken, but of Video-LLaVA, whose towers are of no other repository.
    """
    siglip = kind.tower == "siglip"
    known, images = kind.processor, False
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
    elif kind is params.VIDEO_LLAVA:
        problems.append(
            f"none of {', '.join(names)} and {preprocessor_config.FILE} is there: "
            f"nothing says what is done to frames; save the model's {known.name} there"
        )
    return preprocessing.siglip(size) if siglip else preprocessing.clip(size)
