"""Sorts the tensors of `adapter_model.safetensors` by their module.

PEFT's keys are names of the model in the trainer's memory, after `base_model.model.`
and before an ending: `lora_A.weight` and similar for low-rank updates, the parameter's
name for what was trained in full. Between them are the wrappers that PEFT put around a
module (`base_layer`, `modules_to_save.NAME`) and, in files that PEFT did not write
itself, the adapter's name (`lora_A.default.weight`).
"""

import dataclasses
import math
import re

from vidsme_jax.checkpoints import weights
from vidsme_jax.checkpoints.adapter_config import MERGE, AdapterConfig
from vidsme_jax.checkpoints.low_rank import Decomposed, LowRank, Shift
from vidsme_jax.checkpoints.tensors import TensorInfo, Update

_PREFIX = "base_model.model."
_NAME = r"(?:\.(?P<name>[^.]+))?"  # Of the adapter.
_FACTORS = {
    "a": rf"(?P<module>.+)\.lora_A{_NAME}\.weight",
    "b": rf"(?P<module>.+)\.lora_B{_NAME}\.weight",
    "shift": rf"(?P<module>.+)\.lora_B{_NAME}\.bias",
    "embedding_a": rf"(?P<module>.+)\.lora_embedding_A{_NAME}",
    "embedding_b": rf"(?P<module>.+)\.lora_embedding_B{_NAME}",
    "magnitude": r"(?P<module>.+)\.lora_magnitude_vector"
    r"(?:\.(?!weight$)(?P<name>[^.]+))?(?:\.weight)?",
}
# Not read: saved modules before the training, and VeLoRA's projection of gradients.
_UNUSED = r"(.+\.)?original_module\..+|.+\.lora_velora_embed(\..+)?"
_SAVED_NAME = r"\.modules_to_save\.([^.]+)\."  # Of the adapter, too.
_EMBEDDINGS = (".embed_tokens.weight", ".lm_head.weight")
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Factors:
    """An adapter's tensors.

    Attributes:
      low_rank: By module, the tensors by their kind, a key of `_FACTORS`.
      copies: Whole parameters that replace those of the base, by name.
    """

    low_rank: dict[str, dict[str, TensorInfo]] = dataclasses.field(default_factory=dict)
    copies: dict[str, TensorInfo] = dataclasses.field(default_factory=dict)


def parse(
    found: dict[str, TensorInfo], config: AdapterConfig, problems: list[str]
) -> Factors:
    """Sorts an adapter's tensors; appends a problem for each that is none of it.

    One parameter may have two keys, as PEFT writes biases and embeddings, but only with
    the same values.

    Args:
      found: The file's tensors, by key.
      config: Of the adapter.
      problems: Receives the problems.
    """
    out = Factors()
    names: set[str | None] = set()
    saved: set[str] = set()
    keys: dict[tuple[str, str], str] = {}  # By module and kind, or name and "".

    def add(
        into: dict[str, TensorInfo], kind: str, owner: tuple[str, str], key: str
    ) -> None:
        before = keys.setdefault(owner, key)
        if before != key and not found[before].equals(found[key]):
            problems.append(
                f"{before} and {key} are one tensor of the model, and their values "
                f"differ: keep the one that counts, or {MERGE}"
            )
        into[kind] = found[key]

    plain = {weights.plain(key).removeprefix(_PREFIX) for key in found}
    for key, info in found.items():
        clean = weights.plain(key).removeprefix(_PREFIX)
        if info.dtype not in _FLOATS:
            expected = ", ".join(_FLOATS)
            problems.append(f"{key}: dtype {info.dtype}, expected {expected}")
        if re.fullmatch(_UNUSED, clean):
            continue
        for kind, pattern in _FACTORS.items():
            if match := re.fullmatch(pattern, clean):
                module = _unwrapped(match["module"] + ".")[:-1]
                add(out.low_rank.setdefault(module, {}), kind, (module, kind), key)
                names.add(match["name"])
                break
        else:
            # With bias="all" PEFT saves some under two names; older versions left the
            # adapter's name out, so the name of an inner module is in its place.
            bare = clean.replace(".modules_to_save.", ".")
            nameless = bare != clean and bare in plain
            name = bare if nameless else _unwrapped(clean)
            if not _is_copy(clean, name, config):
                problems.append(
                    f"{key}: neither a low-rank factor nor of a module that "
                    f"modules_to_save names; to use it, {MERGE}"
                )
                continue
            add(out.copies, name, (name, ""), key)
            if not nameless:
                saved.update(re.findall(_SAVED_NAME, clean))
    # PEFT removes its name from some keys only.
    if len(names) > 1 or len(names - {None} | saved) > 1:
        names |= saved
        listed = ", ".join(sorted(str(n or "one without a name") for n in names))
        problems.append(
            f"adapter_model holds several adapters ({listed}); save the one to be read "
            "with PEFT's save_pretrained(..., selected_adapters=[NAME])"
        )
    return out


