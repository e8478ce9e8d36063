"""Checkpoints of SmolVLM2: config, preprocessing, and the text between frames.

The processor writes how many frames there are, in words, how long the video is, and in
front of each frame its time. A prompt is as the processor's own chat template has it:
no system turn unless `model.prompt` asks for one. In training there was always one [1],
with the text `SYSTEM`.

[1] https://github.com/huggingface/smollm, vision/smolvlm2/smolvlm/datasets/dataset.py
"""

import dataclasses
import datetime
import functools

import jax.numpy as jnp

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import processor_config, prompts
from vidsme_jax.models.frames import params as frames
from vidsme_jax.models.frames import processing
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.rows import Shown
from vidsme_jax.models.smolvlm import params, preparing
from vidsme_jax.models.smolvlm.modeling import SmolVlm
from vidsme_jax.models.smolvlm.words import in_words
from vidsme_jax.models.tokenising import Framing, markers
from vidsme_jax.models.tokenizer_files import Tokenizer

IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
END = "<end_of_utterance>"
_MARKERS = {
    "image_token": IMAGE,
    "fake_image_token": FAKE,
    "global_image_token": GLOBAL,
}
STYLE = prompts.Style(
    f"System: {{}}{END}\n",
    f"User: {prompts.PLACEHOLDER}",
    f"{END}\nAssistant: ",
    END,
    start="<|im_start|>",
)
_TYPICAL = 13  # Tokens of text a frame: its time, digit by digit, and three markers.


def open_checkpoint(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of the family."""
    dtype = jnp.dtype(options.dtype)
    config, token = params.read_config(checkpoint.config, dtype, problems)
    prepare, remarks = preparing.read(checkpoint, config.vision.image_size, problems)
    square = prepare.square
    config = dataclasses.replace(config, image_mean=square.mean, image_std=square.std)
    checkpoint, config = frames.settle_tie(
        checkpoint,
        config,
        params.DECODER,
        params.HEAD,
        params.canonical,
        problems,
    )
    rows = {"image_seq_len": config.rows_per_frame}
    processor_config.compare(checkpoint, rows, problems)
    vision = config.vision
    model = processing.describe(
        lambda rngs: SmolVlm(config, rngs=rngs),
        config.text,
        options,
        STYLE,
        problems,
        rows_per_frame=config.rows_per_frame,
        vision_flops=config.vision_flops,
        tower=(vision.dtype, vision.hidden_size // vision.num_attention_heads),
        video_token=token,
        framing=framing(options.tokenizer),
        timed=True,
        ends=prompts.ends(checkpoint, options, STYLE, problems),
        family=params.NAME,
        remarks=(*checkpoint.remarks, *remarks),
        towers=("vision_model", "post_layernorm"),
        names=params.names(config),
        prepare=prepare,
    )
    return model, checkpoint


def framing(tokenizer: Tokenizer | None) -> Framing:
    """Returns what the processor writes for a video, with the tokenizer's markers."""
    image, fake, whole = markers(tokenizer, _MARKERS)
    return Framing(
        token=image,
        opens=functools.partial(_opens, fake + whole),
        close=fake,
        outro="\n\n",
        typical=_TYPICAL,
    )


def _opens(marker: str, shown: Shown) -> list[str]:
    """Returns the text in front of each frame, the first one's with the intro.

    Example:
      >>> _opens("", Shown(2, (0.0, 75.9), 80.0))[1]
      '\\nFrame from 01:15:'
    """
    length = datetime.timedelta(seconds=int(shown.length))
    intro = (
        "You are provided the following series of "
        f"{in_words(shown.num_frames)} frames from a {length} [H:MM:SS] video.\n"
    )
    times = [
        f"\nFrame from {int(second // 60):02d}:{int(second % 60):02d}:{marker}"
        for second in shown.seconds
    ]
    return [intro + times[0], *times[1:]]
