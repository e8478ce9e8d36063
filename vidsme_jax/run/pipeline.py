"""Sends batches of one run to the devices and settles each after the next is sent.

Samples are grouped by their padded shape. A batch on which the devices fail is halved
until the clips at fault are found: see `isolation`.
"""

import collections
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Int16

from vidsme_jax.base import ClipError, ScoredText, TokenSignals
from vidsme_jax.models import layers
from vidsme_jax.models.batches import Batch
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.rows import Rows
from vidsme_jax.parallel import Devices, JaxRuntimeError
from vidsme_jax.run import memory, outcomes
from vidsme_jax.run.isolation import Isolation
from vidsme_jax.run.stacking import Group, Input, Padded, Stacker
from vidsme_jax.run.step import Found, head_memory, make_step
from vidsme_jax.run.timeline import SENDING, UNWATCHED, Timeline


class Result(NamedTuple):
    """The result of one sample.

    Attributes:
      key: The key of its `Input`.
      signals: Of the video's rows, NumPy arrays (2, rows, ...) without padding; None
        if no score needs them; or the error.
      frame: The frame that each row shows in natural order, -1 for none.
      texts: The signals of its texts.
      lengths: For each text its tokens, and how many of them have signals.
    """

    key: Any
    signals: TokenSignals | ClipError | None
    frame: Int16[np.ndarray, " rows"] | None = None
    texts: tuple[ScoredText, ...] = ()
    lengths: tuple[tuple[int, int], ...] = ()


class Sent(NamedTuple):
    """A batch on its way.

    Attributes:
      group: The samples of the batch.
      rows: The rows of each sample, in natural order.
      out: What `Devices.fetch` takes, or the error of sending it.
    """

    group: Group
    rows: list[Rows]
    out: Any

    @property
    def is_sent(self) -> bool:
        """Whether the devices took it."""
        return not isinstance(self.out, JaxRuntimeError)


