"""Tensors from safetensors straight onto devices, strict both ways.

A family's rules are data: each tensor of the checkpoint matches one rule or one
`ignored` pattern, each parameter is filled exactly once, every shape is checked, and
one error lists all that is wrong. Parameters of stacked layers take one tensor per
layer.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import layouts, trees
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.checkpoints.layouts import Layout
from vidsme_jax.checkpoints.tensors import TensorInfo

# Exponent bits: all set means inf or NaN.
_EXPONENT = {"bfloat16": (np.uint16, 0x7F80), "float16": (np.uint16, 0x7C00)}
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where the tensors whose canonical name matches a pattern go.

    Attributes:
      pattern: Full match; a group captures the layer of a stacked parameter.
      path: Of the parameter, parts joined by "/".
      layout: Of the tensor, against the parameter's.
    """

    pattern: str
    path: str
    layout: Layout = layouts.SAME

    @property
    def stacked(self) -> bool:
        """Whether each layer of the parameter has a tensor of its own."""
        return "(" in self.pattern


def dense(pattern: str, path: str, *, bias: bool = True) -> list[Rule]:
    """Returns the rules of a dense layer; `pattern` and `path` are the layer's."""
    rules = [Rule(rf"{pattern}\.weight", f"{path}/kernel", layouts.LINEAR)]
    return rules + ([Rule(rf"{pattern}\.bias", f"{path}/bias")] if bias else [])


