"""The config of LLaVA-OneVision checkpoints; `dialects` has their tensors' names."""

from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.models import decoder, dialects, llava
from vidsme_jax.models.decoder import DecoderConfig
from vidsme_jax.models.llava import LlavaConfig
from vidsme_jax.models.towers import siglip


def read_config(
    raw: dict[str, Any],
    dtype: DTypeLike,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    problems: list[str],
) -> tuple[LlavaConfig, int]:
    """Reads a `config.json`; see `llava_next_video.params.read_config`."""
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", "llava_onevision")
    fields.expect("projector_hidden_act", "gelu")
    fields.expect("multimodal_projector_bias", True)
    fields.expect("vision_feature_select_strategy", "full")
    tied = fields.take("tie_word_embeddings", bool, False)
    inner = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision = siglip.read_config(inner, dtype)
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    inner.expect("model_type", "qwen2")
    tied = tied or bool(inner.raw.get("tie_word_embeddings", False))
    text = DecoderConfig.from_qwen2(inner, dtype, tied=tied)
    inner.close(decoder.IGNORED)
    layer = fields.take("vision_feature_layer", int, -1)
    token = fields.take("video_token_id", int, None)
    token = fields.take("video_token_index", int, 151647 if token is None else token)
    fields.close(dialects.IGNORED)
    config = LlavaConfig(
        vision=vision,
        text=text,
        vision_depth=llava.depth(layer, vision, "vision_feature_layer", problems),
        pool="bilinear",
        pool_stride=2,
        pool_first=False,
        newline="video",
        image_mean=mean,
        image_std=std,
    )
    return config, token
