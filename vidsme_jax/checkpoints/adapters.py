"""What a LoRA training left, read together with the model it was trained from.

A folder holds `adapter_config.json` with the low-rank factors, and perhaps
`non_lora_trainables.bin` with the tensors that were trained in full. The factors are
merged tensor by tensor while loading.
"""

import dataclasses
import pathlib
import re
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import files
from vidsme_jax.checkpoints.tensors import LowRank, TensorInfo


def open_adapter(
    name: str, folder: pathlib.Path, allow_pickle: bool, *, merged: bool
) -> files.Checkpoint:
    """Opens what a LoRA training left, on top of the model it began from."""
    adapter = files.read_json(folder / "adapter_config.json")
    where = f"checkpoint {name}: adapter_config.json"
    base_name = adapter.get("base_model_name_or_path")
    if not isinstance(base_name, str) or not base_name:
        raise AuditError([f"{where}: base_model_name_or_path is {base_name!r}"])
    problems: list[str] = []
    try:
        base = files.find(base_name, files.patterns(allow_pickle), near=folder)
        tensors = files.read_tensors(base_name, base, allow_pickle=allow_pickle)
    except AuditError as error:
        raise AuditError(
            [f"{where}: base_model_name_or_path: {p}" for p in error.problems]
        ) from error
    trained = folder / "non_lora_trainables.bin"
    full = files.open_file(trained, allow_pickle, problems) if trained.is_file() else {}
    tensors |= {_unwrapped(n): info for n, info in full.items()}
    if problems:
        raise AuditError([f"checkpoint {name}: {p}" for p in problems])
    own = (folder / "config.json").is_file()
    folders = (folder, base) if own else (base, folder)
    if merged:
        stems = ("adapter_model", "adapter_model")
        factors = files.read_tensors(
            name, folder, allow_pickle=allow_pickle, stems=stems
        )
        count = _merge(tensors, factors, adapter, where, problems)
        if problems:
            raise AuditError(problems)
        done = f"{count} weights of {base_name} are merged with low-rank updates"
    else:
        done = f"weights of {base_name} are read without low-rank updates"
    remark = f"LoRA: {done}, {len(full)} tensors are replaced"
    return files.Checkpoint(
        name, folders, files.read_config(name, folders[0]), tensors, (remark,)
    )


def _merge(
    tensors: dict[str, TensorInfo],
    factors: dict[str, TensorInfo],
    adapter: dict[str, Any],
    where: str,
    problems: list[str],
) -> int:
    """Puts the low-rank factors on the weights they belong to; returns how many."""
    rank, alpha = adapter.get("r"), adapter.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        problems.append(f"{where}: r is {rank!r}, lora_alpha {alpha!r}; expected > 0")
        return 0
    for key in ("use_dora", "alpha_pattern", "rank_pattern", "modules_to_save"):
        if adapter.get(key):
            problems.append(f"{where}: {key} is {adapter[key]!r}; built without it")
    if adapter.get("bias", "none") != "none":
        problems.append(f"{where}: bias is {adapter['bias']!r}; built for 'none'")
    scale = alpha / (rank**0.5 if adapter.get("use_rslora") else rank)
    pairs: dict[str, dict[str, TensorInfo]] = {}
    for name, info in factors.items():
        clean = name.removeprefix("base_model.model.")
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", clean)
        if match is None:
            problems.append(f"{name}: not a low-rank factor (lora_A or lora_B)")
            continue
        pairs.setdefault(f"{match[1]}.weight", {})[match[2]] = info
    for name, pair in pairs.items():
        base = tensors.get(name)
        if base is None or len(base.shape) != 2:
            problems.append(
                f"{name}: has low-rank factors, but the base no such weight"
            )
        elif set(pair) != {"A", "B"}:
            problems.append(f"{name}: lora_{'B' if 'A' in pair else 'A'} is missing")
        elif (pair["B"].shape, pair["A"].shape) != (
            (base.shape[0], rank),
            (rank, base.shape[1]),
        ):
            shapes = f"{list(pair['B'].shape)} x {list(pair['A'].shape)}"
            problems.append(
                f"{name}: factors {shapes} for {list(base.shape)}, r {rank}"
            )
        else:
            update = LowRank(pair["A"], pair["B"], scale)
            tensors[name] = dataclasses.replace(base, update=update)
    return len(pairs)


def _unwrapped(name: str) -> str:
    """Takes the wrapper's prefixes off: `base_model.`, and `model.` if doubled."""
    name = name.removeprefix("base_model.")
    return name.removeprefix("model.") if name.startswith("model.model.") else name
