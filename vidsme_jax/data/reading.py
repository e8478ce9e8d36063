"""Where the frames of a clip come from: its video, or a prepared corpus."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vidsme_jax.base import Frames, MotionStatistics
from vidsme_jax.data import video
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
