"""Batches of one run: sent, settled one behind, isolated where the devices fail.

Clips are grouped by their padded shape and sent; the results of a batch are fetched
after the next one has been sent. A batch that raises an error of the devices is sent
again in halves, filled up with copies to the shape that is compiled already, until the
clip that fails is alone.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Int16, UInt8

from vidsme_jax.base import AuditError, ClipError, TokenSignals
from vidsme_jax.models import layers
from vidsme_jax.models.batches import Batch, Shape, stack
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.rows import Order, Rows, Shown, second_order
from vidsme_jax.parallel import Devices
from vidsme_jax.run import memory
from vidsme_jax.run.step import head_memory, make_step
from vidsme_jax.run.stopping import RunStopped
from vidsme_jax.run.timeline import SENDING, UNWATCHED, Timeline

_IN_A_ROW = 3  # So many clips that fail alone, one after another, end a run.


class Input(NamedTuple):
    """One clip at the model's input size; `key` is returned with its signals."""

    key: Any
    frames: UInt8[np.ndarray, "frames height width 3"]


class Group(NamedTuple):
    """Clips of one padded shape, which make a batch."""

    num_frames: int  # That each clip is padded to.
    clips: Sequence[Input]


class Result(NamedTuple):
    """What the devices gave for one clip.

    Attributes:
      key: Of its `Input`.
      signals: NumPy arrays (2, rows, ...) without padding, or why there are none.
      frame: The frame that each row shows in natural order, -1 for none.
    """

    key: Any
    signals: TokenSignals | ClipError
    frame: Int16[np.ndarray, " rows"] | None = None


class Sent(NamedTuple):
    """A batch on its way.

    Attributes:
      group: Its clips.
      rows: Of each clip in natural order.
      out: What `Devices.fetch` takes, or the error of sending it.
    """

    group: Group
    rows: list[Rows]
    out: Any


