"""From the hyperparameters of a LLaVA model to its description."""

from typing import Any

from vidsme_jax.models import prompts
from vidsme_jax.models.frames import processing
from vidsme_jax.models.frames.flops import tower_flops
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.llava.modeling import Llava, LlavaConfig


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
