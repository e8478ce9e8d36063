"""Batches of one run: sent, settled one behind, isolated where the devices fail.

Samples are grouped by their padded shape and sent; the results of a batch are fetched
after the next one has been sent. See `isolation` for batches at which the devices fail.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import Int16, UInt8

from vidsme_jax.base import Asked, ClipError, ScoredText, TokenSignals
from vidsme_jax.models import layers
from vidsme_jax.models.batches import (
    Batch,
    Shape,
    TextShape,
    stack,
    stack_texts,
)
from vidsme_jax.models.interface import LoadedModel, Model
from vidsme_jax.models.rows import Order, Rows, Shown, Text, second_order
from vidsme_jax.parallel import Devices
from vidsme_jax.run import memory, outcomes
from vidsme_jax.run.isolation import Group, Isolation, Padded
from vidsme_jax.run.step import Found, head_memory, make_step
from vidsme_jax.run.timeline import SENDING, UNWATCHED, Timeline

_GREY = 128  # Of the video that stands in place of a clip.


class Tokenised(NamedTuple):
    """A text about a clip, with its tokens."""

    asked: Asked
    text: Text


class Input(NamedTuple):
    """One sample, ready for the model.

    Attributes:
      key: Returned with its signals.
      frames: At the model's input size.
      texts: Asked about it.
      video: Whether the signals of the video's rows are wanted.
    """

    key: Any
    frames: UInt8[np.ndarray, "frames height width 3"]
    texts: tuple[Tokenised, ...] = ()
    video: bool = True


class Result(NamedTuple):
    """What the devices gave for one sample.

    Attributes:
      key: Of its `Input`.
      signals: Of the video's rows, NumPy arrays (2, rows, ...) without padding; None
        if they were not wanted; or why there is nothing.
      frame: The frame that each row shows in natural order, -1 for none.
      texts: The signals of its texts.
    """

    key: Any
    signals: TokenSignals | ClipError | None
    frame: Int16[np.ndarray, " rows"] | None = None
    texts: tuple[ScoredText, ...] = ()


class Sent(NamedTuple):
    """A batch on its way.

    Attributes:
      group: Its samples.
      rows: Of each sample in natural order.
      out: What `Devices.fetch` takes, or the error of sending it.
    """

    group: Group
    rows: list[Rows]
    out: Any


class Pipeline:
    """One run on its devices.

    Batches have one padded shape, so that a corpus compiles once or a few times. Where
    a model's frames are independent they are padded to a power of two, at most
    `num_frames`, else batches hold clips of equal length; texts as `TextShape` says.
    The shape of a sample is a function of the sample alone.

    Attributes:
      devices: Where it runs.
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
          devices: Where to run.
          batch_size: Clips per step over all devices; rounded up to a multiple of them
            along `data`.
          num_frames: The most frames of a clip.
          second: See `make_step`.
          text_second: The same of the texts' rows.
          blank: Whether texts are also scored about a grey video.
          slices: Whose rows are kept.
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
        self.devices = devices
        self._model, self._state, self._timeline = model.model, model.state, timeline
        self._text, self._slices, self._blank = model.model.tokenise(), slices, blank
        self._laid_out: dict[tuple[int, bool], list[Rows]] = {}
        self._grey: dict[int, np.ndarray] = {}
        self._run = devices.runner(step)
        self._size = devices.batch_size(batch_size)
        self._num_frames, self._against = num_frames, against
        self._only = only or Padded(num_frames)
        self._waiting: dict[Padded, list[Input]] = collections.defaultdict(list)
        self._refused: list[Result] = []
        self._shapes: set[Padded] = set()
        self._text_rows = [0, 0]  # Of the samples sent: their own, and with padding.
        self._isolation = Isolation(
            lambda group: self.settle(self.send(group)),
            lambda error: memory.first_batch(
                error, self._model, devices, batch_size, num_frames
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
        length = self._padded(len(clip.frames))
        if self.spanning and length != self._num_frames:
            cause = (
                f"a clip of {length} frames: a grid of several processes takes clips "
                f"of {self._num_frames}, since the model's frames depend on each other"
            )
            self._refused.append(Result(clip.key, ClipError("signals", cause)))
            return False
        texts = text_shape(self._model, clip.texts, self._slices)
        shape = self._only if self.spanning else Padded(length, clip.video, texts)
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
        shapes.sort(key=lambda k: (k.num_frames, k.video, k.texts or ()))
        return [Group(k, self._waiting.pop(k)) for k in shapes]

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
            host = self.devices.fetch(sent.out)
        except jax.errors.JaxRuntimeError as error:
            return self._isolation.failed(
                sent.group, error, lambda clip, error: Result(clip.key, error)
            )
        self._isolation.succeeded()
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
            own, padded = self._text_rows
            logging.info(
                "%d program%s, one for each padded shape%s",
                *(len(self._shapes), "s"[: len(self._shapes) > 1]),
                f"; {1 - own / padded:.0%} of the text rows are padding"
                if padded
                else "",
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

    def _trunks(self, length: int, video: bool) -> list[Rows]:
        """Returns the rows of a clip in each direction, laid out once a length."""
        known = self._laid_out.get((length, video))
        if known is None:
            known = self._laid_out[length, video] = [
                self._rows(length, (), video, order) for order in self._orders(length)
            ]
        return known

    def _rows(
        self, length: int, texts: Sequence[Tokenised], video: bool, order: Order
    ) -> Rows:
        slices = [x for x in self._slices if video or x != "video"]
        asked = [each.text for each in texts]
        return self._model.lay_out(Shown(length), self._text, order, asked, slices)

    def _batch(self, group: Group) -> tuple[Batch, list[Rows]]:
        """Stacks samples, padding each to the group's shape and the batch with copies.

        Returns:
          The batch, and the rows of each sample in natural order.
        """
        length, video, texts = group.shape
        clips = group.clips or [_empty(self._model, length)]
        views = [self._model.views(self._orders(len(x.frames))[1]) for x in clips]
        frames = length, *clips[0].frames.shape[1:]
        pixels = np.zeros((self._size, len(views[0]), *frames), np.uint8)
        laid_out = []
        for clip in clips:
            natural, other = self._trunks(len(clip.frames), video)
            if clip.texts:
                order = self._orders(len(clip.frames))[0]
                natural = self._rows(len(clip.frames), clip.texts, video, order)
            laid_out.append((natural, other))
        own = [min(k, len(clips) - 1) for k in range(self._size)]
        for k, which in enumerate(own):
            shown = clips[which].frames
            for view, order in enumerate(views[which]):
                pixels[k, view, : len(shown)] = shown[order]
        blank = None
        if self._blank and texts is not None:
            blank = self._about_grey([clips[k] for k in own], length, texts)
        whole = Shape.of(self._trunks(length, video)[0])
        batch = stack([laid_out[k] for k in own], pixels, whole, texts, blank)
        natural = [rows for rows, _ in laid_out[: len(group.clips)]]
        self._shapes.add(group.shape)
        if texts is not None:
            self._text_rows[0] += sum(int((rows.segment > 0).sum()) for rows in natural)
            self._text_rows[1] += texts.rows * len(natural)
        return batch, natural

    def _about_grey(
        self, clips: Sequence[Input], length: int, texts: TextShape
    ) -> Batch:
        """Returns the clips' texts about a grey video of so many frames."""
        order = self._orders(length)[0]
        rows = [self._rows(length, clip.texts, False, order) for clip in clips]
        if length not in self._grey:
            grey = np.full((length, 8, 8, 3), _GREY, np.uint8)
            self._grey[length] = self._model.prepare(grey)
        trunks = self.devices.batch_size(1)
        pixels = np.stack([self._grey[length][None]] * trunks)
        shape = Shape.of(rows[0])
        batch = stack([rows[:1]] * trunks, pixels, shape)
        return batch._replace(texts=stack_texts(rows, shape.rows, texts))


def text_shape(
    model: Model, texts: Sequence[Tokenised], slices: Sequence[str]
) -> TextShape | None:
    """Returns the padded shape of texts that are asked of one clip."""
    if not texts:
        return None
    asked, kept = [each.text for each in texts], [x for x in slices if x != "video"]
    order = np.arange(1)
    return TextShape.of(model.lay_out(Shown(1), model.tokenise(), order, asked, kept))


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
      coming: Of each sample its inputs, each with the place of its pipeline.
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


def _empty(model: Model, num_frames: int) -> Input:
    """Returns what an empty batch of a grid of several processes holds."""
    return Input(None, model.prepare(np.zeros((num_frames, 8, 8, 3), np.uint8)))


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
    return Result(clip.key, video, frame, texts)
