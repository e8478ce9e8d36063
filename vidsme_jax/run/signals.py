"""The door from Python: a loaded model and frames to signals."""

import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import ClipError, TokenSignals
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.parallel import make_devices
from vidsme_jax.run.pipeline import Group, Input, Pipeline


def compute(
    model: LoadedModel,
    frames: UInt8[np.ndarray, "frames height width 3"],
    *,
    against: str = "reversed",
) -> TokenSignals:
    """Returns the signals of one clip, all of them; arrays are (2, rows, ...).

    Example:
      >>> from vidsme_jax import models
      >>> model = models.load("random:llava_qwen-tiny", dtype="float32")
      >>> found = compute(model, np.zeros((4, 64, 64, 3), np.uint8))
      >>> found.renyi.shape[::2]
      (2, 15)

    Args:
      model: From `models.load`.
      frames: RGB, of any size.
      against: The order of the second direction; see `second_order`.

    Raises:
      ClipError: A statistic is not finite, or the device fails.
      AuditError: The device lacks memory.
    """
    count = len(frames)
    pipeline = Pipeline(
        model,
        make_devices("pmap", 1, 1),
        batch_size=1,
        num_frames=count,
        second=True,
        against=against,
    )
    clip = Input(None, model.model.prepare(frames))
    results = pipeline.settle(pipeline.send(Group(count, [clip])))
    if pipeline.failure is not None:
        raise pipeline.failure
    ((_, signals, _),) = results
    if isinstance(signals, ClipError):
        raise signals
    return signals
