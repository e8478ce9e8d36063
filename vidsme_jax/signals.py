"""Model and frames to the signals of the natural and the reversed clip.

One jitted step: the tower sees each frame once, its features are laid out in natural
and in reversed order, both go through the decoder as one batch, over the prompt's
prefix and the video rows only (the question and the answer come later and cannot reach
a video row), and the streaming head reduces each row to its signals.

Beside the reversed order, any seeded shuffle of the frames can be held against the
natural one (`second_order`).
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, UInt8

from vidsme_jax.base import ClipError, TokenSignals
from vidsme_jax.entropy import streaming
from vidsme_jax.models.interface import LoadedModel, ModelPlan
from vidsme_jax.parallel import Devices, make_devices, padded_size


class Batch(NamedTuple):
    """Preprocessed clips of one shape; shorter ones are padded behind their frames."""

    frames: UInt8[Array | np.ndarray, "clips frames height width 3"]
    lengths: Int[Array | np.ndarray, " clips"]
    order: Int[Array | np.ndarray, "clips frames"]  # Second direction: frame t is [t].


class Tokens(NamedTuple):
    """The ids around the video; see `prompts.Prompt`."""

    prefix: Int[Array, " prefix"]
    suffix: Int[Array, " suffix"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One clip at the model's input size; `key` is handed back with its signals."""

    key: Any
    frames: UInt8[np.ndarray, "frames height width 3"]


@functools.lru_cache(maxsize=8)  # One function per model, so that it compiles once.
def make_step(graphdef: nnx.GraphDef, *, second: bool) -> Callable[..., TokenSignals]:
    """Returns the pure `step(state, tokens, batch)`; results are (clips, 2, ...).

    Args:
      graphdef: Of the model.
      second: Whether a score needs what the head's second pass gives.
    """

    def step(state: nnx.State, tokens: Tokens, batch: Batch) -> TokenSignals:
        model = nnx.merge(graphdef, state)
        clips, num_frames = batch.frames.shape[:2]
        pixels = model.normalise(batch.frames.reshape(-1, *batch.frames.shape[2:]))
        features = model.encode_frames(pixels)
        natural = features.reshape(clips, num_frames, *features.shape[1:])
        order = batch.order[:, :, None, None]
        second_one = jnp.take_along_axis(natural, order, axis=1)
        both = jnp.stack([natural, second_one], axis=1)
        both = both.reshape(2 * clips, -1, both.shape[-1])
        # What follows the frames stands behind the last real one of each clip.
        tail = jnp.concatenate([model.tail, model.embed(tokens.suffix)])
        ends = jnp.repeat(batch.lengths, 2) * features.shape[1]
        both = _behind(both, tail, ends)
        start = model.embed(tokens.prefix)
        start = jnp.broadcast_to(start[None], (2 * clips, *start.shape))
        hidden = model.decode(jnp.concatenate([start, both], axis=1))
        hidden = hidden[:, start.shape[1] :]
        rows = jnp.arange(hidden.shape[1], dtype=jnp.int32)[None]
        ends = ends[:, None] + model.tail.shape[0]
        video, with_text = rows < ends, rows < ends + tokens.suffix.shape[0]
        signals = streaming.token_signals(
            hidden, model.head, jnp.stack([video, with_text], axis=1), second=second
        )
        return jax.tree.map(lambda x: x.reshape(clips, 2, *x.shape[1:]), signals)

    return step


def stream(
    model: LoadedModel,
    clips: Iterable[Prepared],
    devices: Devices,
    *,
    batch_size: int,
    num_frames: int,
    second: bool,
    against: str = "reversed",
) -> Iterator[list[tuple[Any, TokenSignals | ClipError]]]:
    """Scores prepared clips batch by batch; yields (key, signals) of each batch.

    Batches have one shape per number of frames, rounded up to a power of two (at most
    `num_frames`), so that a corpus compiles once or a few times. The last batches are
    filled up with copies. Signals are NumPy arrays (2, rows, ...) without padding rows.
    A batch's results are fetched after the next one has been sent.

    Args:
      model: On the devices of `devices`.
      clips: Of any number of frames from 1 to `num_frames`.
      devices: Where to run.
      batch_size: Clips per step over all devices; rounded up to a multiple of them.
      num_frames: The most frames of a clip.
      second: See `make_step`.
      against: The order of the second direction; see `second_order`.
    """
    run = devices.runner(make_step(model.graphdef, second=second))
    prompt = model.plan.prompt
    tokens = Tokens(
        *(jnp.asarray(ids, jnp.int32) for ids in (prompt.prefix, prompt.suffix))
    )
    size = padded_size(batch_size, devices.num_data)
    waiting: dict[int, list[Prepared]] = collections.defaultdict(list)
    sent: tuple[list[Prepared], Any] | None = None

    def send(group: list[Prepared], frames: int):
        return group, run(model.state, tokens, _batch(group, frames, size, against))

    for clip in clips:
        frames = _bucket(len(clip.frames), num_frames)
        waiting[frames].append(clip)
        if len(waiting[frames]) == size:
            following = send(waiting.pop(frames), frames)
            if sent is not None:
                yield _fetch(*sent, model.plan)
            sent = following
    for frames, group in sorted(waiting.items()):
        following = send(group, frames)
        if sent is not None:
            yield _fetch(*sent, model.plan)
        sent = following
    if sent is not None:
        yield _fetch(*sent, model.plan)


