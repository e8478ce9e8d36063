"""The forward pass of SmolVLM2 [1].

SigLIP sees each frame by itself, up to its last norm. Blocks of its features are put
after one another (a pixel shuffle), so that a frame has a ninth or a sixteenth of the
rows; one linear layer takes them to a Llama, which reads the time of each frame, as
text, in front of the frame's rows.

transformers looks a patch's position up by its place as a fraction of the frame. For
the square frames of a video that is the table in its order: exactly so for the grids
of the published towers, 32 and 27 patches a side (what rounding makes of the fractions
of some other grids depends on the device), and so it is here for every grid.

[1] Marafioti et al., 2025. SmolVLM. https://arxiv.org/abs/2504.05299
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
from vidsme_jax.models.towers.vit import Vit, VitConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmolVlmConfig(ShuffledConfig):
    """Hyperparameters of one model."""

    vision: VitConfig

    @property
    def vision_flops(self) -> int:
        """Operations of tower and projector on one frame."""
        v = self.vision
        size = self.text.hidden_size
        projector = 2 * self.rows_per_frame * self.shuffled_size * size
        return projector + tower_flops(
            patches=v.grid**2,
            patch_size=v.patch_size,
            hidden_size=v.hidden_size,
            intermediate_size=v.intermediate_size,
            depth=v.num_hidden_layers,
        )


class SmolVlm(FrameModel):
    """The module; see `interface` for its members."""

    def __init__(self, config: SmolVlmConfig, *, rngs: nnx.Rngs):
        c, v = config, config.vision
        self.config = config
        self.vision_model = Vit(v, depth=v.num_hidden_layers, rngs=rngs)
        self.post_layernorm = layers.LayerNorm(
            v.hidden_size, eps=v.layer_norm_eps, dtype=v.dtype
        )
        self.connector = layers.linear(
            c.shuffled_size, c.text.hidden_size, bias=False, dtype=c.dtype, rngs=rngs
        )
        self.language_model = Decoder(c.text, rngs=rngs)

    def encode_frames(
        self, pixels: Float[Array, "frames 3 height width"]
    ) -> Float[Array, "frames rows embed"]:
        """Encodes frames: tower, pixel shuffle, projector."""
        with jax.named_scope("tower"):
            features = self.post_layernorm(self.vision_model(pixels))
        return self.connector(pixel_shuffle(features, self.config.block))
