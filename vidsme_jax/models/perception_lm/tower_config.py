"""What a `vision_config` of transformers' wrapper around timm says of the tower.

It names an architecture of timm, and in `model_args` what differs from it.
"""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import MAX_LAYERS, MAX_SIDE, Fields, by_key

# What timm 1.0 builds an architecture with, where `model_args` does not say otherwise.
# https://github.com/huggingface/pytorch-image-models (`timm/models/eva.py`)
_LARGE = {"embed_dim": 1024, "mlp_ratio": 4.0, "rope_grid_offset": 1.0}
_GIGANTIC = {"embed_dim": 1536, "mlp_ratio": 8960 / 1536, "class_token": False}
_CORE = {"global_pool": "map"}
_LANG = {"init_values": 0.1, "use_post_transformer_norm": False, "use_fc_norm": False}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit_pe_core_large_patch14_336": _CORE
    | _LARGE
    | {"depth": 24, "img_size": 336, "ref_feat_shape": 24},
    "vit_pe_core_gigantic_patch14_448": _CORE | _GIGANTIC | {"depth": 50},
    "vit_pe_lang_large_patch14_448": _LANG | _LARGE | {"depth": 23},
    "vit_pe_lang_gigantic_patch14_448": _LANG | _GIGANTIC | {"depth": 47},
}
_COMMON = {"img_size": 448, "patch_size": 14, "num_heads": 16, "class_token": True}
_COMMON |= {"ref_feat_shape": 32, "rope_grid_offset": 0.0, "global_pool": "avg"}
_COMMON |= {"rope_grid_indexing": "xy", "rope_temperature": 10000.0}
# Arguments of timm's class that have one built value; null is as good as absent.
_BUILT: dict[str, Any] = {
    "attn_only_layer_scale": False,
    "attn_type": "rope",
    "dynamic_img_pad": False,
    "dynamic_img_size": False,
    "features_only": False,
    "in_chans": 3,
    "no_embed_class": False,
    "num_kv_heads": None,
    "num_reg_tokens": 0,
    "qk_norm": False,
    "qkv_bias": True,
    "qkv_fused": True,
    "rope_mrope_section": None,
    "rope_rotate_half": False,
    "rope_type": "cat",
    "scale_attn_inner": False,
    "scale_mlp": False,
    "swiglu_align_to": 0,
    "swiglu_mlp": False,
    "use_abs_pos_emb": True,
    "use_naflex": False,
    "use_post_norm": False,
    "use_pre_transformer_norm": True,
    "use_rot_pos_emb": True,
}
_IGNORED_ARGS = by_key(
    {
        "of training": """attn_drop_rate drop_path_rate drop_rate head_init_scale
            patch_drop_rate pos_drop_rate proj_drop_rate rope_jitter_coords
            rope_rescale_coords rope_shift_coords""",
        "of the pooled output, which is not used": """attn_pool_mlp_ratio
            attn_pool_num_heads""",
    }
)
_IGNORED = by_key(
    {
        "of the pooled output, which is not used": "do_pooling global_pool",
        "of a classifier, which is not there": "label_names num_classes",
        "model_args say it": "num_features",
        "of timm's own weights": "pretrained_cfg",
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeConfig:
    """Hyperparameters of one tower; names follow timm's arguments."""

    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_size: int  # embed_dim * mlp_ratio.
    class_token: bool
    layer_scale: bool
    post_norm: bool  # A norm after the last layer.
    ref_feat_shape: tuple[float, float]  # The grid of patches that positions count on.
    rope_grid_offset: float
    rope_grid_indexing: str  # "xy": the column's angles stand first; "ij": the row's.
    rope_temperature: float
    dtype: DTypeLike

    @property
    def grid(self) -> int:
        """Patches along one side of a frame; pixels beyond the last are left out."""
        return self.img_size // self.patch_size

    @property
    def head_dim(self) -> int:
        """Size of a head."""
        return self.embed_dim // self.num_heads


def read(fields: Fields, dtype: DTypeLike) -> PeConfig:
    """Reads a `vision_config` of transformers' wrapper around timm.

    Args:
      fields: Of the config.
      dtype: Of parameters and activations.
    """
    fields.expect("model_type", "timm_wrapper")
    names = list(ARCHITECTURES)
    named = fields.raw.get("architecture")
    if named not in names:
        fields.problems.append(
            f"{fields.where}: architecture is {content.shown(named)}; built for "
            f"{', '.join(names)}"
        )
        named = names[0]
    fields.take("architecture", str, named)
    given = Fields(
        fields.take("model_args", dict, {}),
        f"{fields.where}.model_args",
        fields.problems,
    )
    fields.close(_IGNORED)
    return _read_args(given, _COMMON | ARCHITECTURES[named], dtype)


def _read_args(fields: Fields, known: dict[str, Any], dtype: DTypeLike) -> PeConfig:
    """Reads `model_args`; `known` is what the architecture has without them."""
    for key, value in _BUILT.items():
        fields.expect(key, value, None)
    flags = {
        key: fields.take(key, bool, known.get(key))
        for key in ("class_token", "use_post_transformer_norm", "use_fc_norm")
    }
    pooled = fields.take("global_pool", str, known["global_pool"])
    fc_norm = flags["use_fc_norm"]
    if fc_norm is None:
        fc_norm = pooled == "avg"
    post_norm = flags["use_post_transformer_norm"]
    size = _pair(fields, "img_size", known["img_size"], MAX_SIDE)
    shape = _pair(fields, "ref_feat_shape", known["ref_feat_shape"], MAX_SIDE)
    patch = fields.size("patch_size", known["patch_size"], MAX_SIDE)
    embed = fields.size("embed_dim", known["embed_dim"])
    heads = fields.size("num_heads", known["num_heads"])
    ratio = fields.number("mlp_ratio", known["mlp_ratio"], 0.01, 1000.0)
    offset = fields.number("rope_grid_offset", known["rope_grid_offset"], -1e4, 1e4)
    theta = fields.number("rope_temperature", known["rope_temperature"], 1e-3, 1e15)
    scale = fields.take("init_values", (int, float), known.get("init_values"))
    indexing = fields.expect(
        "rope_grid_indexing", known["rope_grid_indexing"], "xy", "ij", None
    )
    if size[0] != size[1]:
        fields.problems.append(
            f"{fields.where}: img_size is {list(size)}; built for squares, of which "
            "the projector averages blocks"
        )
    if patch > min(size):
        fields.problems.append(
            f"{fields.where}: patch_size {patch} is over img_size {min(size)}: no "
            "patch is left"
        )
    if embed % heads or (embed // heads) % 4:
        fields.problems.append(
            f"{fields.where}: embed_dim {embed} over num_heads {heads} must be a "
            "multiple of 4: columns and rows turn pairs of a head's sizes"
        )
    depth = fields.size("depth", known["depth"], MAX_LAYERS)
    fields.close(_IGNORED_ARGS)
    return PeConfig(
        img_size=size[0],
        patch_size=patch,
        embed_dim=embed,
        depth=depth,
        num_heads=heads,
        mlp_size=max(1, int(embed * ratio)),
        class_token=flags["class_token"],
        layer_scale=scale is not None,
        post_norm=not fc_norm if post_norm is None else post_norm,
        ref_feat_shape=(float(shape[0]), float(shape[1])),
        rope_grid_offset=offset,
        rope_grid_indexing=indexing or known["rope_grid_indexing"],
        rope_temperature=theta,
        dtype=dtype,
    )


def _pair(fields: Fields, key: str, default: int, most: int) -> tuple[int, int]:
    """Reads a height and a width, or one number for both."""
    value = fields.take(key, (int, list), default)
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) == 2 and all(type(x) is int and 1 <= x <= most for x in pair):
        return pair[0], pair[1]
    fields.problems.append(
        f"{fields.where}: {key} is {content.shown(value)}, expected a whole number "
        f"from 1 to {most}, or two of them as [height, width]"
    )
    return default, default
