"""The forward pass of VideoLLaMA3 [1].

A SigLIP whose positions are rotary sees each frame by itself, in any size, up to its
last norm. The mean of four neighbouring features goes through two dense layers into a
Qwen2, which reads the time of each frame, as text, in front of the frame's rows.

[1] Zhang et al., 2025. VideoLLaMA 3. https://arxiv.org/abs/2501.13106
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.models import layers
from vidsme_jax.models.decoder import Decoder
from vidsme_jax.models.frames.modeling import FrameConfig
from vidsme_jax.models.frames.tiled import TiledModel
from vidsme_jax.models.towers.grid_vit import GridVit, GridVitConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoLlama3Config(FrameConfig):
    """Hyperparameters of one model."""

    vision: GridVitConfig

    def vision_flops(self, rows: int) -> int:
        """Operations of tower and projector on one frame."""
        size = self.text.hidden_size
        projector = 2 * rows * size * (self.vision.hidden_size + size)
        return self.vision.flops(rows) + projector


class VideoLlama3(TiledModel):
    """The module; see `interface` for its members."""

    def __init__(self, config: VideoLlama3Config, *, rngs: nnx.Rngs):
        c = self.config = config
        v, size = c.vision, c.text.hidden_size
        self.vision_model = GridVit(v, rngs=rngs)
        self.post_layernorm = v.norm(v.hidden_size)
        self.projector = layers.Projector(v.hidden_size, size, dtype=c.dtype, rngs=rngs)
        self.language_model = Decoder(c.text, rngs=rngs)

    @property
    def tower(self) -> GridVit:
        """The tower, under the name that it has in files."""
        return self.vision_model

    def project(
        self, features: list[Float[Array, "items patches features"]]
    ) -> list[Float[Array, "items rows embed"]]:
        """Projects features: norm, mean of blocks, projector.

        Bilinear resampling to half of the size, as the model was trained with, is the
        mean of blocks of two by two.
        """
        v = self.config.vision
        normed = self.post_layernorm(features[-1]).astype(jnp.float32)
        blocks = normed.reshape(len(normed), -1, v.merge**2, v.hidden_size)
        return [self.projector(jnp.mean(blocks, axis=2).astype(v.dtype))]
