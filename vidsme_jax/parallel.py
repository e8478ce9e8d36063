"""One pure step on many devices: where parameters lie and how a batch is spread.

The step is written once, `step(state, prefix, batch)`, with clips on the leading axis
of every leaf of `batch` and of its result. "pmap" copies the parameters to each device
and gives each its share of the clips; "mesh" also splits the parameters over the axis
`model` and leaves the collectives to the compiler.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vidsme_jax.base import AuditError

# The axis of a parameter that "mesh" splits over `model`, counted from the last one;
# what no pattern matches is copied.
_SPLIT = (
    (r".*/(q|k|v|gate|up)_proj/(kernel|bias)", -1),
    (r".*/(fc1|linear_1)/(kernel|bias)", -1),
    (r".*/(o|out|down)_proj/kernel", -2),
    (r".*/(fc2|linear_2)/kernel", -2),
    (r".*/(lm_head|embed_tokens)/weight", -2),
)


@dataclasses.dataclass(frozen=True)
class Devices:
    """A grid of devices, `data` x `model`, and the front end that drives it."""

    mode: str  # "pmap" or "mesh".
    mesh: Mesh

    @property
    def num_data(self) -> int:
        """Devices along `data`: a batch is a multiple of it."""
        return self.mesh.shape["data"]

    def sharding(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
        """Returns where a parameter lies; odd sizes are copied rather than split."""
        spec: list[str | None] = [None] * len(shape)
        for pattern, axis in _SPLIT:
            if (
                re.fullmatch(pattern, path)
                and shape[axis] % self.mesh.shape["model"] == 0
            ):
                spec[axis] = "model"
                break
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def runner(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles `step(state, prefix, batch)` for these devices.

        `batch` holds NumPy arrays; the result's leaves have the clips in front.
        """
        if self.mode == "mesh":
            spread = NamedSharding(self.mesh, PartitionSpec("data"))
            compiled = jax.jit(step)

            def run(state, prefix, batch):
                return compiled(state, prefix, jax.device_put(batch, spread))

            return run
        devices = list(self.mesh.devices.flat)
        mapped = jax.pmap(
            step, axis_name="data", in_axes=(None, None, 0), devices=devices
        )

        def run_pmap(state, prefix, batch):
            folded = jax.tree.map(
                lambda x: x.reshape(self.num_data, -1, *x.shape[1:]), batch
            )
            out = mapped(state, prefix, folded)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)

        return run_pmap


def make_devices(mode: str, data: int, model: int) -> Devices:
    """Arranges this process's devices.

    Args:
      mode: "pmap", "mesh", or "auto": "mesh" where model > 1, else "pmap".
      data: Devices along `data`; 0 takes all that `model` leaves.
      model: Devices along `model`.

    Raises:
      AuditError: The devices do not suffice, or "pmap" is asked to split a model.
    """
    devices = jax.local_devices()
    problems = []
    if mode == "auto":
        mode = "mesh" if model > 1 else "pmap"
    if mode == "pmap" and model > 1:
        problems.append(
            f"config.parallel.model is {model}, but pmap copies the whole model to "
            "each device: take mode mesh"
        )
    wanted = data or max(len(devices) // model, 1)
    if wanted * model > len(devices):
        problems.append(
            f"config.parallel asks for {wanted} x {model} devices, "
            f"{len(devices)} are here"
        )
    if problems:
        raise AuditError(problems)
    grid = np.array(devices[: wanted * model]).reshape(wanted, model)
    return Devices(mode, Mesh(grid, ("data", "model")))


def padded_size(clips: int, num_data: int) -> int:
    """Returns the smallest multiple of the data axis that holds so many clips."""
    return math.ceil(clips / num_data) * num_data
