"""Tiny and published models, as their JSON files have them."""

from typing import Any

from vidsme_jax.models.qwen_vl import params
from vidsme_jax.models.sizes import QWEN2_7B, QWEN2_72B, decoder

_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_VOCABULARY, _LARGER = {"vocab_size": 151936}, {"vocab_size": 152064}
# Of the tiny tokenizer, whose `video_token` is `<video>`.
_TINY = {"vocab_size": 512, "max_position_embeddings": 4096}
_TOKENS = {"video_token_id": 97, "vision_start_token_id": 102}
_TOKENS |= {"vision_end_token_id": 103}
_BUDGET = {"min_pixels": 4 * 28**2, "max_pixels": 24 * 28**2}
_BUDGET_3 = {"shortest_edge": 8 * 32**2, "longest_edge": 100 * 32**2}


def _patches(patch: int) -> dict[str, int]:
    return {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}


def _flat(text: dict[str, Any], vision: dict[str, Any], **others: Any) -> Any:
    """Files of Qwen2-VL or Qwen2.5-VL, whose settings are of images."""
    section = {"type": "mrope", "mrope_section": [16, 24, 24]}
    layers = text["num_hidden_layers"]
    config = {
        **{"rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": section},
        **{"use_sliding_window": False, "max_window_layers": layers},
        **{"sliding_window": 32768, "max_position_embeddings": 32768},
        **{"video_token_id": 151656, "vision_token_id": 151654},
        **text,
        "vision_config": {
            **{"depth": 32, "num_heads": 16, "in_chans": 3, "patch_size": 14},
            **{"spatial_merge_size": 2, "spatial_patch_size": 14},
            **{"temporal_patch_size": 2},
            **vision,
        },
    }
    images = {"image_processor_type": "Qwen2VLImageProcessor"} | _patches(14) | _CLIP
    images |= {"min_pixels": 3136, "max_pixels": 12845056}
    return {"config.json": config | others, "preprocessor_config.json": images}


def _qwen2(text: dict[str, Any], **others: Any) -> Any:
    vision = {"embed_dim": 1280, "mlp_ratio": 4, "hidden_size": text["hidden_size"]}
    return _flat(text | {"model_type": params.QWEN2}, vision, **others)


def _qwen2_5(text: dict[str, Any], inside: int, **others: Any) -> Any:
    vision = {
        **{"hidden_act": "silu", "hidden_size": 1280, "intermediate_size": inside},
        **{"out_hidden_size": text["hidden_size"], "window_size": 112},
        **{"fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2},
    }
    text = text | {"model_type": params.QWEN2_5, "max_position_embeddings": 128000}
    return _flat(text, vision, **others)


_SMALL_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
_SMALL_TOWER |= {"deepstack_visual_indexes": [5, 11, 17]}


def _qwen3(text: dict[str, Any], vision: dict[str, Any], **others: Any) -> Any:
    section = {"rope_type": "default", "mrope_section": [24, 20, 20]}
    section |= {"mrope_interleaved": True}
    config = {
        "model_type": params.QWEN3,
        "video_token_id": 151656,
        "text_config": {
            **{"model_type": "qwen3_vl_text", "head_dim": 128, "rms_norm_eps": 1e-6},
            **{"rope_theta": 5e6, "rope_scaling": section},
            **{"max_position_embeddings": 262144},
            **text,
        },
        "vision_config": {
            **{"model_type": "qwen3_vl", "depth": 27, "hidden_size": 1152},
            **{"intermediate_size": 4304, "num_heads": 16, "in_channels": 3},
            **{"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2},
            **{"deepstack_visual_indexes": [8, 16, 24]},
            **{"num_position_embeddings": 2304},
            "out_hidden_size": text["hidden_size"],
            **vision,
        },
    }
    videos: dict[str, Any] = {"video_processor_type": "Qwen3VLVideoProcessor"}
    videos |= _patches(16) | _HALF
    videos["size"] = {"shortest_edge": 4096, "longest_edge": 25165824}
    name = "video_preprocessor_config.json"
    return {"config.json": config | others, name: videos}


def _tiny() -> dict[str, Any]:
    """Returns one model of each family, with frames of few rows."""
    text = decoder(64, 160, 4, 4, 2) | _TINY
    section = {"mrope_section": [2, 3, 3]}
    flat = {"rope_scaling": {"type": "mrope"} | section}
    two = _qwen2(text | flat, **_TOKENS)
    two["config.json"]["vision_config"] |= {"depth": 2, "embed_dim": 32, "num_heads": 4}
    half = _qwen2_5(text | flat, 40, **_TOKENS)
    half["config.json"]["max_position_embeddings"] = 4096
    half["config.json"]["vision_config"] |= {
        **{"depth": 4, "hidden_size": 32, "num_heads": 4},
        **{"fullatt_block_indexes": [1, 3], "window_size": 56},
    }
    section = {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
    vision = {"depth": 4, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4}
    vision |= {"deepstack_visual_indexes": [0, 2], "num_position_embeddings": 36}
    text |= {"head_dim": 16, "rope_scaling": {"rope_type": "default"} | section}
    three = _qwen3(text, vision, **_TOKENS)
    three["video_preprocessor_config.json"]["size"] = _BUDGET_3
    for files in (two, half):  # Settings of videos, not of images.
        videos = files.pop("preprocessor_config.json") | _BUDGET
        del videos["image_processor_type"]
        files["video_preprocessor_config.json"] = videos
    return {
        params.QWEN2: {"qwen2_vl-tiny": two},
        params.QWEN2_5: {"qwen2_5_vl-tiny": half},
        params.QWEN3: {"qwen3_vl-tiny": three},
    }


_PUBLISHED = {
    params.QWEN2: {
        "2b": _qwen2(
            decoder(1536, 8960, 28, 12, 2) | _VOCABULARY, tie_word_embeddings=True
        ),
        "7b": _qwen2(QWEN2_7B | _LARGER),
        "72b": _qwen2(QWEN2_72B | _LARGER),
    },
    params.QWEN2_5: {
        "3b": _qwen2_5(
            decoder(2048, 11008, 36, 16, 2) | _VOCABULARY,
            3420,
            tie_word_embeddings=True,
        ),
        "7b": _qwen2_5(QWEN2_7B | _LARGER, 3420),
        "32b": _qwen2_5(decoder(5120, 27648, 64, 40, 8) | _LARGER, 3456),
        "72b": _qwen2_5(QWEN2_72B | _LARGER, 3456),
    },
    params.QWEN3: {
        "2b": _qwen3(
            decoder(2048, 6144, 28, 16, 8) | _VOCABULARY,
            _SMALL_TOWER,
            tie_word_embeddings=True,
        ),
        "4b": _qwen3(
            decoder(2560, 9728, 36, 32, 8) | _VOCABULARY,
            _SMALL_TOWER,
            tie_word_embeddings=True,
        ),
        "8b": _qwen3(decoder(4096, 12288, 36, 32, 8) | _VOCABULARY, {}),
        "32b": _qwen3(decoder(5120, 25600, 64, 64, 8) | _VOCABULARY, {}),
    },
}
SIZES: dict[str, dict[str, Any]] = {
    kind: tiny | {f"{kind}-{size}": files for size, files in _PUBLISHED[kind].items()}
    for kind, tiny in _tiny().items()
}
