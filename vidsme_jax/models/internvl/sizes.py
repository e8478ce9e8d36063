"""Tiny and published models, as their JSON files have them."""

from typing import Any

from vidsme_jax.models.sizes import TINY_TEXT, decoder, tower

_TINY_TOWER = tower(48, 96, 3, 4, 56, 14)
_SMALL = tower(1024, 4096, 24, 16, 448, 14) | {"attention_bias": True}
_LARGE = tower(3200, 12800, 45, 25, 448, 14) | {"norm_type": "rms_norm"}
_LARGE |= {"use_qk_norm": True}


def _files(
    vision: dict[str, Any], kind: str, text: dict[str, Any], **others: Any
) -> dict[str, Any]:
    side = vision["image_size"]
    config = {
        "model_type": "internvl",
        "image_token_id": 151667 if kind == "qwen2" else 151671,
        "tie_word_embeddings": False,
        "vision_config": {"model_type": "internvl_vision"} | vision,
        "text_config": {"model_type": kind} | text,
    }
    processor = {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
        "do_convert_rgb": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
    return {"config.json": config | others, "preprocessor_config.json": processor}


def _qwen2(*sizes: int, vocab: int = 151674, positions: int = 32768) -> dict[str, Any]:
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    limits = {"max_position_embeddings": positions, "vocab_size": vocab}
    return decoder(*sizes) | limits | {"rope_theta": 1e6, "rope_scaling": scaling}


def _qwen3(*sizes: int) -> dict[str, Any]:
    limits = {"max_position_embeddings": 40960, "vocab_size": 151936}
    return decoder(*sizes) | limits | {"rope_theta": 1e6, "head_dim": 128}


_TINY_TOKEN = {"image_token_id": 104}  # Of the tiny tokenizer.
_TINY_LARGE = _TINY_TOWER | {"norm_type": "rms_norm", "use_qk_norm": True}
SIZES = {
    "internvl-tiny": _files(
        _TINY_TOWER | {"attention_bias": True}, "qwen2", TINY_TEXT, **_TINY_TOKEN
    ),
    "internvl3_5-tiny": _files(
        _TINY_LARGE, "qwen3", TINY_TEXT | {"head_dim": 24}, **_TINY_TOKEN
    ),
    "internvl3-1b": _files(_SMALL, "qwen2", _qwen2(896, 4864, 24, 14, 2)),
    "internvl3-2b": _files(_SMALL, "qwen2", _qwen2(1536, 8960, 28, 12, 2)),
    "internvl3-8b": _files(_SMALL, "qwen2", _qwen2(3584, 18944, 28, 28, 4)),
    "internvl3-14b": _files(_SMALL, "qwen2", _qwen2(5120, 13824, 48, 40, 8)),
    "internvl3-38b": _files(_LARGE, "qwen2", _qwen2(5120, 27648, 64, 40, 8)),
    "internvl3_5-4b": _files(_SMALL, "qwen3", _qwen3(2560, 9728, 36, 32, 8)),
    "internvl3_5-8b": _files(_SMALL, "qwen3", _qwen3(4096, 12288, 36, 32, 8)),
}
