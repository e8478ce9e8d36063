"""The clips of a batch and the text that follows each video."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import Asked, AuditError, Clip, ClipError, Item
from vidsme_jax.data import corpora, loader
from vidsme_jax.data.reading import Videos
from vidsme_jax.models.batches import Batch, Shape, stack
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Rows, Shown, joined
from vidsme_jax.settings import views


@dataclasses.dataclass(frozen=True)
class Row:
    """An item, and where its video and its text stand in the decoder."""

    item: Item
    rows: Rows


def tokenise(
    items: Sequence[Item], model: Model, num_frames: int, found: list[str]
) -> list[Row]:
    """Lays out the video, the question and the answer of every item.

    Args:
      items: At least one.
      model: Of the family.
      num_frames: Of every clip.
      found: Receives what is wrong.
    """
    rows, natural, shown = [], np.arange(num_frames), Shown(num_frames)
    prompt = model.tokenise(None, shown)._replace(after=())
    if model.timed:
        found.append(
            f"model.checkpoint: {model.family} reads the times of frames as text, and "
            "this is not built for training"
        )
    for item in items:
        try:
            text = model.tokenise(
                Asked(
                    key="",
                    question=item.question,
                    candidates=item.candidates,
                    answer=item.answer,
                )
            )
        except AuditError as error:
            problems = [f"{item.id}: {p}" for p in error.problems]
            found += [p for p in problems if p not in found]
            continue
        if len(text.answer) == 1:  # It ends at once.
            found.append(f"{item.id}: no answer to learn")
        laid_out = model.lay_out(shown, prompt, natural, (text,), ("response",))
        rows.append(Row(item, joined(laid_out)))
    total = max((len(row.rows.feature) for row in rows), default=0)
    if total > model.max_rows:
        found.append(
            f"{num_frames} frames and the longest text are {total} tokens; the model "
            f"has positions for {model.max_rows}"
        )
    return rows


class Clips:
    """Decodes clips to the model's input size and keeps as many as the limit allows.

    `hashes` maps the key of every clip that was decoded to the SHA-256 of the file.
    """

    def __init__(self, config: Any, prepare: Callable[[np.ndarray], np.ndarray]):
        self.hashes: dict[str, str] = {}
        self._config, self._prepare = config, prepare
        fields = views.view(views.Corpus, config).fields
        self._videos = Videos(views.view(views.Video, config), fields)
        self._num_frames = config.video.num_frames
        self._kept: dict[str, np.ndarray] = {}
        self._left = config.cache_mib * 2**20

    def __call__(self, clip: Clip) -> UInt8[np.ndarray, "frames size size 3"]:
        if clip.key in self._kept:
            return self._kept[clip.key]
        frames, _ = self._videos.read(clip.key, {self._num_frames})(self._num_frames)
        pixels = self._prepare(frames.pixels)
        self.hashes[clip.key] = frames.content_hash
        if pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._kept[clip.key] = pixels
        return pixels

    def broken(self, items: Sequence[Item]) -> list[str]:
        """Decodes every clip once, and lists those that cannot be."""
        clips = corpora.unique_clips(items)
        return [
            f"{clip.items[0].video}: {result}"
            for clip, result in loader.load_ahead(clips, self, self._config.workers)
            if isinstance(result, ClipError)
        ]

    def batches(self, rows: Sequence[Row]) -> Iterator[Batch]:
        """Yields the rows in order, decoded ahead; the last batch is filled up.

        All batches have one shape.
        """
        size = self._config.train.batch_size
        count = -(-len(rows) // size) * size
        filled = [rows[k % len(rows)] for k in range(count)]
        shape = Shape(
            *map(max, zip(*(Shape.of(row.rows) for row in rows), strict=True))
        )
        clips = [Clip(row.item.clip, (row.item,)) for row in filled]
        frames: list[np.ndarray] = []
        for clip, result in loader.load_ahead(clips, self, self._config.workers):
            if isinstance(result, ClipError):  # It was whole when the run began.
                raise AuditError([f"{clip.items[0].video}: {result}"])
            frames.append(result[None])
            if len(frames) == size:
                chosen, filled = filled[:size], filled[size:]
                yield stack([[row.rows] for row in chosen], np.stack(frames), shape)
                frames = []
