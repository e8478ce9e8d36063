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
from jaxtyping import Array, Float, Int, UInt8

from vidsme_jax.models.flops import Flops
from vidsme_jax.models.prompts import Prompt
from vidsme_jax.models.rows import Order, Rows, Shown, Text


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
        """Tower, pooling, projector and separators: the frame's rows in the decoder."""
        ...

    @property
    def tail(self) -> Float[Array, "tail embed"]:
        """Rows of the video slice that follow the last frame, often none."""
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
      fingerprint: Of the checkpoint (`Checkpoint.fingerprint`).
      prompt: The text around the video and its token ids; the same for every clip.
      prepare: Frames of any size to the uint8 frames of the model's input size.
      text: The prompt's tokens around the video.
      lay_out: What is shown, a text and an order of the frames to `Rows`.
      max_rows: The most tokens that the decoder's positions hold.
      vocab_size: Classes of the output layer.
      dtype: Of parameters and activations.
      parameters: Bytes of them.
      flops: Frames of a clip to the operations that both directions need at least,
        with the prompt's text.
      kernels: Returns which attention kernel ("cudnn", "splash" or "chunked") the
        "tower" and the "decoder" run on the devices of the mesh that is set, by default
        on the first local device.
      load: Reads the tensors onto devices and returns the model.
      remarks: What a reader of the report should know about the checkpoint.
    """

    family: str
    fingerprint: str
    prompt: Prompt
    prepare: Callable[[np.ndarray], np.ndarray]
    text: Text
    lay_out: Callable[[Shown, Text, Order], Rows]
    max_rows: int
    vocab_size: int
    dtype: str
    parameters: int
    flops: Callable[[int], Flops]
    kernels: Callable[[], dict[str, str]]
    load: Callable[[Callable[[str, tuple[int, ...]], jax.sharding.Sharding]], Any]
    remarks: tuple[str, ...] = ()

    def num_rows(self, frames: int) -> int:
        """Returns how many rows the decoder reads of a clip of so many frames."""
        order = np.arange(frames, dtype=np.int32)
        return len(self.lay_out(Shown(frames), self.text, order).feature)

    @property
    def rows_per_frame(self) -> int:
        """Kept rows that show one frame."""
        one = self.lay_out(Shown(1), self.text, np.zeros(1, np.int32))
        return int((one.frame == 0).sum())

    @property
    def max_frames(self) -> int:
        """The most frames that the decoder's positions hold."""
        fitting = lambda frames: self.num_rows(frames) <= self.max_rows  # noqa: E731
        low, high = 0, self.max_rows
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fitting(middle) else (low, middle - 1)
        return low


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its devices: the pure parts of its module and how to feed it."""

    plan: ModelPlan
    graphdef: nnx.GraphDef
    state: nnx.State
