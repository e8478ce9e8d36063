"""Opening: a file of unknown origin, or the bytes of one, within limits.

What comes out is its main video stream, or why there is none. FFmpeg gets the one file
as a descriptor that is open already, no protocol by which to open another, and a list
of the demuxers that it may use (`containers.py`).

Axes: `height`, `width` of a frame.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidsme_jax.base import ClipError
from vidsme_jax.data import clocks, containers, formats, names, stages, tags, tracks
from vidsme_jax.data.limits import Content, Limits

# How what git leaves of a file begins that git-lfs did not fetch.
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_HEAD, _SHOWN = 4096, 256  # Bytes that are looked at, and those that may be quoted.
_CHUNK = 1 << 20  # Bytes hashed between two looks at the clock.


@dataclasses.dataclass(frozen=True)
class HeaderLength:
    """How long a video is by its header; 0 for what it does not name.

    Attributes:
      frames: Their number.
      seconds: How long they are shown.
      until: Whether `seconds` may be the time of the end, which in a file that begins
        late is not its length: in Matroska as FFmpeg writes it, ASF, AVI, segments of
        MP4.
    """

    frames: int = 0
    seconds: float = 0.0
    until: bool = False


class Source:
    """A video to be decoded, and how long that may still take.

    Attributes:
      header_length: By its header, once it has been opened.
      noticed: What is unusual of its tracks, once it has been opened.
      rate: Its average frames a second by FFmpeg, once it has been opened; None where
        FFmpeg knows none.
      container: What it says of itself, once it has been opened; see `tags`.
    """

    def __init__(self, content: Content, limits: Limits):
        self.content, self.limits = content, limits
        self.header_length = HeaderLength()
        self.warnings: tuple[str, ...] = ()
        self.rate: clocks.Rate | None = None
        self.container: dict[str, str | float] = {}
        self._track: int | None = None  # The index of its stream, among several.
        self._several: tuple[str, ...] = ()
        self._end = time.monotonic() + limits.max_seconds

    def check_time(self) -> None:
        """Raises a `ClipError` if the time is up."""
        if time.monotonic() >= self._end:
            most = f"{self.limits.max_seconds:g} s (config.video.max_seconds)"
            raise ClipError("decode", f"not decoded within {most}")

    def check_count(self, frames: int) -> None:
        """Raises a `ClipError` if there are too many frames."""
        if frames > self.limits.max_frames:
            raise ClipError("decode", f"more than {self.limits.max_frames} frames")

    def decoded(self, stream: VideoStream, packet: Any) -> list[VideoFrame]:
        """Decodes a packet; every frame that is decoded anywhere comes from this."""
        frames = stream.codec_context.decode(packet)
        for frame in frames:
            self.limits.check_size(frame.width, frame.height)
        return frames

    def content_hash(self) -> str:
        """Returns the SHA-256 of the bytes, in hex.

        Raises:
          ClipError: "open", if the file cannot be read or is empty.
        """
        digest = hashlib.sha256()
        with stages.spending(stages.HASH), open_regular(self.content) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                self.check_time()
        return digest.hexdigest()

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Opens a container with its main video stream.

        Raises:
          ClipError: "open" if it is no video, "decode" if there is no decoder for it or
            its frames are too large.
        """
        options = {"max_pixels": str(self.limits.max_pixels)}
        with self._container(options) as container:
            stream = self._main_track(container, options)
            if stream.codec_context is None:
                raise ClipError("decode", "no decoder for the codec of the video")
            context = stream.codec_context
            self.limits.check_size(context.width, context.height)
            # The threads are the loader's, one a clip; the decoder's own would decode
            # frames ahead that nobody wants.
            context.thread_count, context.options = 1, options
            self.header_length = _header_length(container, stream, head(self.content))
            self.warnings = (*self._several, *formats.of_stream(stream))
            self.rate = clocks.rate_of(stream.average_rate)
            self.container = tags.container_of(container, stream)
            yield container, stream

    def _main_track(
        self, container: InputContainer, options: dict[str, str]
    ) -> VideoStream:
        """Returns the track with the film; of several, after reading the file."""
        found = tracks.videos(container)
        if len(found) == 1:
            return found[0]
        if self._track is None:
            with stages.spending(stages.SCAN), self._container(options) as other:
                counts = tracks.count(other, tracks.videos(other), self._check)
            taken, self._several = tracks.main(container, found, counts)
            self._track = taken.index
        return next(track for track in found if track.index == self._track)

    def _check(self, frames: int) -> None:
        self.check_time()
        self.check_count(frames)

    @contextlib.contextmanager
    def _container(self, options: dict[str, str]) -> Iterator[InputContainer]:
        """Opens the file; with these options decoders refuse larger frames."""
        self.check_time()
        # FFmpeg looks at this whenever it reads, not while a decoder works.
        left = max(0.0, self._end - time.monotonic())
        with open_regular(self.content) as file:
            given: Any = file
            about = options | containers.ALLOWED | {"protocol_whitelist": "none"}
            if not isinstance(self.content, bytes):
                # By its descriptor FFmpeg reads as fast as by a name, and no name that
                # the file holds is one: only `fd` is allowed, which no list may name.
                given = "fd:"
                about |= {"protocol_whitelist": "fd", "fd": str(file.fileno())}
            try:
                container: Any = av.open(given, "r", options=about, timeout=left)
            except (av.FFmpegError, ValueError) as error:
                self.check_time()
                raise ClipError("open", _not_a_video(self.content)) from error
            with container:
                yield container


