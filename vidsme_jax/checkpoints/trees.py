"""Converts states of modules to and from {path: parameter}, parts joined by "/"."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from flax import nnx, traverse_util

Graph: TypeAlias = nnx.GraphDef[Any]
State: TypeAlias = nnx.State[Any, Any]


def flat(state: State) -> dict[str, Any]:
    """Returns {path: parameter} of a state, abstract or not, in the order of paths."""
    pure = nnx.to_pure_dict(state)
    return dict(sorted(traverse_util.flatten_dict(pure, sep="/").items()))


def fill(state: State, leaves: Mapping[str, Any]) -> State:
    """Replaces every parameter of a state, in place, by its path; returns the state."""
    pure = {path: leaves[path] for path in flat(state)}
    nnx.replace_by_pure_dict(state, traverse_util.unflatten_dict(pure, sep="/"))
    return state


def num_bytes(state: State) -> int:
    """Returns the bytes of all parameters."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in flat(state).values())
