"""The clips of a batch and the text that follows each video.

Axes: `clips` of a batch; `frames`; `text`, the tokens after the video, padded right.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from vidsme_jax.base import AuditError, Clip, ClipError, Item
from vidsme_jax.data import corpora, loader
from vidsme_jax.data.reading import Videos
from vidsme_jax.finetune.source import Source
from vidsme_jax.models.preprocessing import Preprocessing


class Batch(NamedTuple):
    """Clips of one shape; `answer` tells the tokens that are learnt."""

    frames: UInt8[Array | np.ndarray, "clips frames height width 3"]
    tokens: Int[Array | np.ndarray, "clips text"]
    answer: Bool[Array | np.ndarray, "clips text"]


@dataclasses.dataclass(frozen=True)
class Row:
    """An item and the token ids that follow its video."""

    item: Item
    tokens: Int[np.ndarray, " text"]
    answer: Bool[np.ndarray, " text"]


def tokenise(
    items: Sequence[Item], source: Source, num_frames: int, found: list[str]
) -> list[Row]:
    """Gives all texts one length, a multiple of 8.

    Args:
      items: At least one.
      source: Its tokenizer and the positions that its model has.
      num_frames: Of every clip.
      found: Receives what is wrong.
    """
    tokenizer, video_token = source.tokenizer, source.video_token
    texts: list[tuple[list[int], int]] = []
    for item in items:
        ids = tokenizer(f"{source.prompt.text}{item.question} ASSISTANT:")["input_ids"]
        ids = ids[len(source.prompt.prefix) + 1 :]
        answer = tokenizer(item.answer, add_special_tokens=False)["input_ids"]
        if not answer:
            found.append(f"{item.id}: no answer to learn")
        if video_token in ids + answer:
            found.append(f"{item.id}: its text holds the video token")
        if tokenizer.unk_token_id in ids + answer:
            found.append(f"{item.id}: words that the tokenizer does not know")
        texts.append(([*ids, *answer, tokenizer.eos_token_id], len(ids)))
    length = 8 * -(-max(len(ids) for ids, _ in texts) // 8)
    total = (
        len(source.prompt.prefix) + num_frames * source.config.rows_per_frame + length
    )
    limit = source.config.text.max_positions
    if total > limit:
        found.append(
            f"{num_frames} frames and the longest text are {total} tokens; the model "
            f"has positions for {limit}"
        )
    rows, places = [], np.arange(length)
    for item, (ids, start) in zip(items, texts, strict=True):
        tokens = np.zeros(length, np.int32)
        tokens[: len(ids)] = ids
        rows.append(Row(item, tokens, (places >= start) & (places < len(ids))))
    return rows


class Clips:
    """Decodes clips to the model's input size and keeps as many as the limit allows.

    `hashes` maps every path that was decoded to the SHA-256 of the file.
    """

    def __init__(self, config: Any, prepare: Preprocessing):
        self.hashes: dict[pathlib.Path, str] = {}
        self._config, self._prepare = config, prepare
        self._videos = Videos(config)
        self._kept: dict[pathlib.Path, np.ndarray] = {}
        self._left = config.cache_mib * 2**20

    def __call__(self, clip: Clip) -> UInt8[np.ndarray, "frames size size 3"]:
        if clip.path in self._kept:
            return self._kept[clip.path]
        frames, _ = self._videos.read(clip.path)
        pixels = self._prepare(frames.pixels)
        self.hashes[clip.path] = frames.content_hash
        if pixels.nbytes <= self._left:
            self._left -= pixels.nbytes
            self._kept[clip.path] = pixels
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
        """Yields the rows in order, decoded ahead; the last batch is filled up."""
        size = self._config.train.batch_size
        count = -(-len(rows) // size) * size
        filled = [rows[k % len(rows)] for k in range(count)]
        clips = [Clip(row.item.path, (row.item,)) for row in filled]
        frames: list[np.ndarray] = []
        for clip, result in loader.load_ahead(clips, self, self._config.workers):
            if isinstance(result, ClipError):  # It was whole when the run began.
                raise AuditError([f"{clip.items[0].video}: {result}"])
            frames.append(result)
            if len(frames) == size:
                chosen, filled = filled[:size], filled[size:]
                tokens = np.stack([row.tokens for row in chosen])
                answer = np.stack([row.answer for row in chosen])
                yield Batch(np.stack(frames), tokens, answer)
                frames = []