class Pipeline:
    """One run on its devices.

    Batches have one shape per padded number of frames, so that a corpus compiles once
    or a few times: where a model's frames are independent they are padded to a power of
    two, at most `num_frames`, else batches hold clips of equal length. The shape of a
    clip is a function of the clip alone.

    Attributes:
      devices: Where it runs.
      failure: Why nothing more can be sent; None while all is well.
    """

    def __init__(
        self,
        model: LoadedModel,
        devices: Devices,
        *,
        batch_size: int,
        num_frames: int,
        second: bool,
        against: str = "reversed",
        stored: Callable[[], bool] = lambda: False,
        timeline: Timeline = UNWATCHED,
    ):
        """Makes the step for a model.

        Args:
          model: On the devices of `devices`.
          devices: Where to run.
          batch_size: Clips per step over all devices; rounded up to a multiple of them
            along `data`.
          num_frames: The most frames of a clip.
          second: See `make_step`.
          against: The order of the second direction; see `second_order`.
          stored: Whether any clip of the run has signals.
          timeline: Measures what is sent.
        """
        layers.lay_out(model.state)
        leaves = jax.tree.leaves(model.state)
        held = sum(x.addressable_shards[0].data.nbytes for x in leaves)
        step = make_step(
            model.graphdef, second=second, memory=head_memory(devices.memory(), held)
        )
        self.failure: Exception | None = None
        self.devices = devices
        self._model, self._state, self._timeline = model.model, model.state, timeline
        self._text = self._model.tokenise()
        self._laid_out: dict[int, list[Rows]] = {}
        self._run = devices.runner(step)
        self._size = devices.batch_size(batch_size)
        self._asked = batch_size
        self._num_frames, self._against = num_frames, against
        self._stored = stored
        self._waiting: dict[int, list[Input]] = collections.defaultdict(list)
        self._refused: list[Result] = []
        self._begun = False  # Whether a batch has been computed.
        self._errors: list[str] = []  # Of clips alone since the last success.

    @property
    def spanning(self) -> bool:
        """Whether the grid is of several processes, which take the same steps."""
        return self.devices.num_processes > 1

    def add(self, clip: Input) -> bool:
        """Adds a clip; returns whether a group is full."""
        length = self._padded(len(clip.frames))
        if self.spanning and length != self._num_frames:
            cause = (
                f"a clip of {length} frames: a grid of several processes takes clips "
                f"of {self._num_frames}, since the model's frames depend on each other"
            )
            self._refused.append(Result(clip.key, ClipError("signals", cause)))
            return False
        waiting = self._waiting[length]
        waiting.append(clip)
        return len(waiting) == self._size

    def take(self, *, full: bool) -> list[Group]:
        """Takes the groups that are full, or all; on a spanning grid always one."""
        if self.spanning:
            clips = self._waiting.pop(self._num_frames, [])
            return [Group(self._num_frames, clips)]
        lengths = [
            k for k, x in self._waiting.items() if not full or len(x) == self._size
        ]
        return [Group(k, self._waiting.pop(k)) for k in sorted(lengths)]

    def send(self, group: Group) -> Sent:
        """Sends a batch; an error of the devices is left for `settle`."""
        with self._timeline.spending(SENDING):
            batch, rows = self._batch(group)
            try:
                out = self._run(self._state, batch)
                for leaf in jax.tree.leaves(out):
                    leaf.copy_to_host_async()
            except jax.errors.JaxRuntimeError as error:
                return Sent(group, rows, error)
        self._timeline.sent(out)
        return Sent(group, rows, out)

    def settle(self, sent: Sent) -> list[Result]:
        """Returns the results of a batch, once they are there.

        Where the devices fail, the batch is halved until the clip that fails is alone.
        After an error that is not a clip's, `failure` is set and what is left of the
        batch has no results.
        """
        try:
            if isinstance(sent.out, jax.errors.JaxRuntimeError):
                raise sent.out
            host = self.devices.fetch(sent.out).video
        except jax.errors.JaxRuntimeError as error:
            return self._failed(sent.group, error)
        self._begun, self._errors = True, []
        refused, self._refused = self._refused, []
        clips = zip(sent.group.clips, sent.rows, strict=True)
        return refused + [
            _result(k, clip.key, host, rows) for k, (clip, rows) in enumerate(clips)
        ]

    def close(self, *, complete: bool) -> None:
        """Ends the run.

        Args:
          complete: Whether all its clips were sent.

        Raises:
          AuditError: The devices have too little memory for the first batch, or every
            clip failed, alone in its batch.
          RunStopped: The devices failed too often.
        """
        if complete and self._errors and not self._any_success():
            self.failure = self.failure or self._nothing_works()
        if self.failure is not None:
            raise self.failure

    def _failed(self, group: Group, error: Exception) -> list[Result]:
        """Isolates what makes a batch fail."""
        cause, clips = memory.one_line(error), group.clips
        if self.failure is not None:
            return []
        if not self._begun and memory.is_lacking(error):
            self.failure = memory.first_batch(
                error, self._model, self.devices, self._asked, self._num_frames
            )
        elif self.spanning:
            self.failure = RunStopped(f"a batch failed on the devices: {cause}")
        elif len(clips) > 1:
            logging.warning("a batch of %d clips failed, halved: %s", len(clips), cause)
            half = len(clips) // 2
            parts = (Group(group.num_frames, x) for x in (clips[:half], clips[half:]))
            return [result for part in parts for result in self._again(part)]
        else:
            self._errors.append(cause)
            if len(self._errors) < _IN_A_ROW:
                return [Result(clips[0].key, ClipError("signals", cause))]
            self.failure = (
                self._too_many() if self._any_success() else self._nothing_works()
            )
        return []

    def _again(self, group: Group) -> list[Result]:
        return [] if self.failure is not None else self.settle(self.send(group))

    def _any_success(self) -> bool:
        return self._begun or self._stored()

    def _too_many(self) -> RunStopped:
        return RunStopped(
            f"{len(self._errors)} clips in a row failed on the devices, each alone in "
            f"its batch; the last error is {self._errors[-1]}"
        )

    def _nothing_works(self) -> AuditError:
        return AuditError(
            [
                "every clip fails on the devices, also alone in a batch that is filled "
                f"up with copies to config.batch_size = {self._asked}: "
                f"{self._errors[-1]}. Set a smaller config.batch_size, or look whether "
                "the devices work"
            ]
        )

    def _orders(self, length: int) -> list[Order]:
        """Returns the order of the frames in each direction."""
        return [np.arange(length), second_order(self._against, length)]

    def _padded(self, length: int) -> int:
        if len(self._model.views(self._orders(length)[1])) > 1:
            return length
        if self.spanning:
            return self._num_frames
        return min(1 << (length - 1).bit_length(), self._num_frames)

    def _rows(self, length: int) -> list[Rows]:
        """Returns the rows of a clip in each direction, laid out once a length."""
        if length not in self._laid_out:
            self._laid_out[length] = [
                self._model.lay_out(Shown(length), self._text, order)
                for order in self._orders(length)
            ]
        return self._laid_out[length]

    def _batch(self, group: Group) -> tuple[Batch, list[Rows]]:
        """Stacks clips, padding each to the group's frames and the batch with copies.

        Returns:
          The batch, and the rows of each clip in natural order.
        """
        clips = group.clips or [_blank(self._model, group.num_frames)]
        views = [self._model.views(self._orders(len(x.frames))[1]) for x in clips]
        frames = group.num_frames, *clips[0].frames.shape[1:]
        pixels = np.zeros((self._size, len(views[0]), *frames), np.uint8)
        rows = []
        for k in range(self._size):
            own = min(k, len(clips) - 1)
            shown = clips[own].frames
            for view, order in enumerate(views[own]):
                pixels[k, view, : len(shown)] = shown[order]
            rows.append(self._rows(len(shown)))
        whole = self._rows(group.num_frames)[0]
        batch = stack(rows, pixels, Shape.of(whole))
        return batch, [natural for natural, _ in rows[: len(group.clips)]]


