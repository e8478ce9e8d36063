"""Clips with their questions and answers, as the batches that training reads.

Every clip is decoded once before the first step, so that problems are reported early;
frames at the model's input size are kept in memory up to a limit.

Axes: `frames`, `height`, `width`; the last axis of frames is 3, or the numbers of a
tile (`models.tiles`).
"""

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import (
    Asked,
    AuditError,
    Clip,
    ClipError,
    Fingerprint,
    Frames,
    Item,
)
from vidsme_jax.data import corpora, loader, similar
from vidsme_jax.data.reading import Reader
from vidsme_jax.models.batches import Batch, Shape, stack
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import NONE, Rows, Shown, Text, joined
from vidsme_jax.models.tiles import Room
from vidsme_jax.run.stacking import check_positions, place, seen

_FINEST = 16  # Rows; the least multiple that lengths are padded to.
_LISTED = 20  # Most problems of one kind in an error.


class Example(NamedTuple):
    """A row of a manifest, laid out.

    Attributes:
      item: The row.
      rows: The model's, frames in natural order; those that predict the answer are
        kept.
      shown: What the model is shown of the clip.
      room: The padded size of its frames; None if clips do not differ in size.
    """

    item: Item
    rows: Rows
    shown: Shown
    room: Room | None

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the answer, with its end token."""
        return len(self.rows.kept)


class Looked(NamedTuple):
    """Facts about a clip that was decoded.

    Attributes:
      content_hash: SHA-256 of its file.
      shown: What the model is shown of it.
      fingerprint: Finds near-duplicates.
    """

    content_hash: str
    shown: Shown
    fingerprint: Fingerprint


class Clips:
    """Decodes clips to the model's input size and keeps as many as the limit allows."""

    def __init__(
        self, reader: Reader, model: Model, num_frames: int, limit: int, workers: int
    ):
        """Stores the arguments; decodes nothing yet.

        Args:
          reader: Reads the frames.
          model: Prepares them.
          num_frames: Frames of every clip.
          limit: Bytes of frames to keep.
          workers: See `loader.load_ahead`.
        """
        self.looked: dict[str, Looked] = {}
        self._reader, self._model, self._num_frames = reader, model, num_frames
        self._left, self._workers = limit, workers
        self._kept: dict[str, np.ndarray] = {}

    def __call__(self, clip: Clip) -> UInt8[np.ndarray, "frames height width numbers"]:
        """Returns the frames of a clip at the model's input size.

        Raises:
          ClipError: It cannot be decoded, has changed since, or is too long for the
            model.
        """
        if clip.key in self._kept:
            return self._kept[clip.key]
        read = self._reader.read(clip.key, {self._num_frames})
        frames, _ = read(self._num_frames)
        pixels = self._model.prepare(frames.pixels)
        if clip.key not in self.looked:
            shown = self._shown(frames, pixels)
            prints = similar.fingerprint(frames.pixels)
            self.looked[clip.key] = Looked(frames.content_hash, shown, prints)
        elif self.looked[clip.key].content_hash != frames.content_hash:
            raise ClipError("open", "the file was changed during the training")
        if pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._kept[clip.key] = pixels
        return pixels

    def look(self, items: Sequence[Item]) -> list[str]:
        """Decodes every clip once; returns the problems of those that fail."""
        return [
            f"{clip.items[0].video}: {result}; repair the file, or leave out its rows"
            for clip, result in self._ahead(corpora.unique_clips(items))
            if isinstance(result, ClipError)
        ]

    def of(self, examples: Iterable[Example]) -> Iterator[np.ndarray]:
        """Yields the frames of examples in order, decoding ahead.

        Raises:
          AuditError: A clip that was decoded before cannot be decoded again.
        """
        clips = [Clip(example.item.clip, (example.item,)) for example in examples]
        for clip, result in self._ahead(clips):
            if isinstance(result, ClipError):
                raise AuditError([f"{clip.items[0].video}: {result}"])
            yield result

    def _ahead(
        self, clips: Sequence[Clip]
    ) -> Iterator[tuple[Clip, np.ndarray | ClipError]]:
        return loader.load_ahead(clips, self, self._workers)

    def _shown(self, frames: Frames, pixels: np.ndarray) -> Shown:
        """Returns what the model is shown of a clip; see `run.preparing`."""
        model, clock = self._model, frames.clock
        shown = Shown(len(frames.pixels))
        if model.timed:
            if clock is None:
                raise ClipError(
                    "preprocess",
                    "its frames a second are not known, and the model reads the times "
                    "of frames: give the clip as a file that has them, such as .mp4",
                )
            shown = Shown(len(frames.pixels), clock.times, clock.duration)
        shown = seen(model, pixels, shown)
        if model.timed or model.tiling:
            height, width = frames.pixels.shape[1:3]
            check_positions(model, shown, f"{width}x{height}")
        return shown


def unreadable(items: Sequence[Item], model: Model) -> list[str]:
    """Returns the problems of rows whose texts cannot be trained on.

    Args:
      items: Rows of any clips.
      model: Tokenises them.
    """
    found = collections.defaultdict[str, list[str]](list)
    for item in items:
        try:
            answer = model.tokenise(_text(item)).answer
        except AuditError as error:
            found["texts"] += [f"{item.id}: {p}" for p in error.problems]
            continue
        if not item.answer.strip() or len(answer) < 2:  # The end token alone.
            found["empty answers"].append(
                f"{item.id}: no answer to learn: give the row an `answer`, or remove it"
            )
    return _shortened(found)


