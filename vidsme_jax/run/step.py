"""The pure step: from pixels and rows to the signals of every direction.

`see -> read -> head`: the tower makes visual rows, the decoder the states of the kept
rows, and the streaming head reduces each state to its signals. Directions, prompts and
questions are data in `models.batches.Batch`.
"""

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from vidsme_jax import parallel
from vidsme_jax.base import AnyArray, TokenSignals
from vidsme_jax.checkpoints.trees import Graph, State
from vidsme_jax.entropy import streaming
from vidsme_jax.models.batches import Batch, Texts

_HEAD_SHARE = 8  # Logits may take this part of what parameters leave free.


class Found(NamedTuple):
    """The result of a step.

    Attributes:
      video: Signals (clips, directions, kept, ...) of the trunks' kept rows; None where
        none are kept.
      texts: Signals (texts, directions, kept, ...) of the texts' kept rows, among them
        a mean profile for each column of `Texts.means`; None without texts.
      blank: log p of the texts' targets after a grey video, in nats; None without one.
    """

    video: TokenSignals | None
    texts: TokenSignals | None
    blank: Float[AnyArray, "texts kept"] | None


@functools.lru_cache(maxsize=8)  # One function per model, so that it compiles once.
def make_step(
    graphdef: Graph,
    *,
    second: bool,
    text_second: bool = False,
    memory: int | None = None,
) -> Callable[[State, Batch], Found]:
    """Returns the pure `step(state, batch)`.

    Args:
      graphdef: The graph of the model.
      second: Whether a score of the video needs the head's second pass.
      text_second: The same of the texts.
      memory: Bytes that logits may take on a device; see `streaming.rows_at_once`.
    """

    def step(state: State, batch: Batch) -> Found:
        model: Any = nnx.merge(graphdef, state)
        reduced = functools.partial(_reduced, model.head, memory=memory)
        hidden, asked = model.read(model.see(batch.pixels), batch)
        video = texts = blank = None
        if hidden.shape[2]:
            video = reduced(hidden, batch.means, second=second)
        if batch.texts is not None:
            texts = reduced(asked, *_of_texts(batch.texts), second=text_second)
        if batch.blank is not None and batch.blank.texts is not None:
            _, asked = model.read(model.see(batch.blank.pixels), batch.blank)
            found = reduced(asked, *_of_texts(batch.blank.texts), second=False)
            blank = found.log_prob[:, 0]
        return Found(video, texts, blank)

    return step


def _of_texts(texts: Texts) -> tuple[Array | np.ndarray, Array | np.ndarray]:
    """Returns averages and targets of texts, for all directions alike."""
    return texts.means[:, None], texts.target[:, None]


def _reduced(
    head: Float[Array, "vocab embed"],
    hidden: Float[Array, "clips directions kept embed"],
    means: Bool[Array | np.ndarray, "clips _ kept means"],
    target: Int[Array | np.ndarray, "clips 1 kept"] | None = None,
    **options: Any,
) -> TokenSignals:
    """Reduces the kept rows of each direction to signals (clips, directions, ...).

    What is the same in all directions may be given for one.
    """
    size = hidden.shape[:2]
    means = jnp.swapaxes(means, 2, 3)

    def in_all(x: Array | np.ndarray) -> Array:
        whole = jnp.broadcast_to(x, (*size, *x.shape[2:]))
        return whole.reshape(-1, *x.shape[2:])

    def of_clips(x: Array) -> Array:
        return x.reshape(*size, *x.shape[1:])

    given = (hidden, means) if target is None else (hidden, means, target)
    return jax.tree.map(of_clips, _head(head, *map(in_all, given), **options))


def head_memory(memory: int | None, parameters: int) -> int | None:
    """Returns the bytes for logits on a device, None if nothing is known.

    Args:
      memory: Bytes of the device's memory.
      parameters: Bytes of them that lie there.
    """
    return None if memory is None else (memory - parameters) // _HEAD_SHARE


def _head(
    head: Float[Array, "vocab embed"],
    hidden: Float[Array, "batch kept embed"],
    means: Bool[Array, "batch means kept"],
    *target: Int[Array, "batch kept"],
    second: bool,
    memory: int | None,
) -> TokenSignals:
    """Reduces rows to signals; on a mesh each device takes its classes."""
    mesh, count = parallel.grid(), head.shape[0]
    shard: dict[str, Any] = {}
    if mesh is not None:
        head = jnp.pad(head, [(0, -count % mesh.shape["model"]), (0, 0)])
        shard["shard"] = streaming.VocabularyShard(count, "model")

    def run(head: Array, hidden: Array, means: Array, *target: Array) -> TokenSignals:
        given: dict[str, Any] = {"targets": target[0]} if target else {}
        return streaming.token_signals(
            hidden, head, means, second=second, memory=memory, **shard, **given
        )

    if mesh is None:
        return run(head, hidden, means, *target)
    clips, rows = PartitionSpec("data"), PartitionSpec("model")
    specs = (rows, *(clips,) * (2 + len(target)))
    return parallel.by_shard(run, specs, clips)(head, hidden, means, *target)
