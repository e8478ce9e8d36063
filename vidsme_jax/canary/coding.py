"""Video coding: writes clips with a mark in every picture, and compares clips.

Pictures are read and written one by one, so a film needs no more memory than a clip.
Timestamps and audio packets are those of the clip.

Axes: `height`, `width` of a picture, its last axis RGB; `rows`, see `canary.marks`;
`frames`.
"""

import contextlib
import io
import pathlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from av.video.stream import VideoStream
from jaxtyping import Int16, UInt8

from vidsme_jax.base import ClipError
from vidsme_jax.data.limits import Content, Limits
from vidsme_jax.data.opening import Source

LEAST_SIDE = 32  # Pixels of a side.
_LIMITS = Limits(max_seconds=1e9)  # Of any length.
_IN_MP4 = frozenset(("aac", "mp3", "ac3", "eac3", "alac", "opus"))
_SAME_INSTANT = 1e-3  # Seconds: Matroska rounds to milliseconds.
# With x264's macroblock tree, small clips differ from run to run.
_ALWAYS = {"mbtree": "0"}


class ClipInfo(NamedTuple):
    """Properties of a clip.

    Attributes:
      frames: The number of its pictures.
      height: Of its pictures, in pixels.
      width: Of its pictures, in pixels.
      suffix: Of a container that can hold its audio and H.264: ".mp4" or ".mkv".
    """

    frames: int
    height: int
    width: int
    suffix: str


class Difference(NamedTuple):
    """The difference between two clips, of the pictures that differ most.

    Attributes:
      psnr: Peak signal-to-noise ratio, in dB.
      error: Mean square error, in squared levels of R, G and B.
    """

    psnr: float
    error: float


def inspect(content: Content) -> ClipInfo:
    """Decodes a clip, and checks that it can be written with a mark.

    Raises:
      ClipError: It cannot be decoded, its sides are odd or too small, it is rotated, or
        its pictures change their size or have no increasing timestamps.
    """
    count, sizes, last = 0, set[tuple[int, int]](), None
    with _opened(content) as (container, stream):
        sound = {_codec_of(track) for track in container.streams.audio}
        for frame in _decoded(container, stream):
            count += 1
            if frame.pts is None or (last is not None and frame.pts <= last):
                problem = "its timestamps are missing or do not increase"
                raise ClipError("decode", f"{problem}; convert it to MP4 first")
            last = frame.pts
            sizes.add((frame.height, frame.width))
            if frame.rotation % 360:
                turned = f"its pictures are rotated by {frame.rotation % 360} degrees"
                raise ClipError("decode", f"{turned}; encode it upright first")
            if len(sizes) > 1:
                problem = "its pictures change their size"
                raise ClipError("decode", f"{problem}; encode it in one size first")
    if not count:
        raise ClipError("decode", "no picture of it can be decoded")
    (height, width) = next(iter(sizes))
    if height % 2 or width % 2 or min(height, width) < LEAST_SIDE:
        problem = f"its pictures have {width}x{height} pixels; both sides must be even"
        problem += f" and at least {LEAST_SIDE}"
        raise ClipError("decode", f"{problem}; crop or scale it first")
    return ClipInfo(count, height, width, ".mp4" if sound <= _IN_MP4 else ".mkv")


def write(
    content: Content,
    path: pathlib.Path,
    added: Int16[np.ndarray, "rows width"],
    crf: int,
) -> None:
    """Writes a clip with a mark added to each of its pictures.

    Args:
      content: The clip.
      path: The file, which is replaced; its suffix determines the container.
      added: The mark, in 8-bit levels; sums are clipped to 0 to 255.
      crf: The constant rate factor of x264; 0 is best.

    Raises:
      ClipError: The clip cannot be decoded or encoded.
      OSError: The file cannot be written.
    """
    try:
        _write(content, path, added, crf)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ClipError("encode", f"it cannot be encoded ({error})") from error


def _write(
    content: Content,
    path: pathlib.Path,
    added: Int16[np.ndarray, "rows width"],
    crf: int,
) -> None:
    flags = {"fflags": "bitexact"}
    kind = {".mp4": "mp4", ".mkv": "matroska"}[path.suffix]
    with (
        _opened(content) as (container, stream),
        av.open(str(path), "w", format=kind, options=flags) as target,
    ):
        track = _Track(target, stream, {"crf": str(crf), "preset": "veryfast"})
        copies = {
            audio.index: target.add_stream_from_template(audio)
            for audio in container.streams.audio
        }
        for packet in container.demux(stream, *container.streams.audio):
            if packet.stream.index == stream.index:
                for frame in _frames(stream, packet):
                    levels = frame.to_ndarray(format="yuv420p")
                    # cv2.add clips to 0 to 255.
                    levels = cv2.add(levels, added, dtype=cv2.CV_8U).astype(np.uint8)
                    track.put(VideoFrame.from_ndarray(levels, "yuv420p"), frame)
            elif packet.dts is not None and packet.size:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
        track.end()


