"""Writes trained models and adapters in the forms of transformers and PEFT.

A whole model has the tensor names and small files of the checkpoint that its training
began from, and its tensors that no pass here reads. A low-rank adapter has PEFT's form,
with the module names of transformers 5.

Axes: `layers` of a stack; `in` and `out` of a linear layer; `rank` of the factors.
"""

import copy
import functools
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from vidsme_jax.checkpoints import layouts, trees, weights, writing
from vidsme_jax.checkpoints.files import Checkpoint, read_json
from vidsme_jax.checkpoints.loading import Rule
from vidsme_jax.checkpoints.writing import Piece
from vidsme_jax.models import llava_qwen
from vidsme_jax.models.interface import Model
from vidsme_jax.models.llava_qwen import sizes
from vidsme_jax.store.files import write_atomically

CLASSES = {
    "llava_next_video": "LlavaNextVideoForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "video_llava": "VideoLlavaForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "perception_lm": "PerceptionLMForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "video_llama_3": "VideoLlama3ForConditionalGeneration",
}
_ORIGINAL = llava_qwen.FAMILY.name  # A family without a class in transformers.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model")
_VOCABULARIES += ("vocab.json", "vocab.txt")
_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TOKENIZER += ("merges.txt", *_VOCABULARIES)
_PROCESSOR, _VIDEOS = "processor_config.json", "video_preprocessor_config.json"
_IMAGES = "preprocessor_config.json"
_OTHERS = (_PROCESSOR, _VIDEOS, _IMAGES, "chat_template.json", "chat_template.jinja")
_OTHERS += ("generation_config.json",)
# (Name in files, name in the memory of transformers 5), where they differ.
_IN_MEMORY = [
    (re.compile(f"^{pattern}"), replacement)
    for pattern, replacement in (
        (r"language_model\.model\.", "model.language_model."),
        (r"language_model\.lm_head", "lm_head"),
        (r"((?:vision|image|video)_tower)\.(?:vision_model\.)?", r"model.\1."),
        (r"multi_modal_projector\.", "model.multi_modal_projector."),
    )
]


def whole(
    folder: pathlib.Path,
    checkpoint: Checkpoint,
    model: Model,
    state: nnx.State,
    *,
    dtype: str,
    shard_bytes: int = writing.SHARD_BYTES,
) -> None:
    """Writes a model for the loader of its checkpoint: transformers, or LLaVA's.

    Weight files appear last; until their last byte is on the disk, the folder is
    unchanged. Then weights of an earlier export are deleted.

    Args:
      folder: Made if need be; may be the source's own.
      checkpoint: That the training began from, or a config and a tokenizer without
        tensors; with an adapter, the state is the merged model's.
      model: From `models.describe` of the checkpoint.
      state: The parameters, read a layer at a time.
      dtype: Of the files: "bfloat16", "float16" or "float32".
      shard_bytes: Most bytes of a weight file.

    Raises:
      AuditError: The checkpoint's adapter does not fit it.
      OSError: A file cannot be written; names it.
      ValueError: The folder holds an adapter, or values are beyond the dtype.
    """
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds an adapter (adapter_config.json), which loaders would add "
            "to the model; write the model to another folder."
        )
    source = checkpoint.merged(model.names)
    own = writing.pieces(state, model.names, dtype)
    tensors = writing.completed(own, source.tensors, model.names, dtype)
    small = _small_files(source, model)
    config = _config(source, model, state, tensors, dtype)
    if model.family == _ORIGINAL:
        small |= _tower_files(source, config)
    small["config.json"] = _json(config)
    folder.mkdir(parents=True, exist_ok=True)
    with writing.replacing_weights(folder, tensors, shard_bytes=shard_bytes):
        writing.remove_weights(folder)
        for name in {*_TOKENIZER, *_OTHERS} - set(small):
            (folder / name).unlink(missing_ok=True)  # Of an earlier export.
        for name, data in small.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, data)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _small_files(source: Checkpoint, model: Model) -> dict[str, bytes]:
    """Returns the files of tokenizer, processor and prompt, by name."""
    found = {
        path.name: path
        for name in (*_TOKENIZER, *_OTHERS)
        for path in source.small_files(name)[:1]
    }
    # All files of a tokenizer are from the folder that it is read from.
    for folder in source.folders:
        if any((folder / name).is_file() for name in _VOCABULARIES):
            for name in _TOKENIZER:
                found.pop(name, None)
                if (folder / name).is_file():
                    found[name] = folder / name
            break
    out = {name: path.read_bytes() for name, path in found.items()}
    if _PROCESSOR in found and _VIDEOS in found and _is_nearer(source, found):
        raw = read_json(found[_PROCESSOR])
        raw.pop("video_processor", None)  # In one folder it would take precedence.
        out[_PROCESSOR] = _json(raw)
    prepare: Any = model.prepare
    described = {_PROCESSOR, _VIDEOS, _IMAGES} & set(out)
    if not described and hasattr(prepare, "to_json") and model.family != _ORIGINAL:
        out[_IMAGES] = _json(prepare.to_json())
    return out


