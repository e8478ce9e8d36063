"""How a tensor on disk is laid out against the parameter that it fills.

A layout is one object with both directions. `Layout` itself is the identity; a family
adds a layout of its own by deriving from it.
"""

import math

import numpy as np

from vidsme_jax.checkpoints.tensors import TensorInfo

Shape = tuple[int, ...]


class Layout:
    """The tensor is laid out as the parameter.

    Parameters of stacked layers take one tensor a layer, of which these methods know
    nothing: they see the parameter of one layer.
    """

    def disk_shape(self, shape: Shape) -> Shape:
        """Returns the tensor's shape for a parameter's."""
        return shape

    def fits(self, found: Shape, shape: Shape) -> bool:
        """Returns whether a tensor of a shape can fill a parameter of another."""
        return found == self.disk_shape(shape)

    def read(self, info: TensorInfo, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a slice of the parameter."""
        return info.read(index)

    def write(self, value: np.ndarray) -> np.ndarray:
        """Returns the tensor of a parameter."""
        return value.reshape(self.disk_shape(value.shape))


class _Linear(Layout):
    """[out, in] on disk, [in, out] here."""

    def disk_shape(self, shape: Shape) -> Shape:
        return shape[::-1]

    def read(self, info: TensorInfo, index: tuple[slice, ...]) -> np.ndarray:
        return info.read(index[::-1]).T

    def write(self, value: np.ndarray) -> np.ndarray:
        return value.T.reshape(self.disk_shape(value.shape))


class _Patches(_Linear):
    """[out, 3, patch, patch] on disk, [3 * patch * patch, out] here."""

    def disk_shape(self, shape: Shape) -> Shape:
        patch = math.isqrt(shape[0] // 3)
        return shape[1], 3, patch, patch

    def read(self, info: TensorInfo, index: tuple[slice, ...]) -> np.ndarray:
        return info.read().reshape(info.shape[0], -1).T[index]


class Tiles(Layout):
    """[out, 3, frames, patch, patch] on disk, [frames * patch * patch * 3, out] here.

    Of one frame the disk has no axis of frames.
    """

    def __init__(self, frames: int):
        """Keeps how many frames a patch has."""
        self._frames = frames

    def disk_shape(self, shape: Shape) -> Shape:
        patch = math.isqrt(shape[0] // (3 * self._frames))
        frames = (self._frames,) if self._frames > 1 else ()
        return shape[1], 3, *frames, patch, patch

    def read(self, info: TensorInfo, index: tuple[slice, ...]) -> np.ndarray:
        value = np.moveaxis(info.read(), 1, -1)
        return value.reshape(len(value), -1).T[index]

    def write(self, value: np.ndarray) -> np.ndarray:
        out, colours, *rest = self.disk_shape(value.shape)
        whole = value.T.reshape(out, *rest, colours)
        return np.ascontiguousarray(np.moveaxis(whole, -1, 1))


class _Rows(Layout):
    """As on disk, but rows of the tensor beyond the parameter's are left out."""

    def fits(self, found: Shape, shape: Shape) -> bool:
        return found[1:] == shape[1:] and found[:1] >= shape[:1]


SAME, LINEAR, PATCHES, ROWS = Layout(), _Linear(), _Patches(), _Rows()
