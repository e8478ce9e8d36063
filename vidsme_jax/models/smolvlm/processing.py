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
from typing import Any

import jax.numpy as jnp

from vidsme_jax.checkpoints import content, files
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import prompts
from vidsme_jax.models.frames import processing
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.rows import Shown
from vidsme_jax.models.smolvlm import params, preparing
from vidsme_jax.models.smolvlm.modeling import SmolVlm, SmolVlmConfig
from vidsme_jax.models.smolvlm.words import in_words
from vidsme_jax.models.tokenising import Framing

IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
END = "<end_of_utterance>"
STYLE = prompts.Style(
    f"System: {{}}{END}\n",
    f"User: {prompts.PLACEHOLDER}",
    f"{END}\nAssistant: ",
    END,
    start="<|im_start|>",
)
_TYPICAL = 13  # Tokens beside a frame: its time, digit by digit, and three markers.
_SEQUENCE = "image_seq_len"


def open_checkpoint(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint of the family."""
    dtype = jnp.dtype(options.dtype)
    config, token = params.read_config(checkpoint.config, dtype, problems)
    prepare, remarks = preparing.read(checkpoint, config.vision.image_size, problems)
    square = prepare.square
    config = dataclasses.replace(config, image_mean=square.mean, image_std=square.std)
    checkpoint, config = params.settle_tie(checkpoint, config, problems)
    _check_length(checkpoint, config, problems)
    vocabulary = options.tokenizer.get_vocab() if options.tokenizer else {}
    largest = max(vocabulary.values(), default=0)
    if largest >= config.text.vocab_size:
        problems.append(
            f"tokenizer: it has a token of number {largest}, and the model "
            f"{config.text.vocab_size} embeddings: is it another model's tokenizer?"
        )
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
        names=params.names(config),
        prepare=prepare,
    )
    return model, checkpoint


def framing(tokenizer: Any) -> Framing:
    """Returns what the processor writes for a video, with the tokenizer's markers."""
    image, fake, whole = (
        getattr(tokenizer, name, text)
        for name, text in (
            ("image_token", IMAGE),
            ("fake_image_token", FAKE),
            ("global_image_token", GLOBAL),
        )
    )
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


def _check_length(
    checkpoint: Checkpoint, config: SmolVlmConfig, problems: list[str]
) -> None:
    """Refuses a processor that writes another number of tokens for a frame."""
    for folder in checkpoint.folders:
        path = folder / "processor_config.json"
        found = files.read_json(path).get(_SEQUENCE) if path.is_file() else None
        if found is not None and found != config.rows_per_frame:
            problems.append(
                f"processor_config.json: {_SEQUENCE} is {content.shown(found)}, but a "
                f"frame has {config.rows_per_frame} rows: {config.vision.grid} x "
                f"{config.vision.grid} patches over scale_factor "
                f"{config.scale_factor} squared"
            )
        if found is not None:
            return
