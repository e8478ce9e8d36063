"""Tiny and published models, as their JSON files have them."""

from typing import Any

from vidsme_jax.models.sizes import QWEN2_7B, decoder

_SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
_SIGLIP |= {"num_attention_heads": 16, "patch_size": 14}
_TINY_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
_TINY_TOWER |= {"num_attention_heads": 4, "patch_size": 14}
_TINY_TEXT = decoder(64, 160, 3, 4, 2, max_position_embeddings=4096, vocab_size=512)
_BUDGET = {"shortest_edge": 12544, "longest_edge": 12845056}
_TINY = {"shortest_edge": 4 * 28**2, "longest_edge": 90 * 28**2}


def _files(
    vision: dict[str, Any],
    text: dict[str, Any],
    size: dict[str, int],
    token: int = 151656,
) -> dict[str, Any]:
    config = {
        "model_type": "video_llama_3",
        "video_token_id": token,
        "vision_config": {"model_type": "video_llama_3_vision"} | vision,
        "text_config": {
            **{"model_type": "qwen2", "rms_norm_eps": 1e-6, "rope_theta": 1e6},
            **text,
        },
    }
    videos = {
        "video_processor_type": "VideoLlama3VideoProcessor",
        **{"patch_size": 14, "temporal_patch_size": 1, "merge_size": 2},
        **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
        # The published files have true: see `processing`.
        **{"size": size, "use_token_compression": False},
    }
    return {"config.json": config, "video_preprocessor_config.json": videos}


_2B = decoder(1536, 8960, 28, 12, 2, vocab_size=151936, max_position_embeddings=131072)
_7B = QWEN2_7B | {"vocab_size": 152064, "max_position_embeddings": 32768}
SIZES = {
    # The token of the tiny tokenizer, whose `video_token` is `<video>`.
    "video_llama_3-tiny": _files(_TINY_TOWER, _TINY_TEXT, _TINY, 97),
    "video_llama_3-2b": _files(_SIGLIP, _2B | {"tie_word_embeddings": True}, _BUDGET),
    "video_llama_3-7b": _files(_SIGLIP, _7B, _BUDGET),
}
