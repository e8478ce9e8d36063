"""Reads which modules of a model have low-rank factors, from the adapter's config.

The names are those of the model in the trainer's memory. The rules are PEFT's:
https://github.com/huggingface/peft (`check_target_module_exists`).
"""

import dataclasses
import re
from typing import Any

from vidsme_jax.checkpoints import content, patterns
from vidsme_jax.checkpoints.patterns import Pattern, Steps

_ANY_LAYER = r".*?\.[^.]*\.(?P<index>\d+)\."
Choice = Pattern | frozenset[str]  # Of whole names, or ends of names.


@dataclasses.dataclass(frozen=True)
class Targets:
    """The modules that have factors.

    Attributes:
      modules: `target_modules`.
      excluded: `exclude_modules`.
      layers: `layers_to_transform`; empty: all.
      stacks: `layers_pattern`: names in front of a layer's number; empty: any.
    """

    modules: Choice
    excluded: Choice = frozenset()
    layers: frozenset[int] = frozenset()
    stacks: tuple[Pattern, ...] = ()

    def has(self, module: str) -> bool:
        """Returns whether a module has factors, by its name in the trainer's memory."""
        if _chosen(self.excluded, module) or not _chosen(self.modules, module):
            return False
        # Layers restrict ends of names only, not whole names.
        whole = isinstance(self.modules, Pattern) or module in self.modules
        if whole or not self.layers:
            return True
        if not self.stacks:
            match = re.match(_ANY_LAYER, module)
            return match is not None and int(match["index"]) in self.layers
        found = (_layer(stack, module) for stack in self.stacks)
        return next((i for i in found if i is not None), None) in self.layers


def read(raw: dict[str, Any], steps: Steps, problems: list[str]) -> Targets | None:
    """Reads the keys of an `adapter_config.json`; None if they name no modules.

    Args:
      raw: The file's content.
      steps: Counts the steps of the patterns.
      problems: Receives one sentence per faulty key.
    """
    modules = _choice(raw, "target_modules", steps, problems)
    excluded = _choice(raw, "exclude_modules", steps, problems)
    stacks: Any = raw.get("layers_pattern") or []
    stacks = [stacks] if isinstance(stacks, str) else stacks
    if not _are_names(stacks):
        problems.append(
            f"layers_pattern is {content.shown(stacks)}, expected a name or a list of "
            "names"
        )
        stacks = []
    stacks = [compiled("layers_pattern", s, steps, problems) for s in stacks]
    layers: Any = raw.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers or []
    if not isinstance(layers, list) or any(type(layer) is not int for layer in layers):
        problems.append(
            f"layers_to_transform is {content.shown(layers)}, expected a list of "
            "numbers"
        )
        layers = []
    if not modules or raw.get("target_modules") == "all-linear":
        return None
    known = tuple(stack for stack in stacks if stack is not None)
    return Targets(modules, excluded, frozenset(layers), known)


def compiled(key: str, text: str, steps: Steps, problems: list[str]) -> Pattern | None:
    """Returns a pattern; None, and appends a problem, if it cannot be read."""
    try:
        return Pattern(text, steps)
    except ValueError as error:
        problems.append(
            f"{key}: {content.shown(text)} is no regular expression that is built "
            f"({error}); name the modules in full"
        )
        return None


def _layer(stack: Pattern, module: str) -> int | None:
    """Returns the number of a module's layer in a stack; None if it is in none."""
    for start in patterns.starts(module):
        for end in stack.ends(module, [start]):
            if match := re.compile(r"\.(\d+)\.").match(module, end):
                return int(match[1])
    return None


def _choice(raw: dict[str, Any], key: str, steps: Steps, problems: list[str]) -> Choice:
    """Reads a pattern or a list of names."""
    found: Any = raw.get(key) or []
    if isinstance(found, str):
        return compiled(key, found, steps, problems) or frozenset()
    if not _are_names(found):
        problems.append(
            f"{key} is {content.shown(found)}, expected a list of names or a pattern; "
            f"at most {patterns.MOST} of at most {patterns.LONGEST} characters"
        )
        return frozenset()
    return frozenset(found)


def _are_names(found: Any) -> bool:
    return (
        isinstance(found, list)
        and len(found) <= patterns.MOST
        and all(isinstance(n, str) and len(n) <= patterns.LONGEST for n in found)
    )


def _chosen(choice: Choice, module: str) -> bool:
    if isinstance(choice, Pattern):
        return choice.matches(module)
    return any(module[start:] in choice for start in patterns.starts(module))
