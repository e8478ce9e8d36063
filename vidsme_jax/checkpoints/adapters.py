"""Opens LoRA adapters together with the model that they were trained from.

A folder holds `adapter_config.json`, `adapter_model.safetensors` with low-rank factors
and the modules that were trained in full, and, if LLaVA's trainer wrote it, perhaps
`non_lora_trainables.bin` with more such modules. Names are PEFT's around the names of
the model in the trainer's memory, which are not those of the base's files: the tensors
are matched to the base's once the family's canonical names are known, and merged tensor
by tensor while loading.
"""

import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import (
    adapter_config,
    adapter_ties,
    completeness,
    content,
    factors,
    files,
    weights,
)
from vidsme_jax.checkpoints.adapter_config import AdapterConfig
from vidsme_jax.checkpoints.factors import Factors
from vidsme_jax.checkpoints.tensors import TensorInfo
from vidsme_jax.wording import nearest

Tensors = dict[str, TensorInfo]
_PREFIX = "base_model.model."  # PEFT's, in front of the names of the model.


def open_adapter(
    name: str, folder: pathlib.Path, allow_pickle: bool, *, merged: bool
) -> files.Checkpoint:
    """Opens a LoRA adapter and the model that it was trained from.

    Args:
      name: For messages.
      folder: Of `adapter_config.json`.
      allow_pickle: Whether `.bin` files may be read.
      merged: Whether `adapter_model` is used; without it the weights are the base's, as
        with PEFT's adapter disabled. `non_lora_trainables.bin` is used in both cases.

    Raises:
      AuditError: Lists every problem of the adapter's config and files, or of its base.
    """
    problems: list[str] = []
    raw = files.read_json(folder / "adapter_config.json")
    config = adapter_config.read(raw, problems)
    where = f"checkpoint {name}: adapter_config.json"
    if problems:
        raise AuditError([f"{where}: {problem}" for problem in problems])
    remarks: list[str] = []
    base, tensors = _open_base(config, folder, allow_pickle, where, remarks)
    trained = folder / "non_lora_trainables.bin"
    full = files.open_file(trained, allow_pickle, problems) if trained.is_file() else {}
    full = _trained(full, problems)
    parts = Factors()
    # Files that are not merged need not be readable.
    if merged or allow_pickle or (folder / "adapter_model.safetensors").is_file():
        parts = factors.parse(_read(folder, allow_pickle, problems), config, problems)
        if not parts.low_rank and not problems:
            problems.append(
                f"adapter_model in {folder} holds no low-rank factors (lora_A, "
                "lora_B): save the adapter again, in full; to score the base, give "
                f"{config.base}"
            )
        remarks += _unknown(config, [*parts.copies, *full])
    _raise(name, problems)
    own = (folder / "config.json").is_file()
    raw = files.read_config(name, folder if own else base)
    rows = adapter_ties.grown(tensors | full, parts)
    if rows and not merged:
        problem = (
            f"its vocabulary grew to {rows} tokens in training, for which "
            f"{config.base} has no embeddings, so it cannot be read without its "
            f"adapter; set config.reference.checkpoint={config.base}"
        )
        raise AuditError([f"checkpoint {name}: {problem}"])
    parts = parts if merged else Factors()
    remark = _remark(config, parts, len(full), merged=merged)
    tensors, full, parts = adapter_ties.share(raw, tensors, full, parts, config)
    raw, tensors = adapter_ties.untied(raw, tensors | full, parts, rows)
    if inside := sorted(p.parent.name for p in folder.glob("*/adapter_config.json")):
        listed = content.listed(inside)
        remarks.append(f"adapters in folders inside {folder} are not read: {listed}")
    return files.Checkpoint(
        name,
        (folder, base),
        raw,
        tensors,
        (remark, *remarks),
        _Adapter(name, config, parts, frozenset(full)).put,
    )


def _raise(name: str, problems: list[str]) -> None:
    problems = content.limited(problems, "problems of this adapter")
    if problems:
        raise AuditError([f"checkpoint {name}: {problem}" for problem in problems])


def _open_base(
    config: AdapterConfig,
    folder: pathlib.Path,
    allow_pickle: bool,
    where: str,
    remarks: list[str],
) -> tuple[pathlib.Path, Tensors]:
    """Returns the folder and the tensors of the model that was trained from."""
    where = f"{where}: base_model_name_or_path"
    wanted, hint = files.patterns(allow_pickle), "; set it to the base's folder"
    try:
        base = files.find(config.base, wanted, folder, config.revision)
        hint = ""
        problem = weights.left_over_adapter(base)
        if not problem and (base / "adapter_config.json").is_file():
            problem = f"{base} is an adapter itself; {adapter_config.MERGE} as the base"
        if problem:
            raise AuditError([f"checkpoint {config.base}: {problem}"])
        return base, files.read_tensors(
            config.base, base, allow_pickle=allow_pickle, remarks=remarks
        )
    except AuditError as error:
        named = [f"{where}: {problem}{hint}" for problem in error.problems]
        raise AuditError(named) from error


def _read(folder: pathlib.Path, allow_pickle: bool, problems: list[str]) -> Tensors:
    """Reads the headers of the adapter's tensors."""
    for suffix in ("safetensors", "bin"):
        file = folder / f"adapter_model.{suffix}"
        if file.is_file():
            return files.open_file(file, allow_pickle, problems)
    problems.append(
        f"no adapter_model.safetensors next to adapter_config.json in {folder}: copy "
        "it from the training"
    )
    return {}


