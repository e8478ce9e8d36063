"""The config of LLaVA-NeXT-Video checkpoints; `dialects` has their tensors' names."""

from typing import Any

import numpy as np
from jax.typing import DTypeLike

from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.models import decoder, dialects, llava
from vidsme_jax.models.decoder import DecoderConfig
from vidsme_jax.models.llava import LlavaConfig
from vidsme_jax.models.towers import clip


def read_config(
    raw: dict[str, Any],
    dtype: DTypeLike,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    problems: list[str],
) -> tuple[LlavaConfig, int]:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Args:
      raw: The file's content.
      dtype: Of parameters and activations.
      mean: Of the preprocessing.
      std: Of the preprocessing.
      problems: Receives one sentence a key.

    Returns:
      The model's hyperparameters, and the id of the video token.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", "llava_next_video")
    fields.expect("projector_hidden_act", "gelu")
    fields.expect("multimodal_projector_bias", True)
    fields.expect("spatial_pool_mode", "average")
    fields.expect("vision_feature_select_strategy", "default")
    tied = fields.take("tie_word_embeddings", bool, False)
    inner = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision = clip.read_config(inner, dtype)
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    text = DecoderConfig.from_llama(inner, dtype, tied=tied)
    inner.close(decoder.IGNORED)
    layer = fields.take("vision_feature_layer", int, -2)
    stride = fields.size("spatial_pool_stride", 2)
    token = fields.take("video_token_id", int, None)
    token = fields.take("video_token_index", int, 32000 if token is None else token)
    fields.close(dialects.IGNORED)
    config = LlavaConfig(
        vision=vision,
        text=text,
        vision_depth=llava.depth(layer, vision, "vision_feature_layer", problems),
        pool="average",
        pool_stride=stride,
        pool_first=True,
        newline="none",
        image_mean=mean,
        image_std=std,
    )
    return config, token


def unused_tensors(config: LlavaConfig) -> dict[str, np.ndarray]:
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
