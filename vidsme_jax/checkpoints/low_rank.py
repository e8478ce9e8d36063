r"""Updates of one weight by an adapter: LoRA, DoRA and biases of factors.

Axes: `out` and `in` of a weight [out, in]; `rank` of the factors. A convolution's
weight is [out, in, height, width], an embedding's [vocab, embed].
"""

import dataclasses

import numpy as np

from vidsme_jax.checkpoints.tensors import Part, TensorInfo

_BLOCK = 8192  # Rows of an embedding that are read at once for norms of columns.


@dataclasses.dataclass(frozen=True)
class LowRank:
    r"""LoRA: $W + s B A$ [1].

    Attributes:
      a: [rank, in, ...].
      b: [out, rank, ...], with trailing sizes of 1 for a convolution.
      scale: s.

    [1] Hu et al., 2021. LoRA. https://arxiv.org/abs/2106.09685
    """

    a: TensorInfo
    b: TensorInfo
    scale: float

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """The two factors."""
        return self.a, self.b

    def read(self, base: TensorInfo, part: Part) -> np.ndarray:
        """Returns a slice of the merged weight, in float32."""
        whole = (slice(None),) * (len(self.b.shape) - 1)
        a = self.a.read((slice(None), *part[1:])).astype(np.float32)
        b = self.b.read((part[0], *whole)).astype(np.float32)
        rank = len(a)
        update = b.reshape(-1, rank) @ a.reshape(rank, -1)
        value = base.read(part).astype(np.float32)
        return value + np.float32(self.scale) * update.reshape(value.shape)


@dataclasses.dataclass(frozen=True)
class Decomposed:
    r"""DoRA: $m V / \lVert V \rVert$ of $V = W + s B A$ [1].

    The norm is that of a row, in the release as in PEFT; for an embedding, whose rows
    are the inputs, that of a column.

    Attributes:
      direction: V.
      magnitude: m, one value for each norm, in any shape.
      columns: Whether the norms are those of columns.

    [1] Liu et al., 2024. DoRA. https://arxiv.org/abs/2402.09353
    """

    direction: LowRank
    magnitude: TensorInfo
    columns: bool

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """The factors and the magnitudes."""
        return *self.direction.infos, self.magnitude

    def read(self, base: TensorInfo, part: Part) -> np.ndarray:
        """Returns a slice of the merged weight, in float32."""
        m = self.magnitude.read().astype(np.float32).reshape(-1)
        if self.columns:
            norm = np.sqrt(self._squares(base, part[1]))
            return self.direction.read(base, part) * (m[part[1]] / norm)
        rows = (part[0], *(slice(None) for _ in part[1:]))
        value = self.direction.read(base, rows)
        norm = np.sqrt((value.reshape(len(value), -1) ** 2).sum(1))
        factor = (m[part[0]] / norm).reshape(-1, *(1 for _ in part[1:]))
        return (value * factor)[(slice(None), *part[1:])]

    def _squares(self, base: TensorInfo, columns: slice) -> np.ndarray:
        """Returns the sums of squares of columns, reading blocks of rows."""
        starts = range(0, base.shape[0], _BLOCK)
        blocks = [(slice(k, min(k + _BLOCK, base.shape[0])), columns) for k in starts]
        return np.sum([(self.direction.read(base, b) ** 2).sum(0) for b in blocks], 0)


@dataclasses.dataclass(frozen=True)
class Shift:
    """Adds the scaled bias of a second factor (`lora_bias`) to a layer's bias.

    Attributes:
      bias: Of the second factor, in the shape of the layer's.
      scale: s.
    """

    bias: TensorInfo
    scale: float

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """The bias."""
        return (self.bias,)

    def read(self, base: TensorInfo, part: Part) -> np.ndarray:
        """Returns a slice of the shifted bias, in float32."""
        added = np.float32(self.scale) * self.bias.read(part).astype(np.float32)
        return base.read(part).astype(np.float32) + added
