"""Sizes of tiny and published decoders and towers, by the keys of `config.json`."""

from typing import Any

TINY_TOWER = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
CLIP_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 336,
}
SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


def decoder(*sizes: int) -> dict[str, Any]:
    """Returns the keys of a decoder: widths, layers, heads, key and value heads."""
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers")
    keys += ("num_attention_heads", "num_key_value_heads")
    return dict(zip(keys, sizes, strict=True))


TINY_TEXT = decoder(64, 160, 3, 4, 2) | {
    "max_position_embeddings": 4096,
    "vocab_size": 512,
}
QWEN2_SMALL = decoder(896, 4864, 24, 14, 2)
QWEN2_7B = decoder(3584, 18944, 28, 28, 4)
QWEN2_72B = decoder(8192, 29568, 80, 64, 8)
