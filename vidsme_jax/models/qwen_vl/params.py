"""Config and tensor names of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

Published files of the first two have the decoder's keys next to `vision_config`, those
that transformers 5 writes in a `text_config`, as all files of Qwen3-VL. Tensors have
names in two dialects: in published files of the first two they begin with `visual` and
`model`; in memory, and in files of Qwen3-VL, with `model.visual` and
`model.language_model`. The latter is the canonical one.
"""

import math
import re
from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints import content, layouts
from vidsme_jax.checkpoints.fields import MAX_LAYERS, MAX_SIDE, Fields, by_key
from vidsme_jax.checkpoints.loading import Names, Rule, dense, norm
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.qwen_vl.modeling import QwenVlConfig
from vidsme_jax.models.towers import grid_vit
from vidsme_jax.models.towers.grid_vit import GridVitConfig

QWEN2, QWEN2_5, QWEN3 = "qwen2_vl", "qwen2_5_vl", "qwen3_vl"
_TOWER, DECODER, HEAD = r"model\.visual\.", r"model\.language_model\.", "lm_head"
_RENAMES = [
    (re.compile(f"^{pattern}"), replacement)
    for pattern, replacement in (
        (r"visual\.", "model.visual."),
        (r"model\.(?!language_model\.|visual\.)", "model.language_model."),
    )
]
_TOKENS = {"image_token_id": 151655, "vision_start_token_id": 151652}
_TOKENS |= {"vision_end_token_id": 151653}
_OF_DECODER = decoder_params.IGNORED | by_key(
    {
        "of the whole model, whose config says it": """image_token_id video_token_id
            vision_start_token_id vision_end_token_id vision_token_id"""
    }
)
_UNWRITTEN = by_key({"the token is not written": "vision_token_id"})
_IGNORED = _UNWRITTEN | by_key({"of the text config, which says it": "vocab_size"})
_OF_TOWER = by_key({"patch_size says it": "spatial_patch_size"})
# Keys of a flat file that are the whole model's.
_OUTER = {"model_type", "vision_config", "text_config", "tie_word_embeddings"}
_OUTER |= {"video_token_id", *_TOKENS, *_UNWRITTEN}
_PER_SECOND = 1e-3, 1e4


