"""Where the frames of a clip come from: its video, or a prepared corpus.

Videos are decoded, and hashed, in processes of their own (`decoders.py`).
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
from vidsme_jax.data.limits import Limits
from vidsme_jax.data.sampling import Choice
from vidsme_jax.data.sources import is_address
from vidsme_jax.settings import views

Read = tuple[Frames, MotionStatistics | None]
Stamp = tuple[int, int]

ABSENT: Stamp = (-1, -1)


def stamp(key: str) -> Stamp:
    """Returns size and time of change in ns of a clip's file, or `ABSENT`.

    Cheap signs that a file is the same; of a folder of pictures those of all. An
    example of TFDS has none; a segment has those of its file, and a row of a dataset
    those of the file that it is in.
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
    """Returns the file of a clip, which its segments share, as do rows of a dataset.

    Example:
      >>> file_of("/videos/a.mp4#t=3,7.5").name
      'a.mp4'
    """
    name = segments.divided(key)[0]
    return hub_folders.file_of(name) if hub_folders.is_row(name) else pathlib.Path(name)


@runtime_checkable  # For type checks in tests.
class Reader(Protocol):
    """Reads the sampled frames of the clips of a corpus, on any thread.

    Clips are named by their keys.
    """

    def read(self, key: str, counts: Collection[int]) -> Callable[[int], Read]:
        """Opens a clip for several numbers of frames.

        Returns:
          A function that takes one of `counts` and gives the frames, and the motion
          statistics if they are known already. It may raise a `ClipError`.

        Raises:
          ClipError: The clip cannot be read at any count.
        """
        ...

    def thumbnails(
        self, key: str, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Reads frames that were read before again, scaled down.

        Raises:
          ClipError: They cannot be read.
        """
        ...

    def content_hash(self, key: str) -> str:
        """Returns the SHA-256 by which equal videos are known, as in `Frames`.

        Raises:
          ClipError: The clip cannot be read.
        """
        ...

    def unchanged(self, key: str, content_hash: str, before: Stamp) -> bool:
        """Returns whether a clip has the content that it was read with before.

        Args:
          key: Of the clip.
          content_hash: Of that content.
          before: The `stamp` of its file then.

        Raises:
          ClipError: The clip cannot be read.
        """
        ...


class Videos:
    """Decodes videos where they are: files, folders of pictures, examples of datasets.

    Example:
      >>> reader = Videos(views.Settings.of(settings.default()).video)
      >>> frames, _ = reader.read("/videos/a.mp4", {16})(16)
    """

    def __init__(self, how: views.Video, fields: Sequence[str] = ()):
        """Takes the settings, and `corpus.fields`."""
        self._how, self._fields = how, tuple(fields)

    def read(self, key: str, counts: Collection[int]) -> Callable[[int], Read]:
        """Decodes a clip once for all counts; see `Reader`."""
        how, source = self._how, self._source(key)
        segment = segments.divided(key)[1]
        if isinstance(source, pathlib.Path | bytes):
            frames, chosen = self._decoded(source, sorted(counts), segment)
        else:
            part = segment or segments.WHOLE
            choice = Choice(how.sampling, how.fps, counts, part)
            frames = source.sample_chosen(how.sampling, choice, part)
            chosen = choice.indices
        place = {index: k for k, index in enumerate(frames.indices)}

        def of(count: int) -> Read:
            indices = chosen[count]
            if count > 1 and len(set(indices)) == 1:
                cause = (
                    "one frame alone is sampled from it: motion and the order of "
                    "frames need two; take a longer part or clip"
                )
                if how.sampling == "fps":
                    cause += ", or a higher config.video.fps"
                raise ClipError("decode", cause)
            if indices == frames.indices:
                return frames, None
            places = [place[index] for index in indices]
            its = dataclasses.replace(
                frames,
                pixels=frames.pixels[places],
                indices=indices,
                clock=frames.clock and frames.clock.at(places),
            )
            return its, None

        return of

    def _decoded(
        self, source: Any, counts: list[int], segment: segments.Segment | None
    ) -> tuple[Frames, dict[int, tuple[int, ...]]]:
        """Returns the frames for all counts, and which of them each wants."""
        found, pixels = decoders.ask(
            "frames",
            source,
            self._limits,
            sampling=self._how.sampling,
            fps=self._how.fps,
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
        """Compares stamps, and hashes a file whose stamp differs; see `Reader`.

        A file that was replaced by another of its size and time of change is taken to
        be the same, as is an example of a TFDS dataset under the same address.
        """
        unseen = is_address(key) and not hub_folders.is_row(key)
        if stamp(key) == before and (before != ABSENT or unseen):
            return True
        return self.content_hash(key) == content_hash

    @property
    def _limits(self) -> Limits:
        return Limits(self._how.max_pixels, self._how.max_seconds)

    def _source(self, key: str) -> Any:
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
