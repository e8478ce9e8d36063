"""Clips with their questions and answers, as the batches that training reads.

Every clip is decoded once before the first step, so that problems are reported
at once; frames at the model's input size are kept as far as a limit allows.

Axes: `frames`, `height`, `width`; the last axis of frames is 3, or the numbers of a
tile (`models.tiles`).
"""

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import Asked, AuditError, Clip, ClipError, Fingerprint, Item
from vidsme_jax.data import corpora, loader, similar
from vidsme_jax.data.reading import Reader
from vidsme_jax.models.batches import Batch, Shape, stack
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import NONE, Rows, Shown, Text, joined
from vidsme_jax.models.tiles import Room
from vidsme_jax.run.stacking import check_positions, place, seen

_FINEST = 16  # Rows; lengths are padded to a multiple of at least so many.
_LONGEST = 20  # Problems of one kind that are listed.


class Example(NamedTuple):
    """A row of a manifest, laid out.

    Attributes:
      item: The row.
      rows: In natural order; those that predict the answer are kept.
      shown: What the model is shown of the clip.
      room: What its frames are padded to where clips differ in size.
    """

    item: Item
    rows: Rows
    shown: Shown
    room: Room | None

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer, its end among them."""
        return len(self.rows.kept)


class Looked(NamedTuple):
    """What is known of a clip once it was decoded.

    Attributes:
      content_hash: Of its file.
      shown: What the model is shown of it.
      fingerprint: By which near-duplicates are known.
    """

    content_hash: str
    shown: Shown
    fingerprint: Fingerprint


class Clips:
    """Decodes clips to the model's input size and keeps as many as the limit allows."""

    def __init__(
        self, reader: Reader, model: Model, num_frames: int, limit: int, workers: int
    ):
        """Decodes nothing yet.

        Args:
          reader: Of the frames.
          model: That is shown them.
          num_frames: Of every clip.
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
          ClipError: It cannot be decoded, or is too long for the model.
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
            raise ClipError("open", "the file changed while training read it")
        if pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._kept[clip.key] = pixels
        return pixels

    def look(self, items: Sequence[Item]) -> list[str]:
        """Decodes every clip once, and lists those that cannot be used."""
        return [
            f"{clip.items[0].video}: {result}; repair the file, or leave out its rows"
            for clip, result in self._ahead(corpora.unique_clips(items))
            if isinstance(result, ClipError)
        ]

    def of(self, examples: Iterable[Example]) -> Iterator[np.ndarray]:
        """Yields the frames of examples in order, decoding ahead.

        Raises:
          AuditError: A clip that was whole before cannot be decoded any more.
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

    def _shown(self, frames: Any, pixels: np.ndarray) -> Shown:
        """Returns what the model is shown of a clip; see `run.preparing`."""
        model, clock = self._model, frames.clock
        shown = Shown(len(frames.pixels))
        if model.timed:
            if clock is None:
                cause = "its frames a second are not known, and the model reads times"
                raise ClipError("preprocess", cause)
            shown = Shown(len(frames.pixels), clock.times, clock.duration)
        shown = seen(model, pixels, shown)
        if model.timed or model.tiling:
            height, width = frames.pixels.shape[1:3]
            check_positions(model, shown, f"{width}x{height}")
        return shown


def unreadable(items: Sequence[Item], model: Model) -> list[str]:
    """Lists the rows that cannot be trained on because of their texts, and why.

    Args:
      items: Rows of any clips.
      model: That is to read them.
    """
    found = collections.defaultdict[str, list[str]](list)
    for item in items:
        try:
            answer = model.tokenise(_asked(item)).answer
        except AuditError as error:
            found["texts"] += [f"{item.id}: {p}" for p in error.problems]
            continue
        if not item.answer.strip() or len(answer) < 2:  # It ends at once.
            found["empty answers"].append(f"{item.id}: no answer to learn")
    return _shortened(found)


def _asked(item: Item) -> Asked:
    return Asked(
        key="",
        question=item.question,
        candidates=item.candidates,
        answer=item.answer,
    )


