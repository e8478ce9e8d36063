"""Where the frames of a clip come from: its video, or a prepared corpus."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vidsme_jax.base import AuditError, Clip, Frames, Item, MotionStatistics
from vidsme_jax.data import corpora, video
from vidsme_jax.data.corpora import is_address
from vidsme_jax.data.sampling import frame_indices

Read = tuple[Frames, MotionStatistics | None]


@runtime_checkable  # For type checks in tests.
class Reader(Protocol):
    """Gives the sampled frames of the clips of a corpus, on any thread."""

    def read(self, path: pathlib.Path) -> tuple[Frames, MotionStatistics | None]:
        """The frames, and the motion statistics where they are known already.

        Raises:
          ClipError: They cannot be read.
        """
        ...

    def thumbnails(
        self, path: pathlib.Path, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Frames that were read before, scaled down."""
        ...


@runtime_checkable
class CountsReader(Protocol):
    """As `Reader`, for several numbers of frames at once."""

    def read_counts(
        self, path: pathlib.Path, counts: Collection[int]
    ) -> Callable[[int], Read]:
        """Opens a clip; what is returned gives what `Reader.read` would, by count.

        Raises:
          ClipError: It cannot be read at any count.
        """
        ...


class Videos:
    """Decodes videos where they are: files, or examples of TFDS datasets."""

    def __init__(self, config: ConfigDict):
        given: Any = config
        self._video, self._fields = given.video, given.corpus.get("tfds_fields", ())

    def read(self, path: pathlib.Path) -> tuple[Frames, None]:
        """Decodes a clip; see `Reader`."""
        how = self._video
        rate = how.get("fps", 1.0)
        source = self._source(path)
        if isinstance(source, pathlib.Path | bytes):
            frames = video.decode(
                source, how.sampling, how.num_frames, rate, video.limits_of(how)
            )
            return frames, None
        return source.sample(how.sampling, how.num_frames), None

    def read_counts(
        self, path: pathlib.Path, counts: Collection[int]
    ) -> Callable[[int], Read]:
        """Decodes a clip once for all counts; see `CountsReader`."""
        how, source = self._video, self._source(path)
        chosen: dict[int, tuple[int, ...]] = {}

        def choose(num_decodable: int, times: np.ndarray) -> list[int]:
            for count in counts:
                chosen[count] = frame_indices(
                    how.sampling, count, num_decodable, times, how.fps
                )
            return sorted(set().union(*chosen.values()))

        if isinstance(source, pathlib.Path | bytes):
            frames = video.decode_chosen(source, choose, video.limits_of(how))
        else:
            frames = source.sample_chosen(how.sampling, choose)
        place = {index: k for k, index in enumerate(frames.indices)}

        def of(count: int) -> Read:
            taken = frames.pixels[[place[index] for index in chosen[count]]]
            return dataclasses.replace(
                frames, pixels=taken, indices=chosen[count]
            ), None

        return of

    def thumbnails(
        self, path: pathlib.Path, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Decodes frames again, scaled down; see `Reader`."""
        source = self._source(path)
        if isinstance(source, pathlib.Path | bytes):
            limits = video.limits_of(self._video)
            return video.thumbnails(source, indices, height, limits)
        return source.thumbnails(indices, height)

    def content_hash(self, path: pathlib.Path) -> str:
        """The SHA-256 by which equal videos are known, as in `Frames`.

        Raises:
          ClipError: The clip cannot be read.
        """
        source = self._source(path)
        if isinstance(source, pathlib.Path | bytes):
            return video.content_hash(source)
        return source.content_hash()

    def _source(self, path: pathlib.Path) -> Any:
        if not is_address(str(path)):
            return path
        from vidsme_jax.data import datasets

        found = datasets.fetch(str(path), self._fields)
        if isinstance(found, bytes):
            return found
        return dataclasses.replace(found, limits=video.limits_of(self._video))


def open_corpus(config: ConfigDict) -> tuple[tuple[Item, ...], Reader]:
    """Reads a corpus, and opens its clips, prepared or not.

    With `corpus.prepared` and no source in any role, the rows are those that were
    stored with the clips.

    Raises:
      AuditError: As `corpora.load`; or the prepared corpus is damaged, or lacks clips.
    """
    corpus: Any = config.corpus
    if not corpus.prepared:
        return corpora.load(corpus), Videos(config)
    from vidsme_jax.data import layout, prepared

    variant = layout.Variant.of(config)
    reader = prepared.Prepared(pathlib.Path(corpus.prepared).expanduser(), variant)
    items = corpora.load(corpus, reader.items)
    reader.match(corpora.unique_clips(items))
    return items, reader


def open_counts(
    config: ConfigDict, clips: Sequence[Clip], counts: Collection[int]
) -> CountsReader:
    """Opens the clips of a corpus for several numbers of frames, prepared or not.

    Raises:
      AuditError: A prepared corpus lacks a number of frames; lists every one.
    """
    given: Any = config
    if not given.corpus.prepared:
        return Videos(config)
    from vidsme_jax.data import layout, prepared

    root, problems = pathlib.Path(given.corpus.prepared).expanduser(), []
    readers: dict[int, Any] = {}
    if 1 in counts and given.video.sampling == "midpoint":
        problems.append(
            "corpus.prepared has no single frames, which the sampling midpoint takes "
            "from the middle: leave 1 out of config.studies.frames, or set "
            "config.corpus.prepared to ''"
        )
    for count in sorted({max(count, 2) for count in counts}):
        its: Any = config.copy_and_resolve_references()
        its.video.num_frames = count
        try:
            readers[count] = prepared.Prepared(root, layout.Variant.of(its))
            readers[count].match(clips)
        except AuditError as error:
            problems += [
                f"{problem}; {count} frames: --config.video.num_frames={count}"
                for problem in error.problems
            ]
    if problems:
        raise AuditError(problems)
    return _Several(readers)


class _Several:
    """A prepared corpus of several numbers of frames."""

    def __init__(self, readers: Mapping[int, Reader]):
        self._readers = readers

    def read_counts(
        self, path: pathlib.Path, counts: Collection[int]
    ) -> Callable[[int], Read]:
        """Reads the clip at its lowest count; see `CountsReader`."""
        lowest = max(min(counts), 2)
        first = self._readers[lowest].read(path)

        def of(count: int) -> Read:
            many = max(count, 2)
            frames, known = first if many == lowest else self._readers[many].read(path)
            if count == 1:  # It is the first, but for midpoint.
                one = frames.pixels[:1], frames.indices[:1]
                frames = dataclasses.replace(frames, pixels=one[0], indices=one[1])
            return frames, known

        return of
