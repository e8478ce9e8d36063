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
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import ClipError, TokenSignals
from vidsme_jax.models import layers
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.rows import Batch, Rows, Shape, Shown, second_order, stack
from vidsme_jax.parallel import Devices, make_devices
from vidsme_jax.run.step import head_memory, make_step
from vidsme_jax.run.timeline import SENDING, UNWATCHED, Timeline

_HEAD_SHARE = 8  # Logits may take this part of what parameters leave free.


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One clip at the model's input size; `key` is handed back with its signals."""

    key: Any
    frames: UInt8[np.ndarray, "frames height width 3"]


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
    size = devices.batch_size(batch_size)
    waiting: dict[int, list[Prepared]] = collections.defaultdict(list)
    sent: collections.deque[tuple[list[Prepared], list[Rows], Any, Any]] = (
        collections.deque()
    )
    spanning, told = devices.num_processes > 1, False

    def send(group: list[Prepared], frames: int):
        with timeline.spending(SENDING):
            batch, laid_out = _batch(model.model, group, size, frames, against)
            out = run(model.state, batch)
        timeline.sent(out)
        for leaf in jax.tree.leaves(out):
            leaf.copy_to_host_async()
        sent.append(
            (group, laid_out, out, devices.anyone(stopped()) if spanning else False)
        )

    def received(left: int):
        nonlocal told
        while len(sent) > left:
            group, laid_out, out, wish = sent.popleft()
            told = told or bool(np.asarray(wish))
            yield _split(group, devices.fetch(out), laid_out)

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
    clip = Prepared(None, model.model.prepare(frames))
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


def _bucket(length: int, most: int) -> int:
    return min(1 << (length - 1).bit_length(), most)


def _batch(
    model: Model, group: list[Prepared], size: int, frames: int, against: str
) -> tuple[Batch, list[Rows]]:
    """Stacks clips, padding each to `frames` and the batch with copies to `size`.

    Returns:
      The batch, and the rows of each clip of `group` in natural order.
    """
    text = model.tokenise()
    whole = model.lay_out(Shown(frames), text, np.arange(frames))
    inputs = model.prepare(np.zeros((1, 8, 8, 3), np.uint8)).shape[1:]
    pixels = np.zeros((size, 1, frames, *inputs), np.uint8)
    laid_out = []
    for k in range(size):
        clip = group[min(k, len(group) - 1)] if group else None
        length = 1 if clip is None else len(clip.frames)
        if clip is not None:
            pixels[k, 0, :length] = clip.frames
        orders = np.arange(length), second_order(against, length)
        shown = Shown(length)
        laid_out.append([model.lay_out(shown, text, order) for order in orders])
    batch = stack(laid_out, pixels, Shape.of(whole))
    return batch, [rows[0] for rows in laid_out[: len(group)]]


def _split(group: list[Prepared], host: TokenSignals, laid_out: list[Rows]):
    """Gives each clip its signals, without those of padding."""
    results = []
    for k, (clip, rows) in enumerate(zip(group, laid_out, strict=True)):
        own = np.flatnonzero(rows.slice >= 0)
        one = TokenSignals(
            *(
                None if x is None else x[k] if name == "mean_renyi" else x[k][:, own]
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
