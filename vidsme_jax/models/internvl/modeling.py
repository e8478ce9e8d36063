"""The forward pass of InternVL3 [1] and InternVL3.5 [2].

InternViT sees each frame by itself, as one tile. The features of its patches are put
together by blocks of 2 x 2 (a pixel shuffle) and projected; a decoder reads them, with
the number of each frame as text in front of its rows.

[1] Zhu et al., 2025. https://arxiv.org/abs/2504.10479
[2] Wang et al., 2025. https://arxiv.org/abs/2508.18265
"""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from vidsme_jax.models import layers
from vidsme_jax.models.decoder import Decoder
from vidsme_jax.models.frames.flops import tower_flops
from vidsme_jax.models.frames.modeling import FrameModel, ShuffledConfig
from vidsme_jax.models.frames.pooling import pixel_shuffle
from vidsme_jax.models.internvl.tower import InternVit, InternVitConfig

_PROJECTOR_EPS = 1e-5  # No config says it.


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVlConfig(ShuffledConfig):
    """Hyperparameters of one model."""

    vision: InternVitConfig

    @property
    def vision_flops(self) -> int:
        """Operations of tower and projector on one frame."""
        v, size = self.vision, self.text.hidden_size
        projector = 2 * self.rows_per_frame * (self.shuffled_size + size) * size
        return projector + tower_flops(
            patches=v.grid**2,
            patch_size=v.patch_size,
            hidden_size=v.hidden_size,
            intermediate_size=v.intermediate_size,
            depth=v.num_hidden_layers,
            extra=1,
        )


class InternVl(FrameModel):
    """The module; see `interface` for its members."""

    def __init__(self, config: InternVlConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        self.vision_tower = InternVit(c.vision, rngs=rngs)
        self.layer_norm = layers.LayerNorm(
            c.shuffled_size, eps=_PROJECTOR_EPS, dtype=c.dtype
        )
        self.multi_modal_projector = layers.Projector(
            c.shuffled_size, c.text.hidden_size, dtype=c.dtype, rngs=rngs
        )
        self.language_model = Decoder(c.text, rngs=rngs)

    def encode_frames(
        self, pixels: Float[Array, "frames 3 height width"]
    ) -> Float[Array, "frames rows embed"]:
        """Encodes frames: tower, pixel shuffle, projector."""
        with jax.named_scope("tower"):
            features = self.vision_tower(pixels)
        blocks = pixel_shuffle(features, self.config.block)
        return self.multi_modal_projector(self.layer_norm(blocks))
