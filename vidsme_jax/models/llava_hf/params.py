"""Config and tensor names of Hugging Face's LLaVA-NeXT-Video and LLaVA-OneVision.

Their classes give tensors names in three dialects.
A, published files: `language_model.model.layers...`, `vision_tower.vision_model...`.
B, in the memory of transformers 5: `model.language_model.layers...`, no `vision_model`.
C, written by transformers 5: as A, but without `vision_model`.
Dialect A is the canonical one.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import MAX_SIZE, Fields, by_key
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.frames.params import depth
from vidsme_jax.models.llava import params
from vidsme_jax.models.llava.modeling import LlavaConfig
from vidsme_jax.models.preprocessing import Preprocessing
from vidsme_jax.models.towers import vit

_RENAMES = [
    (re.compile(f"^{pattern}"), replacement)
    for pattern, replacement in (
        (r"model\.language_model\.", "language_model.model."),
        (r"model\.(vision_tower|multi_modal_projector|image_newline)", r"\1"),
        (r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
        (r"lm_head\.", "language_model.lm_head."),
    )
]
PATTERNS = params.Patterns(
    tower=r"vision_tower\.vision_model\.",
    projector=(
        r"multi_modal_projector\.linear_1",
        r"multi_modal_projector\.linear_2",
    ),
    decoder=r"language_model\.model\.",
    head=r"language_model\.lm_head",
    newline="image_newline",
)
# Keys of `config.json` that concern still images or training.
_IGNORED = by_key(
    {
        "of still images": """image_grid_pinpoints image_seq_length image_token_id
            image_token_index vision_aspect_ratio""",
        "of the training loss": "ignore_index",
        "the family says how newlines are used": "use_image_newline_parameter",
        "follows from the frames": "video_seq_length",
    }
)


class Kind(NamedTuple):
    """Where the configs of the two families differ.

    Attributes:
      name: `model_type`.
      tower: "clip" or "siglip".
      decoders: What `model_type` of the text config may be; absent is the first.
      strategy: `vision_feature_select_strategy`.
      layer: `vision_feature_layer` by default.
      video_token: Its id by default.
      pooling: Of `LlavaConfig`, without the stride.
    """

    name: str
    tower: str
    decoders: tuple[str, ...]
    strategy: str
    layer: int
    video_token: int
    pooling: dict[str, Any]


NEXT_VIDEO = Kind(
    name="llava_next_video",
    tower="clip",
    decoders=("llama",),
    strategy="default",
    layer=-2,
    video_token=32000,
    pooling={"pool": "average", "pool_first": True, "newline": "none"},
)
ONEVISION = Kind(
    name="llava_onevision",
    tower="siglip",
    decoders=("qwen2",),
    strategy="full",
    layer=-1,
    video_token=151647,
    pooling={"pool": "bilinear", "pool_first": False, "newline": "video"},
)


def canonical(name: str) -> str:
    """Renames a tensor of any dialect to dialect A."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def read_config(
    raw: dict[str, Any],
    kind: Kind,
    dtype: DTypeLike,
    prepare: Preprocessing,
    problems: list[str],
) -> tuple[LlavaConfig, int]:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Args:
      raw: The file's content.
      kind: Which family's it is.
      dtype: Of parameters and activations.
      prepare: The preprocessing.
      problems: Receives one sentence a key.

    Returns:
      The model's hyperparameters, and the id of the video token.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", kind.name)
    fields.expect("projector_hidden_act", "gelu")
    fields.expect("multimodal_projector_bias", True)
    fields.expect("vision_feature_select_strategy", kind.strategy)
    stride = 2
    if kind.pooling["pool"] == "average":
        fields.expect("spatial_pool_mode", "average")
        stride = fields.size("spatial_pool_stride", 2)
    tied = fields.take("tie_word_embeddings", bool, False)
    inner = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision = vit.read_config(inner, kind.tower, dtype)
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    # Either says it, and both are false by default.
    tied = tied or inner.take("tie_word_embeddings", bool, False)
    text = DecoderConfig.from_text(inner, dtype, tied=tied, known=kind.decoders)
    inner.close(decoder_params.IGNORED)
    layer = fields.take("vision_feature_layer", int, kind.layer)
    token = fields.take("video_token_id", int, kind.video_token)
    token = fields.take("video_token_index", int, token)
    if not 0 <= token <= MAX_SIZE:
        problems.append(
            f"config.json: the video token is {content.shown(token)}, expected 0 to "
            f"{MAX_SIZE}"
        )
    fields.close(_IGNORED)
    config = LlavaConfig(
        vision=vision,
        text=text,
        vision_depth=depth(
            layer, vision.num_hidden_layers, "vision_feature_layer", problems
        ),
        pool_stride=stride,
        image_mean=prepare.mean,
        image_std=prepare.std,
        **kind.pooling,
    )
    return config, token


def unused(config: LlavaConfig) -> dict[str, np.ndarray]:
    """Returns the tensors of LLaVA-NeXT-Video that no pass needs, for writing."""
    v, tower = config.vision, "vision_tower.vision_model."
    size, wide = v.hidden_size, v.intermediate_size
    out: dict[str, np.ndarray] = {}
    out["image_newline"] = np.zeros(config.text.hidden_size, np.float32)
    out[f"{tower}post_layernorm.weight"] = np.ones(size, np.float32)
    out[f"{tower}post_layernorm.bias"] = np.zeros(size, np.float32)
    shapes = {f"self_attn.{n}_proj": (size, size) for n in ("q", "k", "v", "out")}
    shapes |= {"mlp.fc1": (wide, size), "mlp.fc2": (size, wide)}
    for layer in range(config.vision_depth, v.num_hidden_layers):
        block = f"{tower}encoder.layers.{layer}."
        for norm in ("layer_norm1", "layer_norm2"):
            out[f"{block}{norm}.weight"] = np.ones(size, np.float32)
            out[f"{block}{norm}.bias"] = np.zeros(size, np.float32)
        for name, shape in shapes.items():
            out[f"{block}{name}.weight"] = np.zeros(shape, np.float32)
            out[f"{block}{name}.bias"] = np.zeros(shape[0], np.float32)
    return out