def norm(pattern: str, path: str, *, bias: bool = True) -> list[Rule]:
    """Returns the rules of a norm; `pattern` and `path` are the norm's."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [Rule(rf"{pattern}\.{part}", f"{path}/{part}") for part in parts]


class Names(NamedTuple):
    """The names that a model's tensors have in a checkpoint, in both directions.

    Attributes:
      canonical: Renames a tensor of any name dialect.
      rules: Where each tensor goes.
      ignored: Patterns of canonical names that are left out, each with the reason.
      unused: Returns what is left out but other libraries expect, for writing.
    """

    canonical: Callable[[str], str]
    rules: Sequence[Rule]
    ignored: Mapping[str, str]
    unused: Callable[[], Mapping[str, np.ndarray]] = dict


@dataclasses.dataclass(frozen=True)
class Filling:
    """The tensors that fill one parameter: one, or one per layer if it is stacked."""

    rule: Rule
    names: tuple[str, ...]
    infos: tuple[TensorInfo, ...]


Plan = dict[str, Filling]
Shardings = Callable[[str, tuple[int, ...]], jax.sharding.Sharding]


def plan_loading(checkpoint: Checkpoint, abstract: nnx.State, names: Names) -> Plan:
    """Decides which tensor fills which parameter, from the headers alone.

    Args:
      checkpoint: What is on disk.
      abstract: The state of the model under `nnx.eval_shape`.
      names: Of the model's tensors.

    Raises:
      AuditError: Lists all surplus, missing, doubled and misshapen tensors.
    """
    shapes = trees.flat(abstract)
    problems: list[str] = []
    slots: dict[str, dict[int, str]] = collections.defaultdict(dict)
    counts = collections.Counter(map(names.canonical, checkpoint.tensors))
    problems += [f"{n}: stored {k} times" for n, k in counts.items() if k > 1]
    for clean, name in {names.canonical(n): n for n in checkpoint.tensors}.items():
        if any(re.fullmatch(pattern, clean) for pattern in names.ignored):
            continue
        rule, layer = _match(clean, names.rules)
        if rule is None or rule.path not in shapes:
            problems.append(f"{name}: surplus, the model has no such parameter")
            continue
        info = checkpoint.tensors[name]
        leaf = shapes[rule.path].shape
        if layer >= leaf[0]:
            problems.append(f"{name}: surplus, the model has {leaf[0]} such layers")
            continue
        _check(name, info, leaf if layer < 0 else leaf[1:], rule, problems)
        slots[rule.path][layer] = name
    plan: Plan = {}
    by_path = {rule.path: rule for rule in names.rules}
    for path, leaf in shapes.items():
        rule = by_path[path]
        wanted = range(leaf.shape[0]) if rule.stacked else (-1,)
        for layer in wanted:
            if layer not in slots[path]:
                where = path if layer < 0 else f"{path}, layer {layer}"
                problems.append(f"missing: no tensor for {where}")
        found = tuple(slots[path][k] for k in wanted if k in slots[path])
        infos = tuple(checkpoint.tensors[name] for name in found)
        plan[path] = Filling(rule, found, infos)
    if problems:
        raise AuditError([f"checkpoint {checkpoint.name}: {p}" for p in problems])
    return plan


def load(
    plan: Plan, abstract: nnx.State, shardings: Shardings, *, checkpoint_name: str
) -> nnx.State:
    """Reads every parameter onto its devices; the host never holds the whole model.

    Each parameter is read, cast and placed by itself; of a parameter that is split over
    devices only the parts that this process holds are read.

    Raises:
      AuditError: Lists the tensors that hold NaN or infinite values.
    """
    problems: list[str] = []
    filled: dict[str, jax.Array] = {}
    shapes = trees.flat(abstract)
    for path, leaf in shapes.items():
        read = _Reader(plan[path], leaf, problems)
        sharding = shardings(path, leaf.shape)
        filled[path] = jax.make_array_from_callback(leaf.shape, sharding, read)
    if problems:
        raise AuditError([f"checkpoint {checkpoint_name}: {p}" for p in problems])
    return trees.fill(abstract, filled)


class _Reader:
    """Reads any slice of one parameter from the files that hold it."""

    def __init__(self, filling: Filling, leaf: Any, problems: list[str]):
        self.filling, self.leaf, self.problems = filling, leaf, problems

    def __call__(self, index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None, "a device without a share"
        if not self.filling.rule.stacked:
            return self._tensor(0, index)
        layers = range(*index[0].indices(self.leaf.shape[0]))
        out: np.ndarray | None = None
        for k, layer in enumerate(layers):
            value = self._tensor(layer, index[1:])
            if out is None:
                out = np.empty((len(layers), *value.shape), value.dtype)
            out[k] = value
        assert out is not None, "a shard without layers"
        return out

    def _tensor(self, k: int, index: tuple[slice, ...]) -> np.ndarray:
        name, info = self.filling.names[k], self.filling.infos[k]
        # Bounded by the parameter, which may have fewer rows than the tensor.
        index = tuple(
            slice(*part.indices(size))
            for part, size in zip(index, self.leaf.shape[-len(index) :], strict=True)
        )
        value = self.filling.rule.layout.read(info, index)
        problem = f"{name}: holds NaN or infinite values"
        if not _is_finite(value) and problem not in self.problems:
            self.problems.append(problem)
        return value.astype(self.leaf.dtype, copy=False)


def _match(name: str, rules: Sequence[Rule]) -> tuple[Rule | None, int]:
    """Returns the rule that takes a tensor, and its layer (-1 if not stacked)."""
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return rule, int(match.group(1)) if match.groups() else -1
    return None, -1


def _check(name, info: TensorInfo, shape, rule: Rule, problems: list[str]) -> None:
    if not rule.layout.fits(tuple(info.shape), shape):
        wanted = list(rule.layout.disk_shape(shape))
        problems.append(
            f"{name}: shape {list(info.shape)}, the config asks for {wanted}"
        )
    if info.dtype not in _FLOATS:
        problems.append(f"{name}: dtype {info.dtype}, expected {', '.join(_FLOATS)}")


def _is_finite(value: np.ndarray) -> bool:
    if value.dtype.name in _EXPONENT:  # Looking at the bits is faster than ml_dtypes.
        kind, bits = _EXPONENT[value.dtype.name]
        return not bool(((value.view(kind) & kind(bits)) == kind(bits)).any())
    return bool(np.isfinite(value).all())
