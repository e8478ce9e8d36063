"""The forward pass of Qwen2-VL [1], Qwen2.5-VL [2] and Qwen3-VL [3].

The tower sees two frames at once; the features of four neighbouring patches become one
row of the decoder, whose positions have three axes: time, height and width. Qwen3-VL
adds features of earlier blocks of the tower to the rows after the decoder's first
layers (DeepStack).

[1] Wang et al., 2024. https://arxiv.org/abs/2409.12191
[2] Bai et al., 2025. https://arxiv.org/abs/2502.13923
[3] Bai et al., 2025. https://arxiv.org/abs/2511.21631
"""

import dataclasses
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.models import layers
from vidsme_jax.models.decoder import Decoder
from vidsme_jax.models.frames.modeling import FrameConfig
from vidsme_jax.models.frames.tiled import TiledModel
from vidsme_jax.models.towers.grid_vit import GridVit, GridVitConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenVlConfig(FrameConfig):
    """Hyperparameters of one model.

    Attributes:
      vision: Of the tower.
      tokens_per_second: Positions of time that a second takes; 0: each pair of frames
        takes one. Not read where each pair has a text of its own.
    """

    vision: GridVitConfig
    tokens_per_second: float = 0.0

    def vision_flops(self, rows: int) -> int:
        """Operations of tower and projectors on one pair of frames."""
        v = self.vision
        wide = v.hidden_size * v.merge**2
        merger = 2 * rows * wide * (wide + self.text.hidden_size)
        return v.flops(rows) + (1 + len(v.taps)) * merger


class Merger(nnx.Module):
    """A norm, then the features of a block of patches through two dense layers."""

    def __init__(
        self, config: GridVitConfig, size: int, *, joined: bool, rngs: nnx.Rngs
    ):
        """Makes one.

        Args:
          config: Of the tower.
          size: Of a row of the decoder.
          joined: Whether the norm is of the joined features of a block.
          rngs: For the weights.
        """
        c, self.joined = config, joined
        self.wide = c.hidden_size * c.merge**2
        self.norm = c.norm(self.wide if joined else c.hidden_size)
        kind: dict[str, Any] = dict(bias=True, dtype=c.dtype, rngs=rngs)
        self.fc1 = layers.linear(self.wide, self.wide, **kind)
        self.fc2 = layers.linear(self.wide, size, **kind)

    def __call__(
        self, x: Float[Array, "items patches features"]
    ) -> Float[Array, "items rows embed"]:
        shape = len(x), -1, self.wide
        x = self.norm(x.reshape(shape)) if self.joined else self.norm(x).reshape(shape)
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class QwenVl(TiledModel):
    """The module; see `interface` for its members."""

    def __init__(self, config: QwenVlConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        self.visual = GridVit(c.vision, rngs=rngs)
        size = c.text.hidden_size
        self.merger = Merger(c.vision, size, joined=False, rngs=rngs)
        for place in range(len(c.vision.taps)):
            deep = Merger(c.vision, size, joined=True, rngs=rngs)
            setattr(self, f"deep_merger_{place}", deep)
        self.language_model = Decoder(c.text, rngs=rngs)

    @property
    def tower(self) -> GridVit:
        """The tower, under the name that it has in files."""
        return self.visual

    def project(
        self, features: list[Float[Array, "items patches features"]]
    ) -> list[Float[Array, "items rows embed"]]:
        """Merges the last features, and those of each tap by a merger of its own."""
        *tapped, last = features
        deep = [
            getattr(self, f"deep_merger_{place}")(x) for place, x in enumerate(tapped)
        ]
        return [self.merger(last), *deep]