class Pipeline:
    """One run on its devices.

    Batches have one padded shape, so that a corpus compiles once or a few times. The
    shape of a sample is a function of the sample alone (`Stacker`, `TextShape`).

    Attributes:
      devices: The devices that it runs on.
    """

    def __init__(
        self,
        model: LoadedModel,
        devices: Devices,
        *,
        batch_size: int,
        num_frames: int,
        second: bool,
        text_second: bool = False,
        blank: bool = False,
        slices: Sequence[str] = ("video",),
        against: str = "reversed",
        stored: Callable[[], bool] = lambda: False,
        timeline: Timeline = UNWATCHED,
        only: Padded | None = None,
    ):
        """Makes the step for a model.

        Args:
          model: On the devices of `devices`.
          devices: The devices to run on.
          batch_size: Clips per step over all devices; rounded up to a multiple of them
            along `data`.
          num_frames: The most frames of a clip.
          second: See `make_step`.
          text_second: The same of the texts' rows.
          blank: Whether texts are also scored about a grey video.
          slices: The slices whose rows are kept.
          against: The order of the second direction; see `second_order`.
          stored: Whether any clip of the run has signals.
          timeline: Measures what is sent.
          only: The one shape of all batches, which must hold every sample: on a grid of
            several processes, which take the same steps; by default that of the longest
            clip without texts.
        """
        layers.lay_out(model.state)
        leaves = jax.tree.leaves(model.state)
        held = sum(x.addressable_shards[0].data.nbytes for x in leaves)
        step = make_step(
            model.graphdef,
            second=second,
            text_second=text_second,
            memory=head_memory(devices.memory(), held),
        )
        self.devices, described = devices, model.model
        self._model, self._state, self._timeline = model.model, model.state, timeline
        self._stacker = Stacker(
            model.model,
            num_frames=num_frames,
            slices=slices,
            against=against,
            grey=devices.batch_size(1) if blank else 0,
        )
        self._run = devices.runner(step)
        self._size = devices.batch_size(batch_size)
        self._only = only or Padded(num_frames)
        self._waiting: dict[Padded, list[Input]] = collections.defaultdict(list)
        self._refused: list[Result] = []
        self._shapes: set[Padded] = set()
        # Of the samples sent: rows of their own, and with padding.
        self._text_rows, self._video_rows = [0, 0], [0, 0]
        self._isolation = Isolation(
            lambda error, shape: memory.first_batch(
                error, described, devices, batch_size, num_frames, shape
            ),
            batch_size=batch_size,
            stored=stored,
            alone=not self.spanning,
        )

    @property
    def failure(self) -> Exception | None:
        """Why nothing more can be sent; None while all is well."""
        return self._isolation.failure

    @property
    def spanning(self) -> bool:
        """Whether the grid is of several processes, which take the same steps."""
        return self.devices.num_processes > 1

    def add(self, clip: Input) -> bool:
        """Adds a sample; returns whether a group is full."""
        shape = self._stacker.shape(clip)
        if self.spanning:
            length, most = len(clip.frames), self._only.num_frames
            if shape.num_frames != most and len(self._stacker.views(length)) > 1:
                cause = (
                    f"a clip of {length} frames: a grid of several processes takes "
                    f"clips of {most}, since the model's frames depend on each other"
                )
                self._refused.append(Result(clip.key, ClipError("signals", cause)))
                return False
            if shape.more > self._only.more:
                cause = (
                    "its times are longer as text than a grid of several processes "
                    f"has room for: {shape.more} rows more than usual, of at most "
                    f"{self._only.more}"
                )
                self._refused.append(Result(clip.key, ClipError("signals", cause)))
                return False
            if not self._stacker.holds(clip, self._only):
                cause = (
                    "its frames are larger, or longer and thinner, than a grid of "
                    "several processes has room for"
                )
                self._refused.append(Result(clip.key, ClipError("signals", cause)))
                return False
            shape = self._only
        waiting = self._waiting[shape]
        waiting.append(clip)
        return len(waiting) == self._size

    def take(self, *, full: bool) -> list[Group]:
        """Takes the groups that are full, or all; on a spanning grid always one."""
        if self.spanning:
            return [Group(self._only, self._waiting.pop(self._only, []))]
        shapes = [
            k for k, x in self._waiting.items() if not full or len(x) == self._size
        ]
        shapes.sort(
            key=lambda k: (k.num_frames, k.video, k.texts or (), k.more, k.room or ())
        )
        return [Group(k, self._waiting.pop(k)) for k in shapes]

    def send(self, group: Group) -> Sent:
        """Sends a batch; an error of the devices is left for `settle`."""
        with self._timeline.spending(SENDING):
            batch, rows = self._batch(group)
            try:
                out = self._run(self._state, batch)
                for leaf in jax.tree.leaves(out):
                    leaf.copy_to_host_async()
            except JaxRuntimeError as error:
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
            if not sent.is_sent:
                raise sent.out
            host = self.devices.fetch(sent.out)
        except JaxRuntimeError as error:
            return self._isolation.failed(
                sent.group,
                error,
                compiled=sent.is_sent,
                again=lambda group: self.settle(self.send(group)),
                result=lambda clip, error: Result(clip.key, error),
            )
        self._isolation.succeeded(sent.group)
        refused, self._refused = self._refused, []
        clips = zip(sent.group.clips, sent.rows, strict=True)
        return refused + [
            _result(k, clip, host, rows) for k, (clip, rows) in enumerate(clips)
        ]

    def close(self, *, complete: bool) -> None:
        """Ends the run; `complete` if all its clips were sent.

        Raises:
          AuditError, RunStopped: See `Isolation.close`.
        """
        self._isolation.close(complete=complete)
        if self._shapes:
            padding = "".join(
                f"; {1 - own / padded:.0%} of the {kind} rows are padding"
                for kind, (own, padded) in (
                    ("video", self._video_rows),
                    ("text", self._text_rows),
                )
                if padded
            )
            logging.info(
                "%d program%s, one for each padded shape%s",
                *(len(self._shapes), "s"[: len(self._shapes) > 1]),
                padding,
            )

    def _batch(self, group: Group) -> tuple[Batch, list[Rows]]:
        """Stacks a batch, and counts its shape and its rows."""
        batch, rows = self._stacker.batch(group, self._size)
        self._shapes.add(group.shape)
        if (room := group.shape.room) is not None:
            assert self._model.tiling is not None
            for clip in group.clips:
                groups = self._model.tiling.groups(len(clip.frames))
                self._video_rows[0] += groups * math.prod(clip.frames.shape[1:3])
                self._video_rows[1] += groups * room.rows
        if (texts := group.shape.texts) is not None:
            self._text_rows[0] += sum(int((each.segment > 0).sum()) for each in rows)
            self._text_rows[1] += texts.rows * len(rows)
        return batch, rows


