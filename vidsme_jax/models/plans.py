"""Describes a model of the LLaVA families from its hyperparameters."""

import functools
from typing import Any

import numpy as np

from vidsme_jax.models import attention, llava
from vidsme_jax.models.flops import necessary_flops
from vidsme_jax.models.interface import Model
from vidsme_jax.models.llava import Llava, LlavaConfig
from vidsme_jax.models.prompts import Tokenise
from vidsme_jax.models.rows import Order

# The tower is copied: its frames are spread over all devices instead.
SPLIT = (
    (r"language_model/.*/(q|k|v|gate|up)_proj/(kernel|bias)", (-1,)),
    (r"language_model/.*/(o|down)_proj/kernel", (-2,)),
    (r"language_model/(lm_head|embed_tokens)/weight", (-2, -1)),
)


def describe(config: LlavaConfig, *, tokenise: Tokenise, **others: Any) -> Model:
    """Returns the description of a model.

    Args:
      config: Of the model.
      tokenise: See `Model`.
      **others: What follows neither from `config` nor from `tokenise`; see `Model`.
    """
    text = tokenise()
    return Model(
        max_rows=config.text.max_positions,
        vocab_size=config.text.vocab_size,
        make=lambda rngs: Llava(config, rngs=rngs),
        split=SPLIT,
        views=_views,
        lay_out=functools.partial(llava.lay_out, config),
        tokenise=tokenise,
        flops=functools.partial(
            necessary_flops, config, text=len(text.before) + len(text.after)
        ),
        kernels=functools.partial(_kernels, config),
        **others,
    )


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
