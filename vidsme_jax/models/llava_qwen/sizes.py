"""Tiny and published models: `config.json`, and that of the tower."""

from typing import Any

from vidsme_jax.models import sizes

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


def _files(config: dict[str, Any], kind: str, tower: dict[str, Any]) -> dict[str, Any]:
    """Returns both files; the tower's is in a folder named after its kind."""
    tower = {"model_type": f"{kind}_vision_model"} | tower
    return {"config.json": config, f"{kind}/config.json": tower}


def _longva(text: dict[str, Any], tower: dict[str, Any] = sizes.CLIP_LARGE) -> Any:
    return _files(_LONGVA | text, "clip", tower)


def _video(text: dict[str, Any], tower: dict[str, Any] = sizes.SIGLIP_SO400M) -> Any:
    return _files(_LLAVA_VIDEO | text, "siglip", tower)


_TINY_SIGLIP = sizes.TINY_TOWER | {"image_size": 70}
SIZES = {
    "llava_qwen-tiny": _longva(sizes.TINY_TEXT, sizes.TINY_TOWER),
    "llava_qwen-small": _longva(sizes.QWEN2_SMALL),
    "llava_qwen-7b": _longva(sizes.QWEN2_7B),
    "llava_qwen-72b": _longva(sizes.QWEN2_72B),
    "llava_video-tiny": _video(sizes.TINY_TEXT, _TINY_SIGLIP),
    "llava_video-7b": _video(sizes.QWEN2_7B),
    "llava_video-72b": _video(sizes.QWEN2_72B),
}
