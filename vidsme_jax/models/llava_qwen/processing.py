"""Original-format checkpoints: config, tower, preprocessing and prompt."""

import jax.numpy as jnp

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, preprocessor_config, prompts
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.llava_hf import processing, tensors
from vidsme_jax.models.llava_qwen import params, towers

_SYSTEM = "You are a helpful assistant."  # The system turn of the family's own prompt.


def open_checkpoint(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint, whose tower may be in another repository."""
    remarks: list[str] = []
    checkpoint, tower, image = towers.find(
        checkpoint, allow_pickle=options.allow_pickle, remarks=remarks
    )
    dtype, tokenizer = jnp.dtype(options.dtype), options.tokenizer
    vision = towers.read(tower, dtype, problems)
    if vision.kind == "siglip":  # Its code reads no file.
        prepare = preprocessing.siglip(vision.image_size)
    elif image is None:
        prepare = preprocessing.clip(vision.image_size)
    else:
        kind, where = preprocessor_config.CLIP, f"{preprocessor_config.FILE} of "
        prepare = preprocessor_config.read(
            image, kind, vision.image_size, problems, where + "mm_vision_tower"
        )
    config = params.read_config(
        checkpoint.config,
        vision,
        None if tokenizer is None else len(tokenizer),
        dtype,
        prepare,
        problems,
        remarks,
    )
    checkpoint, config = tensors.settle_tie(
        checkpoint, config, params.PATTERNS, params.canonical, problems
    )
    if beacons := params.beacons(checkpoint.tensors):
        remarks.append(beacons)
    model = processing.describe(
        config,
        options,
        prompts.CHATML,
        problems,
        default=_SYSTEM,
        ends=prompts.ends(checkpoint, options, prompts.CHATML, problems),
        family="llava_qwen",
        remarks=(*checkpoint.remarks, *remarks),
        names=params.names(config),
        prepare=prepare,
    )
    return model, checkpoint