def stream(
    coming: Iterable[Sequence[tuple[int, Input]]],
    pipelines: Sequence[Pipeline],
    *,
    rounds: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, list[Result]]]:
    """Sends clips through pipelines; yields the results of each batch.

    On a grid of several processes all must take the same steps: once a group is full,
    every pipeline sends a batch, perhaps an empty one, and so often that there are
    `rounds` of them. A flag is reduced with each batch, so that all processes stop at
    the same step where one is asked to or fails.

    Args:
      coming: Of each clip its inputs, each with the place of its pipeline.
      pipelines: Of one grid of devices.
      rounds: The fewest to take on a grid of several processes, unless stopped.
      stopped: Once it is true nothing more is sent; what is on its way still comes.

    Yields:
      The place of a pipeline, and results of it.

    Raises:
      AuditError, RunStopped: See `Pipeline.close`.
    """
    spanning = pipelines[0].spanning
    in_flight: collections.deque[tuple[int, Sent, Any]] = collections.deque()
    told = False

    def over() -> bool:
        return stopped() or any(p.failure is not None for p in pipelines)

    def settled(left: int) -> Iterator[tuple[int, list[Result]]]:
        nonlocal told
        while len(in_flight) > left:
            place, sent, flag = in_flight.popleft()
            results = pipelines[place].settle(sent)
            told = told or bool(np.asarray(flag))
            yield place, results

    def send(full: bool) -> Iterator[tuple[int, list[Result]]]:
        for place, pipeline in enumerate(pipelines):
            for group in pipeline.take(full=full):
                if told if spanning else over():
                    return
                sent = pipeline.send(group)
                flag = pipeline.devices.anyone(over()) if spanning else False
                in_flight.append((place, sent, flag))
                yield from settled(1)

    for inputs in coming:
        if any([pipelines[place].add(each) for place, each in inputs]):
            yield from send(full=True)
            rounds -= 1
            if told if spanning else over():
                break
    for _ in range(rounds if spanning else 1):
        yield from send(full=False)
    yield from settled(0)
    complete = not stopped()
    for pipeline in pipelines:
        pipeline.close(complete=complete)


def _blank(model: Model, num_frames: int) -> Input:
    """Returns what an empty batch of a grid of several processes holds."""
    return Input(None, model.prepare(np.zeros((num_frames, 8, 8, 3), np.uint8)))


def _result(k: int, key: Any, host: TokenSignals, rows: Rows) -> Result:
    """Gives the k-th clip its signals, without those of padding."""
    own = np.flatnonzero(rows.slice >= 0)
    one = TokenSignals(
        *(
            None if x is None else x[k] if name == "mean_renyi" else x[k][:, own]
            for name, x in zip(TokenSignals._fields, host, strict=True)
        )
    )
    bad = [
        name
        for name, value in zip(TokenSignals._fields, one, strict=True)
        if value is not None and not np.isfinite(value).all()
    ]
    if bad:
        error = ClipError("signals", f"not finite: {', '.join(bad)}")
        return Result(key, error)
    return Result(key, one, rows.frame[own])
