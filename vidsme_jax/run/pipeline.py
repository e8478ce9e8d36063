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
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, UInt8

from vidsme_jax import parallel
from vidsme_jax.base import ClipError, TokenSignals
from vidsme_jax.entropy import streaming
from vidsme_jax.models import layers
from vidsme_jax.models.interface import LoadedModel, ModelPlan
from vidsme_jax.parallel import Devices, make_devices
from vidsme_jax.run.timeline import SENDING, UNWATCHED, Timeline

_HEAD_SHARE = 8  # Logits may take this part of what parameters leave free.


class Batch(NamedTuple):
    """Preprocessed clips of one shape; shorter ones are padded behind their frames."""

    frames: UInt8[Array | np.ndarray, "clips frames height width 3"]
    lengths: Int[Array | np.ndarray, " clips"]
    order: Int[Array | np.ndarray, "clips frames"]  # Second direction: frame t is [t].


class Tokens(NamedTuple):
    """The ids around the video; see `prompts.Prompt`."""

    prefix: Int[Array | np.ndarray, " prefix"]
    suffix: Int[Array | np.ndarray, " suffix"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One clip at the model's input size; `key` is handed back with its signals."""

    key: Any
    frames: UInt8[np.ndarray, "frames height width 3"]


@functools.lru_cache(maxsize=8)  # One function per model, so that it compiles once.
def make_step(
    graphdef: nnx.GraphDef, *, second: bool, memory: int | None = None
) -> Callable[..., TokenSignals]:
    """Returns the pure `step(state, tokens, batch)`; results are (clips, 2, ...).

    Args:
      graphdef: Of the model.
      second: Whether a score needs what the head's second pass gives.
      memory: Bytes that logits may take on a device; see `streaming.rows_at_once`.
    """

    def step(state: nnx.State, tokens: Tokens, batch: Batch) -> TokenSignals:
        model = nnx.merge(graphdef, state)
        clips, num_frames = batch.frames.shape[:2]
        lengths, order = (parallel.spread(x, "data") for x in batch[1:])
        features = _encode(model, batch.frames.reshape(-1, *batch.frames.shape[2:]))
        natural = features.reshape(clips, num_frames, *features.shape[1:])
        natural = parallel.spread(natural, "data")
        second_one = jnp.take_along_axis(natural, order[:, :, None, None], axis=1)
        both = jnp.stack([natural, second_one], axis=1)
        both = both.reshape(2 * clips, -1, both.shape[-1])
        # What follows the frames stands behind the last real one of each clip.
        tail = jnp.concatenate([model.tail, model.embed(tokens.suffix)])
        ends = jnp.repeat(lengths, 2) * features.shape[1]
        both = _behind(both, tail, ends)
        start = model.embed(tokens.prefix)
        start = jnp.broadcast_to(start[None], (2 * clips, *start.shape))
        rows = jnp.concatenate([start, both], axis=1)
        # Else the compiler may carry the spread of a batch over processes into layers.
        hidden = parallel.spread(model.decode(parallel.spread(rows, "data")), "data")
        hidden = hidden[:, start.shape[1] :]
        rows = jnp.arange(hidden.shape[1], dtype=jnp.int32)[None]
        ends = ends[:, None] + model.tail.shape[0]
        video, with_text = rows < ends, rows < ends + tokens.suffix.shape[0]
        masks = jnp.stack([video, with_text], axis=1)
        signals = _head(hidden, model.head, masks, second=second, memory=memory)
        return jax.tree.map(lambda x: x.reshape(clips, 2, *x.shape[1:]), signals)

    return step


def _encode(model: Any, frames: Any) -> Array:
    """Runs the tower; on a mesh its frames are spread over all devices."""
    mesh = parallel.grid()
    if mesh is None:
        return model.encode_frames(model.normalise(frames))
    count = frames.shape[0]
    fill = [(0, -count % mesh.size)] + [(0, 0)] * (frames.ndim - 1)
    frames = parallel.spread(jnp.pad(frames, fill), ("data", "model"))
    features = model.encode_frames(model.normalise(frames))
    return parallel.spread(features, ("data", "model"))[:count]


def _head(hidden, head, masks, *, second: bool, memory: int | None) -> TokenSignals:
    """Reduces rows to signals; on a mesh each device takes its classes."""
    mesh, count = parallel.grid(), head.shape[0]
    if mesh is None:
        classes = streaming.Classes(memory=memory)
        return streaming.token_signals(
            hidden, head, masks, second=second, classes=classes
        )
    head = jnp.pad(head, [(0, -count % mesh.shape["model"]), (0, 0)])
    clips, rows = PartitionSpec("data"), PartitionSpec("model")
    run = functools.partial(
        streaming.token_signals,
        second=second,
        classes=streaming.Classes(count=count, axis="model", memory=memory),
    )
    return parallel.by_shard(run, (clips, rows, clips), clips)(hidden, head, masks)


def stream(
    model: LoadedModel,
    clips: Iterable[Prepared],
    devices: Devices,
    *,
    batch_size: int,
    num_frames: int,
    second: bool,
    against: str = "reversed",
    steps: int = 0,
    stopped: Callable[[], bool] = lambda: False,
    timeline: Timeline = UNWATCHED,
) -> Iterator[list[tuple[Any, TokenSignals | ClipError]]]:
    """Scores prepared clips batch by batch; yields (key, signals) of each batch.

    Batches have one shape per number of frames, rounded up to a power of two (at most
    `num_frames`), so that a corpus compiles once or a few times. The last batches are
    filled up with copies. Signals are NumPy arrays (2, rows, ...) without padding rows.
    A batch's results are fetched after the next one has been sent.

    On a grid of several processes all must take the same steps: batches have one shape,
    and `steps` of them are sent, the last ones perhaps empty. A request to stop travels
    with a batch, so that all processes learn of it, and stop, at the same step.

    Args:
      model: On the devices of `devices`.
      clips: Of any number of frames from 1 to `num_frames`.
      devices: Where to run.
      batch_size: Clips per step over all devices; rounded up to a multiple of them
        along `data`.
      num_frames: The most frames of a clip.
      second: See `make_step`.
      against: The order of the second direction; see `second_order`.
      steps: The fewest to take, unless stopped.
      stopped: Once it is true nothing more is sent; what is on its way still comes.
      timeline: Measures what is sent.
    """
    layers.lay_out(model.state)
    held = (x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(model.state))
    memory = head_memory(devices.memory(), sum(held))
    step = make_step(model.graphdef, second=second, memory=memory)
    run = devices.runner(step)
    prompt = model.plan.prompt
    ids = (prompt.prefix, prompt.suffix)
    tokens = devices.copy(Tokens(*(np.asarray(x, np.int32) for x in ids)))
    size = devices.batch_size(batch_size)
    waiting: dict[int, list[Prepared]] = collections.defaultdict(list)
    sent: collections.deque[tuple[list[Prepared], Any, Any]] = collections.deque()
    spanning, told = devices.num_processes > 1, False
    shape = model.plan.prepare(np.zeros((1, 8, 8, 3), np.uint8)).shape[1:]

    def send(group: list[Prepared], frames: int):
        with timeline.spending(SENDING):
            batch = _batch(group, (size, frames, *shape), against)
            out = run(model.state, tokens, batch)
        timeline.sent(out)
        for leaf in jax.tree.leaves(out):
            leaf.copy_to_host_async()
        sent.append((group, out, devices.anyone(stopped()) if spanning else False))

    def received(left: int):
        nonlocal told
        while len(sent) > left:
            group, out, wish = sent.popleft()
            told = told or bool(np.asarray(wish))
            yield _split(group, devices.fetch(out), model.plan)

    def over() -> bool:
        return told if spanning else stopped()

    for clip in clips:
        frames = num_frames if spanning else _bucket(len(clip.frames), num_frames)
        waiting[frames].append(clip)
        if len(waiting[frames]) == size:
            if over():
                break
            send(waiting.pop(frames), frames)
            steps -= 1
            yield from received(1)
    for frames, group in sorted(waiting.items()):
        if over():
            break
        send(group, frames)
        steps -= 1
        yield from received(1)
    for _ in range(steps):
        if over():
            break
        send([], num_frames)
        yield from received(1)
    yield from received(0)


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


def _batch(group: list[Prepared], shape: tuple[int, ...], against: str) -> Batch:
    """Stacks clips, padding each to the frames and the batch to the size of `shape`."""
    size, frames = shape[:2]
    full = group + group[-1:] * (size - len(group))
    stacked = np.zeros(shape, np.uint8)
    lengths = np.ones(size, np.int32)
    order = np.tile(np.arange(frames, dtype=np.int32), (size, 1))
    for k, clip in enumerate(full):
        length = lengths[k] = len(clip.frames)
        stacked[k, :length] = clip.frames
        order[k, :length] = second_order(against, length)
    return Batch(stacked, lengths, order)


def head_memory(memory: int | None, parameters: int) -> int | None:
    """Returns the bytes for logits on a device, None if nothing is known.

    Args:
      memory: Of the device.
      parameters: Bytes of them that lie there.
    """
    return None if memory is None else (memory - parameters) // _HEAD_SHARE


def _split(group: list[Prepared], host: TokenSignals, plan: ModelPlan):
    """Gives each clip its signals, without those of padding."""
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