def _is_nearer(source: Checkpoint, found: Mapping[str, pathlib.Path]) -> bool:
    """Returns whether the video processor's file is in a nearer folder."""
    places = [source.folders.index(found[x].parent) for x in (_VIDEOS, _PROCESSOR)]
    return places[0] < places[1]


def _config(
    source: Checkpoint,
    model: Model,
    state: nnx.State,
    tensors: list[Piece],
    dtype: str,
) -> dict[str, Any]:
    """Returns the source's `config.json`, updated for dtype and tensors."""
    raw: dict[str, Any] = copy.deepcopy(source.config)
    kind = "torch_dtype" if model.family == _ORIGINAL else "dtype"
    inner = [part for part in raw.values() if isinstance(part, dict)]
    for part in inner:
        if {"dtype", "torch_dtype"} & set(part):
            part.pop("torch_dtype", None)
            part["dtype"] = dtype
    for key in ("dtype", "torch_dtype"):
        raw.pop(key, None)
    raw[kind] = dtype
    if model.family == _ORIGINAL:
        raw.setdefault("architectures", [sizes.ARCHITECTURE])
    else:
        raw["architectures"] = [CLASSES[model.family]]
    leaves = trees.flat(state)
    tied = not any(path.endswith("lm_head/weight") for path in leaves)
    raw["tie_word_embeddings"] = tied
    text = raw.get("text_config")
    text = text if isinstance(text, dict) else raw
    if "tie_word_embeddings" in text:
        text["tie_word_embeddings"] = tied
    names = model.names
    rows = {names.canonical(piece.name): piece.shape[0] for piece in tensors}
    for rule in names.rules:
        if rule.path.endswith("embed_tokens/weight") and "vocab_size" in text:
            text["vocab_size"] = rows[writing.tensor_name(rule)]
    vision = raw.get("vision_config")
    if isinstance(vision, dict) and vision.get("model_type") == "siglip_vision_model":
        if not any(".head." in piece.name for piece in tensors):
            vision["vision_use_head"] = False  # The default is True.
    return raw


def _tower_files(source: Checkpoint, config: dict[str, Any]) -> dict[str, bytes]:
    """Returns the JSON files of a tower inside the source's folder, by name.

    Otherwise the config gets the tower's absolute path, if the tower is a folder.
    """
    name = pathlib.PurePath(config["mm_vision_tower"])
    folder = source.folder / name
    if name.is_absolute() or not folder.is_dir():
        return {}
    if ".." in name.parts or folder.resolve() == source.folder.resolve():
        config["mm_vision_tower"] = str(folder.resolve())
        return {}
    paths = sorted(path for path in folder.glob("*.json") if path.is_file())
    paths = [path for path in paths if not path.name.endswith(".index.json")]
    return {str(name / path.name): path.read_bytes() for path in paths}


