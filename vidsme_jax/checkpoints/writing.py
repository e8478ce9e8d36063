"""Parameters back into the checkpoint's names and layouts: the inverse of `loading`."""

import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from vidsme_jax.checkpoints.loading import Rule


def save(
    path: pathlib.Path,
    state: nnx.State,
    rules: Sequence[Rule],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes one safetensors file under the rules' canonical names.

    Args:
      path: The file; its folder must exist.
      state: The model's parameters.
      rules: Each pattern must be a plain name with at most one group, the layer.
      shapes: For "patches" parameters, by path: the shape on disk.
      extra: Tensors that belong in the file but are no parameters, by name.
    """
    tensors = dict(extra or {}) | named(state, rules, shapes=shapes)
    save_file(tensors, path, metadata={"format": "pt"})


def named(
    state: nnx.State,
    rules: Sequence[Rule],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, np.ndarray]:
    """Returns the parameters under the rules' names, in the layouts of a checkpoint.

    Args:
      state: As for `save`.
      rules: As for `save`.
      shapes: As for `save`.
    """
    tensors: dict[str, np.ndarray] = {}
    pure = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))[0]
    leaves = {"/".join(str(key.key) for key in path): leaf for path, leaf in pure}
    if lost := sorted(set(leaves) - {rule.path for rule in rules}):
        raise ValueError(f"No rule says where to write {', '.join(lost)}.")
    for rule in rules:
        if rule.path not in leaves:
            continue
        value = np.asarray(leaves[rule.path])
        stacked = "(" in rule.pattern
        for layer, piece in enumerate(value if stacked else value[None]):
            if rule.layout in ("linear", "patches"):
                piece = piece.T
            if rule.layout == "patches":
                piece = piece.reshape((shapes or {})[rule.path])
            name = rule.pattern.replace(r"(\d+)", str(layer)).replace("\\.", ".")
            tensors[name] = np.ascontiguousarray(piece)
    return tensors
