"""What a LoRA training left, read together with the model it was trained from.

A folder holds `adapter_config.json`, `adapter_model.safetensors` with low-rank factors
and the modules that were trained in full, and perhaps, of LLaVA's own trainer,
`non_lora_trainables.bin` with more of those. Their names are PEFT's around the names of
the model in the trainer's memory, which are not those of the base's files: they are
put onto the base's tensors once the family's canonical names are known, and merged
tensor by tensor while loading.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

from vidsme_jax.base import AuditError, nearest
from vidsme_jax.checkpoints import adapter_config, content, factors, files, weights
from vidsme_jax.checkpoints.adapter_config import AdapterConfig
from vidsme_jax.checkpoints.factors import Factors
from vidsme_jax.checkpoints.tensors import TensorInfo

Tensors = dict[str, TensorInfo]
_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"


def open_adapter(
    name: str, folder: pathlib.Path, allow_pickle: bool, *, merged: bool
) -> files.Checkpoint:
    """Opens what a LoRA training left, on top of the model it began from.

    Args:
      name: For messages.
      folder: Of `adapter_config.json`.
      allow_pickle: Whether `.bin` files may be read.
      merged: Whether `adapter_model` counts. Without it the base's weights do, as if
        PEFT's adapter were disabled; `non_lora_trainables.bin` counts all the same.

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
    full = {_unwrapped(weights.plain(n)): info for n, info in full.items()}
    parts = Factors()
    # Without the adapter its files need not be readable.
    if merged or allow_pickle or (folder / "adapter_model.safetensors").is_file():
        parts = factors.parse(_read(folder, allow_pickle, problems), config, problems)
        _check_saved(config, [*parts.copies, *full], problems)
    _raise(name, problems)
    own = (folder / "config.json").is_file()
    raw, tensors = files.read_config(name, folder if own else base), tensors | full
    rows = _grown(tensors, parts)
    if merged:
        raw, tensors = _untied(raw, tensors, parts, rows)
    elif rows:
        problem = (
            f"its vocabulary grew to {rows} tokens in training, for which "
            f"{config.base} has no embeddings, so that it cannot be read without its "
            f"adapter; give config.reference.checkpoint={config.base}"
        )
        raise AuditError([f"checkpoint {name}: {problem}"])
    else:
        parts = Factors()
    if inside := sorted(p.parent.name for p in folder.glob("*/adapter_config.json")):
        listed = content.listed(inside)
        remarks.append(f"adapters in folders inside {folder} are not read: {listed}")
    return files.Checkpoint(
        name,
        (folder, base),
        raw,
        tensors,
        (_remark(config, parts, len(full), merged=merged), *remarks),
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
    """Finds the model that the adapter was trained from."""
    where = f"{where}: base_model_name_or_path"
    wanted, hint = files.patterns(allow_pickle), "; write there where the base lies"
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
        f"no adapter_model.safetensors beside adapter_config.json: {folder}"
    )
    return {}


def _unwrapped(name: str) -> str:
    """Takes the wrapper's prefixes off: `base_model.`, and `model.` if doubled."""
    name = name.removeprefix("base_model.")
    return name.removeprefix("model.") if name.startswith("model.model.") else name


def _check_saved(config: AdapterConfig, names: list[str], problems: list[str]) -> None:
    """Checks that the modules that were trained in full are there."""
    for module in config.saved:
        alone = dataclasses.replace(config, saved=(module,))
        if not any(alone.saves(name) for name in names):
            problems.append(
                f"adapter_config.json: modules_to_save names {module!r}, and the files "
                "hold no tensor of it: was the adapter saved in full?"
            )


def _grown(tensors: Tensors, parts: Factors) -> int | None:
    """Returns the adapter's number of tokens if it is not that of the base."""
    ours, theirs = (_ending(found, _EMBEDDING) for found in (parts.copies, tensors))
    if ours is None or theirs is None:
        return None
    rows, before = (t.shape[0] for t in (parts.copies[ours], tensors[theirs]))
    return rows if rows != before else None


def _untied(
    raw: dict[str, Any], tensors: Tensors, parts: Factors, rows: int | None
) -> tuple[dict[str, Any], Tensors]:
    """Follows an adapter that changes the embedding, the output layer or both.

    PEFT changes the module that it names: an output layer that was tied to the
    embedding keeps its own values.

    Args:
      raw: The `config.json`.
      tensors: Of the base.
      parts: Of the adapter.
      rows: Tokens of the vocabulary, if they are not those of the base.
    """
    changed = {f"{module}.weight" for module in parts.low_rank} | set(parts.copies)
    embedding = _ending(tensors, _EMBEDDING)
    touched = _ending(changed, _EMBEDDING) or _ending(changed, _HEAD)
    if touched is None:
        return raw, tensors
    if embedding is None:  # A base of which the output layer alone is stored.
        embedding, head = _ending(changed, _EMBEDDING), _ending(tensors, _HEAD)
        if embedding is None or head is None:
            return raw, tensors
        tensors = tensors | {embedding: tensors[head]}
    if _ending(tensors, _HEAD) is None:
        tensors = tensors | {_HEAD: tensors[embedding]}
    inner, tied = raw.get("text_config"), {"tie_word_embeddings": False}
    changes: dict[str, Any] = tied | ({"vocab_size": rows} if rows else {})
    if isinstance(inner, dict):
        return raw | tied | {"text_config": inner | changes}, tensors
    return raw | changes, tensors


def _ending(names: Iterable[str], end: str) -> str | None:
    """Returns the first name whose last parts are `end`."""
    return next((name for name in names if f".{name}".endswith(f".{end}")), None)


def _remark(config: AdapterConfig, parts: Factors, full: int, *, merged: bool) -> str:
    """Returns what a reader of the report should know."""
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
    """The tensors of an adapter, before the names of the model's are known.

    Attributes:
      name: Of the checkpoint.
      config: Of the adapter.
      factors: Its tensors.
      trained: Names among the checkpoint's tensors that replace those of the base.
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

        def change(name: str, what: str, make: Callable[[TensorInfo], Any]) -> None:
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
                    f"{name}: has {what}, but the base no such weight{near}"
                )

        for name, copy in self.factors.copies.items():
            change(name, "a full copy", functools.partial(_replaced, name, copy))
        for module, parts in self.factors.low_rank.items():
            make = functools.partial(_updated, module, parts, self.config)
            change(f"{module}.weight", "low-rank factors", make)
            if "shift" in parts:
                make = functools.partial(_shifted, module, parts["shift"], self.config)
                change(f"{module}.bias", "a bias of lora_B", make)
        _raise(self.name, problems)
        return out


def _replaced(name: str, copy: TensorInfo, base: TensorInfo) -> TensorInfo | str:
    if copy.shape[1:] == base.shape[1:] and (
        copy.shape == base.shape or f".{name}".endswith((f".{_EMBEDDING}", f".{_HEAD}"))
    ):
        return copy
    return f"{name}: a full copy {list(copy.shape)} for {list(base.shape)} of the base"


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
