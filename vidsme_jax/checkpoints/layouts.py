"""Layouts of tensors on disk, relative to the parameters that they fill.

A layout converts in both directions. `Layout` itself is the identity; a family adds a
layout by deriving from it.
"""

import math

import numpy as np

from vidsme_jax.checkpoints.tensors import TensorInfo

Shape = tuple[int, ...]


class Layout:
    """The identity: the tensor has the layout of the parameter.

    Parameters of stacked layers take one tensor a layer; these methods are called with
    the parameter of one layer.
    """

    def disk_shape(self, shape: Shape) -> Shape:
        """Returns the shape on disk of a parameter's tensor."""
        return shape

    def fits(self, found: Shape, shape: Shape) -> bool:
        """Returns whether a tensor of shape `found` can fill a parameter of `shape`."""
        return found == self.disk_shape(shape)

    def read(self, info: TensorInfo, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a slice of the parameter from its tensor."""
        return info.read(index)

    def write(self, value: np.ndarray) -> np.ndarray:
        """Returns the tensor on disk of a parameter."""
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

    With one frame the tensor on disk has no axis of frames.
    """

    def __init__(self, frames: int):
        """Stores the number of frames of a patch."""
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
    """The identity, without rows of the tensor beyond the parameter's."""

    def fits(self, found: Shape, shape: Shape) -> bool:
        return found[1:] == shape[1:] and found[:1] >= shape[:1]


SAME, LINEAR, PATCHES, ROWS = Layout(), _Linear(), _Patches(), _Rows()
