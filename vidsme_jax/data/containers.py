"""Opening: from a file, or the bytes of one, to its main video stream, or why not."""

import contextlib
import hashlib
import io
import pathlib
from collections.abc import Iterator

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vidsme_jax.base import ClipError

Source = pathlib.Path | bytes  # A file, or what it would contain.


@contextlib.contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a container with its main video stream.

    Raises:
      ClipError: "open" if it is no video, "decode" if there is no decoder for it.
    """
    head = _head(source)
    try:
        # FFmpeg follows no link to the network, a playlist's least of all: from a file
        # by its own rule, from bytes because no protocol is allowed.
        if isinstance(source, bytes):
            only = {"protocol_whitelist": "none"}
            container = av.open(io.BytesIO(source), "r", options=only)
        else:
            container = av.open(str(source))
    except (av.FFmpegError, ValueError) as error:
        raise ClipError("open", _not_a_video(source, head)) from error
    with container:
        stream = _video_stream(container)
        # The threads are the loader's, one a clip; the decoder's own would decode
        # frames ahead that nobody wants.
        stream.codec_context.thread_count = 1
        yield container, stream


def content_hash(source: Source) -> str:
    """The SHA-256 of the bytes, in hex.

    Raises:
      ClipError: "open", if the file cannot be read or is empty.
    """
    _head(source)
    with _binary(source) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _binary(source: Source) -> io.BufferedIOBase:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _head(source: Source) -> bytes:
    """The first bytes of what must be a regular file with something in it."""
    if isinstance(source, bytes):
        if not source:
            raise ClipError("open", "the video is empty (0 bytes)")
        return source[:256]
    if source.is_dir():
        raise ClipError("open", f"a folder, not a video: {source}")
    try:
        with source.open("rb") as file:
            head = file.read(256)
    except FileNotFoundError as error:
        raise ClipError("open", f"no such file: {source}") from error
    except OSError as error:
        cause = f"the file cannot be read ({error.strerror}): {source}"
        raise ClipError("open", cause) from error
    if not head:
        raise ClipError("open", f"the file is empty (0 bytes): {source}")
    return head


def _not_a_video(source: Source, head: bytes) -> str:
    if head[4:8] == b"ftyp" and not _has_index(source):
        return (
            "the mp4 has no index (moov box): the recording or the copy of it broke "
            "off before the end"
        )
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) > len(head) - 4 and (text.replace("\n", "")).isprintable():
        return f"not a video but text, which begins {text[:40]!r}"
    return "not a video in any format that FFmpeg knows"


def _has_index(source: Source) -> bool:
    """Whether one of the outermost boxes of an mp4 is the index."""
    with _binary(source) as file:
        while len(header := file.read(16)) >= 8:
            size, kind = int.from_bytes(header[:4]), header[4:8]
            if kind == b"moov":
                return True
            size = int.from_bytes(header[8:16]) if size == 1 else size
            if size < 8:
                return False  # The last box, or nonsense.
            file.seek(size - len(header), 1)
    return False


def _video_stream(container: InputContainer) -> VideoStream:
    """The main video stream; a picture attached to an audio file is none."""
    videos = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not videos:
        kinds = sorted({stream.type for stream in container.streams if stream.type})
        found = f"it has {' and '.join(kinds)} only" if kinds else "it has no stream"
        covered = ", and cover art is not video" if container.streams.video else ""
        raise ClipError("open", f"no video stream ({found}{covered})")
    best = container.streams.best("video")
    stream = next((video for video in videos if video is best), videos[0])
    if stream.codec_context is None:
        raise ClipError("decode", "no decoder for the codec of the video")
    return stream
