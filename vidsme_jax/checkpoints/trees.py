"""The parameters of a module by their path, parts joined by "/"."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx


def flat(state: nnx.State) -> dict[str, Any]:
    """Returns {path: parameter} of a state, abstract ones included."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))[0]
    return {_path(path): leaf for path, leaf in leaves}


def fill(state: nnx.State, leaves: Mapping[str, Any]) -> nnx.State:
    """Replaces every parameter of a state by that of the same path; returns it."""
    pure = jax.tree_util.tree_map_with_path(
        lambda path, _: leaves[_path(path)], nnx.to_pure_dict(state)
    )
    nnx.replace_by_pure_dict(state, pure)
    return state


def num_bytes(state: nnx.State) -> int:
    """Returns the bytes that the parameters take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in flat(state).values())


def _path(keys: Any) -> str:
    return "/".join(str(key.key) for key in keys)
