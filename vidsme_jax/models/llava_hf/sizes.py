"""Tiny and published models of these families, as `config.json` has them."""

from typing import Any

from vidsme_jax.models import preprocessing, preprocessor_config, sizes
from vidsme_jax.models.sizes import CLIP_LARGE, TINY_TEXT, TINY_TOWER, decoder

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


def _video_llava(vision: dict[str, Any], text: dict[str, Any], **others: Any) -> Any:
    config = {
        "model_type": "video_llava",
        "vision_config": {"model_type": "clip_vision_model"} | vision,
        "text_config": {"model_type": "llama", "rms_norm_eps": 1e-5} | text,
    }
    prepare = preprocessing.clip(vision["image_size"])
    return {
        "config.json": config | others,
        preprocessor_config.FILE: prepare.to_json(),
    }


_VICUNA = decoder(4096, 11008, 32, 32, 32, vocab_size=32064)
_VICUNA |= {"max_position_embeddings": 4096}
_LONGER = {"rope_scaling": {"type": "linear", "factor": 2.5}}
_MISTRAL = decoder(4096, 14336, 32, 32, 8, vocab_size=32064) | {
    "model_type": "mistral",
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
    "sliding_window": None,
}
_YI = decoder(7168, 20480, 60, 56, 8, vocab_size=64064) | {
    "max_position_embeddings": 4096,
    "rope_theta": 5e6,
}
# Of SigLIP, the published files leave the last layer out.
_SIGLIP = sizes.SIGLIP_SO400M | {"num_hidden_layers": 26}
_TINY_SIGLIP = TINY_TOWER | {"image_size": 70}
_SMALL = sizes.QWEN2_SMALL | {"vocab_size": 152000, "tie_word_embeddings": True}
NEXT_VIDEO = {
    "llava_next_video-tiny": _next_video(TINY_TOWER, TINY_TEXT, **_VIDEO_TOKEN),
    "llava_next_video-7b": _next_video(CLIP_LARGE, _VICUNA | _LONGER),
    "llava_next_video-7b-32k": _next_video(CLIP_LARGE, _MISTRAL),
    "llava_next_video-34b": _next_video(CLIP_LARGE, _YI),
}
ONEVISION = {
    "llava_onevision-tiny": _onevision(_TINY_SIGLIP, TINY_TEXT, **_VIDEO_TOKEN),
    "llava_onevision-0.5b": _onevision(_SIGLIP, _SMALL),
    "llava_onevision-7b": _onevision(_SIGLIP, sizes.QWEN2_7B | {"vocab_size": 152128}),
}
VIDEO_LLAVA = {
    "video_llava-tiny": _video_llava(TINY_TOWER, TINY_TEXT, **_VIDEO_TOKEN),
    "video_llava-7b": _video_llava(CLIP_LARGE | {"image_size": 224}, _VICUNA),
}
