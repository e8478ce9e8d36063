"""Sizes of tiny and published decoders and towers, as keys of `config.json`."""

from typing import Any


def tower(*sizes: int) -> dict[str, int]:
    """Returns the keys of a tower: widths, layers, heads, sides of image and patch."""
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers")
    keys += ("num_attention_heads", "image_size", "patch_size")
    return dict(zip(keys, sizes, strict=True))


def decoder(*sizes: int, **others: Any) -> dict[str, Any]:
    """Returns the keys of a decoder: widths, layers, heads, key and value heads."""
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers")
    keys += ("num_attention_heads", "num_key_value_heads")
    return dict(zip(keys, sizes, strict=True)) | others


TINY_TOWER = tower(48, 96, 4, 4, 56, 14)
CLIP_LARGE = tower(1024, 4096, 24, 16, 336, 14)
SIGLIP_SO400M = tower(1152, 4304, 27, 16, 384, 14)
TINY_TEXT = decoder(64, 160, 3, 4, 2, max_position_embeddings=4096, vocab_size=512)
QWEN2_SMALL = decoder(896, 4864, 24, 14, 2)
QWEN2_7B = decoder(3584, 18944, 28, 28, 4)
QWEN2_72B = decoder(8192, 29568, 80, 64, 8)
