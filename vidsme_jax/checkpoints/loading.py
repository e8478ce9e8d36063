"""Loads tensors from a checkpoint onto devices, strictly in both directions.

A family's rules are data: each tensor of the checkpoint matches one rule or one
`ignored` pattern, each parameter is filled exactly once, every shape is checked, and
one error lists all problems. Parameters of stacked layers take one tensor per layer.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vidsme_jax import progress
from vidsme_jax.base import AuditError
from vidsme_jax.checkpoints import content, layouts, trees
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.checkpoints.layouts import Layout
from vidsme_jax.checkpoints.tensors import TensorInfo

# Exponent bits: all set means inf or NaN.
_EXPONENT = {"bfloat16": (np.uint16, 0x7F80), "float16": (np.uint16, 0x7C00)}
_WIDER = ("bfloat16", "float32")  # Dtypes to propose instead of a narrower one.
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Assigns the tensors whose canonical name matches a pattern to a parameter.

    Attributes:
      pattern: Matches the whole name; a group captures a stacked parameter's layer.
      path: Of the parameter, parts joined by "/".
      layout: Of the tensor, relative to the parameter.
    """

    pattern: str
    path: str
    layout: Layout = layouts.SAME

    @property
    def stacked(self) -> bool:
        """Whether each layer of the parameter has its own tensor."""
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
      canonical: Returns the canonical name of a tensor, from any known naming.
      rules: Assign tensors to parameters.
      ignored: Patterns of canonical names that are not read, each with the reason.
      unused: Returns tensors that are not read but other libraries expect, for
        writing.
    """

    canonical: Callable[[str], str]
    rules: Sequence[Rule]
    ignored: Mapping[str, str]
    unused: Callable[[], Mapping[str, np.ndarray]] = dict


@dataclasses.dataclass(frozen=True)
class Filling:
    """The tensors that fill one parameter: one, or one per layer if it is stacked.

    Attributes:
      rule: Of the parameter.
      names: Of the tensors, in the order of layers.
      infos: Of the same tensors.
    """

    rule: Rule
    names: tuple[str, ...]
    infos: tuple[TensorInfo, ...]


Plan = dict[str, Filling]
Shardings = Callable[[str, tuple[int, ...]], jax.sharding.Sharding]


def plan_loading(checkpoint: Checkpoint, abstract: nnx.State, names: Names) -> Plan:
    """Assigns tensors to parameters, from the headers alone.

    Args:
      checkpoint: The tensors on disk.
      abstract: The state of the model under `nnx.eval_shape`.
      names: Of the model's tensors.

    Raises:
      AuditError: Lists all surplus, missing, doubled and misshapen tensors.
    """
    shapes = trees.flat(abstract)
    problems = _Problems()
    slots: dict[str, dict[int, str]] = collections.defaultdict(dict)
    cleaned = {name: names.canonical(name) for name in checkpoint.tensors}
    counts = collections.Counter(cleaned.values())
    problems.doubled += [
        f"{content.name(n)}: stored {k} times" for n, k in counts.items() if k > 1
    ]
    ignored, known = _any(names.ignored), _any(rule.pattern for rule in names.rules)
    for clean, name in {clean: name for name, clean in cleaned.items()}.items():
        if ignored.fullmatch(clean):
            continue
        rule, layer = None, -1
        if known.fullmatch(clean):
            rule, layer = _match(clean, names.rules)
        if rule is None or rule.path not in shapes:
            problems.surplus.append((name, "the model has no such parameter"))
            continue
        info = checkpoint.tensors[name]
        leaf = shapes[rule.path].shape
        if layer >= leaf[0]:
            problems.surplus.append(
                (name, f"the model has {leaf[0]} such layers, by its config")
            )
            continue
        _check(name, info, leaf if layer < 0 else leaf[1:], rule, problems)
        slots[rule.path][layer] = name
    if not slots:
        raise checkpoint.error(foreign(checkpoint))
    plan: Plan = {}
    by_path = {rule.path: rule for rule in names.rules}
    for path, leaf in shapes.items():
        rule = by_path[path]
        wanted = range(leaf.shape[0]) if rule.stacked else (-1,)
        for layer in wanted:
            if layer not in slots[path]:
                where = path if layer < 0 else f"{path}, layer {layer}"
                problems.missing.append(f"missing: no tensor for {where}")
        found = tuple(slots[path][k] for k in wanted if k in slots[path])
        infos = tuple(checkpoint.tensors[name] for name in found)
        plan[path] = Filling(rule, found, infos)
    if listed := problems.listed():
        # The remarks name files that were not read, often the cause.
        raise checkpoint.error(*listed, *checkpoint.remarks)
    return plan


@dataclasses.dataclass
class _Problems:
    """Problems of tensors by kind, so that the list of one is not cut for another."""

    doubled: list[str] = dataclasses.field(default_factory=list)
    surplus: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    misshapen: list[str] = dataclasses.field(default_factory=list)
    types: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)

    def listed(self) -> list[str]:
        """Returns at most `content.SHOWN` problems of each kind."""
        first = self.surplus[: content.SHOWN]
        surplus = [f"{content.name(name)}: surplus, {why}" for name, why in first]
        return [
            *content.limited(self.doubled, "tensors that are stored twice"),
            *content.limited(surplus, "surplus tensors", len(self.surplus)),
            *content.limited(self.misshapen, "tensors of another shape"),
            *content.limited(self.types, "tensors of another dtype"),
            *content.limited(self.missing, "missing tensors"),
        ]


def foreign(checkpoint: Checkpoint) -> str:
    """Returns the problem of a checkpoint without a tensor name of its family."""
    some = ", ".join(map(content.name, sorted(checkpoint.tensors)[:3]))
    return (
        f"none of its {len(checkpoint.tensors)} tensors has a name of its config's "
        f"family ({some}, ...): they are weights of another model, in another "
        "program's form, or no weights (an optimizer's state); give the weights of the "
        "config's model"
    )


def load(
    plan: Plan, abstract: nnx.State, shardings: Shardings, *, checkpoint_name: str
) -> nnx.State:
    """Reads every parameter onto its devices; the host never holds the whole model.

    Each parameter is read, cast and placed by itself; of a parameter that is split over
    devices only the parts of this process are read.

    Args:
      plan: From `plan_loading`.
      abstract: The state of the model under `nnx.eval_shape`; is filled.
      shardings: Returns the sharding of a parameter by its path and shape.
      checkpoint_name: For messages.

    Raises:
      AuditError: Lists the tensors that hold NaN or infinite values, and those whose
        values the model's dtype cannot hold.
    """
    faults = _Faults({}, {})
    filled: dict[str, jax.Array] = {}
    shapes = trees.flat(abstract)
    sizes = {path: leaf.size * leaf.dtype.itemsize for path, leaf in shapes.items()}
    with progress.loading(sum(sizes.values())) as add:
        for path, leaf in shapes.items():
            read = _Reader(plan[path], leaf, faults)
            sharding = shardings(path, leaf.shape)
            filled[path] = jax.make_array_from_callback(leaf.shape, sharding, read)
            add(sizes[path])
    if problems := faults.listed():
        raise AuditError([f"checkpoint {checkpoint_name}: {p}" for p in problems])
    return trees.fill(abstract, filled)


class _Faults(NamedTuple):
    """Tensors whose values cannot be used.

    Attributes:
      infinite: Names of tensors that hold NaN or infinite values.
      beyond: By dtype and name, the largest absolute value of tensors that the dtype
        cannot hold.
    """

    infinite: dict[str, None]
    beyond: dict[str, dict[str, float]]

    def listed(self) -> list[str]:
        """Returns one line per tensor with NaN, and one per dtype that is exceeded."""
        lines = [
            f"{name}: holds NaN or infinite values; fetch or export the weights again"
            for name in self.infinite
        ]
        out = content.limited(lines, "tensors that hold NaN or infinite values")
        for dtype, found in self.beyond.items():
            wider = [d for d in _WIDER if max(found.values()) <= _largest(d)]
            remedy = (
                f"--config.model.dtype={' or '.join(wider)} holds them"
                if wider
                else "no dtype of --config.model.dtype holds them"
            )
            shown = [f"{name} ({most:.3g})" for name, most in found.items()]
            out.append(
                f"{len(shown)} {'tensor holds' if len(shown) == 1 else 'tensors hold'} "
                f"values beyond {_largest(dtype):.5g}, the largest of {dtype}: "
                f"{content.listed(shown)}; {remedy}"
            )
        return out


class _Reader:
    """Reads any slice of one parameter from the files that hold it."""

    def __init__(self, filling: Filling, leaf: Any, faults: _Faults):
        self.filling, self.leaf, self.faults = filling, leaf, faults

    def __call__(self, index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        if not self.filling.rule.stacked:
            return self._tensor(0, index)
        layers = range(*index[0].indices(self.leaf.shape[0]))
        out: np.ndarray | None = None
        for k, layer in enumerate(layers):
            value = self._tensor(layer, index[1:])
            if out is None:
                out = np.empty((len(layers), *value.shape), value.dtype)
            out[k] = value
        assert out is not None
        return out

    def _tensor(self, k: int, index: tuple[slice, ...]) -> np.ndarray:
        name, info = self.filling.names[k], self.filling.infos[k]
        # Bounded by the parameter, which may have fewer rows than the tensor.
        index = tuple(
            slice(*part.indices(size))
            for part, size in zip(index, self.leaf.shape[-len(index) :], strict=True)
        )
        value = self.filling.rule.layout.read(info, index)
        with np.errstate(over="ignore"):  # Overflow is reported below, by tensor.
            cast = value.astype(self.leaf.dtype, copy=False)
        if not _is_finite(value):
            self.faults.infinite[name] = None
        elif cast.dtype != value.dtype and not _is_finite(cast):
            most = float(np.abs(value).max())
            found = self.faults.beyond.setdefault(cast.dtype.name, {})
            found[name] = max(most, found.get(name, 0.0))
        return cast


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    """Returns a pattern that matches what any of some patterns matches."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or "(?!)")


