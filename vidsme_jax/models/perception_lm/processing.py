"""Checkpoints of PerceptionLM: config, preprocessing and prompt.

Videos were resized in torch in training, with an antialiased bicubic filter, as the
video processor of transformers does it; Pillow's, which is built here, differs by
rounding.
"""

import jax.numpy as jnp

from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessor_config, processor_config, prompts
from vidsme_jax.models.frames import params as frames
from vidsme_jax.models.frames import processing
from vidsme_jax.models.frames.flops import tower_flops
from vidsme_jax.models.interface import Model, Options
from vidsme_jax.models.perception_lm import params
from vidsme_jax.models.perception_lm.modeling import PerceptionLm, PerceptionLmConfig
from vidsme_jax.models.tokenising import Framing

_HALF = (0.5, 0.5, 0.5)
_KIND = preprocessor_config.Kind(
    "PerceptionLMVideoProcessor",
    {"height": 448, "width": 448},
    None,
    _HALF,
    _HALF,
    square=True,
)
_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
_END = "<|eot_id|>"
# The chat template, whose first token the tokenizer puts in front of every text.
STYLE = prompts.Style(
    f"{_HEADER.format('system')}{{}}{_END}",
    f"{_HEADER.format('user')}{prompts.PLACEHOLDER}",
    f"{_END}{_HEADER.format('assistant')}",
    _END,
    start=None,
)
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the "
    "visual content that the user provides, and assist the user with a variety of "
    "tasks using natural language."
)


def open_checkpoint(
    checkpoint: Checkpoint, options: Options, problems: list[str]
) -> tuple[Model, Checkpoint]:
    """Describes a checkpoint."""
    dtype = jnp.dtype(options.dtype)
    vision = params.read_vision(checkpoint.config, dtype, problems)
    prepare = processor_config.read(checkpoint, _KIND, vision.img_size, problems)
    config, video_token = params.read_config(
        checkpoint.config, vision, prepare, problems
    )
    wanted = {"patch_size": vision.patch_size, "pooling_ratio": config.pooling}
    processor_config.compare(checkpoint, wanted, problems)
    checkpoint, config = frames.settle_tie(
        checkpoint,
        config,
        params.DECODER,
        params.HEAD,
        params.canonical,
        problems,
    )
    model = processing.describe(
        lambda rngs: PerceptionLm(config, rngs=rngs),
        config.text,
        options,
        STYLE,
        problems,
        rows_per_frame=config.rows_per_frame,
        vision_flops=vision_flops(config),
        tower=(dtype, vision.head_dim),
        default=SYSTEM,
        video_token=video_token,
        framing=Framing(token="<|video|>"),
        ends=prompts.ends(checkpoint, options, STYLE, problems),
        family="perception_lm",
        remarks=checkpoint.remarks,
        names=params.names(config),
        prepare=prepare,
    )
    return model, checkpoint


def vision_flops(config: PerceptionLmConfig) -> int:
    """Counts the products of tower and projector on one frame."""
    v, size = config.vision, config.text.hidden_size
    projector = 2 * v.grid**2 * (v.embed_dim + size) * size
    return projector + tower_flops(
        patches=v.grid**2,
        patch_size=v.patch_size,
        hidden_size=v.embed_dim,
        intermediate_size=v.mlp_size,
        depth=v.depth,
        extra=int(v.class_token),
    )
