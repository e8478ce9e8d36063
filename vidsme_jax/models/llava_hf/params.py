"""Config and tensor names of Hugging Face's LLaVA classes for videos.

Tensors have names in three dialects.
A, published files: `language_model.model.layers...`, `vision_tower.vision_model...`.
B, in the memory of transformers 5: `model.language_model.layers...`, no `vision_model`.
C, written by transformers 5: as A, but without `vision_model`.
Dialect A is the canonical one. Video-LLaVA has two towers: `image_tower` for still
images and `video_tower`.
"""

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from vidsme_jax.checkpoints.fields import Fields, by_key
from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.models import decoder_params, preprocessor_config
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.frames.params import depth
from vidsme_jax.models.llava_hf import tensors
from vidsme_jax.models.llava_hf.modeling import LlavaConfig
from vidsme_jax.models.preprocessing import Preprocessing
from vidsme_jax.models.towers import vit
from vidsme_jax.models.towers.vit import VitConfig

_RENAMES = [
    (re.compile(f"^{pattern}"), replacement)
    for pattern, replacement in (
        (r"model\.language_model\.", "language_model.model."),
        (
            r"model\.((?:vision|image|video)_tower|multi_modal_projector|image_newline)",
            r"\1",
        ),
        (r"((?:vision|image|video)_tower)\.(?!vision_model\.)", r"\1.vision_model."),
        (r"lm_head\.", "language_model.lm_head."),
    )
]
_PATTERNS = tensors.Patterns(
    tower="",  # See `patterns`.
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
    """What differs between the families.

    Attributes:
      name: `model_type`.
      tower: "clip" or "siglip".
      tower_name: Of the tower that encodes videos.
      decoders: What `model_type` of the text config may be; absent is the first.
      strategies: What `vision_feature_select_strategy` may be; absent is the first.
      layer: `vision_feature_layer` by default.
      video_token: Its id by default.
      pooling: Of `LlavaConfig`, without the stride.
      processor: Of its videos.
    """

    name: str
    tower: str
    tower_name: str
    decoders: tuple[str, ...]
    strategies: tuple[str, ...]
    layer: int
    video_token: int
    pooling: dict[str, Any]
    processor: preprocessor_config.Kind


NEXT_VIDEO = Kind(
    name="llava_next_video",
    tower="clip",
    tower_name="vision_tower",
    decoders=("llama", "mistral"),
    strategies=("default",),
    layer=-2,
    video_token=32000,
    pooling={"pool": "average", "pool_first": True, "newline": "none"},
    processor=preprocessor_config.NEXT_VIDEO,
)
ONEVISION = Kind(
    name="llava_onevision",
    tower="siglip",
    tower_name="vision_tower",
    decoders=("qwen2",),
    strategies=("full",),
    layer=-1,
    video_token=151647,
    pooling={"pool": "bilinear", "pool_first": False, "newline": "video"},
    processor=preprocessor_config.ONEVISION,
)
VIDEO_LLAVA = Kind(
    name="video_llava",
    tower="clip",
    tower_name="video_tower",
    decoders=("llama",),
    strategies=("default", "full"),  # Of images; frames keep the class token.
    layer=-2,
    video_token=32001,
    pooling={"pool": "none", "pool_first": False, "newline": "none"},
    processor=dataclasses.replace(
        preprocessor_config.CLIP, name="VideoLlavaVideoProcessor"
    ),
)


def patterns(kind: Kind) -> tensors.Patterns:
    """Returns the patterns of a family's tensors, in dialect A."""
    return _PATTERNS._replace(tower=rf"{kind.tower_name}\.vision_model\.")


def names(kind: Kind, config: LlavaConfig) -> Names:
    """Returns the names of a model's tensors."""
    out = tensors.names(config, patterns(kind), canonical)
    ignored = dict(out.ignored)
    if kind is VIDEO_LLAVA:
        ignored[r"image_tower\..*"] = "of still images; frames go through video_tower"
    return out._replace(ignored=ignored, unused=lambda: _unused(kind, config))


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
      kind: The family.
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
    fields.expect("vision_feature_select_strategy", *kind.strategies)
    stride = 2
    if kind.pooling["pool"] == "average":
        fields.expect("spatial_pool_mode", "average")
        stride = fields.size("spatial_pool_stride", 2)
    tied = fields.take("tie_word_embeddings", bool, False)
    inner = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision = vit.read_config(inner, kind.tower, dtype)
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    # Either key may set it; both are false by default.
    tied = tied or inner.take("tie_word_embeddings", bool, False)
    text = DecoderConfig.from_text(inner, dtype, tied=tied, known=kind.decoders)
    inner.close(decoder_params.IGNORED)
    layer = fields.take("vision_feature_layer", int, kind.layer)
    token = fields.token("video_token_id", kind.video_token)
    token = fields.token("video_token_index", token)
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


def _unused(kind: Kind, config: LlavaConfig) -> dict[str, np.ndarray]:
    """Returns the tensors that no pass reads but other libraries expect."""
    tower = f"{kind.tower_name}.vision_model."
    out = tensors.unused_tower(tower, config.vision, config.vision_depth)
    if kind is NEXT_VIDEO:
        out["image_newline"] = np.zeros(config.text.hidden_size, np.float32)
    return out | (_of_images(config.vision) if kind is VIDEO_LLAVA else {})


def _of_images(v: VitConfig) -> dict[str, np.ndarray]:
    """Returns the tower of still images, for writing."""
    tower = "image_tower.vision_model."
    embeddings = f"{tower}embeddings."
    size, patch = v.hidden_size, v.patch_size
    shapes = {
        "class_embedding": (size,),
        "patch_embedding.weight": (size, 3, patch, patch),
        "position_embedding.weight": (v.grid**2 + v.extra, size),
    }
    out = {
        embeddings + name: np.zeros(shape, np.float32) for name, shape in shapes.items()
    }
    out |= tensors.unused_norm(f"{tower}pre_layrnorm", size)
    return out | tensors.unused_tower(tower, v, 0)
