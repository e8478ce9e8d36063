"""What every model family offers, and what a loaded model is.

Axes: `clips`; `frames` T; `height`, `width` of a preprocessed frame; `tokens` of one
frame after pooling; `rows` n of a clip's video slice; `embed`; `vocab`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8


@runtime_checkable
class VideoLM(Protocol):
    """The forward pass of a family, as an `nnx.Module`.

    A family whose tower sees each frame by itself is run through `encode_frames` once
    for both directions; the reversed clip's features are the permuted natural ones.
    """

    def normalise(self, frames: UInt8[Array, "frames height width 3"]) -> Array:
        """Returns what the tower eats: (frames, 3, height, width), float."""
        ...

    def encode_frames(self, pixels: Array) -> Float[Array, "frames tokens embed"]:
        """Tower, pooling and projector, frame by frame."""
        ...

    def video_rows(
        self, features: Float[Array, "clips frames tokens embed"]
    ) -> Float[Array, "clips rows embed"]:
        """Lays the frames' features out as the decoder's video rows."""
        ...

    def row_mask(
        self, lengths: Int[Array, " clips"], num_frames: int
    ) -> Bool[Array, "clips rows"]:
        """Tells the rows of real frames from those of padding frames."""
        ...

    def embed(self, tokens: Int[Array, " tokens"]) -> Float[Array, "tokens embed"]:
        """Looks text tokens up."""
        ...

    def decode(
        self, embeddings: Float[Array, "clips rows embed"]
    ) -> Float[Array, "clips rows embed"]:
        """Runs the decoder; hidden states after its last norm."""
        ...

    @property
    def head(self) -> Float[Array, "vocab embed"]:
        """The output layer's weights."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """A checkpoint that has been checked, but whose tensors have not been read.

    Attributes:
      family: Its name in `models.MODELS`.
      fingerprint: Tells checkpoints apart (`Checkpoint.fingerprint`).
      prefix: Token ids before the video; the same for every clip of a run.
      prompt: The text around the video, for the report.
      prepare: Frames of any size to the uint8 frames of the model's input size.
      rows_per_frame: Video rows that one frame gives.
      max_frames: The most frames that the decoder's positions hold.
      dtype: Of parameters and activations.
      load: Reads the tensors onto devices and returns the model.
    """

    family: str
    fingerprint: str
    prefix: tuple[int, ...]
    prompt: str
    prepare: Callable[[np.ndarray], np.ndarray]
    rows_per_frame: int
    max_frames: int
    dtype: str
    load: Callable[[Callable[[str, tuple[int, ...]], jax.sharding.Sharding]], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its devices: the pure parts of its module and how to feed it."""

    plan: ModelPlan
    graphdef: nnx.GraphDef
    state: nnx.State
