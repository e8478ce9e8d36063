"""The forward pass of LLaVA-NeXT-Video.

Each frame's features of the CLIP tower's second-last layer (CLS dropped) are averaged
over 2 x 2 patches *before* the projector; the frames follow one another, row by row,
without separators. A published 336-pixel tower gives 144 rows a frame.

Zhang et al., 2024. https://llava-vl.github.io/blog/2024-04-30-llava-next-video
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from vidsme_jax.models.clip_vit import ClipVit, ClipVitConfig
from vidsme_jax.models.decoder import Decoder, DecoderConfig
from vidsme_jax.models.layers import Projector


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaNextVideoConfig:
    """Hyperparameters; names follow the published `config.json`."""

    vision: ClipVitConfig
    text: DecoderConfig
    vision_depth: int  # Layers of the tower that are run.
    spatial_pool_stride: int
    video_token_index: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    @property
    def rows_per_frame(self) -> int:
        """Video rows that one frame gives."""
        return (self.vision.grid // self.spatial_pool_stride) ** 2

    @property
    def dtype(self) -> DTypeLike:
        """Of parameters and activations."""
        return self.text.dtype


class LlavaNextVideo(nnx.Module):
    """See `interface.VideoLM`."""

    def __init__(self, config: LlavaNextVideoConfig, *, rngs: nnx.Rngs):
        c = self.config = config
        self.vision_tower = ClipVit(c.vision, depth=c.vision_depth, rngs=rngs)
        self.multi_modal_projector = Projector(
            c.vision.hidden_size, c.text.hidden_size, dtype=c.dtype, rngs=rngs
        )
        self.language_model = Decoder(c.text, rngs=rngs)

    def normalise(
        self, frames: UInt8[Array, "frames height width 3"]
    ) -> Float[Array, "frames 3 height width"]:
        """Scales to [0, 1], then to the tower's mean and deviation, in float32."""
        mean, std = (
            jnp.asarray(x, jnp.float32).reshape(1, 1, 1, 3)
            for x in (self.config.image_mean, self.config.image_std)
        )
        scaled = frames.astype(jnp.float32) * jnp.float32(1 / 255)
        return ((scaled - mean) / std).transpose(0, 3, 1, 2)

    def encode_frames(
        self, pixels: Float[Array, "frames 3 height width"]
    ) -> Float[Array, "frames tokens embed"]:
        """Tower, 2 x 2 average pooling, projector."""
        features = self.vision_tower(pixels)
        frames, _, size = features.shape
        stride = self.config.spatial_pool_stride
        side = self.config.vision.grid // stride
        grid = features.reshape(frames, *(self.config.vision.grid,) * 2, size)
        grid = grid[:, : side * stride, : side * stride].astype(jnp.float32)
        tiles = grid.reshape(frames, side, stride, side, stride, size)
        pooled = jnp.mean(tiles, axis=(2, 4)).astype(features.dtype)
        return self.multi_modal_projector(pooled.reshape(frames, side * side, size))

    def video_rows(
        self, features: Float[Array, "clips frames tokens embed"]
    ) -> Float[Array, "clips rows embed"]:
        """Frame after frame, row-major within a frame."""
        return features.reshape(features.shape[0], -1, features.shape[-1])

    def row_mask(
        self, lengths: Int[Array, " clips"], num_frames: int
    ) -> Bool[Array, "clips rows"]:
        """Tells the rows of real frames from those of padding frames."""
        rows = jnp.arange(num_frames * self.config.rows_per_frame, dtype=jnp.int32)
        return rows[None] < lengths[:, None] * self.config.rows_per_frame

    def embed(self, tokens: Int[Array, " tokens"]) -> Float[Array, "tokens embed"]:
        """Looks text tokens up."""
        return self.language_model.embed_tokens(tokens)

    def decode(
        self, embeddings: Float[Array, "clips rows embed"]
    ) -> Float[Array, "clips rows embed"]:
        """Hidden states after the decoder's last norm."""
        return self.language_model(embeddings)

    @property
    def head(self) -> Float[Array, "vocab embed"]:
        """The output layer's weights, one row a class."""
        return self.language_model.head
