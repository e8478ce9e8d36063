"""Tiny and published models of the two families, as `config.json` has them."""

from typing import Any

from vidsme_jax.models.llava.sizes import (
    CLIP_LARGE,
    QWEN2_7B,
    QWEN2_SMALL,
    SIGLIP_SO400M,
    TINY_TEXT,
    TINY_TOWER,
    decoder,
)

_VIDEO_TOKEN = {"video_token_index": 97}  # Of the tiny tokenizer.


def _next_video(vision: dict[str, Any], text: dict[str, Any], **others: Any) -> Any:
    config = {
        "model_type": "llava_next_video",
        "vision_config": {"model_type": "clip_vision_model"} | vision,
        "text_config": {"model_type": "llama", "rms_norm_eps": 1e-5} | text,
    }
    return {"config.json": config | others}


def _onevision(vision: dict[str, Any], text: dict[str, Any], **others: Any) -> Any:
    config = {
        "model_type": "llava_onevision",
        "vision_config": {"model_type": "siglip_vision_model"} | vision,
        "text_config": {"model_type": "qwen2", "rope_theta": 1e6} | text,
    }
    return {"config.json": config | others}


# Of SigLIP, the published files leave the last layer out.
_SIGLIP = SIGLIP_SO400M | {"num_hidden_layers": 26}
NEXT_VIDEO = {
    "llava_next_video-tiny": _next_video(TINY_TOWER, TINY_TEXT, **_VIDEO_TOKEN),
    "llava_next_video-7b": _next_video(
        CLIP_LARGE,
        decoder(4096, 11008, 32, 32, 32)
        | {
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "rope_scaling": {"type": "linear", "factor": 2.5},
        },
    ),
    "llava_next_video-34b": _next_video(
        CLIP_LARGE,
        decoder(7168, 20480, 60, 56, 8)
        | {"vocab_size": 64064, "max_position_embeddings": 4096, "rope_theta": 5e6},
    ),
}
ONEVISION = {
    "llava_onevision-tiny": _onevision(
        TINY_TOWER | {"image_size": 70}, TINY_TEXT, **_VIDEO_TOKEN
    ),
    "llava_onevision-0.5b": _onevision(
        _SIGLIP, QWEN2_SMALL | {"vocab_size": 152000, "tie_word_embeddings": True}
    ),
    "llava_onevision-7b": _onevision(_SIGLIP, QWEN2_7B | {"vocab_size": 152128}),
}
