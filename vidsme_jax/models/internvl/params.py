"""Config and tensor names of InternVL in the format of Hugging Face's class.

As LLaVA's, tensors have names in two dialects: published files and those that
transformers writes begin with `language_model.model`, `vision_tower` and
`multi_modal_projector`; in memory, the first is `model.language_model` and the others
also follow `model.`. The first is the canonical one.
"""

import re
from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import EPS_RANGE, MAX_SIDE, Fields, by_key
from vidsme_jax.checkpoints.layouts import PATCHES
from vidsme_jax.checkpoints.loading import Names, Rule, dense, norm
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.internvl.modeling import InternVlConfig
from vidsme_jax.models.internvl.tower import InternVitConfig

NAME = "internvl"
_TOWER, _PROJECTOR = r"vision_tower\.", r"multi_modal_projector\."
DECODER, HEAD = r"language_model\.model\.", r"language_model\.lm_head"
_RENAMES = [
    (re.compile(f"^{pattern}"), replacement)
    for pattern, replacement in (
        (r"model\.language_model\.", "language_model.model."),
        (r"model\.(vision_tower|multi_modal_projector)", r"\1"),
        (r"lm_head\.", "language_model.lm_head."),
    )
]
_IGNORED = by_key({"of the processor, whose file says it": "image_seq_length"})
_OF_TOWER = by_key(
    {
        "of training": """drop_path_rate hidden_dropout_prob projection_dropout
            layer_scale_init_value""",
        "of masked training": "use_mask_token",
    }
)
_SIZES = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
_SIZES |= {"num_attention_heads": 16}


def read_config(
    raw: dict[str, Any], dtype: DTypeLike, problems: list[str]
) -> tuple[InternVlConfig, int]:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Mean and deviation of pixels are left to the processor's file.

    Args:
      raw: The file's content.
      dtype: Of parameters and activations.
      problems: Receives one sentence a key.

    Returns:
      The model's hyperparameters, and the id of the placeholder of visual rows.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", NAME)
    fields.expect("projector_hidden_act", "gelu")
    fields.expect("vision_feature_layer", -1)
    fields.expect("vision_feature_select_strategy", "default")
    ratio = fields.number("downsample_ratio", 0.5, 1e-3, 1.0)
    tied = fields.take("tie_word_embeddings", bool, True)
    token = fields.token("image_token_id", 151667)
    inner = Fields(fields.take("vision_config", dict, {}), "vision_config", problems)
    vision = _read_tower(inner, dtype)
    inner = Fields(fields.take("text_config", dict, {}), "text_config", problems)
    known = "qwen2", "qwen3", "llama"
    text = DecoderConfig.from_text(inner, dtype, tied=tied, known=known)
    inner.close(decoder_params.IGNORED)
    block = round(1 / ratio)
    if block * ratio != 1 or vision.grid % block:
        problems.append(
            f"config.json: downsample_ratio is {ratio:g}; expected one over a whole "
            f"number that divides the {vision.grid} patches along a side of a frame"
        )
        block = 1
    fields.close(_IGNORED)
    config = InternVlConfig(
        vision=vision, text=text, block=block, image_mean=(), image_std=()
    )
    return config, token


def _read_tower(fields: Fields, dtype: DTypeLike) -> InternVitConfig:
    """Reads the `vision_config`."""
    fields.expect("model_type", "internvl_vision")
    fields.expect("hidden_act", "gelu")
    fields.expect("num_channels", 3)
    fields.expect("use_absolute_position_embeddings", True)
    sizes = {key: fields.size(key, default) for key, default in _SIZES.items()}
    image, patch = _side(fields, "image_size", 448), _side(fields, "patch_size", 14)
    if patch > image:
        fields.problems.append(
            f"{fields.where}: patch_size {patch} is over image_size {image}: no patch "
            "is left"
        )
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if hidden % heads:
        fields.problems.append(
            f"{fields.where}: hidden_size {hidden} is not a multiple of "
            f"num_attention_heads {heads}"
        )
    config = InternVitConfig(
        image_size=image,
        patch_size=patch,
        layer_norm_eps=fields.number("layer_norm_eps", 1e-6, *EPS_RANGE),
        norm_type=fields.expect("norm_type", "layer_norm", "rms_norm"),
        attention_bias=fields.take("attention_bias", bool, False),
        use_qk_norm=fields.take("use_qk_norm", bool, False),
        use_mean_pooling=fields.take("use_mean_pooling", bool, True),
        dtype=dtype,
        **sizes,
    )
    fields.close(_OF_TOWER)
    return config


def _side(fields: Fields, key: str, default: int) -> int:
    """Reads the side of a square, a number or two equal ones."""
    value = fields.take(key, (int, list), default)
    sides = value if isinstance(value, list) else [value, value]
    whole = all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides)
    if whole and len(sides) == 2 and sides[0] == sides[1]:
        return int(sides[0])
    fields.problems.append(
        f"{fields.where}: {key} is {content.shown(value)}; built for squares: a whole "
        f"number from 1 to {MAX_SIDE}, or two equal ones"
    )
    return default


def canonical(name: str) -> str:
    """Renames a tensor of either dialect to that of the files."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def names(config: InternVlConfig) -> Names:
    """Returns the names of a model's tensors."""
    rules = _tower_rules(config.vision)
    rules += norm(rf"{_PROJECTOR}layer_norm", "layer_norm")
    for layer in ("linear_1", "linear_2"):
        rules += dense(_PROJECTOR + layer, f"multi_modal_projector/{layer}")
    rules += decoder_params.rules(DECODER, HEAD, "language_model", config.text)
    own = {_TOWER + r"embeddings\.mask_token": "of masked training"}
    ignored = decoder_params.ignored(DECODER, HEAD, config.text)
    return Names(canonical, rules, own | ignored)


def _tower_rules(config: InternVitConfig) -> list[Rule]:
    """Returns the rules of the tower's tensors."""
    path, embeddings = "vision_tower", rf"{_TOWER}embeddings\."
    patches = rf"{embeddings}patch_embeddings\.projection\."
    rules = [
        Rule(f"{patches}weight", f"{path}/patch_embedding/kernel", PATCHES),
        Rule(f"{patches}bias", f"{path}/patch_embedding/bias"),
        Rule(f"{embeddings}cls_token", f"{path}/cls_token"),
        Rule(f"{embeddings}position_embeddings", f"{path}/position_embeddings"),
    ]
    block, layer = rf"{_TOWER}encoder\.layer\.(\d+)\.", f"{path}/layers"
    for name in ("layernorm_before", "layernorm_after"):
        bias = config.norm_type == "layer_norm"
        rules += norm(block + name, f"{layer}/{name}", bias=bias)
    for name in ("q_proj", "k_proj", "v_proj", "projection_layer"):
        bias = config.attention_bias or name == "projection_layer"
        own = rf"{block}attention\.{name}", f"{layer}/attention/{name}"
        rules += dense(*own, bias=bias)
    for name in ("q_norm", "k_norm") if config.use_qk_norm else ():
        own = rf"{block}attention\.{name}", f"{layer}/attention/{name}"
        rules += norm(*own, bias=False)
    for name in ("fc1", "fc2"):
        rules += dense(rf"{block}mlp\.{name}", f"{layer}/{name}")
    for name in ("lambda_1", "lambda_2"):
        rules.append(Rule(block + name, f"{layer}/{name}"))
    if not config.use_mean_pooling:
        rules += norm(rf"{_TOWER}layernorm", f"{path}/layernorm")
    return rules