def compute(
    model: LoadedModel,
    frames: UInt8[np.ndarray, "frames height width 3"],
    *,
    against: str = "reversed",
) -> TokenSignals:
    """Returns the signals of one clip, all of them; arrays are (2, rows, ...).

    Args:
      model: From `models.load`.
      frames: RGB, of any size.
      against: The order of the second direction; see `second_order`.

    Raises:
      ClipError: A statistic is not finite.
    """
    clip = Prepared(None, model.plan.prepare(frames))
    one = make_devices("pmap", 1, 1)
    batches = stream(
        model,
        [clip],
        one,
        batch_size=1,
        num_frames=len(frames),
        second=True,
        against=against,
    )
    signals = next(iter(batches))[0][1]
    if isinstance(signals, ClipError):
        raise signals
    return signals


def second_order(against: str, length: int) -> Int[np.ndarray, " frames"]:
    """Returns the order of the frames that the natural one is held against.

    Args:
      against: "reversed", or "shuffled:SEED": one permutation for every clip of this
        length, never the natural order where there is another.
      length: Frames of the clip, at least 1.
    """
    kind, _, seed = against.partition(":")
    natural = np.arange(length, dtype=np.int32)
    if kind == "reversed" or length == 1:
        return natural[::-1]
    rng = np.random.default_rng([int(seed), length])
    while True:
        order = rng.permutation(natural)
        if (order != natural).any():
            return order


def _behind(rows, tail, ends):
    """Makes room for `tail` and writes it at each clip's own row."""
    room = jnp.zeros((rows.shape[0], *tail.shape), rows.dtype)
    rows = jnp.concatenate([rows, room], axis=1)
    zero = jnp.zeros((), ends.dtype)
    write = lambda x, end: jax.lax.dynamic_update_slice(x, tail, (end, zero))  # noqa: E731
    return jax.vmap(write)(rows, ends) if tail.shape[0] else rows


def _bucket(length: int, most: int) -> int:
    return min(1 << (length - 1).bit_length(), most)


def _batch(group: list[Prepared], frames: int, size: int, against: str) -> Batch:
    """Stacks clips, padding each to `frames` and the batch to `size` with copies."""
    full = group + group[-1:] * (size - len(group))
    shape = (size, frames, *group[0].frames.shape[1:])
    stacked = np.zeros(shape, np.uint8)
    order = np.tile(np.arange(frames, dtype=np.int32), (size, 1))
    for k, clip in enumerate(full):
        length = len(clip.frames)
        stacked[k, :length] = clip.frames
        order[k, :length] = second_order(against, length)
    return Batch(stacked, np.array([len(c.frames) for c in full], np.int32), order)


def _fetch(group: list[Prepared], out: TokenSignals, plan: ModelPlan):
    """Copies a batch's signals to the host and cuts padding off."""
    host: TokenSignals = jax.tree.map(np.asarray, out)
    results = []
    for k, clip in enumerate(group):
        rows = plan.num_rows(len(clip.frames))
        one = TokenSignals(
            *(
                None if x is None else x[k] if name == "mean_renyi" else x[k, :, :rows]
                for name, x in zip(TokenSignals._fields, host, strict=True)
            )
        )
        results.append((clip.key, _checked(one)))
    return results


def _checked(signals: TokenSignals) -> TokenSignals | ClipError:
    bad = [
        name
        for name, value in zip(TokenSignals._fields, signals, strict=True)
        if value is not None and not np.isfinite(value).all()
    ]
    if bad:
        return ClipError("signals", f"not finite: {', '.join(bad)}")
    return signals
