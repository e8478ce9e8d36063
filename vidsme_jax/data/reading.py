"""Reads the frames of clips: the protocol of readers, and the reader of videos.

Videos are decoded and hashed in separate processes (`decoders.py`).
"""

import dataclasses
import pathlib
import stat
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from vidsme_jax.base import ClipError, Frames, MotionStatistics
from vidsme_jax.clock import Clock
from vidsme_jax.data import decoders, frame_folders, hub_folders, segments, urls
from vidsme_jax.data.limits import Content, Limits
from vidsme_jax.data.sampling import Choice
from vidsme_jax.data.sources import is_address
from vidsme_jax.settings import views

Read = tuple[Frames, MotionStatistics | None]
Stamp = tuple[int, int]

ABSENT: Stamp = (-1, -1)


def stamp(key: str) -> Stamp:
    """Returns size and mtime in ns of a clip's file, or `ABSENT`.

    A cheap check that a file is unchanged. A folder of pictures has the total size and
    the latest mtime; a segment has the stamp of its file, a row of a dataset that of
    the dataset's file; an example of TFDS has none.
    """
    try:
        path = file_of(key)
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            return frame_folders.stamp(path)
    except OSError:
        return ABSENT
    return found.st_size, found.st_mtime_ns


def file_of(key: str) -> pathlib.Path:
    """Returns the file of a clip, a segment, or the row of a dataset.

    Example:
      >>> file_of("/videos/a.mp4#t=3,7.5").name
      'a.mp4'
    """
    name = segments.divided(key)[0]
    return hub_folders.file_of(name) if hub_folders.is_row(name) else pathlib.Path(name)


@runtime_checkable  # For type checks in tests.
class Reader(Protocol):
    """Reads the sampled frames of clips, identified by their keys; thread-safe."""

    def read(self, key: str, counts: Collection[int]) -> Callable[[int], Read]:
        """Opens a clip for several numbers of frames.

        Returns:
          A function that takes one of `counts` and returns the frames, and the motion
          statistics if they are stored. It may raise a `ClipError`.

        Raises:
          ClipError: The clip cannot be read at any count.
        """
        ...

    def thumbnails(
        self, key: str, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Reads frames again, scaled down.

        Raises:
          ClipError: They cannot be read.
        """
        ...

    def content_hash(self, key: str) -> str:
        """Returns the SHA-256 of the content, as in `Frames`.

        Raises:
          ClipError: The clip cannot be read.
        """
        ...

    def unchanged(self, key: str, content_hash: str, before: Stamp) -> bool:
        """Returns whether a clip still has the same content.

        Args:
          key: Of the clip.
          content_hash: The content hash of the earlier read.
          before: The `stamp` of the earlier read.

        Raises:
          ClipError: The clip cannot be read.
        """
        ...


class Videos:
    """Decodes original videos: files, folders of pictures, examples of datasets.

    Example:
      >>> from vidsme_jax import settings
      >>> clip = settings.DEMO / "corpus/clips"
      >>> reader = Videos(views.Settings.of(settings.default()).video)
      >>> frames, _ = reader.read(str(min(clip.glob("*.mp4"))), {8})(8)
      >>> len(frames.indices)
      8
    """

    def __init__(self, settings: views.Video, fields: Sequence[str] = ()):
        """Takes the settings, and `corpus.fields`."""
        self._settings, self._fields = settings, tuple(fields)

    def read(self, key: str, counts: Collection[int]) -> Callable[[int], Read]:
        """Decodes a clip once for all counts; see `Reader`."""
        settings, source = self._settings, self._source(key)
        segment = segments.divided(key)[1]
        if isinstance(source, pathlib.Path | bytes):
            frames, chosen = self._decoded(source, sorted(counts), segment)
        else:
            part = segment or segments.WHOLE
            choice = Choice(settings.sampling, settings.fps, counts, part)
            frames = source.sample_chosen(settings.sampling, choice, part)
            chosen = choice.indices
        place = {index: k for k, index in enumerate(frames.indices)}

        def select(count: int) -> Read:
            indices = chosen[count]
            if count > 1 and len(set(indices)) == 1:
                cause = (
                    "one frame alone is sampled from it: motion and the order of "
                    "frames need two; take a longer part or clip"
                )
                if settings.sampling == "fps":
                    cause += ", or a higher config.video.fps"
                raise ClipError("decode", cause)
            if indices == frames.indices:
                return frames, None
            places = [place[index] for index in indices]
            selected = dataclasses.replace(
                frames,
                pixels=frames.pixels[places],
                indices=indices,
                clock=frames.clock and frames.clock.at(places),
            )
            return selected, None

        return select

    def _decoded(
        self, source: Content, counts: list[int], segment: segments.Segment | None
    ) -> tuple[Frames, dict[int, tuple[int, ...]]]:
        """Returns the frames for all counts, and the indices for each count."""
        found, pixels = decoders.ask(
            "frames",
            source,
            self._limits,
            sampling=self._settings.sampling,
            fps=self._settings.fps,
            counts=counts,
            segment=str(segment or ""),
        )
        clock = found["clock"]
        frames = Frames(
            pixels=np.frombuffer(pixels, np.uint8).reshape(found["shape"]),
            indices=tuple(found["indices"]),
            content_hash=found["content_hash"],
            clock=clock
            and Clock(
                times=tuple(clock["times"]),
                shown=tuple(clock["shown"]),
                duration=clock["duration"],
            ),
            warnings=tuple(found["warnings"]),
            container=found["container"],
        )
        return frames, dict(zip(counts, map(tuple, found["chosen"]), strict=True))

    def thumbnails(
        self, key: str, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Decodes frames again, scaled down; see `Reader`."""
        source = self._source(key)
        if not isinstance(source, pathlib.Path | bytes):
            return source.thumbnails(indices, height)
        found, pixels = decoders.ask(
            "thumbnails", source, self._limits, indices=list(indices), height=height
        )
        return np.frombuffer(pixels, np.uint8).reshape(found["shape"])

    def content_hash(self, key: str) -> str:
        """Reads and hashes the content of a clip; see `Reader`."""
        source = self._source(key)
        if not isinstance(source, pathlib.Path | bytes):
            return source.content_hash()
        return decoders.ask("content_hash", source, self._limits)[0]["content_hash"]

    def unchanged(self, key: str, content_hash: str, before: Stamp) -> bool:
        """Compares stamps, and hashes the file if they differ; see `Reader`.

        A file with equal size and mtime counts as unchanged, as does an example of a
        TFDS dataset under the same address.
        """
        unstamped = is_address(key) and not hub_folders.is_row(key)
        if stamp(key) == before and (before != ABSENT or unstamped):
            return True
        return self.content_hash(key) == content_hash

    @property
    def _limits(self) -> Limits:
        return Limits(self._settings.max_pixels, self._settings.max_seconds)

    def _source(self, key: str) -> Any:
        """Returns the file of a clip, its bytes, or its `Pictures`."""
        if not is_address(key):
            return file_of(key)
        address = segments.divided(key)[0]
        if address.startswith(urls.SCHEME):
            raise urls.no_file_error(address.removeprefix(urls.SCHEME))
        if hub_folders.is_row(address):
            from vidsme_jax.data import hub

            found = hub.fetch(address, self._fields)
        else:
            from vidsme_jax.data import datasets

            found = datasets.fetch(address, self._fields)
        if isinstance(found, bytes):
            return found
        return dataclasses.replace(found, limits=self._limits)
