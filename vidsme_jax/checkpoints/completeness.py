"""Finds what an adapter lacks: factors of a layer, parts of a saved module.

A module without its factors would be scored with the weights of the base. The adapter's
names are those of the model in the trainer's memory; the base's names are derived from
a module of the adapter in the same stack of layers, or in the same module.
"""

import bisect
import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping

from vidsme_jax.checkpoints.adapter_config import AdapterConfig
from vidsme_jax.checkpoints.content import listed
from vidsme_jax.checkpoints.factors import Factors
from vidsme_jax.checkpoints.tensors import TensorInfo


@dataclasses.dataclass(frozen=True)
class Base:
    """The base's tensors.

    Attributes:
      tensors: By canonical name.
      canonical: See `loading.Names`.
      ignored: Patterns of canonical names that no pass needs.
    """

    tensors: Mapping[str, TensorInfo]
    canonical: Callable[[str], str]
    ignored: Collection[str]

    def neighbours(self, starts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yields canonical and trainer's names of the neighbours of known tensors.

        Args:
          starts: By a known tensor's name, the prefix that its neighbours share.
        """
        fronts = {}
        for name, start in starts.items():
            rest, clean = name.removeprefix(start), self.canonical(name)
            if start and clean.endswith(rest):
                fronts[start] = clean.removesuffix(rest)
        names = sorted(self.tensors)
        for start, front in fronts.items():
            for clean in names[bisect.bisect_left(names, front) :]:
                if not clean.startswith(front):
                    break
                if not any(re.fullmatch(p, clean) for p in self.ignored):
                    yield clean, start + clean.removeprefix(front)


def problems(
    config: AdapterConfig, parts: Factors, trained: Collection[str], base: Base
) -> list[str]:
    """Returns the problems of factors and modules that the adapter's files lack.

    Args:
      config: Of the adapter.
      parts: Its tensors.
      trained: Names of tensors stored with the adapter that replace the base's.
      base: The model that it was trained from.
    """
    copied = {base.canonical(name) for name in (*parts.copies, *trained)}
    return [*_modules(config, parts, copied, base), *_factors(config, parts, base)]


def _factors(config: AdapterConfig, parts: Factors, base: Base) -> list[str]:
    """Returns the problem of modules that the config chooses and have no factors."""
    targets = config.targets
    if targets is None:
        return []
    # The output layer of a tied model is chosen with the embedding.
    starts = {f"{m}.weight": _start(m, m) for m in parts.low_rank if targets.has(m)}
    present = {base.canonical(f"{module}.weight") for module in parts.low_rank}
    lost = {
        clean
        for clean, name in base.neighbours(starts)
        if clean not in present
        and name.endswith(".weight")
        and len(base.tensors[clean].shape) > 1
        and targets.has(name.removesuffix(".weight"))
        and not config.saves(name)
    }
    if not lost:
        return []
    return [
        f"{len(lost)} weights that target_modules chooses have no low-rank factors, "
        f"while their neighbours have: {listed(sorted(lost))}; save the adapter again, "
        "in full"
    ]


def _modules(
    config: AdapterConfig, parts: Factors, copied: set[str], base: Base
) -> list[str]:
    """Returns the problems of saved modules that are missing or incomplete."""
    out = []
    for module in config.saved:
        alone = dataclasses.replace(config, saved=(module,))
        starts = {
            name: _start(inside, f"{inside}.weight")
            for name in parts.copies
            if (inside := alone.saved_module(name))
        }
        if starts:
            lost = {
                c for c, name in base.neighbours(starts) if alone.saves(name)
            } - copied
        else:  # Prefixes differ between the trainer's memory and files.
            last = dataclasses.replace(config, saved=(module.rsplit(".", 1)[-1],))
            lost = {c for c in base.tensors if last.saves(c)} - copied
        if lost:
            what = "only a part of it, without" if starts else "no tensor of it:"
            out.append(
                f"adapter_config.json: modules_to_save names {module!r}, and the files "
                f"hold {what} {listed(sorted(lost))}; save the adapter again, in full"
            )
    return out


def _start(module: str, otherwise: str) -> str:
    """Returns a name up to its last number, or another's up to its last dot."""
    match = re.match(r"(.*\.)\d+(\.|$)", module)
    return match[1] if match else otherwise[: otherwise.rfind(".") + 1]
