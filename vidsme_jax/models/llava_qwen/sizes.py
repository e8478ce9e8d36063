"""Tiny and published models: `config.json`, and that of the tower beside it."""

from typing import Any

from vidsme_jax.models.llava.sizes import (
    CLIP_LARGE,
    QWEN2_7B,
    QWEN2_72B,
    QWEN2_SMALL,
    SIGLIP_SO400M,
    TINY_TEXT,
    TINY_TOWER,
)

ARCHITECTURE = "LlavaQwenForCausalLM"
_LONGVA = {
    "architectures": [ARCHITECTURE],
    "model_type": "llava_qwen",
    "mm_patch_merge_type": "unires",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_tower": "./clip",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e9,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
    "max_position_embeddings": 224000,
}
_LLAVA_VIDEO = {
    **_LONGVA,
    "mm_vision_tower": "./siglip",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "grid",
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
}


def _longva(text: dict[str, Any], tower: dict[str, Any] = CLIP_LARGE) -> dict[str, Any]:
    tower = {"model_type": "clip_vision_model"} | tower
    return {"config.json": _LONGVA | text, "clip/config.json": tower}


def _llava_video(
    text: dict[str, Any], tower: dict[str, Any] = SIGLIP_SO400M
) -> dict[str, Any]:
    tower = {"model_type": "siglip_vision_model"} | tower
    return {"config.json": _LLAVA_VIDEO | text, "siglip/config.json": tower}


SIZES = {
    "llava_qwen-tiny": _longva(TINY_TEXT, TINY_TOWER),
    "llava_qwen-small": _longva(QWEN2_SMALL),
    "llava_qwen-7b": _longva(QWEN2_7B),
    "llava_qwen-72b": _longva(QWEN2_72B),
    "llava_video-tiny": _llava_video(TINY_TEXT, TINY_TOWER | {"image_size": 70}),
    "llava_video-7b": _llava_video(QWEN2_7B),
    "llava_video-72b": _llava_video(QWEN2_72B),
}
