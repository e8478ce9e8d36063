"""Which modules of a model a LoRA training gave low-rank factors, by its config.

The names are those of the model in the trainer's memory. The rules are PEFT's:
https://github.com/huggingface/peft (`check_target_module_exists`).
"""

import dataclasses
import re
from typing import Any

_ANY_LAYER = r".*?\.[^.]*\.(?P<index>\d+)\."
Choice = str | tuple[str, ...]  # A pattern of whole names, or ends of names.


@dataclasses.dataclass(frozen=True)
class Targets:
    """The modules that have factors.

    Attributes:
      modules: `target_modules`.
      excluded: `exclude_modules`.
      layers: `layers_to_transform`; (): all.
      stacks: `layers_pattern`: names in front of a layer's number; (): any.
    """

    modules: Choice
    excluded: Choice = ()
    layers: tuple[int, ...] = ()
    stacks: tuple[str, ...] = ()

    def has(self, module: str) -> bool:
        """Returns whether a module has factors, by its name in the trainer's memory."""
        if _chosen(self.excluded, module) or not _chosen(self.modules, module):
            return False
        # Which layers counts for ends of names alone, and not for whole names.
        if isinstance(self.modules, str) or module in self.modules or not self.layers:
            return True
        for pattern in map(_layer, self.stacks) if self.stacks else (_ANY_LAYER,):
            if match := re.match(pattern, module):
                return int(match["index"]) in self.layers
        return False


def read(raw: dict[str, Any], problems: list[str]) -> Targets | None:
    """Reads the keys of an `adapter_config.json`; None if it does not say which."""
    modules = _choice(raw, "target_modules", problems)
    excluded = _choice(raw, "exclude_modules", problems)
    stacks = _choice(raw, "layers_pattern", problems)
    stacks = (stacks,) if isinstance(stacks, str) else stacks
    for stack in stacks:
        try:
            re.compile(_layer(stack))
        except re.error as error:
            problems.append(
                f"layers_pattern: {stack!r} is no regular expression ({error})"
            )
            stacks = ()
    layers: Any = raw.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers or []
    if not isinstance(layers, list) or any(type(layer) is not int for layer in layers):
        problems.append(
            f"layers_to_transform is {layers!r}, expected a list of numbers"
        )
        layers = []
    if not modules or modules == "all-linear":
        return None
    return Targets(modules, excluded, tuple(layers), stacks)


def _layer(stack: str) -> str:
    """Returns the pattern of a module in a layer of a stack."""
    return rf"(?:^|.*?\.){stack}\.(?P<index>\d+)\."


def _choice(raw: dict[str, Any], key: str, problems: list[str]) -> Choice:
    """Reads a pattern or a list of names."""
    found: Any = raw.get(key) or []
    try:
        if isinstance(found, str):
            re.compile(found)
            return found
    except re.error as error:
        problems.append(f"{key}: {found!r} is no regular expression ({error})")
        return ()
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        problems.append(f"{key} is {found!r}, expected a list of names or a pattern")
        return ()
    return tuple(found)


def _chosen(choice: Choice, module: str) -> bool:
    if isinstance(choice, str):
        return re.fullmatch(choice, module) is not None
    return any(f".{module}".endswith(f".{name}") for name in choice)
