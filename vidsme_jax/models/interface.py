"""The interface of model families, checkpoints and loaded models.

The module that `Model.make` returns has three members:

* `see(pixels)`: returns the tower's visual rows, (clips, views, visual, embed);
* `read(visual, batch)`: returns the decoder's states of the kept rows of a
  `batches.Batch`: of its trunks, (clips, directions, kept, embed), and of its texts,
  (texts, directions, kept, embed), or None if it has none;
* `head`: the output layer's weights, (vocab, embed).

With a fourth, `decoder`, the `decoder.Decoder` that `read` and `head` use, the model
can answer questions (`generation`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx

from vidsme_jax.base import Asked
from vidsme_jax.checkpoints import loading, trees
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.checkpoints.trees import Graph, State
from vidsme_jax.models.rows import MAX_FRAMES, Order, Rows, Shown, Text
from vidsme_jax.models.tiles import Tiling
from vidsme_jax.models.tokenizer_files import Tokenizer
from vidsme_jax.parallel import Split


class Flops(NamedTuple):
    """Floating-point operations for one clip; a multiply-add counts as two."""

    vision: float  # Tower, pooling and projector, once for both directions.
    prefill: float  # Decoder, per direction.
    head: float  # Output layer over the video rows, per direction.
    texts: float = 0.0  # Decoder and output layer over the texts, per direction.

    @property
    def pair(self) -> float:
        """The operations for both directions, with the texts."""
        return self.vision + 2 * (self.prefill + self.head + self.texts)

    @property
    def single(self) -> float:
        """The operations for the natural order alone, with the texts."""
        return self.vision + self.prefill + self.head + self.texts


@runtime_checkable
class Tokenise(Protocol):
    """`Model.tokenise`."""

    def __call__(self, asked: Asked | None = None, shown: Shown | None = None) -> Text:
        """Returns the tokens of a text, or of the prompt around a clip.

        Args:
          asked: The question and answer; the answer is followed by the token that ends
            a turn unless the limit of tokens ended it, and empty while it is unknown.
            None: the tokens of the prompt.
          shown: The clip of the prompt; None: one frame.

        Raises:
          AuditError: The text cannot be tokenised; lists why.
        """
        ...


@runtime_checkable
class LayOut(Protocol):
    """`Model.lay_out`."""

    def __call__(
        self,
        shown: Shown,
        prompt: Text,
        order: Order,
        texts: Sequence[Text] = (),
        slices: Sequence[str] = ("video",),
        /,
    ) -> Rows:
        """Returns the rows of one direction of a sample.

        Direction d reads view d, whose features are in its order already, unless there
        is one view only.

        Args:
          shown: The clip.
          prompt: The tokens around the video.
          order: The order of the frames.
          texts: The texts about the clip.
          slices: The slices whose rows are kept.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The description of a checkpoint, whose tensors have not been read.

    Attributes:
      family: The family's name.
      dtype: The type of parameters and activations.
      max_rows: The most rows that the decoder's positions hold.
      vocab_size: Classes of the output layer.
      remarks: Remarks on the checkpoint for the report.
      prompt: The text around the video, with one `prompts.PLACEHOLDER`.
      make: Makes the module with fresh parameters.
      names: The tensors' names, for reading and for writing.
      split: The parameters that a mesh splits over devices, and along which axes.
      prepare: Converts RGB frames (frames, height, width, 3) of any size to uint8
        frames of the model's input size; with a `tiling` to the result of its `cut`.
      tiling: How frames are cut if clips differ in size; None: all have one size.
      views: Returns, for an order of the frames, the orders that the tower must see:
        only the natural one if it sees each frame by itself, else the natural one and
        that order.
      lay_out: Returns the rows of a sample; see `LayOut`.
      tokenise: Returns the tokens of a text, or of the prompt; see `Tokenise`.
      prune: Returns `Shown.kept` for the result of `prepare`, for models that omit rows
        which hardly differ from those of the frame before. The reversed clip keeps
        other rows, so that the two cannot be compared: only the natural order is
        scored. None: the model is shown all rows.
      towers: The parts of the module that turn pixels into features; all parts but
        these and the decoder, `language_model`, are the projector.
      timed: Whether the model reads the times of the frames, as text or as positions.
      ends: The tokens that end a generated answer.
      decode: Returns the text of a generated answer, given its tokens.
      flops: Returns the least operations of a clip, given a `rows.Shown` or a number of
        frames; `text`: the tokens around the video (by default the prompt's); `texts`:
        for each text its tokens and how many of them are predicted.
      kernels: Returns which attention kernel ("cudnn", "splash" or "chunked") the
        "tower" and the "decoder" run on the devices of the current mesh, by default on
        the first local device.
      fingerprint: The checkpoint's fingerprint (`Checkpoint.fingerprint`).
      fill: Returns the abstract state filled with the tensors, as `shardings` places
        them; None for a model without tensors.
    """

    family: str
    dtype: str
    max_rows: int
    vocab_size: int
    remarks: tuple[str, ...]
    prompt: str
    make: Callable[[nnx.Rngs], nnx.Module]
    names: loading.Names
    split: tuple[Split, ...]
    prepare: Callable[[np.ndarray], np.ndarray]
    views: Callable[[Order], tuple[Order, ...]]
    lay_out: LayOut
    tokenise: Tokenise
    flops: Callable[..., Flops]
    kernels: Callable[[], dict[str, str]]
    tiling: Tiling | None = None
    prune: Callable[[np.ndarray], bytes] | None = None
    towers: tuple[str, ...] = ("vision_tower",)
    timed: bool = False
    ends: tuple[int, ...] = ()
    decode: Callable[[Sequence[int]], str] = lambda ids: ""
    fingerprint: str = ""
    fill: Callable[[State, loading.Shardings], State] | None = None

    @functools.cached_property
    def num_bytes(self) -> int:
        """The bytes of all parameters."""
        return trees.num_bytes(self.abstract()[1])

    @functools.cached_property
    def max_frames(self) -> int:
        """The most frames that `holds` allows, found from a linear estimate."""
        low, high = 0, 1
        if self.holds(4):
            two, four = (len(self._prompted(self.smallest(n)).feature) for n in (2, 4))
            low = min(2 + 2 * (self.max_rows - two) // max(four - two, 1), MAX_FRAMES)
            high = low + 1
            while not self.holds(low):
                low, high = max(low - 2 * (high - low), 4), low
        while self.holds(high):
            low, high = high, high + 2 * (high - low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.holds(middle) else (low, middle)
        return low

    @functools.cached_property
    def rows_per_frame(self) -> int:
        """Kept rows of one frame, or a group; with a `tiling`, of its `usual` size."""
        return int((self._prompted(Shown(1)).frame == 0).sum())

    def num_rows(self, frames: int) -> int:
        """Returns how many rows of a clip with this many frames have signals.

        If clips differ in size, that of the usual size counts.
        """
        return int((self._prompted(Shown(frames)).slice >= 0).sum())

    def holds(self, frames: int) -> bool:
        """Returns whether the decoder's positions hold a clip with this many frames.

        If clips differ in size, the smallest counts; never over `rows.MAX_FRAMES`.
        """
        if frames > MAX_FRAMES:
            return False
        return len(self._prompted(self.smallest(frames)).feature) <= self.max_rows

    def smallest(self, frames: int) -> Shown:
        """Returns the smallest clip with this many frames."""
        return Shown(frames, grid=self.tiling.least if self.tiling else (0, 0))

    def abstract(self) -> tuple[Graph, State]:
        """Returns the module's graph and a copy of its state without values."""
        graphdef, state = _abstract(self.make)
        return graphdef, jax.tree.map(lambda leaf: leaf, state)

    def load(self, shardings: loading.Shardings) -> "LoadedModel":
        """Reads the tensors onto devices; see `parallel.Devices.shardings`."""
        assert self.fill is not None, "a model without tensors"
        graphdef, abstract = self.abstract()
        return LoadedModel(self, graphdef, self.fill(abstract, shardings))

    def _prompted(self, shown: Shown) -> Rows:
        order = np.arange(shown.num_frames, dtype=np.int32)
        return self.lay_out(shown, self.tokenise(None, shown), order)


@functools.lru_cache(maxsize=4)
def _abstract(make: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Graph, State]:
    return nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model on its devices: description, graph and state."""

    model: Model
    graphdef: Graph
    state: State


class Options(NamedTuple):
    """Options of reading a checkpoint.

    Attributes:
      dtype: "bfloat16", "float16" or "float32".
      tokenizer: The tokenizer; None gives a model with empty texts.
      prompt: See `models.inspect`.
      allow_pickle: Whether pickled weights may be read.
    """

    dtype: str
    tokenizer: Tokenizer | None = None
    prompt: str = "family"
    allow_pickle: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: which checkpoints it reads, and how.

    Attributes:
      name: The name in reports, and in `config.json` of random models.
      reads: Returns whether a `config.json` is of this family.
      open: Describes a checkpoint, appending problems to a list. The returned
        checkpoint has all tensors, including those of other files.
      sizes: Tiny and published models by name, for `models.random`: the JSON files of a
        checkpoint by path, including "config.json".
      chat: Whether random checkpoints get a tokenizer like Qwen2's, which adds no BOS
        token, in place of one like Llama's.
      special: The family's special tokens, which that tokenizer then has too.
    """

    name: str
    reads: Callable[[Mapping[str, Any]], bool]
    open: Callable[[Checkpoint, Options, list[str]], tuple[Model, Checkpoint]]
    sizes: Mapping[str, Mapping[str, Any]]
    chat: bool
    special: tuple[str, ...] = ()
