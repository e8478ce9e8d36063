"""The config and the tensors of original-format `llava_qwen` checkpoints.

LongVA, the three models of the Vid-SME paper, Video-XL's weights (as a plain Qwen2) and
LLaVA-Video are stored in this form: one flat `config.json`, names `model.layers...`,
`model.mm_projector.{0,2}` and `model.vision_tower.vision_tower.vision_model...`. The
tower's own sizes are not in it but in the repository that `mm_vision_tower` names.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import Fields, by_key
from vidsme_jax.checkpoints.loading import Names
from vidsme_jax.models import decoder_params
from vidsme_jax.models.decoder_params import DecoderConfig
from vidsme_jax.models.frames.params import depth
from vidsme_jax.models.llava_hf import tensors
from vidsme_jax.models.llava_hf.modeling import LlavaConfig
from vidsme_jax.models.preprocessing import Preprocessing
from vidsme_jax.models.towers.vit import VitConfig

TOWER = "model.vision_tower.vision_tower."  # In front of the tower's own names.
_LARGEST_CUT = 1024  # Rows that a vocabulary may be padded by; Qwen2's is by 418.

PATTERNS = tensors.Patterns(
    tower=re.escape(TOWER) + r"vision_model\.",
    projector=(r"model\.mm_projector\.0", r"model\.mm_projector\.2"),
    decoder=r"model\.",
    head="lm_head",
    newline=r"model\.image_newline",
)
_RENAMES = [
    (re.compile(f"^{pattern}"), replacement)
    for pattern, replacement in (
        (r"model\.vision_resampler\.mm_projector\.", "model.mm_projector."),
        (re.escape(TOWER) + r"(?!vision_model\.)", TOWER + "vision_model."),
    )
]
_BEACONS = r"model\.(beacon_.*|layers\.\d+\.self_attn\.beacon_.*)"
_NEWLINES = {
    "grid": "row",
    "frame": "frame",
    "one_token": "video",
    "no_token": "none",
}
_IGNORED = by_key(
    {
        "of the prompt after the video": "add_time_instruction",
        "add_faster_video is off": "faster_token_stride",
        "frames are sampled before": "force_sample",
        "clips are not padded": "tokenizer_padding_side",
        "there always is a projector": "use_mm_proj",
        "of still images": """image_aspect_ratio image_crop_resolution
            image_grid_pinpoints image_split_resolution""",
        "of resamplers, and there is none": """mm_perceiver_depth mm_perceiver_ff_mult
            mm_perceiver_latents mm_perceiver_pretrained mm_qformer_depth
            mm_qformer_latents mm_qformer_pretrained mm_spatial_pool_out_channels""",
        "of the training": """freeze_mm_mlp_adapter freeze_mm_vision_resampler
            mm_projector_lr mm_tunable_parts mm_vision_tower_lr pos_skipping_range
            tune_mm_mlp_adapter tune_mm_vision_resampler unfreeze_mm_vision_tower
            use_pos_skipping vision_tower_pretrained""",
    }
)


def read_config(
    raw: dict[str, Any],
    vision: VitConfig,
    vocabulary: int | None,
    dtype: DTypeLike,
    prepare: Preprocessing,
    problems: list[str],
    remarks: list[str],
) -> LlavaConfig:
    """Reads a `config.json`, appending what is missing, wrong or unknown to `problems`.

    Args:
      raw: The file's content.
      vision: Of the tower.
      vocabulary: Tokens of the tokenizer, to which embeddings and output layer are cut,
        as the original loader does; None if there is no tokenizer.
      dtype: Of parameters and activations.
      prepare: The preprocessing.
      problems: Receives one sentence a key.
      remarks: Receives what a reader of the report should know.
    """
    fields = Fields(raw, "config.json", problems)
    fields.expect("model_type", "llava_qwen", "qwen2")
    fields.expect("mm_projector_type", "mlp2x_gelu")
    fields.expect("mm_resampler_type", None)
    fields.expect("mm_use_im_patch_token", False)
    fields.expect("mm_use_im_start_end", False)
    fields.expect("mm_vision_select_feature", "patch")
    fields.expect("add_faster_video", False)
    fields.take("mm_vision_tower", str, "")
    size = fields.size("mm_hidden_size", vision.hidden_size)
    if size != vision.hidden_size:
        problems.append(
            f"config.json: mm_hidden_size is {size}, the tower's hidden_size "
            f"{vision.hidden_size}"
        )
    scaling = fields.take("rope_scaling", dict, None) or {}
    if scaling.get("rope_type", scaling.get("type")) not in (None, "default"):
        dropped = f"rope_scaling {content.shown(scaling)} is dropped"
        remarks.append(f"{dropped}, as the original class does")
    tied = fields.take("tie_word_embeddings", bool, False)
    text = DecoderConfig.from_qwen2(fields, dtype, tied=tied, scaled=False)
    text = _cut(text, vocabulary, fields, problems, remarks)
    clip = vision.kind == "clip"
    pool = fields.expect(
        "mm_spatial_pool_mode", *(("average", "bilinear")[:: 1 if clip else -1])
    )
    stride = fields.size("mm_spatial_pool_stride", 2)
    layer = fields.take("mm_vision_select_layer", int, -2)
    newline = _newline(fields)
    beacons = sorted(key for key in raw if "beacon" in key)
    ignored = dict.fromkeys(beacons, "the decoder is run as a plain Qwen2")
    fields.close(decoder_params.IGNORED | _IGNORED | ignored)
    return LlavaConfig(
        vision=vision,
        text=text,
        # The original SigLIP tower drops its last layer and takes what is left.
        vision_depth=depth(
            layer, vision.num_hidden_layers, "mm_vision_select_layer", problems
        )
        if clip
        else vision.num_hidden_layers - 1,
        pool=pool,
        pool_stride=stride,
        pool_first=False,
        newline=newline,
        image_mean=prepare.mean,
        image_std=prepare.std,
    )


def _cut(
    text: DecoderConfig,
    vocabulary: int | None,
    fields: Fields,
    problems: list[str],
    remarks: list[str],
) -> DecoderConfig:
    """Cuts the vocabulary to the tokenizer's and bounds the positions."""
    limit = fields.size("tokenizer_model_max_length", text.max_positions)
    rows = text.vocab_size
    if vocabulary is not None and not 0 <= rows - vocabulary <= _LARGEST_CUT:
        problems.append(
            f"tokenizer: it has {vocabulary} tokens and the model {rows} embeddings; "
            f"expected at most {_LARGEST_CUT} fewer and none more: is it another "
            "model's tokenizer?"
        )
    elif vocabulary is not None and vocabulary < rows:
        remarks.append(
            f"the vocabulary is cut from {rows} to the tokenizer's {vocabulary} "
            "classes, as the original loader does"
        )
        rows = vocabulary
    return dataclasses.replace(
        text, vocab_size=rows, max_positions=min(text.max_positions, limit)
    )


