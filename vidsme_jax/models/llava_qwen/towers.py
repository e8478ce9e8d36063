"""The tower of an original-format checkpoint, which may lie elsewhere."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jax.typing import DTypeLike

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content, files, loading, quantised
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.tensors import TensorInfo
from vidsme_jax.models.llava_qwen import params
from vidsme_jax.models.llava_qwen.params import TOWER
from vidsme_jax.models.sizes import CLIP_LARGE, SIGLIP_SO400M
from vidsme_jax.models.towers import vit
from vidsme_jax.models.towers.vit import VitConfig

# The published towers, for checkpoints that hold the tower's tensors themselves.
_CLIP = {"model_type": "clip_vision_model"}
KNOWN: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {**_CLIP, **CLIP_LARGE},
    "clip-vit-large-patch14": {**_CLIP, **CLIP_LARGE, "image_size": 224},
    "clip-vit-base-patch16": {**_CLIP, "image_size": 224, "patch_size": 16},
    "clip-vit-base-patch32": {**_CLIP, "image_size": 224, "patch_size": 32},
    "siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        **SIGLIP_SO400M,
    },
}

# How names of the decoder and the projector begin.
_OWN = r"(model\.(layers|embed_tokens|norm|mm_projector|image_newline)|lm_head)(\.|$)"


def known(name: str) -> dict[str, Any] | None:
    """Returns the published sizes of a tower that a hub id or path names, or None."""
    return KNOWN.get(pathlib.PurePosixPath(name).name)


def read(raw: dict[str, Any], dtype: DTypeLike, problems: list[str]) -> VitConfig:
    """Reads the tower's own `config.json`, that of a whole CLIP or SigLIP included."""
    fields = Fields(
        raw.get("vision_config", raw), "config.json of mm_vision_tower", problems
    )
    kind = "siglip" if "siglip" in str(fields.raw.get("model_type")) else "clip"
    return vit.read_config(fields, kind, dtype)


def _tensors(found: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Returns a tower's tensors by the names that a whole checkpoint gives them.

    A whole CLIP has a text tower too; transformers 5 leaves `vision_model.` out.
    """
    out = {}
    for name, info in found.items():
        if name.startswith(("embeddings.", "encoder.", "pre_l", "post_l")):
            out[f"{TOWER}vision_model.{name}"] = info
        elif name.startswith("vision_model."):
            out[TOWER + name] = info
    return out


def find(
    checkpoint: files.Checkpoint, *, allow_pickle: bool, remarks: list[str]
) -> tuple[files.Checkpoint, dict[str, Any], dict[str, Any] | None]:
    """Returns the checkpoint with its tower's tensors, config and preprocessing.

    The checkpoint's own tensors count; the tower's folder gives its sizes, its
    preprocessing and, where the checkpoint has none, its tensors.

    Args:
      checkpoint: Without tensors (a model to be drawn) it gets none.
      allow_pickle: Whether pickled weights may be read.
      remarks: Receives what a reader of the report should know.

    Raises:
      AuditError: There is no tower.
    """
    name = checkpoint.config.get("mm_vision_tower")
    if not isinstance(name, str) or not name:
        raise checkpoint.error(
            f"config.json: mm_vision_tower is {content.shown(name)}, expected a hub id "
            "or a path"
        )
    tensors, sizes = checkpoint.tensors, known(name)
    inside = not tensors or any(key.startswith(TOWER) for key in tensors)
    if not inside and not any(re.match(_OWN, params.canonical(key)) for key in tensors):
        raise checkpoint.error(loading.foreign(checkpoint))  # And so no tower, either.
    wanted = ("*.json",) if inside else files.patterns(allow_pickle)
    try:
        folder = files.find(name, wanted, near=checkpoint.folder)
    except AuditError as error:
        if sizes is not None and inside:
            return checkpoint, sizes, None
        need = "sizes" if inside else "tensors (the checkpoint has none of it)"
        raise checkpoint.error(
            *(
                f"config.json: mm_vision_tower: its {need} are needed, but {problem}; "
                f"relative paths are tried from {checkpoint.folder} and from here; the "
                f"sizes of {', '.join(KNOWN)} need no files"
                for problem in error.problems
            )
        ) from error
    config, image = folder / "config.json", folder / "preprocessor_config.json"
    if config.is_file():
        sizes = files.read_json(config)
    if sizes is None:
        raise checkpoint.error(
            f"config.json: mm_vision_tower: no config.json in {folder}"
        )
    if not inside:
        if problem := quantised.config_problem(sizes):
            raise AuditError([f"checkpoint {name}: {problem}"])
        found = files.read_tensors(name, folder, allow_pickle=allow_pickle)
        tower = _tensors(found)
        if not tower:
            raise checkpoint.error(
                f"config.json: mm_vision_tower: {name} holds no tensors of a vision "
                f"tower, but {', '.join(sorted(found)[:3])}, ..."
            )
        checkpoint = dataclasses.replace(checkpoint, tensors=tensors | tower)
        remarks.append(f"the tower's tensors are those of {name}")
    return checkpoint, sizes, files.read_json(image) if image.is_file() else None
