"""Fills a plan in from the hyperparameters of a model."""

import functools
from typing import Any

import numpy as np

from vidsme_jax.models import attention, llava
from vidsme_jax.models.flops import necessary_flops
from vidsme_jax.models.interface import ModelPlan
from vidsme_jax.models.llava import LlavaConfig
from vidsme_jax.models.prompts import Prompt
from vidsme_jax.models.rows import Text


def make(config: LlavaConfig, *, prompt: Prompt, **others: Any) -> ModelPlan:
    """Returns the plan of a model.

    Args:
      config: Of the model.
      prompt: The text around the video.
      **others: What does not follow from `config`; see `ModelPlan`.
    """
    text = len(prompt.prefix) + len(prompt.suffix)
    return ModelPlan(
        prompt=prompt,
        text=Text(prompt.prefix, prompt.suffix),
        lay_out=functools.partial(llava.lay_out, config),
        max_rows=config.text.max_positions,
        vocab_size=config.text.vocab_size,
        flops=functools.partial(necessary_flops, config, text=text),
        kernels=functools.partial(_kernels, config),
        **others,
    )


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
