"""From a checkpoint of Hugging Face's LLaVA classes to the description of its model.

`open_checkpoint` reads preprocessing, config and prompt, in this order, and collects
every problem; `describe` puts module, tensor names, rows and cost together, also for
`llava_qwen`.
"""

from collections.abc import Container
from typing import Any

import jax.numpy as jnp

from vidsme_jax.checkpoints.fields import MAX_SIDE
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, processor_config, prompts
from vidsme_jax.models.frames import processing
from vidsme_jax.models.frames.flops import tower_flops
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.llava_hf import params, tensors
from vidsme_jax.models.llava_hf.modeling import Llava, LlavaConfig
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
    """Describes a checkpoint of one of the families.

    Args:
      kind: The family.
      checkpoint: Its small files and the headers of its tensors.
      options: The dtype and the tokenizer.
      problems: Receives one sentence for each thing that is wrong.

    Returns:
      The description, and the checkpoint with the tensors that are read.
    """
    vision = checkpoint.config.get("vision_config")
    size = vision.get("image_size") if isinstance(vision, dict) else None
    size = size if type(size) is int and 1 <= size <= MAX_SIDE else 224
    prepare = _preprocessing(kind, checkpoint, size, problems)
    dtype = jnp.dtype(options.dtype)
    config, video_token = params.read_config(
        checkpoint.config, kind, dtype, prepare, problems
    )
    processor_config.compare(checkpoint, _counts(kind, config.vision), problems)
    checkpoint, config = tensors.settle_tie(
        checkpoint, config, params.patterns(kind), params.canonical, problems
    )
    vocabulary = options.tokenizer.get_vocab() if options.tokenizer else {}
    style = _style(kind, checkpoint, vocabulary)
    model = describe(
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
    """Returns the sizes from which the family's processor counts a frame's tokens."""
    if kind is params.ONEVISION:
        return {"num_image_tokens": tower.grid**2}
    counts = {"patch_size": tower.patch_size}
    if kind is params.VIDEO_LLAVA:
        counts["num_additional_image_tokens"] = tower.extra
    return counts


def _style(
    kind: Kind, checkpoint: Checkpoint, vocabulary: Container[str]
) -> prompts.Style:
    """Returns the chat format of a model.

    LLaVA-NeXT-Video 7B is a Vicuna or a Mistral; the 34B model uses ChatML.
    """
    if kind is params.ONEVISION or "<|im_start|>" in vocabulary:
        return prompts.CHATML
    text = checkpoint.config.get("text_config")
    decoder = text.get("model_type") if isinstance(text, dict) else None
    return MISTRAL if decoder == "mistral" else prompts.VICUNA


def _preprocessing(
    kind: Kind, checkpoint: Checkpoint, size: int, problems: list[str]
) -> preprocessing.Preprocessing:
    """Reads the settings for video frames; without a file they are the tower's.

    Video-LLaVA needs its file: its towers have no repository of their own.
    """
    siglip = kind.tower == "siglip"
    default = preprocessing.siglip(size) if siglip else preprocessing.clip(size)
    if kind is params.VIDEO_LLAVA:
        default = None
    return processor_config.read(checkpoint, kind.processor, size, problems, default)


def describe(
    config: LlavaConfig,
    options: Options,
    style: prompts.Style,
    problems: list[str],
    **others: Any,
) -> Model:
    """Returns the description of a model; see `frames.processing.describe`."""
    vision = config.vision
    if config.side < 1:
        problems.append(
            f"config.json: frames are pooled by a stride of {config.pool_stride}, but "
            f"the tower has {vision.grid} x {vision.grid} patches"
        )
    return processing.describe(
        lambda rngs: Llava(config, rngs=rngs),
        config.text,
        options,
        style,
        problems,
        rows_per_frame=config.rows_per_frame,
        tail_rows=config.tail_rows,
        vision_flops=vision_flops(config),
        tower=(vision.dtype, vision.hidden_size // vision.num_attention_heads),
        **others,
    )


def vision_flops(config: LlavaConfig) -> int:
    """Counts the products of tower and projector on one frame."""
    v, t = config.vision, config.text
    projected = config.side**2 if config.pool_first else v.grid**2
    projected += v.extra * (config.pool == "none")
    projector = 2 * projected * (v.hidden_size + t.hidden_size) * t.hidden_size
    return projector + tower_flops(
        patches=v.grid**2,
        patch_size=v.patch_size,
        hidden_size=v.hidden_size,
        intermediate_size=v.intermediate_size,
        depth=config.vision_depth,
        extra=v.extra,
    )
