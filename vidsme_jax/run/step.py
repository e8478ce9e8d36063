"""The pure step: pixels and rows to the signals of every direction.

`see -> read -> head`: the tower's visual rows, the decoder's states of the kept rows,
and the streaming head, which reduces each state to its signals. The step does not know
what a direction, a prompt or a question is; those are data in `models.rows.Batch`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from vidsme_jax import parallel
from vidsme_jax.base import TokenSignals
from vidsme_jax.entropy import streaming
from vidsme_jax.models.rows import Batch

_HEAD_SHARE = 8  # Logits may take this part of what parameters leave free.


class Found(NamedTuple):
    """Stand-in."""

    video: Any = None
    texts: Any = None
    blank: Any = None


@functools.lru_cache(maxsize=8)  # One function per model, so that it compiles once.
def make_step(
    graphdef: nnx.GraphDef,
    *,
    second: bool,
    text_second: bool = False,
    memory: int | None = None,
) -> Callable[[nnx.State, Batch], Found]:
    """Returns the pure `step(state, batch)`; results are (clips, directions, ...).

    Args:
      graphdef: Of the model.
      second: Whether a score needs what the head's second pass gives.
      memory: Bytes that logits may take on a device; see `streaming.rows_at_once`.
    """

    def step(state: nnx.State, batch: Batch) -> Found:
        model = nnx.merge(graphdef, state)
        texts = blank = None
        if batch.texts is not None:
            texts = _stand_in(batch, batch.texts, text_second)
            if batch.blank is not None:
                blank = -batch.blank.texts.target.astype(jnp.float32) / 7
        if not batch.kept.shape[2]:
            return Found(None, texts, blank)
        hidden = model.read(model.see(batch.pixels), batch)
        size = hidden.shape[:2]
        means = jnp.swapaxes(batch.means, 2, 3)
        hidden, means = (x.reshape(-1, *x.shape[2:]) for x in (hidden, means))
        found = _head(hidden, model.head, means, second=second, memory=memory)
        found = jax.tree.map(lambda x: x.reshape(*size, *x.shape[1:]), found)
        return Found(found, texts, blank)

    return step


def _stand_in(batch, texts, second):
    clips, directions = batch.source.shape[:2]
    pixels = batch.pixels.astype(jnp.float32)
    about = pixels.mean(axis=range(1, pixels.ndim))[:, None, None]
    weight = jnp.arange(1, directions + 1, dtype=jnp.float32)[None, :, None]
    base = texts.target.astype(jnp.float32)[:, None] + about * weight
    renyi = base[..., None] + jnp.arange(15, dtype=jnp.float32)
    mean = texts.mean.astype(jnp.float32).sum(1)[:, None, None, None]
    wide = (clips, directions, texts.num_means.shape[1], 15)
    return TokenSignals(
        renyi=renyi,
        varentropy=base,
        gap=base,
        log_prob=-base,
        rank=base + 1,
        modified=base[..., None] * jnp.ones(3) if second else None,
        renyi_half_clamped=base if second else None,
        mean_renyi=jnp.broadcast_to(mean, wide) if second else None,
    )


def head_memory(memory: int | None, parameters: int) -> int | None:
    """Returns the bytes for logits on a device, None if nothing is known.

    Args:
      memory: Of the device.
      parameters: Bytes of them that lie there.
    """
    return None if memory is None else (memory - parameters) // _HEAD_SHARE


def _head(
    hidden: Float[Array, "batch kept embed"],
    head: Float[Array, "vocab embed"],
    means: Bool[Array, "batch means kept"],
    *,
    second: bool,
    memory: int | None,
) -> TokenSignals:
    """Reduces rows to signals; on a mesh each device takes its classes."""
    mesh, count = parallel.grid(), head.shape[0]
    if mesh is None:
        return streaming.token_signals(
            hidden, head, means, second=second, memory=memory
        )
    head = jnp.pad(head, [(0, -count % mesh.shape["model"]), (0, 0)])
    clips, rows = PartitionSpec("data"), PartitionSpec("model")
    run = functools.partial(
        streaming.token_signals,
        second=second,
        shard=streaming.VocabularyShard(count, "model"),
        memory=memory,
    )
    return parallel.by_shard(run, (clips, rows, clips), clips)(hidden, head, means)
