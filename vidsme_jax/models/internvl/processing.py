"""Checkpoints of InternVL: config, preprocessing, and the numbers of frames as text.

The processor writes the number of each frame in front of it. A prompt is as the
published chat template has it: ChatML without a system turn unless `model.prompt` asks
for one.
"""

import dataclasses

import jax.numpy as jnp

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessor_config, processor_config, prompts
from vidsme_jax.models.frames import params as frames
from vidsme_jax.models.frames import processing
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.internvl import params
from vidsme_jax.models.internvl.modeling import InternVl
from vidsme_jax.models.rows import Shown
from vidsme_jax.models.tokenising import Framing, markers
from vidsme_jax.models.tokenizer_files import Tokenizer

START, END, CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
_MARKERS = {
    "start_image_token": START,
    "end_image_token": END,
    "context_image_token": CONTEXT,
}
KIND = preprocessor_config.Kind(
    "InternVLVideoProcessor", {"height": 384, "width": 384}, None, square=True
)
_TYPICAL = 6  # Tokens of text a frame: "Frame", its number, ":", " ", two markers.


def open_checkpoint(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of the family."""
    dtype = jnp.dtype(options.dtype)
    config, token = params.read_config(checkpoint.config, dtype, problems)
    vision = config.vision
    prepare = processor_config.read(checkpoint, KIND, vision.image_size, problems)
    config = dataclasses.replace(config, image_mean=prepare.mean, image_std=prepare.std)
    checkpoint, config = frames.settle_tie(
        checkpoint,
        config,
        params.DECODER,
        params.HEAD,
        params.canonical,
        problems,
    )
    rows = {"image_seq_length": config.rows_per_frame}
    processor_config.compare(checkpoint, rows, problems)
    model = processing.describe(
        lambda rngs: InternVl(config, rngs=rngs),
        config.text,
        options,
        prompts.CHATML,
        problems,
        rows_per_frame=config.rows_per_frame,
        vision_flops=config.vision_flops,
        tower=(vision.dtype, vision.hidden_size // vision.num_attention_heads),
        video_token=token,
        framing=framing(options.tokenizer),
        ends=prompts.ends(checkpoint, options, prompts.CHATML, problems),
        family=params.NAME,
        remarks=checkpoint.remarks,
        names=params.names(config),
        prepare=prepare,
    )
    return model, checkpoint


def framing(tokenizer: Tokenizer | None) -> Framing:
    """Returns what the processor writes for a video, with the tokenizer's markers."""
    start, end, context = markers(tokenizer, _MARKERS)

    def opens(shown: Shown) -> list[str]:
        opened = [f"\nFrame{k + 1}: {start}" for k in range(shown.num_frames)]
        return [opened[0].lstrip(), *opened[1:]]

    return Framing(token=context, opens=opens, close=end, typical=_TYPICAL)