def read_config(
    raw: dict[str, Any], kind: str, dtype: DTypeLike, problems: list[str]
) -> tuple[QwenVlConfig, int]:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Mean and deviation of pixels are left to the processor's file.

    Args:
      raw: The file's content.
      kind: The `model_type`.
      dtype: Of parameters and activations.
      problems: Receives one sentence a key.

    Returns:
      The model's hyperparameters, and the id of the placeholder of visual rows.
    """
    nested = kind == QWEN3 or raw.get("text_config") is not None
    outer, own = raw, raw.get("text_config", {})
    if not nested:
        outer = {key: value for key, value in raw.items() if key in _OUTER}
        own = {key: value for key, value in raw.items() if key not in _OUTER}
    fields = Fields(outer, "config.json", problems)
    fields.expect("model_type", kind)
    tied = fields.take("tie_word_embeddings", bool, False)
    token = fields.token("video_token_id", 151656)
    for key, default in _TOKENS.items():
        fields.token(key, default)
    seen = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision, size, per_second = _read_tower(seen, kind, dtype)
    fields.take("text_config", dict, {})
    where = "text_config" if nested else "config.json"
    inner = Fields(own, where, problems)
    inner.expect("model_type", f"{kind}_text", kind)
    if kind == QWEN3:
        text = DecoderConfig.from_qwen3_vl(inner, dtype, tied=tied)
    else:
        # Older files say it in the decoder's part.
        tied |= inner.take("tie_word_embeddings", bool, False)
        text = DecoderConfig.from_qwen2_vl(inner, dtype, tied=tied)
    inner.close(_OF_DECODER)
    fields.close(_IGNORED)
    if size != text.hidden_size:
        key = "hidden_size" if kind == QWEN2 else "out_hidden_size"
        note = " (the default)" * (key not in seen.raw)
        problems.append(
            f"vision_config: {key} is {size}{note}, but a row of the decoder has "
            f"{text.hidden_size} (hidden_size of {where})"
        )
    if len(vision.taps) > text.num_hidden_layers:
        problems.append(
            f"vision_config: deepstack_visual_indexes names {len(vision.taps)} blocks, "
            f"but {where} has {text.num_hidden_layers} layers (num_hidden_layers): the "
            "features of each block are added after another layer; expected no "
            "more blocks than layers"
        )
    config = QwenVlConfig(
        vision=vision,
        text=text,
        tokens_per_second=per_second,
        image_mean=(),
        image_std=(),
    )
    return config, token


def _read_tower(
    fields: Fields, kind: str, dtype: DTypeLike
) -> tuple[GridVitConfig, int, float]:
    """Reads the `vision_config`.

    Returns:
      The tower's hyperparameters, the size of a row of the decoder as it has it, and
      the positions of time that a second takes, 0 where it does not say.
    """
    fields.expect("model_type", f"{kind}_vision", kind)
    fields.expect("in_channels", 3)
    fields.expect("in_chans", 3)
    fields.expect("temporal_patch_size", 2)
    grid_vit.read_rotation(fields)
    depth = fields.size("depth", 27 if kind == QWEN3 else 32, MAX_LAYERS)
    heads = fields.size("num_heads", 16)
    patch = fields.size("patch_size", 16 if kind == QWEN3 else 14, MAX_SIDE)
    merge = fields.size("spatial_merge_size", 2, MAX_SIDE)
    per_second, own = 0.0, {}
    if kind == QWEN2:
        hidden = fields.size("embed_dim", 1280)
        inside = hidden * fields.size("mlp_ratio", 4, 64)
        size = fields.size("hidden_size", 3584)
        own["activation"] = fields.expect("hidden_act", "quick_gelu")
    else:
        hidden = fields.size("hidden_size", 1152 if kind == QWEN3 else 3584)
        inside = fields.size("intermediate_size", 4304 if kind == QWEN3 else 3420)
        size = fields.size("out_hidden_size", 3584)
    if kind == QWEN2_5:
        own |= {"activation": fields.expect("hidden_act", "silu")}
        own |= {"gated": True, "rms": True}
        own["window"] = _window(fields, patch * merge)
        own["whole"] = _blocks(fields, "fullatt_block_indexes", (7, 15, 23, 31), depth)
        per_second = fields.number("tokens_per_second", 4.0, *_PER_SECOND)
    elif kind == QWEN3:
        own["activation"] = fields.expect("hidden_act", "gelu_pytorch_tanh")
        own["patch_bias"] = True
        own["taps"] = _blocks(fields, "deepstack_visual_indexes", (8, 16, 24), depth)
        own["table"] = _side(fields)
    grid_vit.check_heads(fields, hidden, heads)
    fields.close(_OF_TOWER)
    config = GridVitConfig(
        hidden_size=hidden,
        intermediate_size=inside,
        depth=depth,
        num_heads=heads,
        patch_size=patch,
        merge=merge,
        group=2,
        dtype=dtype,
        **own,
    )
    return config, size, per_second


def _window(fields: Fields, side: int) -> int:
    """Reads the side of a window, in pixels; returns it in visual rows."""
    pixels = fields.size("window_size", 112, MAX_SIDE)
    if pixels < side:
        fields.problems.append(
            f"{fields.where}: window_size is {pixels}, expected at least the {side} "
            "pixels along a side of a visual row"
        )
    return max(1, pixels // side)


def _blocks(
    fields: Fields, key: str, default: tuple[int, ...], depth: int
) -> tuple[int, ...]:
    """Reads some blocks of the tower, in their order."""
    found = fields.take(key, list, list(default))
    whole = all(type(block) is int and 0 <= block < depth for block in found)
    if whole and sorted(set(found)) == found:
        return tuple(found)
    given = "" if key in fields.raw else " (the default)"
    fields.problems.append(
        f"{fields.where}: {key} is {content.shown(found)}{given}; expected blocks of "
        f"the tower, 0 to {depth - 1}, in ascending order"
    )
    return ()


def _side(fields: Fields) -> int:
    """Reads the side of the table of learned positions."""
    places = fields.size("num_position_embeddings", 2304)
    side = math.isqrt(places)
    if side**2 != places:
        fields.problems.append(
            f"{fields.where}: num_position_embeddings is {places}; expected the square "
            "of the places along a side"
        )
    return side


def canonical(name: str) -> str:
    """Renames a tensor of either dialect to that of a model in memory."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def names(config: QwenVlConfig, kind: str) -> Names:
    """Returns the names of a model's tensors."""
    v, text = config.vision, config.text
    block, layer = rf"{_TOWER}blocks\.(\d+)\.", "visual/layers"
    patches = rf"{_TOWER}patch_embed\.proj"
    tiles = layouts.Tiles(v.group)
    rules = [Rule(rf"{patches}\.weight", "visual/patch_embedding/kernel", tiles)]
    if v.patch_bias:
        rules.append(Rule(rf"{patches}\.bias", "visual/patch_embedding/bias"))
    if v.table:
        table = "visual/position_embedding/weight"
        rules.append(Rule(rf"{_TOWER}pos_embed\.weight", table))
    for name in ("norm1", "norm2"):
        rules += norm(block + name, f"{layer}/{name}", bias=not v.rms)
    for name, own in (("qkv", "qkv"), ("proj", "out_proj")):
        rules += dense(rf"{block}attn\.{name}", f"{layer}/attn/{own}")
    for name, own in _DENSE[kind].items():
        rules += dense(rf"{block}mlp\.{name}", f"{layer}/{own}")
    first, second, before = _MERGER[kind]
    merger = rf"{_TOWER}merger\."
    rules += norm(merger + before, "merger/norm", bias=not v.rms)
    rules += dense(merger + first, "merger/fc1") + dense(merger + second, "merger/fc2")
    for place in range(len(v.taps)):
        deep, path = (
            rf"{_TOWER}deepstack_merger_list\.{place}\.",
            f"deep_merger_{place}",
        )
        rules += norm(deep + before, f"{path}/norm")
        rules += dense(deep + first, f"{path}/fc1")
        rules += dense(deep + second, f"{path}/fc2")
    rules += decoder_params.rules(DECODER, HEAD, "language_model", text)
    ignored = {_TOWER + r"rotary_pos_emb\.inv_freq": "follows from the config"}
    ignored |= decoder_params.ignored(DECODER, HEAD, text)
    return Names(canonical, rules, ignored)


_DENSE = {
    QWEN2: {"fc1": "fc1", "fc2": "fc2"},
    QWEN2_5: {"gate_proj": "gate_proj", "up_proj": "fc1", "down_proj": "fc2"},
    QWEN3: {"linear_fc1": "fc1", "linear_fc2": "fc2"},
}
# The two dense layers of a merger, and its norm.
_MERGER = {
    QWEN2: (r"mlp\.0", r"mlp\.2", "ln_q"),
    QWEN2_5: (r"mlp\.0", r"mlp\.2", "ln_q"),
    QWEN3: ("linear_fc1", "linear_fc2", "norm"),
}
