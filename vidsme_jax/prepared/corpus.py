"""Opens a corpus: the original videos, or the prepared clips."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import AuditError, ClipError, Frames, MotionStatistics
from vidsme_jax.data import conflicts, corpora, names
from vidsme_jax.data.corpora import Corpus
from vidsme_jax.data.reading import Read, Reader, Stamp, Videos
from vidsme_jax.settings import views

_NO_SINGLE = (
    "corpus.prepared has no single frames, which the sampling midpoint takes from the "
    "middle: leave 1 out of config.studies.frames, or set config.corpus.prepared to ''"
)


def open_corpus(
    settings: views.Settings,
    counts: Collection[int],
    *,
    looks: bool = True,
    paired: bool = True,
) -> tuple[Corpus, Reader]:
    """Reads the rows of a corpus, and opens its clips, prepared or not.

    With `corpus.prepared` and no source in any role, the rows stored with the clips are
    used.

    Args:
      settings: Of the run.
      counts: The numbers of frames to read; a single frame is the first of two, so that
        1 requires 2.
      looks: See `corpora.load`.
      paired: See `corpora.load`.

    Raises:
      AuditError: As `corpora.load`; or the prepared corpus is damaged, or lacks clips
        or a number of frames; lists every problem.
    """
    given = settings.corpus
    if not given.prepared:
        corpus = corpora.load(given, looks=looks, paired=paired)
        return corpus, Videos(settings.video, given.fields)
    from vidsme_jax.prepared import layout
    from vidsme_jax.prepared.layout import Variant

    root, problems = layout.root_of(given.prepared), []
    cache = names.configured(given.prepared_cache)
    opened: dict[int, _Clips] = {}
    if 1 in counts and settings.video.sampling == "midpoint":
        problems.append(_NO_SINGLE)
    corpus = Corpus(())
    for count in sorted(set(counts) - {1}):
        video = dataclasses.replace(settings.video, num_frames=count)
        variant = Variant.of(dataclasses.replace(settings, video=video))
        try:
            if isinstance(root, pathlib.Path):
                layout.newest(root, variant)
            from vidsme_jax.prepared.clips import PreparedClips  # Imports TFDS.

            found = PreparedClips(root, variant, given.fields, cache)
            if not corpus.items:
                corpus = corpora.load(given, found.items, paired=paired)
            found.match(corpora.unique_clips(corpus.items))
            opened[count] = found
        except AuditError as error:
            hint = f"; {count} frames: --config.video.num_frames={count}"
            problems += [p + hint * (len(counts) > 1) for p in error.problems]
        except OSError as error:  # Of a bucket.
            problems.append(f"corpus.prepared: {error.filename}: {error.strerror}")
    notes: list[str] = []
    if opened:
        digests = next(iter(opened.values())).digests()
        shared, notes = conflicts.find(
            corpus.items, digests, allowed=given.allow_duplicates
        )
        problems += shared
    if problems:
        raise AuditError(problems)
    return corpora.with_notes(corpus, notes), _Several(opened)


@runtime_checkable  # For type checks in tests.
class _Clips(Protocol):
    """`PreparedClips`, whose module is imported only if it is needed."""

    def read(self, key: str) -> tuple[Frames, MotionStatistics]: ...

    def content_hash(self, key: str) -> str: ...

    def digests(self) -> dict[str, str]: ...


class _Several:
    """A prepared corpus at several numbers of frames; a `Reader`."""

    def __init__(self, opened: Mapping[int, _Clips]):
        self._opened = opened

    def read(self, key: str, counts: Collection[int]) -> Callable[[int], Read]:
        """Reads the stored frames of a clip; see `Reader`."""
        lowest = max(min(counts), 2)
        first = self._opened[lowest].read(key)

        def select(count: int) -> Read:
            many = max(count, 2)
            frames, known = first if many == lowest else self._opened[many].read(key)
            if count == 1:  # The first frame of two.
                frames = dataclasses.replace(
                    frames,
                    pixels=frames.pixels[:1],
                    indices=frames.indices[:1],
                    clock=frames.clock and frames.clock.at([0]),
                )
            return frames, known

        return select

    def thumbnails(
        self, key: str, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Scales stored frames down; see `Reader`."""
        from vidsme_jax.data.pictures import scaled

        for clips in self._opened.values():
            frames, _ = clips.read(key)
            if set(indices) <= set(frames.indices):
                places = [frames.indices.index(index) for index in indices]
                return scaled(frames.pixels[places], height)
        raise ClipError("open", "the frames are not among those that were prepared")

    def content_hash(self, key: str) -> str:
        """Returns the stored content hash; see `Reader`."""
        return next(iter(self._opened.values())).content_hash(key)

    def unchanged(self, key: str, content_hash: str, before: Stamp) -> bool:
        """Compares with the stored content hash; the video is not read."""
        return self.content_hash(key) == content_hash
