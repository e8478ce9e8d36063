"""Parameters back into the checkpoint's names and layouts: the inverse of `loading`."""

import pathlib

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from vidsme_jax.checkpoints import trees
from vidsme_jax.checkpoints.loading import Names


def save(path: pathlib.Path, state: nnx.State, names: Names) -> None:
    """Writes one safetensors file under canonical names.

    Args:
      path: The file; its folder must exist.
      state: The model's parameters.
      names: Its rules' patterns must be plain names with at most one group, the layer.
    """
    tensors = named(state, names)
    dtype = next(iter(tensors.values())).dtype
    unused = {name: value.astype(dtype) for name, value in names.unused().items()}
    save_file(unused | tensors, path, metadata={"format": "pt"})


def named(state: nnx.State, names: Names) -> dict[str, np.ndarray]:
    """Returns the parameters under canonical names, in the layouts of a checkpoint.

    Args:
      state: As for `save`.
      names: As for `save`.
    """
    tensors: dict[str, np.ndarray] = {}
    leaves = trees.flat(state)
    if lost := sorted(set(leaves) - {rule.path for rule in names.rules}):
        raise ValueError(f"No rule says where to write {', '.join(lost)}.")
    for rule in names.rules:
        if rule.path not in leaves:
            continue
        value = np.asarray(leaves[rule.path])
        for layer, piece in enumerate(value if rule.stacked else value[None]):
            name = rule.pattern.replace(r"(\d+)", str(layer)).replace("\\.", ".")
            tensors[name] = np.ascontiguousarray(rule.layout.write(piece))
    return tensors