def _shortened(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the problems, a few of each kind and the number of the others."""
    problems: list[str] = []
    for kind, lines in found.items():
        problems += lines[:_LONGEST]
        if len(lines) > _LONGEST:
            problems.append(f"and {len(lines) - _LONGEST} more {kind}")
    return problems


def lay_out(
    items: Sequence[Item], model: Model, looked: Mapping[str, Looked]
) -> tuple[list[Example], list[str]]:
    """Lays out the video, the question and the answer of every row, as one sequence.

    Args:
      items: Rows of clips that were looked at; none is `unreadable`.
      model: That reads them.
      looked: By the clip's key.

    Returns:
      The examples, and which other rows are too long.
    """
    examples, found = [], collections.defaultdict[str, list[str]](list)
    for item in items:
        shown, text = looked[item.clip].shown, model.tokenise(_asked(item))
        rows = _laid_out(model, shown, text)
        total, last = len(rows.feature), int(rows.position.max()) + 1
        if max(total, last) > model.max_rows:
            found["answers that are too long"].append(
                f"{item.id}: {shown.num_frames} frames, its question and its answer "
                f"({len(text.answer)} tokens) take {max(total, last)} positions; the "
                f"model has positions for {model.max_rows}"
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
    """Returns a length to pad to: at most a quarter more, one of four to an octave.

    Example:
      >>> [padded(n) for n in (5, 70, 130, 2304)]
      [16, 80, 160, 2560]
    """
    step = max(_FINEST, 1 << max(length.bit_length() - 3, 0))
    return -(-length // step) * step


def batches_of(
    examples: Sequence[Example], size: int, rng: np.random.Generator | None
) -> list[list[int]]:
    """Deals examples out into batches of like length, each example in one of them.

    How many batches there are depends on the examples alone, not on the order.

    Args:
      examples: To deal out.
      size: Of a batch; what is left over makes smaller ones.
      rng: Of the order; None keeps that of the examples.
    """
    order = np.arange(len(examples)) if rng is None else rng.permutation(len(examples))
    by_room: dict[Room | None, list[int]] = collections.defaultdict(list)
    for k in order.tolist():
        by_room[examples[k].room].append(k)
    batches = []
    for _, its in sorted(by_room.items(), key=lambda each: each[0] or Room(0)):
        its.sort(key=lambda k: padded(len(examples[k].rows.feature)))
        batches += [its[k : k + size] for k in range(0, len(its), size)]
    if rng is None:
        return batches
    return [batches[k] for k in rng.permutation(len(batches)).tolist()]


def batch(
    examples: Sequence[Example], frames: Sequence[np.ndarray], model: Model, size: int
) -> Batch:
    """Stacks examples of one room, filled up with copies from which nothing is learnt.

    Args:
      examples: At least one.
      frames: Of each, from `Clips`.
      model: That reads them.
      size: Of the batch.
    """
    own = [min(k, len(examples) - 1) for k in range(size)]
    shapes = [Shape.of(example.rows) for example in examples]
    shape = Shape(*(padded(max(sizes)) for sizes in zip(*shapes, strict=True)))
    rows = []
    for k, chosen in enumerate(own):
        example = examples[chosen]
        its = place(example.rows, example.shown.grid, example.room)
        if k >= len(examples):
            its = its._replace(target=np.full_like(its.target, NONE))
        rows.append([its])
    pixels = [frames[k] for k in own]
    length = len(pixels[0])
    natural = np.arange(length, dtype=np.int32)
    views = [model.views(natural)[:1]] * size
    room = examples[0].room
    if model.tiling is not None and room is not None:
        return stack(rows, model.tiling.stack(pixels, views, length, room), shape)
    return stack(rows, np.stack(pixels)[:, None], shape)


class Cut(NamedTuple):
    """A batch and what it is of.

    Attributes:
      batch: For the device.
      examples: Without the copies.
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
    """Yields batches, decoded ahead.

    Args:
      examples: That the plan is of.
      plan: The examples of each batch, by their places.
      clips: Gives the frames.
      model: That reads them.
      size: Of every batch.
    """
    frames = clips.of(examples[k] for k in itertools.chain.from_iterable(plan))
    for its in plan:
        chosen = tuple(examples[k] for k in its)
        own = [next(frames) for _ in its]
        yield Cut(batch(chosen, own, model, size), chosen)