def adapter(
    folder: pathlib.Path,
    checkpoint: Checkpoint,
    model: Model,
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    rank: int,
    alpha: int | float,
    rslora: bool,
    base: str,
) -> None:
    r"""Writes a low-rank adapter in PEFT's form.

    It adds $s x A B$ to a layer's product, where s is alpha / rank, or
    alpha / sqrt(rank).

    Args:
      folder: Made if need be; must hold no whole model.
      checkpoint: The base, which must have no adapter.
      model: From `models.describe` of the base.
      factors: By the path of a linear layer, whose kernel is at PATH/kernel: A,
        (layers, in, rank) or (in, rank), and B, (layers, rank, out) or (rank, out).
      rank: Of all factors.
      alpha: Numerator of s.
      rslora: Whether s is alpha / sqrt(rank).
      base: Folder or hub id of the base, for PEFT and this package.

    Raises:
      OSError: A file cannot be written; names it.
      ValueError: Lists the factors that belong to no linear layer, or have a wrong
        shape; or the base is an adapter, or the folder holds a whole model.
    """
    if checkpoint.adapter is not None:
        raise ValueError(
            f"checkpoint {checkpoint.name} is an adapter itself; write the whole model "
            "instead."
        )
    if name := weights.has_model(folder):
        raise ValueError(
            f"{folder} holds a whole model ({name}); write the adapter to another "
            "folder."
        )
    tensors, modules = _factor_pieces(model, factors, rank)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "target_modules": modules,
        "use_dora": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    stem = "adapter_model"
    # PEFT reads one file alone.
    most = sum(piece.num_bytes for piece in tensors) + 1
    with writing.replacing_weights(folder, tensors, stem=stem, shard_bytes=most):
        writing.remove_weights(folder, stem)
        (folder / f"{stem}.bin").unlink(missing_ok=True)
        write_atomically(folder / "adapter_config.json", _json(config))


def _factor_pieces(
    model: Model, factors: Mapping[str, tuple[np.ndarray, np.ndarray]], rank: int
) -> tuple[list[Piece], list[str]]:
    """Returns the tensors of an adapter, and the names of their modules.

    Raises:
      ValueError: Lists the factors that cannot be written.
    """
    leaves = trees.flat(model.abstract()[1])
    rules = {rule.path: rule for rule in model.names.rules if rule.path in leaves}
    problems, tensors, modules = [], [], []
    for path, (a, b) in factors.items():
        rule = rules.get(f"{path}/kernel")
        if problem := _misfit(path, rule, leaves, (a.shape, b.shape), rank):
            problems.append(problem)
            continue
        assert rule is not None
        for layer in range(a.shape[0]) if rule.stacked else (None,):
            name = writing.tensor_name(rule, layer).removesuffix(".weight")
            module = _in_memory(name)
            modules.append(module)
            for kind, factor in (("A", a), ("B", b)):
                value = factor if layer is None else factor[layer]
                key = f"base_model.model.{module}.lora_{kind}.weight"
                read = functools.partial(_transposed, value)
                shape, dtype = value.shape[::-1], value.dtype.name
                tensors.append(Piece(key, shape, dtype, read))
    if problems:
        raise ValueError(f"Factors that cannot be written: {'; '.join(problems)}.")
    return tensors, modules


def _misfit(
    path: str,
    rule: Rule | None,
    leaves: Mapping[str, Any],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    rank: int,
) -> str:
    """Returns the problem of a layer's factors, "" for none."""
    if rule is None:
        return f"{path} is no layer with a kernel"
    if rule.layout is not layouts.LINEAR:
        return f"{path} is no linear layer in transformers (such as a convolution)"
    *stack, inputs, outputs = leaves[rule.path].shape
    wanted = ((*stack, inputs, rank), (*stack, rank, outputs))
    if shapes == wanted:
        return ""
    found, expected = (" and ".join(map(str, map(list, x))) for x in (shapes, wanted))
    return f"{path} has factors {found}, expected {expected}"


def _transposed(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(value).T)


def _in_memory(name: str) -> str:
    """Returns the name in transformers 5's memory of a module of a file."""
    for pattern, replacement in _IN_MEMORY:
        name = pattern.sub(replacement, name)
    return name