def _newline(fields: Fields) -> str:
    """Returns where the learnt newline stands, one of `modeling.NEWLINES`."""
    merge = fields.take("mm_patch_merge_type", str, "flat")
    where = fields.expect("mm_newline_position", "one_token", *_NEWLINES)
    if merge in ("flat", "unires"):
        return "none"
    if not merge.startswith("spatial"):
        fields.problems.append(
            f"{fields.where}: mm_patch_merge_type is {content.shown(merge)}; built for "
            "flat, unires and spatial_..."
        )
    if "unpad" in merge:
        return _NEWLINES[where]
    if where in ("grid", "frame"):
        fields.problems.append(
            f"{fields.where}: mm_newline_position is {where!r}, but without 'unpad' in "
            f"mm_patch_merge_type ({content.shown(merge)}) there is no newline"
        )
    return "none"


def canonical(name: str) -> str:
    """Renames the projector of the first files, and the tower of transformers 5."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def names(config: LlavaConfig) -> Names:
    """Returns the names of a model's tensors."""
    out = tensors.names(config, PATTERNS, canonical, cut=True)
    beacons = {_BEACONS: "the decoder is run as a plain Qwen2"}
    return out._replace(
        ignored={**out.ignored, **beacons}, unused=lambda: _unused(config)
    )


def _unused(config: LlavaConfig) -> dict[str, np.ndarray]:
    """Returns the tower's tensors that no pass needs, for writing.

    Of SigLIP the original code cuts the last layer off: no file holds it.
    """
    v = config.vision
    depth = config.vision_depth if v.kind == "clip" else v.num_hidden_layers
    return tensors.unused_tower(f"{TOWER}vision_model.", v, depth)


def beacons(names: Iterable[str]) -> str:
    """Returns what to say about Video-XL's beacon tensors, "" if there are none."""
    found = [name for name in names if re.fullmatch(_BEACONS, name)]
    if not found:
        return ""
    return (
        f"{len(found)} beacon tensors of Video-XL are ignored: its decoder compresses "
        "the video through them, here it is run as a plain Qwen2, so this is not the "
        "model as published"
    )
