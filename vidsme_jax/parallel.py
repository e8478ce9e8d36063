"""Runs one pure step on many devices: shards the parameters and the batch.

The step is written once, `step(state, batch)`, with clips on the leading axis of every
leaf of `batch` and of its result. "pmap" copies the parameters to each device and gives
each its share of the clips; "mesh" also shards the parameters over the axis `model`:
the compiler partitions the decoder's products, while attention and the head run on the
shards of each device (`by_shard`).

While a step is traced for a mesh, `grid` returns the mesh, so that models need no
argument for it.
"""

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vidsme_jax.base import AuditError

# A pattern of parameters' paths, and axes, counted from the last one: "mesh" shards the
# first of them whose size divides by the number of devices along `model`.
Split = tuple[str, tuple[int, ...]]

# What JAX raises if a device fails; it has no type of its own.
JaxRuntimeError: type[RuntimeError] = jax.errors.JaxRuntimeError

_ROOM = 0.75  # The part of a device's memory that parameters may fill.


@dataclasses.dataclass(frozen=True)
class Devices:
    """A grid of devices, `data` x `model`, and the front end that drives it."""

    mode: str  # "pmap" or "mesh".
    mesh: Mesh

    @property
    def num_data(self) -> int:
        """The number of devices along `data`."""
        return self.mesh.shape["data"]

    @property
    def num_processes(self) -> int:
        """The number of processes with devices in the grid."""
        return len({device.process_index for device in self.mesh.devices.flat})

    def batch_size(self, clips: int) -> int:
        """Returns how many clips of this process make a batch of at least `clips`."""
        multiple = math.lcm(self.num_data, self.num_processes)
        return math.ceil(clips / multiple) * multiple // self.num_processes

    def memory(self) -> int | None:
        """Returns the bytes that one device holds, None where that is not known."""
        return _memory(self.mesh.local_devices[0])

    def hold(self, num_bytes: int) -> bool:
        """Returns whether parameters of this many bytes fit, spread over `model`."""
        return _fits(num_bytes / self.mesh.shape["model"], self.memory())

    def shardings(
        self, split: Sequence[Split]
    ) -> Callable[[str, tuple[int, ...]], NamedSharding]:
        """Returns a function of a parameter's path and shape that gives its sharding.

        Args:
          split: Of the model; what matches no pattern, or does not divide, is copied.
        """

        def sharding(path: str, shape: tuple[int, ...]) -> NamedSharding:
            spec: list[str | None] = [None] * len(shape)
            for pattern, axes in split:
                if re.fullmatch(pattern, path):
                    size = self.mesh.shape["model"]
                    fitting = [axis for axis in axes if shape[axis] % size == 0]
                    if fitting:
                        spec[fitting[0]] = "model"
                    break
            return NamedSharding(self.mesh, PartitionSpec(*spec))

        return sharding

    def clips(self) -> NamedSharding:
        """Returns the sharding of a batch: each process has its own clips."""
        processes = self.num_processes
        if self.num_data % processes == 0:
            return NamedSharding(self.mesh, PartitionSpec("data"))
        # A copy of the model spans processes: the same devices, seen as processes.
        grid = self.mesh.devices.reshape(processes, -1)
        return NamedSharding(Mesh(grid, ("process", "local")), PartitionSpec("process"))

    def jit(self, step: Callable[..., Any]) -> Any:
        """Returns the jitted step of mode "mesh"; to be traced under the mesh."""
        return jax.jit(step, out_shardings=self.clips())

    def runner(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles `step(state, batch)` for these devices.

        `batch` holds this process's NumPy arrays. The compiled step returns before its
        result is computed; `fetch` waits for it. Nothing is donated: no result has the
        size of an argument, so that XLA could reuse none.
        """
        if self.mode == "mesh":
            compiled = self.jit(step)

            def run(state: nnx.State, batch: Any) -> Any:
                placed = jax.tree.map(self._place, batch)
                with jax.set_mesh(self.mesh):
                    return compiled(state, placed)

            return run
        devices = list(self.mesh.devices.flat)
        mapped = jax.pmap(step, axis_name="data", in_axes=(None, 0), devices=devices)
        share = NamedSharding(self.mesh, PartitionSpec("data"))

        def run_pmap(state: nnx.State, batch: Any) -> Any:
            folded = jax.tree.map(
                lambda x: x.reshape(
                    self.num_data, len(x) // self.num_data, *x.shape[1:]
                ),
                batch,
            )
            return mapped(state, jax.device_put(folded, share))

        return run_pmap

    def fetch(self, out: Any) -> Any:
        """Copies a result to the host: the clips of this process, in their order."""
        if self.mode == "pmap":
            host = jax.tree.map(np.asarray, out)
            return jax.tree.map(
                lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), host
            )
        return jax.tree.map(_own, out)

    def any_process(self, flag: bool) -> jax.Array:
        """Returns whether any process of the grid passes a true flag.

        A collective call: all processes make it at the same step. `np.asarray` of the
        result waits for it.
        """
        spread = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        own = np.full(len(self.mesh.local_devices), flag)
        return _any(self.mesh)(jax.make_array_from_process_local_data(spread, own))

    def _place(self, x: np.ndarray) -> jax.Array:
        if self.num_processes == 1:
            return jax.device_put(x, self.clips())
        return jax.make_array_from_process_local_data(self.clips(), x)


def keep_programs(folder: str) -> None:
    """Sets the folder of JAX's compilation cache; "" keeps no programs.

    A grid of several CPU devices uses no cache: see `make_devices`.
    """
    if folder:
        path = str(pathlib.Path(folder).expanduser())
        jax.config.update("jax_compilation_cache_dir", path)


def _keep_no_programs() -> None:
    if (folder := jax.config.values["jax_compilation_cache_dir"]) is not None:
        logging.info(
            "%s is left as it is: programs for several CPU devices are compiled by "
            "each run, since XLA may hang in one that was read from a folder",
            folder,
        )
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


def _memory(device: Any) -> int | None:
    """Returns the bytes that a device holds, None where that is not known."""
    return (device.memory_stats() or {}).get("bytes_limit")


def make_devices(
    mode: str, data: int, model: int, *, num_bytes: int = 0, dtype: str = ""
) -> Devices:
    """Makes the grid of devices: of this process if they suffice, else of all.

    Turns the compilation cache off for several CPU devices: with jaxlib 0.10.2 a
    program that was read from it may start a collective operation while another one
    waits, and hang.

    Args:
      mode: "pmap", "mesh", or "auto": "pmap" where the parameters fit a device, else
        "mesh" over as few devices as hold them. A device whose memory is not known (a
        CPU) is taken to be large enough.
      data: Devices along `data`; 0 takes all that `model` leaves.
      model: Devices along `model`; "auto" may take more than 1.
      num_bytes: Of the model's parameters.
      dtype: Of the parameters.

    Raises:
      AuditError: The devices do not suffice, or "pmap" is asked to split a model.
    """
    local = jax.local_devices()
    every = sorted(jax.devices(), key=lambda device: device.process_index)
    limit = _memory(local[0])
    problems = []
    if mode == "auto":
        if model == 1 and not _fits(num_bytes, limit):
            model = _fewest(num_bytes, limit or 0, len(local), len(every))
        mode = "mesh" if model > 1 else "pmap"
    if mode == "pmap" and model > 1:
        problems.append(
            f"config.parallel.model is {model}, but pmap copies the whole model to "
            "each device: take mode mesh"
        )
    elif not _fits(num_bytes / model, limit):
        kind = local[0].device_kind
        problems.append(
            _too_large(num_bytes, model, limit or 0, len(every), dtype, kind)
        )
    pool = local if model <= len(local) and data * model <= len(local) else every
    wanted = data or max(len(pool) // model, 1)
    if wanted * model > len(pool):
        problems.append(
            f"config.parallel asks for {wanted} x {model} devices, {len(pool)} are here"
        )
    elif pool is every and pool is not local and wanted * model < len(every):
        problems.append(
            f"config.parallel asks for {wanted} x {model} devices, more than this "
            f"process has ({len(local)}) and fewer than all have ({len(every)}): a "
            "grid is of one process or of all"
        )
    if mode == "pmap" and pool is not local and len(every) > len(local):
        problems.append("config.parallel: pmap takes the devices of one process only")
    if problems:
        raise AuditError(problems)
    chosen = pool[: wanted * model]
    if len(chosen) > 1 and chosen[0].platform == "cpu":
        _keep_no_programs()
    if pool is local and len(chosen) == len(local):  # In the order of the interconnect.
        axes = (AxisType.Auto,) * 2
        mesh = jax.make_mesh(
            (wanted, model), ("data", "model"), axis_types=axes, devices=chosen
        )
        return Devices(mode, mesh)
    grid_of = np.array(chosen).reshape(wanted, model)
    return Devices(mode, Mesh(grid_of, ("data", "model")))


def in_gib(size: int | float) -> str:
    """Returns a number of bytes as text, also in GiB."""
    return f"{size / 2**30:.1f} GiB ({size:,.0f} bytes)"


def grid() -> AbstractMesh | None:
    """Returns the mesh of the current trace, None inside `by_shard` or without one."""
    mesh = jax.sharding.get_abstract_mesh()
    split = "model" in mesh.axis_names and not mesh.manual_axes
    return mesh if split else None


def platform() -> str:
    """Returns the platform of the current trace: "cpu", "tpu", "nvidia" or "other"."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.local_devices()[0]
    if device.platform in ("cpu", "tpu"):
        return device.platform
    return "nvidia" if "NVIDIA" in device.device_kind.upper() else "other"


def spread(x: Any, *spec: Any) -> Any:
    """Constrains the sharding of an array, if there is a mesh."""
    mesh = grid()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(
        x, NamedSharding(mesh, PartitionSpec(*spec))
    )


def each(function: Callable[..., Any], *items: Any) -> Any:
    """Applies a function to independent items, on a mesh sharded over all devices.

    Args:
      function: Of items along the leading axis, which its results have too.
      *items: Arrays, or trees of them.
    """
    mesh = grid()
    if mesh is None:
        return function(*items)
    count, axes = len(jax.tree.leaves(items)[0]), ("data", "model")

    def placed(x: Any) -> Any:
        fill = [(0, -count % mesh.size)] + [(0, 0)] * (x.ndim - 1)
        return spread(jnp.pad(x, fill), axes)

    out = function(*jax.tree.map(placed, items))
    return jax.tree.map(lambda x: spread(x, axes)[:count], out)


def by_shard(function: Callable[..., Any], in_specs: Any, out_specs: Any):
    """Returns a function that runs on each device's shards of its arguments."""
    return jax.shard_map(
        function, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


@functools.lru_cache(maxsize=8)
def _any(mesh: Mesh) -> Callable[..., jax.Array]:
    return jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _fits(size: int | float, limit: int | None) -> bool:
    return limit is None or size <= _ROOM * limit


def _too_large(
    num_bytes: int, model: int, limit: int, here: int, dtype: str, kind: str
) -> str:
    """Returns what is needed, what there is, and what to set."""
    text = f"config.parallel: the parameters take {in_gib(num_bytes)}"
    text += f" in {dtype}" if dtype else ""
    if model > 1:
        text += f", at least {in_gib(num_bytes / model)} on each of {model} devices"
    text += f"; a device ({kind}) holds {in_gib(limit)}, of which parameters may fill "
    text += f"{in_gib(_ROOM * limit)}, since a batch needs memory too. "
    fewest = _fewest(num_bytes, limit, here, here)
    settings = []
    if _fits(num_bytes / fewest, limit):
        settings.append(
            f"config.parallel.mode = mesh and config.parallel.model = {fewest}"
        )
    if dtype == "float32":
        settings.append(f"config.model.dtype = bfloat16: {in_gib(num_bytes / 2)}")
    if settings:
        return text + f"Set {', or '.join(settings)}"
    needed = math.ceil(num_bytes / (_ROOM * limit)) if limit else 0
    return text + (
        f"That takes {needed} such devices in mode mesh, and {here} are here, or one "
        f"that holds {in_gib(num_bytes / _ROOM)}"
    )


def _fewest(num_bytes: int, limit: int, local: int, every: int) -> int:
    """Returns how many devices hold the parameters; all if even those do not."""
    for total in (local, every):
        for model in range(2, total + 1):
            if total % model == 0 and _fits(num_bytes / model, limit):
                return model
    return every


def _own(x: jax.Array) -> np.ndarray:
    """Returns the rows of a result that this process's devices hold."""
    if x.is_fully_addressable:
        return np.asarray(x)
    parts = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])
