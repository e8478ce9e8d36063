"""The config and the tensors of LLaVA-NeXT-Video checkpoints, in three name dialects.

A, published files: `language_model.model.layers...`, `vision_tower.vision_model...`.
B, in the memory of transformers 5: `model.language_model.layers...`, no `vision_model`.
C, written by transformers 5: as A, but without `vision_model`.
Dialect A is the canonical one.
"""

import re
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.models import clip_vit, decoder
from vidsme_jax.models.clip_vit import ClipVitConfig
from vidsme_jax.models.decoder import DecoderConfig
from vidsme_jax.models.llava_next_video.modeling import LlavaNextVideoConfig

_RENAMES = (
    (r"model\.language_model\.", "language_model.model."),
    (r"model\.(vision_tower|multi_modal_projector|image_newline)", r"\1"),
    (r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
    (r"lm_head\.", "language_model.lm_head."),
)
_CONFIG_IGNORED = {
    "image_grid_pinpoints": "of still images",
    "image_seq_length": "of still images",
    "image_token_index": "of still images",
    "ignore_index": "of the training loss",
    "use_image_newline_parameter": "the newline is not used for video",
    "video_seq_length": "follows from the frames",
    "vision_aspect_ratio": "of still images",
    "image_token_id": "of still images",
}


def read_config(
    raw: dict[str, Any],
    dtype: DTypeLike,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    problems: list[str],
) -> LlavaNextVideoConfig:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Args:
      raw: The file's content.
      dtype: Of parameters and activations.
      mean: Of the preprocessing.
      std: Of the preprocessing.
      problems: Receives one sentence a key.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", "llava_next_video")
    fields.expect("projector_hidden_act", "gelu")
    fields.expect("multimodal_projector_bias", True)
    fields.expect("spatial_pool_mode", "average")
    fields.expect("vision_feature_select_strategy", "default")
    tied = fields.take("tie_word_embeddings", bool, False)
    inner = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision = ClipVitConfig.from_fields(inner, dtype)
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    text = DecoderConfig.from_llama(inner, dtype, tied=tied)
    layer = fields.take("vision_feature_layer", int, -2)
    depth = layer if layer >= 0 else vision.num_hidden_layers + 1 + layer
    if not 1 <= depth <= vision.num_hidden_layers:
        problems.append(
            f"config.json: vision_feature_layer is {layer}, the tower has "
            f"{vision.num_hidden_layers} layers"
        )
    stride = fields.size("spatial_pool_stride", 2)
    token = fields.take("video_token_id", int, None)
    token = fields.take("video_token_index", int, 32000 if token is None else token)
    fields.close(_CONFIG_IGNORED)
    return LlavaNextVideoConfig(
        vision=vision,
        text=text,
        vision_depth=min(max(depth, 1), vision.num_hidden_layers),
        spatial_pool_stride=stride,
        video_token_index=token,
        image_mean=mean,
        image_std=std,
    )


def canonical(name: str) -> str:
    """Renames a tensor of any dialect to dialect A."""
    for pattern, replacement in _RENAMES:
        name = re.sub("^" + pattern, replacement, name)
    return name


def rules(config: LlavaNextVideoConfig) -> list[Rule]:
    """Where the tensors of dialect A go."""
    projector = "multi_modal_projector"
    out = clip_vit.rules(r"vision_tower\.vision_model\.", "vision_tower")
    for name in ("linear_1", "linear_2"):
        target = f"{projector}/{name}"
        out.append(Rule(rf"{projector}\.{name}\.weight", f"{target}/kernel", "linear"))
        out.append(Rule(rf"{projector}\.{name}\.bias", f"{target}/bias"))
    text = decoder.rules(
        r"language_model\.model\.",
        r"language_model\.lm_head",
        "language_model",
        bias=config.text.attention_bias,
    )
    if config.text.tie_word_embeddings:
        text = [rule for rule in text if not rule.path.endswith("lm_head/weight")]
    return out + text


def ignored(config: LlavaNextVideoConfig) -> dict[str, str]:
    """Patterns of dialect A that no parameter is filled from, with the reason."""
    tower = r"vision_tower\.vision_model\."
    out = {
        "image_newline": "separates rows of still images; video has none",
        tower + r"post_layernorm\..*": "after the layer whose features are used",
        tower + r"embeddings\.position_ids": "0, 1, 2, ...",
        r"language_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": (
            "follows from the config"
        ),
    }
    for layer in range(config.vision_depth, config.vision.num_hidden_layers):
        pattern = rf"{tower}encoder\.layers\.{layer}\..*"
        out[pattern] = "after the layer whose features are used"
    if config.text.tie_word_embeddings:
        out[r"language_model\.lm_head\.weight"] = "tied to the embeddings"
    return out


def unused_tensors(config: LlavaNextVideoConfig) -> dict[str, np.ndarray]:
    """The tensors that `ignored` leaves out but transformers expects, for writing."""
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
