"""PerceptionLM's forward pass.

A Perception Encoder sees each frame by itself; a projector maps each patch to the
decoder's size; blocks of patches are averaged; a Llama reads them, frame after frame.

Cho et al., 2025. https://arxiv.org/abs/2504.13180
"""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.models.decoder import Decoder
from vidsme_jax.models.frames.modeling import FrameConfig, FrameModel
from vidsme_jax.models.frames.pooling import pool
from vidsme_jax.models.layers import Projector
from vidsme_jax.models.perception_lm.tower import Pe
from vidsme_jax.models.perception_lm.tower_config import PeConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerceptionLmConfig(FrameConfig):
    """Hyperparameters of one model."""

    vision: PeConfig
    pooling: int  # Patches along a side of a block that is averaged.

    @property
    def rows_per_frame(self) -> int:
        """Video rows that one frame gives."""
        return (self.vision.grid // self.pooling) ** 2


class PerceptionLm(FrameModel):
    """The module; see `interface` for its members."""

    def __init__(self, config: PerceptionLmConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        self.vision_tower = Pe(c.vision, rngs=rngs)
        self.multi_modal_projector = Projector(
            c.vision.embed_dim, c.text.hidden_size, dtype=c.text.dtype, rngs=rngs
        )
        self.language_model = Decoder(c.text, rngs=rngs)

    def encode_frames(
        self, pixels: Float[Array, "frames 3 height width"]
    ) -> Float[Array, "frames rows embed"]:
        """Encodes frames: tower, projector and pooling."""
        c = self.config
        with jax.named_scope("tower"):
            features = self.vision_tower(pixels)
        features = self.multi_modal_projector(features)
        grid = features.reshape(len(features), c.vision.grid, c.vision.grid, -1)
        pooled = pool(grid, "average", c.pooling)
        return pooled.reshape(len(pooled), -1, pooled.shape[-1])