def _text(item: Item) -> Asked:
    return Asked(
        key="",
        question=item.question,
        candidates=item.candidates,
        answer=item.answer,
    )


def _shortened(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the first problems of each kind and the number of the others."""
    problems: list[str] = []
    for kind, lines in found.items():
        problems += lines[:_LISTED]
        if len(lines) > _LISTED:
            problems.append(f"and {len(lines) - _LISTED} more {kind}")
    return problems


def lay_out(
    items: Sequence[Item], model: Model, looked: Mapping[str, Looked]
) -> tuple[list[Example], list[str]]:
    """Lays out the video, the question and the answer of every row, as one sequence.

    Args:
      items: Rows of decoded clips; none is `unreadable`.
      model: Lays them out.
      looked: By the clip's key.

    Returns:
      The examples, and the problems of rows that are too long.
    """
    examples, found = [], collections.defaultdict[str, list[str]](list)
    for item in items:
        shown, text = looked[item.clip].shown, model.tokenise(_text(item))
        rows = _laid_out(model, shown, text)
        total, last = len(rows.feature), int(rows.position.max()) + 1
        if max(total, last) > model.max_rows:
            found["answers that are too long"].append(
                f"{item.id}: {shown.num_frames} frames, its question and its answer "
                f"({len(text.answer)} tokens) take {max(total, last)} positions; the "
                f"model has positions for {model.max_rows}: shorten the answer, or "
                "lower config.video.num_frames"
            )
            continue
        room = model.tiling.room(shown.grid) if model.tiling else None
        examples.append(Example(item, rows, shown, room))
    return examples, _shortened(found)


def _laid_out(model: Model, shown: Shown, text: Text) -> Rows:
    prompt = model.tokenise(None, shown)._replace(after=())
    natural = np.arange(shown.num_frames, dtype=np.int32)
    return joined(model.lay_out(shown, prompt, natural, (text,), ("response",)))


def padded(length: int) -> int:
    """Returns the length to pad to: one of four per octave, at least 16.

    Example:
      >>> [padded(n) for n in (5, 70, 130, 2304)]
      [16, 80, 160, 2560]
    """
    step = max(_FINEST, 1 << max(length.bit_length() - 3, 0))
    return -(-length // step) * step


def batches_of(
    examples: Sequence[Example], size: int, rng: np.random.Generator | None
) -> list[list[int]]:
    """Divides examples into batches of similar length.

    The number of batches depends on the examples alone, not on the order.

    Args:
      examples: To be divided.
      size: Examples of a batch; the last one of each room may be smaller.
      rng: Draws the order; None keeps that of the examples.

    Returns:
      The places of each batch's examples.
    """
    order = np.arange(len(examples)) if rng is None else rng.permutation(len(examples))
    by_room: dict[Room | None, list[int]] = collections.defaultdict(list)
    for k in order.tolist():
        by_room[examples[k].room].append(k)
    batches = []
    for _, places in sorted(by_room.items(), key=lambda each: each[0] or Room(0)):
        places.sort(key=lambda k: padded(len(examples[k].rows.feature)))
        batches += [places[k : k + size] for k in range(0, len(places), size)]
    if rng is None:
        return batches
    return [batches[k] for k in rng.permutation(len(batches)).tolist()]


def batch(
    examples: Sequence[Example], frames: Sequence[np.ndarray], model: Model, size: int
) -> Batch:
    """Stacks examples of one room; copies of the last one without targets fill it up.

    Args:
      examples: At least one.
      frames: Of each, from `Clips`.
      model: Stacks them.
      size: Examples of the batch, with copies.
    """
    chosen = [min(k, len(examples) - 1) for k in range(size)]
    shapes = [Shape.of(example.rows) for example in examples]
    shape = Shape(*(padded(max(sizes)) for sizes in zip(*shapes, strict=True)))
    rows = []
    for k, source in enumerate(chosen):
        example = examples[source]
        placed = place(example.rows, example.shown.grid, example.room)
        if k >= len(examples):
            placed = placed._replace(target=np.full_like(placed.target, NONE))
        rows.append([placed])
    pixels = [frames[k] for k in chosen]
    length = len(pixels[0])
    natural = np.arange(length, dtype=np.int32)
    views = [model.views(natural)[:1]] * size
    room = examples[0].room
    if model.tiling is not None and room is not None:
        return stack(rows, model.tiling.stack(pixels, views, length, room), shape)
    return stack(rows, np.stack(pixels)[:, None], shape)


class Cut(NamedTuple):
    """A batch and its examples.

    Attributes:
      batch: For the device.
      examples: Without copies.
    """

    batch: Batch
    examples: tuple[Example, ...]


def cut(
    examples: Sequence[Example],
    plan: Sequence[Sequence[int]],
    clips: Clips,
    model: Model,
    size: int,
) -> Iterator[Cut]:
    """Yields batches, decoding ahead.

    Args:
      examples: All of them.
      plan: The places of each batch's examples, from `batches_of`.
      clips: Decodes the frames.
      model: Stacks them.
      size: Examples of every batch, with copies.
    """
    frames = clips.of(examples[k] for k in itertools.chain.from_iterable(plan))
    for places in plan:
        chosen = tuple(examples[k] for k in places)
        pixels = [next(frames) for _ in places]
        yield Cut(batch(chosen, pixels, model, size), chosen)
