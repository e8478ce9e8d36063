"""Tiny and published models, as their files have them.

Of the published ones, by the training configs and the conversion script:
https://github.com/facebookresearch/perception_models (`apps/plm/configs/stage_3`),
https://github.com/huggingface/transformers (`convert_perception_lm_weights_to_hf.py`).
"""

from typing import Any

from vidsme_jax.models.sizes import decoder

# Of the tiny tokenizer, after its others; the video's token is the first.
SPECIAL = ("<|video|>", "<|image|>", "<|start_header_id|>", "<|end_header_id|>")
SPECIAL += ("<|eot_id|>",)
_FIRST = 100


def _model(
    architecture: str,
    tower: dict[str, Any],
    text: dict[str, Any],
    *,
    class_token: bool,
    **others: Any,
) -> dict[str, Any]:
    side = tower["img_size"][0]
    grid = side // 14
    args = {
        "global_pool": "",
        "init_values": 0.1,
        "ref_feat_shape": [grid, grid],
        "use_post_transformer_norm": False,
    }
    config = {
        "model_type": "perception_lm",
        "projector_pooling_ratio": 2,
        "text_config": {"model_type": "llama", "rms_norm_eps": 1e-5} | text,
        "vision_config": {
            "architecture": architecture,
            "model_args": args | tower,
            "model_type": "timm_wrapper",
        },
        "vision_use_cls_token": class_token,
    }
    frames = {
        "size": {"height": side, "width": side},
        "video_processor_type": "PerceptionLMVideoProcessor",
    }
    files = {"config.json": config | others}
    return files | {"video_preprocessor_config.json": frames}


def _tower(side: int, width: int, depth: int) -> dict[str, Any]:
    return {"depth": depth, "embed_dim": width, "img_size": [side, side]}


_L, _G = "vit_pe_core_large_patch14_336", "vit_pe_core_gigantic_patch14_448"
_LARGE, _GIGANTIC = _tower(448, 1024, 23), _tower(448, 1536, 47)
_LLAMA = {"max_position_embeddings": 11520, "rope_theta": 5e5, "vocab_size": 128256}
_SCALED = {
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": True,
}
_1B = decoder(2048, 8192, 16, 32, 8, head_dim=64) | _LLAMA | _SCALED
_3B = decoder(3072, 8192, 28, 24, 8, head_dim=128) | _LLAMA | _SCALED
_8B = decoder(4096, 14336, 32, 32, 8, head_dim=128) | _LLAMA
_TINY_TOWER = _tower(56, 48, 3) | {"num_heads": 4}
_TINY_TEXT = decoder(64, 160, 3, 4, 2, max_position_embeddings=4096, vocab_size=512)
SIZES = {
    "perception_lm-tiny": _model(
        _L, _TINY_TOWER, _TINY_TEXT, class_token=True, video_token_id=_FIRST
    ),
    "perception_lm-1b": _model(_L, _LARGE, _1B, class_token=True),
    "perception_lm-3b": _model(_L, _LARGE, _3B, class_token=True),
    "perception_lm-8b": _model(_G, _GIGANTIC, _8B, class_token=False),
}
