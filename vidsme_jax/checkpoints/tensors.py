"""One tensor of a checkpoint: where it lies, and how a slice of it is read."""

import dataclasses
import pathlib

import numpy as np
from safetensors import safe_open

from vidsme_jax.checkpoints import pickled


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and what its header says.

    Attributes:
      file: That holds it.
      name: In that file.
      shape: On disk.
      dtype: As safetensors names it: "F32", "BF16", "F16", ...
      layout: Of the values if the file is a `.bin`.
      update: A low-rank update that is added while reading.
    """

    file: pathlib.Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: pickled.PickledTensor | None = None
    update: "LowRank | None" = None

    def read(self, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Reads the tensor or a slice of it; an update is added in float32."""
        part = (slice(None),) * len(self.shape) if index is None else index
        if self.layout is not None:
            value = np.array(pickled.read(self.file, self.layout)[part])
        else:
            with safe_open(self.file, framework="numpy") as opened:
                value = opened.get_slice(self.name)[part]
        if self.update is None:
            return value
        a = self.update.a.read((slice(None), part[1])).astype(np.float32)
        b = self.update.b.read((part[0], slice(None))).astype(np.float32)
        return value.astype(np.float32) + np.float32(self.update.scale) * (b @ a)


@dataclasses.dataclass(frozen=True)
class LowRank:
    """scale * b @ a, added to a weight [out, in]; Hu et al., 2021.

    https://arxiv.org/abs/2106.09685
    """

    a: TensorInfo
    b: TensorInfo
    scale: float