def seconds_per_tick(stream: VideoStream) -> Any:
    """Seconds a tick of the time stamps (a Fraction)."""
    return stream.time_base or 0


def open_regular(content: Content) -> io.BufferedIOBase:
    """Opens a file, which must be a regular one with something in it.

    What is opened is what was looked at: a name may stand for another file by then.

    Raises:
      ClipError: "open", if it is another, or cannot be read.
    """
    if isinstance(content, bytes):
        if not content:
            raise ClipError("open", "the video is empty (0 bytes)")
        return io.BytesIO(content)
    try:
        # Opening a pipe would wait for a writer.
        descriptor = os.open(content, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        cause = f"no such file: {content}{names.hint_for_missing(content)}"
        raise ClipError("open", cause) from error
    except (OSError, ValueError) as error:  # A name with a NUL, too.
        why = error.strerror if isinstance(error, OSError) else error
        cause = f"the file cannot be read ({why}): {content}"
        raise ClipError("open", cause) from error
    about, problem = os.fstat(descriptor), ""
    if stat.S_ISDIR(about.st_mode):
        problem = f"a folder, not a video: {content}"
    elif not stat.S_ISREG(about.st_mode):  # A pipe or a device may have no end.
        problem = f"not a regular file: {content}"
    elif not about.st_size:
        problem = f"the file is empty (0 bytes): {content}"
    if problem:
        os.close(descriptor)
        raise ClipError("open", problem)
    return open(descriptor, "rb")


def head(content: Content) -> bytes:
    """Returns how a file begins, in 4096 bytes at most; see `open_regular`."""
    with open_regular(content) as file:
        return file.read(_HEAD)


def _not_a_video(content: Content) -> str:
    begin = head(content)
    if begin.startswith(_POINTER):
        where = "" if isinstance(content, bytes) else f" in {content.parent}"
        return f"a git-lfs pointer, not the video: run `git lfs pull`{where}"
    if begin[4:8] == b"ftyp" and not _has_index(content):
        cause = "the recording or the copy of it broke off before the end"
        return f"the mp4 has no index (moov box): {cause}"
    if kind := containers.refused(begin):
        return kind
    text = begin[:_SHOWN].decode("utf-8", errors="ignore")
    shown = len(text.encode()) > len(begin[:_SHOWN]) - 4
    if shown and text.replace("\n", "").isprintable():
        return f"not a video but text, which begins {text[:40]!r}"
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    return f"not a video in any format that is read ({size} bytes)"


def _has_index(content: Content) -> bool:
    """Whether one of the outermost boxes of an mp4 is the index."""
    with open_regular(content) as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        while len(header := file.read(16)) >= 8:
            size, kind = int.from_bytes(header[:4]), header[4:8]
            if kind == b"moov":
                return True
            size = int.from_bytes(header[8:16]) if size == 1 else size
            if not 8 <= size <= end:
                return False  # The last box, or nonsense.
            file.seek(size - len(header), 1)
    return False


def _header_length(
    container: InputContainer, stream: VideoStream, begin: bytes
) -> HeaderLength:
    """What the header says; a Matroska file says it in a tag, as h:mm:ss."""
    seconds = float((stream.duration or 0) * seconds_per_tick(stream))
    written = stream.metadata.get("DURATION", "")
    kinds = container.format.name.split(",")
    # The clock of an AVI begins at 0; an MP4 in fragments counts no frames.
    until = not {"asf", "avi", "matroska"}.isdisjoint(kinds)
    until = until or ("mp4" in kinds and stream.frames == 0)
    if not seconds and written.count(":") == 2:
        with contextlib.suppress(ValueError):
            hours, minutes, rest = (float(part) for part in written.split(":"))
            seconds, until = 3600 * hours + 60 * minutes + rest, True
    frames = stream.frames
    if "avi" in kinds and len(stream.index_entries) == 1:
        # Of one frame that comes late FFmpeg gives no time; empty ones before it count.
        whole = 8 + int.from_bytes(begin[4:8], "little") <= container.size
        frames = 1 if whole else frames
    return HeaderLength(frames, seconds, until)
