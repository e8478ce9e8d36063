"""Opens an untrusted video file, or its bytes, within limits.

FFmpeg gets the file as an open descriptor, no protocol to open another, and a whitelist
of demuxers (`containers.py`).

Axes: `height`, `width` of a frame.
"""

import contextlib
import dataclasses
import fractions
import hashlib
import io
import os
import stat
import time
from collections.abc import Generator
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidsme_jax.base import ClipError
from vidsme_jax.data import clocks, containers, formats, names, stages, tags, tracks
from vidsme_jax.data.limits import Content, Limits

# The first bytes of a git-lfs pointer, in place of a file that was not fetched.
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_HEAD, _SHOWN = 4096, 256  # Bytes of the head, and those checked for text.
_CHUNK = 1 << 20  # Bytes hashed between two checks of the time.


@dataclasses.dataclass(frozen=True)
class HeaderLength:
    """The length of a video by its header; 0 for missing values.

    Attributes:
      frames: The number of frames.
      seconds: The duration.
      may_be_end: Whether `seconds` may be the end time, which differs from the duration
        in a file that starts late: in Matroska as FFmpeg writes it, ASF, AVI, segments
        of MP4.
    """

    frames: int = 0
    seconds: float = 0.0
    may_be_end: bool = False


class Source:
    """A video to be decoded, its deadline, and its properties once it is opened.

    Attributes:
      header_length: Its length by the header.
      warnings: Warnings about its tracks and format.
      rate: Its average frame rate in Hz; None if FFmpeg knows none.
      container: Its metadata; see `tags`.
    """

    def __init__(self, content: Content, limits: Limits):
        """Starts the time limit."""
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

    def decoded(self, stream: VideoStream, packet: Packet | None) -> list[VideoFrame]:
        """Decodes a packet and checks the sizes of its frames; None flushes."""
        frames = stream.codec_context.decode(packet)
        for frame in frames:
            self.limits.check_size(frame.width, frame.height)
        return frames

    def content_hash(self) -> str:
        """Returns the SHA-256 of the bytes, in hex.

        Raises:
          ClipError: "open", if the file cannot be read or is empty; "decode", if the
            time is up.
        """
        digest = hashlib.sha256()
        with stages.spending(stages.HASH), open_regular(self.content) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                self.check_time()
        return digest.hexdigest()

    @contextlib.contextmanager
    def opened(self) -> Generator[tuple[InputContainer, VideoStream], None, None]:
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
            # The loader has one thread per clip; the decoder's own threads would decode
            # unwanted frames ahead.
            context.thread_count, context.options = 1, options
            self.header_length = _header_length(container, stream, head(self.content))
            self.warnings = (*self._several, *formats.of_stream(stream))
            self.rate = clocks.rate_of(stream.average_rate)
            self.container = tags.container_of(container, stream)
            yield container, stream

    def _main_track(
        self, container: InputContainer, options: dict[str, str]
    ) -> VideoStream:
        """Returns the main video track; counts the frames of several."""
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
    def _container(
        self, options: dict[str, str]
    ) -> Generator[InputContainer, None, None]:
        """Opens the file with options for its decoders."""
        self.check_time()
        # FFmpeg checks the timeout when it reads, not while it decodes.
        left = max(0.0, self._end - time.monotonic())
        with open_regular(self.content) as file:
            given: Any = file
            about = options | containers.ALLOWED | {"protocol_whitelist": "none"}
            if not isinstance(self.content, bytes):
                # A descriptor is as fast as a name, and the file cannot name others:
                # only the protocol `fd` is allowed, which no list may use.
                given = "fd:"
                about |= {"protocol_whitelist": "fd", "fd": str(file.fileno())}
            try:
                container: Any = av.open(given, "r", options=about, timeout=left)
            except (av.FFmpegError, ValueError) as error:
                self.check_time()
                raise ClipError("open", _not_a_video(self.content)) from error
            with container:
                yield container


def seconds_per_tick(stream: VideoStream) -> fractions.Fraction:
    """Returns the seconds of one tick of the time stamps; 0 if unknown."""
    return stream.time_base or fractions.Fraction(0)


def open_regular(content: Content) -> io.BufferedIOBase:
    """Opens a file, which must be regular and not empty.

    The checks apply to the open descriptor: the name may refer to another file by then.

    Raises:
      ClipError: "open", if it is not such a file, or cannot be read.
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
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL.
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
    """Returns the first 4096 bytes of a file at most; see `open_regular`."""
    with open_regular(content) as file:
        return file.read(_HEAD)


def _not_a_video(content: Content) -> str:
    """Returns why FFmpeg could not open a file."""
    begin = head(content)
    if begin.startswith(_POINTER):
        where = "" if isinstance(content, bytes) else f" in {content.parent}"
        return f"a git-lfs pointer, not the video: run `git lfs pull`{where}"
    if begin[4:8] == b"ftyp" and not _has_index(content):
        cause = "the recording or its copy was interrupted"
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
    """Returns whether an mp4 has a top-level index box."""
    with open_regular(content) as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        while len(header := file.read(16)) >= 8:
            size, kind = int.from_bytes(header[:4]), header[4:8]
            if kind == b"moov":
                return True
            size = int.from_bytes(header[8:16]) if size == 1 else size
            if not 8 <= size <= end:
                return False  # The last box, or an invalid size.
            file.seek(size - len(header), 1)
    return False


def _header_length(
    container: InputContainer, stream: VideoStream, begin: bytes
) -> HeaderLength:
    """Returns the length by the header; Matroska has it in a tag, as h:mm:ss."""
    seconds = float((stream.duration or 0) * seconds_per_tick(stream))
    written = stream.metadata.get("DURATION", "")
    kinds = container.format.name.split(",")
    # The clock of an AVI starts at 0; a fragmented MP4 has no frame count.
    may_be_end = not {"asf", "avi", "matroska"}.isdisjoint(kinds)
    may_be_end = may_be_end or ("mp4" in kinds and stream.frames == 0)
    if not seconds and written.count(":") == 2:
        with contextlib.suppress(ValueError):
            hours, minutes, rest = (float(part) for part in written.split(":"))
            seconds, may_be_end = 3600 * hours + 60 * minutes + rest, True
    frames = stream.frames
    if "avi" in kinds and len(stream.index_entries) == 1:
        # FFmpeg gives no time for a single late frame, and counts empty ones before it.
        whole = 8 + int.from_bytes(begin[4:8], "little") <= container.size
        frames = 1 if whole else frames
    return HeaderLength(frames, seconds, may_be_end)