def _match(name: str, rules: Sequence[Rule]) -> tuple[Rule | None, int]:
    """Returns the rule that takes a tensor, and its layer (-1 if not stacked)."""
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return rule, int(match.group(1)) if match.groups() else -1
    return None, -1


def _check(
    name: str,
    info: TensorInfo,
    shape: tuple[int, ...],
    rule: Rule,
    problems: _Problems,
) -> None:
    if not rule.layout.fits(tuple(info.shape), shape):
        wanted = list(rule.layout.disk_shape(shape))
        problems.misshapen.append(
            f"{name}: shape {list(info.shape)}, expected {wanted} by the config"
        )
    if info.dtype not in _FLOATS:
        allowed = ", ".join(_FLOATS)
        problems.types.append(f"{name}: dtype {info.dtype}, expected {allowed}")


def _largest(dtype: str) -> float:
    """Returns the largest finite value of a dtype."""
    return float(jnp.finfo(dtype).max)


def _is_finite(value: np.ndarray) -> bool:
    if value.dtype.name in _EXPONENT:  # Comparing bits is faster than ml_dtypes.
        kind, bits = _EXPONENT[value.dtype.name]
        return not bool(((value.view(kind) & kind(bits)) == kind(bits)).any())
    return bool(np.isfinite(value).all())
