"""Tensors of a checkpoint: their places in files, read whole or in slices."""

import dataclasses
import math
import pathlib
from typing import Protocol, runtime_checkable

import numpy as np
from safetensors import safe_open

from vidsme_jax.checkpoints import pickled
from vidsme_jax.checkpoints.descriptions import PickledTensor

Part = tuple[slice, ...]
_BLOCK = 2**25  # Bytes of each tensor that are compared at a time.


@runtime_checkable
class Update(Protocol):
    """An adapter's change of one tensor; see `low_rank`."""

    @property
    def infos(self) -> tuple["TensorInfo", ...]:
        """The adapter's tensors of the change."""
        ...

    def read(self, base: "TensorInfo", part: Part) -> np.ndarray:
        """Returns a slice of the changed tensor, in float32."""
        ...


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """The place of a tensor and the content of its header.

    Attributes:
      file: The file that holds it.
      name: In that file.
      shape: Of the values as `read` returns them.
      dtype: As safetensors names it: "F32", "BF16", "F16", ...
      layout: Of the values in a `.bin` file; None for safetensors.
      update: An adapter's change, computed while reading.
      transposed: Whether the file holds the transpose, of shape `shape[::-1]`.
    """

    file: pathlib.Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: PickledTensor | None = None
    update: Update | None = None
    transposed: bool = False

    @property
    def files(self) -> frozenset[pathlib.Path]:
        """The files that `read` opens."""
        infos = self.update.infos if self.update is not None else ()
        return frozenset((self.file, *(info.file for info in infos)))

    def read(self, index: Part | None = None) -> np.ndarray:
        """Reads the tensor or a slice of it; with an update, in float32."""
        part = (slice(None),) * len(self.shape) if index is None else index
        if self.update is not None:
            return self.update.read(dataclasses.replace(self, update=None), part)
        if self.transposed:
            return self.transpose().read(part[::-1]).T
        if self.layout is not None:
            return np.array(pickled.read(self.file, self.layout)[part])
        with safe_open(self.file, framework="numpy") as opened:
            return opened.get_slice(self.name)[part]

    def equals(self, other: "TensorInfo") -> bool:
        """Returns whether two tensors have the same values; reads them in blocks."""
        if self.shape != other.shape:
            return False
        if not self.shape:
            return bool(np.array_equal(self.read(), other.read()))
        rows = max(1, _BLOCK // max(1, 4 * math.prod(self.shape[1:])))
        rest = (slice(None),) * (len(self.shape) - 1)
        for start in range(0, self.shape[0], rows):
            part = (slice(start, min(start + rows, self.shape[0])), *rest)
            if not np.array_equal(self.read(part), other.read(part)):
                return False
        return True

    def transpose(self) -> "TensorInfo":
        """Returns the transpose."""
        return dataclasses.replace(
            self, shape=self.shape[::-1], transposed=not self.transposed
        )
