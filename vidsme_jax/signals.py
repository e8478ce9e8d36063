"""Model and frames to the signals of the natural and the reversed clip.

One jitted step: the tower sees each frame once, its features are laid out in natural
and in reversed order, both go through the decoder as one batch, over the prompt's
prefix and the video rows only (the question and the answer come later and cannot reach
a video row), and the streaming head reduces each row to its signals.
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
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.parallel import Devices, make_devices, padded_size


class Batch(NamedTuple):
    """Preprocessed clips of one shape; shorter ones are padded behind their frames."""

    frames: UInt8[Array | np.ndarray, "clips frames height width 3"]
    lengths: Int[Array | np.ndarray, " clips"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One clip at the model's input size; `key` is handed back with its signals."""

    key: Any
    frames: UInt8[np.ndarray, "frames height width 3"]


@functools.lru_cache(maxsize=8)  # One function per model, so that it compiles once.
def make_step(graphdef: nnx.GraphDef, *, second: bool) -> Callable[..., TokenSignals]:
    """Returns the pure `step(state, prefix, batch)`; results are (clips, 2, ...).

    Args:
      graphdef: Of the model.
      second: Whether a score needs what the head's second pass gives.
    """

    def step(
        state: nnx.State, prefix: Int[Array, " prefix"], batch: Batch
    ) -> TokenSignals:
        model = nnx.merge(graphdef, state)
        clips, num_frames = batch.frames.shape[:2]
        pixels = model.normalise(batch.frames.reshape(-1, *batch.frames.shape[2:]))
        features = model.encode_frames(pixels)
        natural = features.reshape(clips, num_frames, *features.shape[1:])
        order = _reversed_order(batch.lengths, num_frames)
        backward = jnp.take_along_axis(natural, order[:, :, None, None], axis=1)
        both = jnp.stack([model.video_rows(x) for x in (natural, backward)], axis=1)
        both = both.reshape(2 * clips, *both.shape[2:])
        start = model.embed(prefix)
        start = jnp.broadcast_to(start[None], (2 * clips, *start.shape))
        hidden = model.decode(jnp.concatenate([start, both], axis=1))
        mask = jnp.repeat(model.row_mask(batch.lengths, num_frames), 2, axis=0)
        signals = streaming.token_signals(
            hidden[:, prefix.shape[0] :], model.head, mask, second=second
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
    stopped: Callable[[], bool] = lambda: False,
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
      stopped: Asked when `clips` has ended: if so, batches that are not full are not
        sent; what is on its way still comes.
    """
    run = devices.runner(make_step(model.graphdef, second=second))
    prefix = jnp.asarray(model.plan.prefix, jnp.int32)
    size = padded_size(batch_size, devices.num_data)
    waiting: dict[int, list[Prepared]] = collections.defaultdict(list)
    sent: tuple[list[Prepared], Any] | None = None

    def send(group: list[Prepared], frames: int):
        return group, run(model.state, prefix, _batch(group, frames, size))

    for clip in clips:
        frames = _bucket(len(clip.frames), num_frames)
        waiting[frames].append(clip)
        if len(waiting[frames]) == size:
            following = send(waiting.pop(frames), frames)
            if sent is not None:
                yield _fetch(*sent, model.plan.rows_per_frame)
            sent = following
    for frames, group in sorted(waiting.items()):
        if stopped():
            break
        following = send(group, frames)
        if sent is not None:
            yield _fetch(*sent, model.plan.rows_per_frame)
        sent = following
    if sent is not None:
        yield _fetch(*sent, model.plan.rows_per_frame)


def compute(
    model: LoadedModel, frames: UInt8[np.ndarray, "frames height width 3"]
) -> TokenSignals:
    """Returns the signals of one clip, all of them; arrays are (2, rows, ...).

    Args:
      model: From `models.load`.
      frames: RGB, of any size.

    Raises:
      ClipError: A statistic is not finite.
    """
    clip = Prepared(None, model.plan.prepare(frames))
    one = make_devices("pmap", 1, 1)
    batches = stream(
        model, [clip], one, batch_size=1, num_frames=len(frames), second=True
    )
    signals = next(iter(batches))[0][1]
    if isinstance(signals, ClipError):
        raise signals
    return signals


def _reversed_order(lengths, num_frames: int):
    """Frame t comes from lengths - 1 - t; padding frames stay behind."""
    t = jax.lax.broadcasted_iota(jnp.int32, (lengths.shape[0], num_frames), 1)
    length = lengths[:, None]
    return jnp.where(t < length, length - 1 - t, t)


def _bucket(length: int, most: int) -> int:
    return min(1 << (length - 1).bit_length(), most)


def _batch(group: list[Prepared], frames: int, size: int) -> Batch:
    """Stacks clips, padding each to `frames` and the batch to `size` with copies."""
    full = group + group[-1:] * (size - len(group))
    shape = (size, frames, *group[0].frames.shape[1:])
    stacked = np.zeros(shape, np.uint8)
    for k, clip in enumerate(full):
        stacked[k, : len(clip.frames)] = clip.frames
    return Batch(stacked, np.array([len(c.frames) for c in full], np.int32))


def _fetch(group: list[Prepared], out: TokenSignals, rows_per_frame: int):
    """Copies a batch's signals to the host and cuts padding off."""
    host: TokenSignals = jax.tree.map(np.asarray, out)
    results = []
    for k, clip in enumerate(group):
        rows = len(clip.frames) * rows_per_frame
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
