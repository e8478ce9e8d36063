"""What a model family returns for a checkpoint, and what a loaded model is.

Axes: `clips`; `texts` asked about them; `frames` T; `height`, `width` of a preprocessed
frame; `embed`; `vocab`.
The module that `Model.make` returns has three members:

* `see(pixels)`: the tower's visual rows, (clips, views, visual, embed);
* `read(visual, batch)`: the decoder's states of the kept rows of a `batches.Batch`: of
  its trunks, (clips, directions, kept, embed), and of its texts, (texts, directions,
  kept, embed), or None if it has none;
* `head`: the output layer's weights, (vocab, embed).

With a fourth, `decoder`, the `decoder.Decoder` behind `read` and `head`, the model can
answer questions: see `generation`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from vidsme_jax.checkpoints import loading, trees
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models.rows import MAX_FRAMES, Order, Rows, Shown, Text
from vidsme_jax.models.tiles import Tiling
from vidsme_jax.parallel import Split


class Flops(NamedTuple):
    """Operations of one clip; a multiply-add counts as two."""

    vision: float  # Tower, pooling and projector, once for both directions.
    prefill: float  # Decoder, per direction.
    head: float  # Output layer over the video rows, per direction.
    texts: float = 0.0  # Decoder and output layer of texts about it, per direction.

    @property
    def pair(self) -> float:
        """The natural and the reversed clip, with the texts about them."""
        return self.vision + 2 * (self.prefill + self.head + self.texts)

    @property
    def single(self) -> float:
        """The natural clip alone, with the texts about it."""
        return self.vision + self.prefill + self.head + self.texts


Tokenise = Callable[..., Text]  # See `Model`.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What a family says of one checkpoint, whose tensors have not been read.

    Attributes:
      family: The family's name.
      dtype: Of parameters and activations.
      max_rows: The most rows that the decoder's positions hold.
      vocab_size: Classes of the output layer.
      remarks: What a reader of the report should know about the checkpoint.
      prompt: The text around the video, with one `prompts.PLACEHOLDER`.
      make: Makes the module with fresh parameters.
      names: The tensors' names, for reading and for writing.
      split: Which parameters a mesh splits over devices, and along which axes.
      prepare: Turns RGB frames (frames, height, width, 3) of any size into the uint8
        frames of the model's input size; with a `tiling` into what its `cut` returns.
      tiling: How frames of any size are cut, where each clip has a size of its own;
        None: all have one.
      views: Returns, for an order of the frames, the orders that the tower must see:
        the natural one alone if it sees each frame by itself, else the natural one and
        that order.
      lay_out: Returns the rows of a sample: what is shown, the text of the prompt, an
        order of the frames, the texts asked about the clip (none by default), and the
        slices whose rows are kept (`("video",)` by default).
        Direction d reads view d, whose features are in that order already, unless there
        is one view only.
      tokenise: Returns the tokens of what is asked (`base.Asked`): the answer has the
        token that ends a turn behind it unless the limit of tokens ended it; it is
        empty while it is not known. Without, or of None, those of the prompt around a
        clip, of one frame if it is not given (`rows.Shown`).
      prune: Returns `Shown.kept` of what `prepare` made, for models that leave out rows
        which hardly differ from those of the frame before. Of the reversed clip others
        are left, so that it has no rows to compare: the natural order alone is scored.
        None: the model is shown all.
      towers: The parts of the module that turn pixels into features; what is neither of
        them nor of the decoder, `language_model`, is the projector.
      timed: Whether the model reads the times of the frames, as text or as positions.
      ends: The tokens that end a generated answer.
      decode: Returns the text of a generated answer, of its tokens.
      flops: Returns the operations that both directions of a clip need at least, of
        `rows.Shown` or of so many frames, with `text` tokens around the video (by
        default the prompt's); of `texts`, a pair of numbers each, the tokens and the
        predicted ones.
      kernels: Returns which attention kernel ("cudnn", "splash" or "chunked") the
        "tower" and the "decoder" run on the devices of the mesh that is set, by default
        on the first local device.
      fingerprint: Of the checkpoint (`Checkpoint.fingerprint`).
      fill: Returns the abstract state with its tensors, as `shardings` places them;
        None of a model without tensors.
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
    lay_out: Callable[..., Rows]
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
    fill: Callable[[nnx.State, loading.Shardings], nnx.State] | None = None

    @functools.cached_property
    def num_bytes(self) -> int:
        """Bytes of all parameters."""
        return trees.num_bytes(self.abstract()[1])

    @functools.cached_property
    def max_frames(self) -> int:
        """The most frames for which `holds`, sought from a linear estimate on."""
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
        """Kept rows that show one frame, or a group; see `tiling.usual`."""
        return int((self._prompted(Shown(1)).frame == 0).sum())

    def num_rows(self, frames: int) -> int:
        """Returns how many rows of a clip of so many frames have signals.

        Where clips differ in size, of the usual one.
        """
        return int((self._prompted(Shown(frames)).slice >= 0).sum())

    def holds(self, frames: int) -> bool:
        """Returns whether the decoder's positions hold a clip of so many frames.

        Where clips differ in size, one of the smallest; never over `rows.MAX_FRAMES`.
        """
        if frames > MAX_FRAMES:
            return False
        return len(self._prompted(self.smallest(frames)).feature) <= self.max_rows

    def smallest(self, frames: int) -> Shown:
        """Returns what is shown at least of a clip of so many frames."""
        return Shown(frames, grid=self.tiling.least if self.tiling else (0, 0))

    def abstract(self) -> tuple[nnx.GraphDef, nnx.State]:
        """Returns the module's graph and its state without values."""
        return nnx.split(nnx.eval_shape(lambda: self.make(nnx.Rngs(0))))

    def load(self, shardings: loading.Shardings) -> "LoadedModel":
        """Reads the tensors onto devices.

        Args:
          shardings: Where each parameter lies; see `parallel.Devices.shardings`.
        """
        assert self.fill is not None, "a model without tensors"
        graphdef, abstract = self.abstract()
        return LoadedModel(self, graphdef, self.fill(abstract, shardings))

    def _prompted(self, shown: Shown) -> Rows:
        order = np.arange(shown.num_frames, dtype=np.int32)
        return self.lay_out(shown, self.tokenise(None, shown), order)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model on its devices: the pure parts of its module and how to feed it."""

    model: Model
    graphdef: nnx.GraphDef
    state: nnx.State


class Options(NamedTuple):
    """How a checkpoint is to be read.

    Attributes:
      dtype: "bfloat16", "float16" or "float32".
      tokenizer: Of transformers; None gives a model whose text is empty.
      prompt: See `models.inspect`.
      allow_pickle: Whether pickled weights may be read.
    """

    dtype: str
    tokenizer: Any = None
    prompt: str = "family"
    allow_pickle: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A model family: which checkpoints it reads, and how.

    Attributes:
      name: In reports, and in `config.json` of random models.
      reads: Returns whether a `config.json` is of this family.
      open: Describes a checkpoint, appending what is wrong to a list. The checkpoint
        that it returns has all tensors, wherever they lie.
      sizes: Tiny and published models by name: the JSON files of a checkpoint by path,
        "config.json" among them. Of random weights; see `models.random`.
      chat: Whether random checkpoints get a tokenizer like Qwen2's, which adds no token
        in front of a text, in place of Llama's.
      special: The family's own special tokens, which that tokenizer then has too.
    """

    name: str
    reads: Callable[[Mapping[str, Any]], bool]
    open: Callable[[Checkpoint, Options, list[str]], tuple[Model, Checkpoint]]
    sizes: Mapping[str, Mapping[str, Any]]
    chat: bool
    special: tuple[str, ...] = ()
