"""Turns errors of devices into messages; those of memory say what to set."""

import re
from collections.abc import Sequence

from absl import logging

from vidsme_jax.base import AuditError
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.parallel import Devices, JaxRuntimeError, in_gib
from vidsme_jax.run.stacking import Padded
from vidsme_jax.run.stopping import RunStopped
from vidsme_jax.wording import printable

_LACKING = ("RESOURCE_EXHAUSTED", "Out of memory")
# In the errors of XLA's allocators and of its compiler for TPUs.
_ASKED = (
    r"allocat\w+ ([\d.,]+ ?(?:bytes|[KMGT]i?B))",
    r"Used ([\d.]+[KMGT]) of [\d.]+[KMGT] hbm",
)
_QUOTED = 200  # Characters of an error that names no size.


def one_line(error: Exception) -> str:
    """Returns the first line of an error of the devices, fit for a message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0], _QUOTED)


def is_lacking(error: Exception) -> bool:
    """Returns whether a device ran out of memory."""
    return any(words in str(error) for words in _LACKING)


def loaded(model: Model, devices: Devices) -> LoadedModel:
    """Reads parameters onto devices; a second time after an error that may pass.

    Raises:
      AuditError: A device lacks memory.
      RunStopped: A device has another error, twice.
    """
    where, failed = devices.shardings(model.split), ""
    while True:
        try:
            return model.load(where)
        except JaxRuntimeError as error:
            if is_lacking(error):
                what = "to load the parameters"
                raise _advice(error, what, model, devices, ()) from error
            cause = f"the parameters could not be loaded: {one_line(error)}"
            if failed:
                raise RunStopped(cause) from error
            failed = cause
        # Out of the block above: what was read is not held by the error any more.
        logging.warning("%s; once more", failed)


def first_batch(
    error: Exception,
    model: Model,
    devices: Devices,
    batch_size: int,
    num_frames: int,
    shape: Padded | None = None,
) -> AuditError:
    """Returns what to say if devices are full at the first batch, compiling included.

    Args:
      error: An error for which `is_lacking` is true.
      model: The model that is loaded.
      devices: The devices that it is on.
      batch_size: See `config.batch_size`.
      num_frames: See `config.video.num_frames`.
      shape: The shape of the batch, if batches of others were computed.
    """
    clips = devices.batch_size(batch_size) * devices.num_processes
    settings: list[str] = []
    if clips > devices.num_data:
        settings.append(f"config.batch_size = {devices.num_data} (it is {batch_size})")
    settings.append(f"a smaller config.video.num_frames (it is {num_frames})")
    what = f"for the first batch, {clips} clips of up to {num_frames} frames"
    if shape is not None:
        of = f"{clips} clips of up to {shape.num_frames} frames"
        what = f"for a batch of {of}{_texts_of(shape)}, after smaller ones"
    return _advice(error, what, model, devices, settings)


def _texts_of(shape: Padded) -> str:
    if shape.texts is None:
        return ""
    return f" with {shape.texts.rows} rows of texts each"


def _advice(
    error: Exception,
    what: str,
    model: Model,
    devices: Devices,
    settings: Sequence[str],
) -> AuditError:
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
    return AuditError([text])


def _asked(error: str) -> str:
    for pattern in _ASKED:
        if found := re.search(pattern, error):
            return f"{found[1]} were asked for"
    return f"the error is {printable(error.splitlines()[0], _QUOTED)!r}"


def _available(devices: Devices) -> str:
    first = devices.mesh.local_devices[0]
    found: dict[str, int] = first.memory_stats() or {}
    if "bytes_limit" not in found:
        return f"how much {first.device_kind} has is not known"
    limit, used = found["bytes_limit"], found.get("bytes_in_use", 0)
    return f"{first.device_kind} has {in_gib(limit)}, {in_gib(limit - used)} of it free"
