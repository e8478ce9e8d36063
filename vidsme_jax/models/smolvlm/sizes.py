"""Tiny and published models, as their JSON files have them."""

from typing import Any

from vidsme_jax.models.sizes import SIGLIP_SO400M, decoder, tower

_TINY_TOWER = tower(48, 96, 3, 4, 64, 8)
_BASE = tower(768, 3072, 12, 12, 512, 16)


def _files(
    vision: dict[str, Any],
    text: dict[str, Any],
    factor: int,
    images: int,
    **others: Any,
) -> dict[str, Any]:
    side = vision["image_size"]
    config = {
        "model_type": "smolvlm",
        "scale_factor": factor,
        "image_token_id": 49190,
        "vision_config": {"model_type": "smolvlm_vision"} | vision,
        "text_config": {"model_type": "llama", "rms_norm_eps": 1e-5} | text,
    }
    half, square = [0.5, 0.5, 0.5], {"longest_edge": side}
    processor = {
        "image_processor_type": "SmolVLMImageProcessor",
        **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
        **dict.fromkeys(("do_convert_rgb", "do_pad", "do_image_splitting"), True),
        "image_mean": half,
        "image_std": half,
        "max_image_size": square,
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": images},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": square},
    }
    rows = (side // vision["patch_size"] // factor) ** 2
    return {
        "config.json": config | others,
        "preprocessor_config.json": processor,
        "processor_config.json": {"image_seq_len": rows},
    }


def _smol(*sizes: int, theta: float) -> dict[str, Any]:
    limits = {"max_position_embeddings": 8192, "vocab_size": 49280}
    return decoder(*sizes) | limits | {"rope_theta": theta}


_TINY_TEXT = decoder(64, 160, 3, 4, 2, max_position_embeddings=4096, vocab_size=512)
_TINY_TOKEN = {"image_token_id": 98}  # Of the tiny tokenizer.
SIZES = {
    "smolvlm-tiny": _files(_TINY_TOWER, _TINY_TEXT, 4, 128, **_TINY_TOKEN),
    "smolvlm-256m": _files(_BASE, _smol(576, 1536, 30, 9, 3, theta=1e5), 4, 2048),
    "smolvlm-500m": _files(_BASE, _smol(960, 2560, 32, 15, 5, theta=1e5), 4, 2048),
    "smolvlm-2.2b": _files(
        SIGLIP_SO400M, _smol(2048, 8192, 24, 32, 32, theta=1.3e5), 3, 1536
    ),
}
