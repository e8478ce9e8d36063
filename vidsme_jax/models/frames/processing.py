"""From the hyperparameters of a LLaVA model to its description: layout and cost."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidsme_jax.models import attention, prompts
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.frames.flops import necessary_flops
from vidsme_jax.models.llava.modeling import Llava, LlavaConfig
from vidsme_jax.models.llava.params import SPLIT
from vidsme_jax.models.rows import Builder, Order, Rows, Shown, Text
from vidsme_jax.models.tokenising import Tokeniser


def describe(
    config: LlavaConfig,
    options: Options,
    style: prompts.Style,
    problems: list[str],
    *,
    default: str = "",
    video_token: int | None = None,
    **others: Any,
) -> Model:
    """Returns the description of a model.

    Args:
      config: Of the model.
      options: Its type, which prompt, and the tokenizer.
      style: See `prompts.around_video`, and the next three.
      problems: Receives what is wrong with the prompt.
      default: The family's own system text.
      video_token: The id of the placeholder.
      **others: What does not follow from these; see `Model`.
    """
    prompt, tokenise = prompts.around_video(
        options, style, problems, default=default, video_token=video_token
    )
    if config.side < 1:
        problems.append(
            f"config.json: frames are pooled by a stride of {config.pool_stride}, but "
            f"the tower has {config.vision.grid} x {config.vision.grid} patches"
        )
    text = tokenise()
    if isinstance(tokenise, Tokeniser):
        others["decode"] = tokenise.decode
    return Model(
        dtype=options.dtype,
        prompt=prompt,
        max_rows=config.text.max_positions,
        vocab_size=config.text.vocab_size,
        make=lambda rngs: Llava(config, rngs=rngs),
        split=SPLIT,
        views=_views,
        lay_out=functools.partial(lay_out, config),
        tokenise=tokenise,
        flops=functools.partial(
            necessary_flops, config, text=len(text.before) + len(text.after)
        ),
        kernels=functools.partial(_kernels, config),
        **others,
    )


def lay_out(
    config: LlavaConfig,
    shown: Shown,
    prompt: Text,
    order: Order,
    texts: Sequence[Text] = (),
    slices: Sequence[str] = ("video",),
) -> Rows:
    """Returns the rows of a sample: text, frames in an order, newline, texts.

    Args:
      config: Of the model.
      shown: Of the clip.
      prompt: Around the video.
      order: Of the frames.
      texts: Asked about the clip.
      slices: Whose rows are kept.
    """
    builder, per_frame = Builder(), np.arange(config.rows_per_frame)
    builder.text(prompt.before)
    for frame in order.tolist():
        start = config.tail_rows + frame * len(per_frame)
        builder.video(start + per_frame, frame)
    builder.video(np.arange(config.tail_rows), frame=-1)
    builder.behind(prompt.after)
    for text in texts:
        builder.ask(text)
    return builder.build(slices)


def _views(order: Order) -> tuple[Order, ...]:
    return (np.arange(len(order), dtype=np.int32),)


def _kernels(config: LlavaConfig) -> dict[str, str]:
    vision, text = config.vision, config.text
    sizes = {
        "tower": (vision.dtype, vision.hidden_size // vision.num_attention_heads),
        "decoder": (text.dtype, text.head_dim),
    }
    return {
        part: attention.kernel(np.dtype(dtype), head_dim)
        for part, (dtype, head_dim) in sizes.items()
    }