def stream(
    coming: Iterable[Sequence[tuple[int, Input]]],
    pipelines: Sequence[Pipeline],
    *,
    rounds: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, list[Result]]]:
    """Sends samples through pipelines; yields the results of each batch.

    On a grid of several processes all must take the same steps: once a group is full,
    every pipeline sends a batch, perhaps an empty one, and so often that there are
    `rounds` of them. A flag is reduced with each batch, so that all processes stop at
    the same step where one is asked to or fails.

    Args:
      coming: For each sample its inputs, each with the place of its pipeline.
      pipelines: The pipelines of one grid of devices.
      rounds: The fewest to take on a grid of several processes, unless stopped.
      stopped: Once it is true nothing more is sent; what is on its way still comes.

    Yields:
      The place of a pipeline, and results of it.

    Raises:
      AuditError, RunStopped: See `Pipeline.close`.
    """
    spanning = pipelines[0].spanning
    in_flight: collections.deque[tuple[int, Sent, Any]] = collections.deque()
    stopping = False

    def over() -> bool:
        return stopped() or any(p.failure is not None for p in pipelines)

    def settled(left: int) -> Iterator[tuple[int, list[Result]]]:
        nonlocal stopping
        while len(in_flight) > left:
            place, sent, flag = in_flight.popleft()
            results = pipelines[place].settle(sent)
            stopping = stopping or bool(np.asarray(flag))
            yield place, results

    def send(full: bool) -> Iterator[tuple[int, list[Result]]]:
        for place, pipeline in enumerate(pipelines):
            for group in pipeline.take(full=full):
                if stopping if spanning else over():
                    return
                sent = pipeline.send(group)
                if spanning and not sent.is_sent:
                    # The others are in a step that this process takes no part in.
                    pipeline.settle(sent)
                    pipeline.close(complete=False)
                flag = pipeline.devices.any_process(over()) if spanning else False
                in_flight.append((place, sent, flag))
                yield from settled(1)

    for inputs in coming:
        if any([pipelines[place].add(each) for place, each in inputs]):
            yield from send(full=True)
            rounds -= 1
            if stopping if spanning else over():
                break
    for _ in range(rounds if spanning else 1):
        yield from send(full=False)
    yield from settled(0)
    complete = not stopped()
    for pipeline in pipelines:
        pipeline.close(complete=complete)


def _result(k: int, clip: Input, host: Found, rows: Rows) -> Result:
    """Gives the k-th sample its signals, without those of padding."""
    try:
        video, frame = None, None
        if clip.video and host.video is not None:
            video, frame = outcomes.of_video(k, host.video, rows)
        texts = tuple(
            outcomes.of_text(k, number, each.asked, host, rows)
            for number, each in enumerate(clip.texts, 1)
        )
    except ClipError as error:
        return Result(clip.key, error)
    tokens = (len(each.text.after) + len(each.text.answer) for each in clip.texts)
    kept = (len(each.tokens) for each in texts)
    lengths = tuple(zip(tokens, kept, strict=True))
    return Result(clip.key, video, frame, texts, lengths)