def update(
    module: str, parts: dict[str, TensorInfo], weight: TensorInfo, config: AdapterConfig
) -> Update | str:
    """Returns the update of a module's weight, or the problem.

    Args:
      module: Its name in the adapter's keys.
      parts: Its factors.
      weight: Of the base.
      config: Of the adapter.
    """
    name, rank = f"{module}.weight", config.rank_of(module)
    a, b = parts.get("a"), parts.get("b")
    embedding = "embedding_a" in parts or "embedding_b" in parts
    if embedding:  # Its rows are the inputs, so that the update is (B A)^T.
        b, a = (
            None
            if (p := parts.get(key)) is None or len(p.shape) != 2
            else p.transpose()
            for key in ("embedding_a", "embedding_b")
        )
    if config.tied and a is not None and f".{name}".endswith(_EMBEDDINGS):
        rank = a.shape[0]  # PEFT takes the embedding's factors, with the layer's scale.
    if a is None or b is None:
        return f"{name}: {_missing(parts, embedding)} is missing"
    fits = (
        a.shape == (rank, *weight.shape[1:])
        and b.shape[:2] == (weight.shape[0], rank)
        and len(b.shape) == len(weight.shape)
        and math.prod(b.shape[2:]) == 1
    )
    if not fits:
        problem = (
            f"{name}: factors {list(b.shape)} x {list(a.shape)} do not fit the weight "
            f"{list(weight.shape)} with r = {rank}"
        )
        if not math.prod(a.shape + b.shape):
            problem += (
                "; an empty factor was saved without gathering the shards of DeepSpeed "
                "ZeRO-3 or FSDP: save the adapter again"
            )
        return problem
    out = LowRank(a, b, config.scale_of(module))
    magnitude = parts.get("magnitude")
    if config.decomposed != (magnitude is not None):
        has = "no" if magnitude is None else "a"
        flag = str(config.decomposed).lower()
        return f"{name}: {has} lora_magnitude_vector, but use_dora is {flag}"
    if magnitude is None:
        return out
    count = weight.shape[1 if embedding else 0]
    if math.prod(magnitude.shape) != count:
        return (
            f"{name}: lora_magnitude_vector {list(magnitude.shape)}, expected {count}"
        )
    return Decomposed(out, magnitude, columns=embedding)


def shift(
    module: str, info: TensorInfo, bias: TensorInfo, config: AdapterConfig
) -> Update | str:
    """Returns the update of a layer's bias by `lora_bias`, or the problem."""
    if info.shape != bias.shape:
        found, expected = list(info.shape), list(bias.shape)
        return f"{module}.bias: lora_B.bias {found}, expected {expected}"
    return Shift(info, config.scale_of(module))


def _unwrapped(name: str) -> str:
    """Returns a name without the wrappers that PEFT puts around a module."""
    # A single layer has no adapter's name: `norm.modules_to_save.weight`.
    return re.sub(r"\.modules_to_save\.([^.]+\.)?|\.base_layer\.", ".", f".{name}")[1:]


def _is_copy(clean: str, name: str, config: AdapterConfig) -> bool:
    """Returns whether PEFT itself saves such a parameter in full."""
    kind = name.rsplit(".", 1)[-1]
    return (
        ".base_layer." in clean
        or config.saves(name)
        or f".{name}".endswith(_EMBEDDINGS)
        or (kind == "bias" and config.bias != "none")
    ) and "lora_" not in kind


def _missing(parts: dict[str, TensorInfo], embedding: bool) -> str:
    """Returns the name of the factor that a module lacks."""
    if embedding:
        return f"lora_embedding_{'B' if 'embedding_a' in parts else 'A'}"
    return f"lora_{'B' if 'a' in parts else 'A'}"
