"""The forward pass of models whose tower sees each frame by itself.

A tower and a projector turn each frame into as many visual rows; a causal decoder reads
them, frame after frame, with or without text between them.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from vidsme_jax import parallel
from vidsme_jax.models.batches import Batch
from vidsme_jax.models.decoder import Decoder, Visual
from vidsme_jax.models.decoder_params import DecoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameConfig:
    """What the hyperparameters of every such model hold."""

    text: DecoderConfig
    image_mean: tuple[float, ...]  # Of the three channels of pixels, and the next.
    image_std: tuple[float, ...]

    @property
    def dtype(self) -> DTypeLike:
        """Of parameters and activations."""
        return self.text.dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffledConfig(FrameConfig):
    """Those of a model that puts blocks of features together (`pooling.pixel_shuffle`).

    Attributes:
      vision: Of the tower; has `hidden_size` and `grid`, patches along a side.
      block: Features along a side of what becomes one row.
    """

    vision: Any
    block: int

    @property
    def rows_per_frame(self) -> int:
        """Video rows that one frame gives."""
        return (self.vision.grid // self.block) ** 2

    @property
    def shuffled_size(self) -> int:
        """Numbers of one block of features."""
        return self.vision.hidden_size * self.block**2


class VideoModel(nnx.Module):
    """The module of a tower and a decoder; see `interface` for its members.

    A family's module derives from it, or from one of a kind of tower, and sets the two
    attributes.

    Attributes:
      config: The hyperparameters, of the family's own kind of `FrameConfig`.
      language_model: The decoder.
    """

    config: Any
    language_model: Decoder

    def read(
        self, visual: Float[Array, "clips views visual embed"] | Visual, batch: Batch
    ) -> tuple[
        Float[Array, "clips directions kept embed"],
        Float[Array, "texts directions text_kept embed"] | None,
    ]:
        """Returns the decoder's states of the kept rows, of trunks and of texts."""
        return self.language_model.read(visual, batch)

    @property
    def decoder(self) -> Decoder:
        """The language model, whose layers `generation` walks with a cache."""
        return self.language_model

    @property
    def head(self) -> Float[Array, "vocab embed"]:
        """The output layer's weights, one row a class."""
        return self.language_model.head


class FrameModel(VideoModel):
    """The module of such a model: a family's defines `encode_frames`."""

    def encode_frames(
        self, pixels: Float[Array, "frames 3 height width"]
    ) -> Float[Array, "frames rows embed"]:
        """Returns the visual rows of normalised frames."""
        raise NotImplementedError

    def tail(self) -> Float[Array, "tail embed"] | None:
        """Returns the visual rows after the last frame, if there are any."""
        return None

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

    def see(
        self, pixels: UInt8[Array, "clips views frames height width 3"]
    ) -> Float[Array, "clips views visual embed"]:
        """Returns the visual rows: those of the tail, then the frames'."""
        clips, views = pixels.shape[:2]
        frames = pixels.reshape(-1, *pixels.shape[3:])
        features = parallel.each(
            lambda x: self.encode_frames(self.normalise(x)), frames
        )
        visual = features.reshape(clips, views, -1, features.shape[-1])
        visual = parallel.spread(visual, "data")
        if (tail := self.tail()) is not None:
            tail = jnp.broadcast_to(tail, (clips, views, *tail.shape))
            visual = jnp.concatenate([tail, visual], axis=2)
        return visual
