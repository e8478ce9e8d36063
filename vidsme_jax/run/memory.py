"""Turns a device's lack of memory into one message that says what to set."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence

import jax

from vidsme_jax.base import AuditError, printable
from vidsme_jax.models.interface import Model
from vidsme_jax.parallel import Devices, in_gib

_LACKING = "RESOURCE_EXHAUSTED"
# In the errors of XLA's allocators and of its compiler for TPUs.
_ASKED = (
    r"allocat\w+ ([\d.,]+ ?(?:bytes|[KMGT]i?B))",
    r"Used ([\d.]+[KMGT]) of [\d.]+[KMGT] hbm",
)
_QUOTED = 200  # Characters of an error that names no size.


@contextlib.contextmanager
def enough_to_load(model: Model, devices: Devices) -> Iterator[None]:
    """Reports that devices are full while parameters are read onto them.

    Raises:
      AuditError: A device lacks memory. Other errors are raised as they are.
    """
    with _enough("to load the parameters", model, devices, (), lambda: True):
        yield


@contextlib.contextmanager
def enough_to_begin(
    model: Model,
    devices: Devices,
    *,
    batch_size: int,
    num_frames: int,
    begun: Callable[[], bool],
) -> Iterator[None]:
    """Reports that devices are full at the first batch, compiling included.

    Args:
      model: Of the model, which is loaded.
      devices: Where it runs.
      batch_size: See `config.batch_size`.
      num_frames: See `config.video.num_frames`.
      begun: Whether a batch has been computed: errors are raised as they are then.

    Raises:
      AuditError: A device lacks memory. Other errors are raised as they are.
    """
    clips, settings = devices.batch_size(batch_size) * devices.num_processes, []
    if clips > devices.num_data:
        settings.append(f"config.batch_size = {devices.num_data} (it is {batch_size})")
    settings.append(f"a smaller config.video.num_frames (it is {num_frames})")
    what = f"for the first batch, {clips} clips of up to {num_frames} frames"
    with _enough(what, model, devices, settings, lambda: not begun()):
        yield


@contextlib.contextmanager
def _enough(
    what: str,
    model: Model,
    devices: Devices,
    settings: Sequence[str],
    wanted: Callable[[], bool],
) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if _LACKING not in str(error) or not wanted():
            raise
        settings = [
            *settings,
            "config.parallel.mode = mesh with a larger config.parallel.model (it is "
            f"{devices.mesh.shape['model']})",
        ]
        if model.dtype == "float32":
            settings.append("config.model.dtype = bfloat16")
        text = (
            f"the memory of the devices does not suffice {what}: {_asked(str(error))}; "
            f"{_available(devices)}; the parameters take {in_gib(model.num_bytes)} in "
            f"{model.dtype}. Set {', or '.join(settings)}"
        )
        raise AuditError([text]) from error


def _asked(error: str) -> str:
    for pattern in _ASKED:
        if found := re.search(pattern, error):
            return f"{found[1]} were asked for"
    return f"the error is {printable(error.splitlines()[0], _QUOTED)!r}"


def _available(devices: Devices) -> str:
    first = devices.mesh.local_devices[0]
    found = first.memory_stats() or {}
    if "bytes_limit" not in found:
        return f"how much {first.device_kind} has is not known"
    limit, used = found["bytes_limit"], found.get("bytes_in_use", 0)
    return f"{first.device_kind} has {in_gib(limit)}, {in_gib(limit - used)} of it free"