def compare(first: Content, second: Content) -> Difference:
    """Compares the pictures of two clips.

    Raises:
      ClipError: One of them cannot be decoded, or their numbers of pictures or their
        timestamps differ.
    """
    worst = 0.0
    with contextlib.ExitStack() as opened:
        both = [_decoded(*opened.enter_context(_opened(x))) for x in (first, second)]
        try:
            for frame, copy in zip(*both, strict=True):
                if abs(frame.time - copy.time) > _SAME_INSTANT:
                    raise ClipError("decode", "the timestamps differ")
                levels = rgb(frame)
                total = cv2.norm(levels, rgb(copy), cv2.NORM_L2SQR)
                worst = max(worst, total / levels.size)
        except ValueError as error:
            raise ClipError("decode", f"the pictures differ ({error})") from error
    return Difference(psnr(worst), worst)


def psnr(error: float) -> float:
    """Returns the peak signal-to-noise ratio of 8-bit levels, in dB.

    It is 10 log10(255^2 / error), of a mean square error of 1e-9 at least.

    Example:
      >>> round(psnr(6.5025), 6)
      40.0
    """
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def scaled(
    content: Content, indices: Sequence[int], height: int, width: int
) -> UInt8[np.ndarray, "frames {height} {width} 3"]:
    """Decodes the pictures of a clip at increasing `indices`, scaled to a size."""
    found, wanted = list[UInt8[np.ndarray, "h w 3"]](), set(indices)
    with _opened(content) as opened:
        for index, frame in enumerate(_decoded(*opened)):
            if index in wanted:
                found.append(rgb(frame, height, width))
    return np.stack(found)


def recoded(content: Content, height: int, width: int, crf: int) -> bytes:
    """Returns a clip, scaled to even sides and encoded as by a video platform."""
    file = io.BytesIO()
    with (
        _opened(content) as (container, stream),
        av.open(file, "w", format="matroska") as target,
    ):
        settings = {"crf": str(crf), "preset": "medium"}
        track = _Track(target, stream, settings, (height, width))
        for frame in _decoded(container, stream):
            small = frame.reformat(
                width, height, "yuv420p", interpolation=Interpolation.BICUBIC
            )
            track.put(small, frame)
        track.end()
    return file.getvalue()


def rgb(
    frame: VideoFrame, height: int | None = None, width: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture as RGB, scaled if a size is given."""
    return frame.to_ndarray(
        format="rgb24",
        height=height or frame.height,
        width=width or frame.width,
        interpolation=Interpolation.BICUBIC,
    )


class _Track:
    """Writes an H.264 track with the timestamps and the colours of another track."""

    def __init__(
        self,
        target: OutputContainer,
        like: VideoStream,
        settings: dict[str, str],
        size: tuple[int, int] | None = None,
    ):
        """Adds the track.

        Args:
          target: The container.
          like: The track to copy time base, pixel aspect ratio and colours from.
          settings: Options of x264.
          size: Height and width; None: those of `like`.
        """
        self._target, self._like = target, like
        track: Any = target.add_stream("libx264", rate=like.average_rate or 25)
        context, source = track.codec_context, like.codec_context
        track.height, track.width = size or (source.height, source.width)
        track.pix_fmt = "yuv420p"
        track.time_base = context.time_base = like.time_base
        context.thread_count = 1  # x264's output depends on it.
        if like.sample_aspect_ratio:
            context.sample_aspect_ratio = like.sample_aspect_ratio
        context.color_primaries = source.color_primaries
        context.color_trc = source.color_trc
        context.colorspace, context.color_range = source.colorspace, _range(source)
        track.options = settings | _ALWAYS
        self._track = track

    def put(self, picture: VideoFrame, like: VideoFrame) -> None:
        """Encodes a picture with the timestamp and the colours of another one."""
        picture.pts, picture.time_base = like.pts, self._like.time_base
        picture.colorspace, picture.color_range = like.colorspace, like.color_range
        self._target.mux(self._track.encode(picture))

    def end(self) -> None:
        """Flushes the encoder."""
        self._target.mux(self._track.encode())


@contextlib.contextmanager
def _opened(
    content: Content,
) -> Generator[tuple[InputContainer, VideoStream], None, None]:
    with Source(content, _LIMITS).opened() as (container, stream):
        yield container, stream


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in container.demux(stream):
        yield from _frames(stream, packet)


def _frames(stream: VideoStream, packet: Packet) -> Iterator[VideoFrame]:
    """Yields the pictures of a packet, as 8-bit 4:2:0 in limited range."""
    try:
        for frame in stream.codec_context.decode(packet):
            if frame.format.name != "yuv420p":
                frame = _as_yuv420p(frame)
            yield frame
    except av.FFmpegError as error:
        if packet.size:  # At the end some decoders report an error.
            raise ClipError("decode", f"a picture is damaged ({error})") from error


def _codec_of(track: AudioStream) -> str:
    """Returns the canonical name of a track's codec; "" if it is unknown."""
    context = track.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def _range(context: VideoCodecContext) -> int:
    """Returns the colour range of pictures after `_as_yuv420p`."""
    full = ColorRange.JPEG.value
    unchanged = context.pix_fmt == "yuv420p"
    found = int(context.color_range)
    return found if unchanged or found != full else int(ColorRange.MPEG.value)


def _as_yuv420p(frame: VideoFrame) -> VideoFrame:
    """Converts a picture of any format to yuv420p in limited range."""
    found = frame.reformat(format="yuv420p", dst_color_range=ColorRange.MPEG)
    found.pts, found.time_base = frame.pts, frame.time_base
    return found