def _trained(found: Tensors, problems: list[str]) -> Tensors:
    """Returns tensors of LLaVA's trainer by the names of the model.

    `base_model.` is removed, and also `model.` from all names if one has it twice, as
    in LLaVA's loader, or if one begins with `base_model.model.`, which LLaVA's loader
    would silently drop.
    """
    plain = {key: weights.plain(key) for key in found}
    wrapped = any(n.startswith((_PREFIX, "model.model.")) for n in plain.values())
    keys: dict[str, str] = {}
    for key, name in plain.items():
        name = name.removeprefix("base_model.")
        name = name.removeprefix("model.") if wrapped else name
        before = keys.setdefault(name, key)
        if before != key and not found[before].equals(found[key]):
            problems.append(
                f"{before} and {key} of {found[key].file.name} are one tensor of the "
                "model, and their values differ: keep the one that counts"
            )
    return {name: found[key] for name, key in keys.items()}


def _unknown(config: AdapterConfig, names: list[str]) -> list[str]:
    """Returns a remark on modules of modules_to_save without tensors.

    `put` refuses those that the model has.
    """
    lost = [
        module
        for module in config.saved
        if not any(dataclasses.replace(config, saved=(module,)).saves(n) for n in names)
    ]
    if not lost:
        return []
    named = content.listed(lost)
    return [f"modules_to_save names {named}: no such module, left out as PEFT does"]


def _remark(config: AdapterConfig, parts: Factors, full: int, *, merged: bool) -> str:
    """Returns the remark for the report."""
    count = full + len(parts.copies)
    if merged:
        of = f"{len(parts.low_rank)} weights of {config.base}"
        done = f"{of} are merged with low-rank updates"
    else:
        done = f"weights of {config.base} are read without low-rank updates"
        if config.saved:
            done += f" and without its copies of {', '.join(config.saved)}"
    return f"LoRA: {done}, {count} tensors are replaced"


@dataclasses.dataclass(frozen=True)
class _Adapter:
    """The tensors of an adapter, not yet matched to those of the base.

    Attributes:
      name: Of the checkpoint.
      config: Of the adapter.
      factors: Its tensors.
      trained: Names of checkpoint tensors that replace those of the base.
    """

    name: str
    config: AdapterConfig
    factors: Factors
    trained: frozenset[str]

    def put(self, tensors: Tensors, names: Any) -> Tensors:
        """Returns the base's tensors with the adapter's; see `Checkpoint.merged`."""
        canonical: Callable[[str], str] = names.canonical
        ours = {canonical(n): n for n in self.trained}
        out = {n: t for n, t in tensors.items() if ours.get(canonical(n), n) == n}
        found = {canonical(n): n for n in out}
        problems: list[str] = []
        updated = [f"{module}.weight" for module in self.factors.low_rank]
        for kind in (list(self.factors.copies), updated):
            counts = collections.Counter(map(canonical, kind))
            twice = [name for name, count in counts.items() if count > 1]
            problems += [
                f"{name}: the adapter holds it under two names; {adapter_config.MERGE}"
                for name in twice
            ]

        def change(
            name: str, what: str, make: Callable[[TensorInfo], TensorInfo | str]
        ) -> None:
            clean = canonical(name)
            if clean in found:
                info = make(out[found[clean]])
                if isinstance(info, str):
                    problems.append(info)
                else:
                    out[found[clean]] = info
            elif not any(re.fullmatch(pattern, clean) for pattern in names.ignored):
                near = nearest(clean, list(found)) if not problems else ""  # Slow.
                problems.append(
                    f"{name}: the adapter has {what}, the base no such weight{near}"
                )

        for name, copy in self.factors.copies.items():
            change(name, "a full copy", functools.partial(_replaced, name, copy))
        for module, parts in self.factors.low_rank.items():
            make = functools.partial(_updated, module, parts, self.config)
            change(f"{module}.weight", "low-rank factors", make)
            if "shift" in parts:
                make = functools.partial(_shifted, module, parts["shift"], self.config)
                change(f"{module}.bias", "a bias of lora_B", make)
        if self.factors.low_rank:
            base = completeness.Base(
                {clean: out[name] for clean, name in found.items()},
                canonical,
                tuple(names.ignored),
            )
            problems += completeness.problems(
                self.config, self.factors, self.trained, base
            )
        _raise(self.name, problems)
        return out


def _replaced(name: str, copy: TensorInfo, base: TensorInfo) -> TensorInfo | str:
    if copy.shape[1:] == base.shape[1:] and (
        copy.shape == base.shape
        or f".{name}".endswith((f".{adapter_ties.EMBEDDING}", f".{adapter_ties.HEAD}"))
    ):
        return copy
    return (
        f"{name}: the adapter's full copy has shape {list(copy.shape)}, the base's "
        f"weight {list(base.shape)}"
    )


def _updated(
    module: str, parts: dict[str, TensorInfo], config: AdapterConfig, base: TensorInfo
) -> TensorInfo | str:
    made = factors.update(module, parts, base, config)
    return made if isinstance(made, str) else dataclasses.replace(base, update=made)


def _shifted(
    module: str, bias: TensorInfo, config: AdapterConfig, base: TensorInfo
) -> TensorInfo | str:
    made = factors.shift(module, bias, base, config)
    return made if isinstance(made, str) else dataclasses.replace(base, update=made)
