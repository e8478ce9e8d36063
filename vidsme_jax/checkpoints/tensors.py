"""One tensor of a checkpoint: where it lies, and how a slice of it is read."""

import dataclasses
import pathlib
from typing import Protocol, runtime_checkable

import numpy as np
from safetensors import safe_open

from vidsme_jax.checkpoints import pickled

Part = tuple[slice, ...]


@runtime_checkable
class Update(Protocol):
    """What an adapter changes of one tensor; see `low_rank`."""

    @property
    def infos(self) -> tuple["TensorInfo", ...]:
        """The adapter's tensors that it is computed from."""
        ...

    def read(self, base: "TensorInfo", part: Part) -> np.ndarray:
        """Returns a slice of the changed tensor, in float32."""
        ...


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and what its header says.

    Attributes:
      file: That holds it.
      name: In that file.
      shape: Of what is read.
      dtype: As safetensors names it: "F32", "BF16", "F16", ...
      layout: Of the values if the file is a `.bin`.
      update: An adapter's change, which is computed while reading.
      transposed: Whether the file holds the transpose, of shape `shape[::-1]`.
    """

    file: pathlib.Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: pickled.PickledTensor | None = None
    update: Update | None = None
    transposed: bool = False

    @property
    def files(self) -> frozenset[pathlib.Path]:
        """The files that reading it opens."""
        infos = self.update.infos if self.update is not None else ()
        return frozenset((self.file, *(info.file for info in infos)))

    def read(self, index: Part | None = None) -> np.ndarray:
        """Reads the tensor or a slice of it; an updated one in float32."""
        part = (slice(None),) * len(self.shape) if index is None else index
        if self.update is not None:
            return self.update.read(dataclasses.replace(self, update=None), part)
        if self.transposed:
            return self.transpose().read(part[::-1]).T
        if self.layout is not None:
            return np.array(pickled.read(self.file, self.layout)[part])
        with safe_open(self.file, framework="numpy") as opened:
            return opened.get_slice(self.name)[part]

    def transpose(self) -> "TensorInfo":
        """Returns the transpose, whose values are read like any other's."""
        return dataclasses.replace(
            self, shape=self.shape[::-1], transposed=not self.transposed
        )
