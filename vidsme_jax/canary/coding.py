"""Video in and out: a clip with a mark in its pictures, and what coding made of it.

Pictures are read and written one by one, so that a film costs no more memory than a
clip. Their times and the packets of the sound are those of the clip.

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
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from av.video.stream import VideoStream
from jaxtyping import Int16, UInt8

from vidsme_jax.base import ClipError
from vidsme_jax.data.limits import Content, Limits
from vidsme_jax.data.opening import Source

LEAST_SIDE = 32  # Pixels of a side.
_LIMITS = Limits(max_seconds=1e9)  # A film takes its time.
_IN_MP4 = frozenset(("aac", "mp3", "ac3", "eac3", "alac", "opus"))
_SAME_INSTANT = 1e-3  # Seconds: Matroska rounds to milliseconds.
# With x264's macroblock tree, clips that are small differ from run to run.
_ALWAYS = {"mbtree": "0"}


class Clip(NamedTuple):
    """What is known of a clip once it was looked through.

    Attributes:
      frames: How many it has.
      height: Of its pictures.
      width: Of its pictures.
      suffix: Of a file that can hold its sound and H.264.
    """

    frames: int
    height: int
    width: int
    suffix: str


class Worst(NamedTuple):
    """How far the pictures of two clips differ.

    Attributes:
      psnr: Of the picture that differs most, in dB.
      error: Its mean square, in levels of R, G and B.
    """

    psnr: float
    error: float


def look(content: Content) -> Clip:
    """Looks through a clip, and says what of it cannot be written with a mark.

    Raises:
      ClipError: It cannot be decoded, its sides are odd or too small, it is turned, or
        its pictures change their size or have no times.
    """
    count, sizes, last = 0, set[tuple[int, int]](), None
    with _opened(content) as (container, stream):
        sound = {_codec_of(track) for track in container.streams.audio}
        for frame in _decoded(container, stream):
            count += 1
            if frame.pts is None or (last is not None and frame.pts <= last):
                problem = "the times of its pictures are missing or do not increase"
                raise ClipError("decode", f"{problem}: convert it to MP4 first")
            last = frame.pts
            sizes.add((frame.height, frame.width))
            if frame.rotation % 360:
                turned = f"its pictures are turned by {frame.rotation % 360} degrees"
                raise ClipError("decode", f"{turned}: write them upright first")
            if len(sizes) > 1:
                raise ClipError("decode", "its pictures change their size")
    if not count:
        raise ClipError("decode", "no picture of it can be decoded")
    (height, width) = next(iter(sizes))
    if height % 2 or width % 2 or min(height, width) < LEAST_SIDE:
        problem = f"its pictures have {width}x{height} pixels; both sides must be even"
        raise ClipError("decode", f"{problem} and {LEAST_SIDE} at least")
    return Clip(count, height, width, ".mp4" if sound <= _IN_MP4 else ".mkv")


def write(
    content: Content, path: pathlib.Path, added: Int16[np.ndarray, "rows w"], crf: int
) -> None:
    """Writes a clip with something added to each of its pictures.

    Args:
      content: The clip.
      path: Of the file; its suffix says the container. What is there is replaced.
      added: In levels of 8 bits; levels beyond 0 and 255 are cut off.
      crf: Of x264: how much is lost, from 0.

    Raises:
      ClipError: The clip cannot be decoded, or not be written.
      OSError: The file cannot be written.
    """
    try:
        _write(content, path, added, crf)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ClipError("encode", f"it cannot be written ({error})") from error


def _write(
    content: Content, path: pathlib.Path, added: Int16[np.ndarray, "rows w"], crf: int
) -> None:
    flags = {"fflags": "bitexact"}
    kind = {".mp4": "mp4", ".mkv": "matroska"}[path.suffix]
    with (
        _opened(content) as (container, stream),
        av.open(str(path), "w", format=kind, options=flags) as target,
    ):
        written = _Written(target, stream, {"crf": str(crf), "preset": "veryfast"})
        copies = {
            sound.index: target.add_stream_from_template(sound)
            for sound in container.streams.audio
        }
        for packet in container.demux(stream, *container.streams.audio):
            if packet.stream.index == stream.index:
                for frame in _frames(stream, packet):
                    levels = frame.to_ndarray(format="yuv420p")
                    levels = cv2.add(levels, added, dtype=cv2.CV_8U).astype(np.uint8)
                    # cv2.add cuts off what is beyond.
                    written.put(VideoFrame.from_ndarray(levels, "yuv420p"), frame)
            elif packet.dts is not None and packet.size:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
        written.end()


def compared(one: Content, other: Content) -> Worst:
    """Returns how far the pictures of two clips differ at most.

    Raises:
      ClipError: One of them cannot be decoded, or has more pictures.
    """
    worst = 0.0
    with contextlib.ExitStack() as opened:
        both = [_decoded(*opened.enter_context(_opened(x))) for x in (one, other)]
        try:
            for frame, copy in zip(*both, strict=True):
                if abs(frame.time - copy.time) > _SAME_INSTANT:
                    raise ClipError("decode", "its pictures have other times")
                levels = rgb(frame)
                total = cv2.norm(levels, rgb(copy), cv2.NORM_L2SQR)
                worst = max(worst, total / levels.size)
        except ValueError as error:
            raise ClipError("decode", f"not as many pictures ({error})") from error
    return Worst(psnr(worst), worst)


def psnr(error: float) -> float:
    """Returns the peak signal-to-noise ratio of a mean square error of 8 bits, in dB.

    Example:
      >>> round(psnr(6.5025), 6)
      40.0
    """
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def scaled(
    content: Content, indices: Sequence[int], height: int, width: int
) -> UInt8[np.ndarray, "frames {height} {width} 3"]:
    """Returns chosen pictures of a clip, of another size.

    Args:
      content: The clip.
      indices: Of the pictures, increasing.
      height: Of what is returned.
      width: Of what is returned.
    """
    found, wanted = [], set(indices)
    with _opened(content) as opened:
        for index, frame in enumerate(_decoded(*opened)):
            if index in wanted:
                found.append(rgb(frame, height, width))
    return np.stack(found)


def recoded(content: Content, height: int, width: int, crf: int) -> bytes:
    """Returns a clip of another size and quality, coded as platforms do.

    Args:
      content: The clip.
      height: Of what is returned, even.
      width: Of what is returned, even.
      crf: Of x264.
    """
    file = io.BytesIO()
    with (
        _opened(content) as (container, stream),
        av.open(file, "w", format="matroska") as target,
    ):
        settings = {"crf": str(crf), "preset": "medium"}
        written = _Written(target, stream, settings, (height, width))
        for frame in _decoded(container, stream):
            small = frame.reformat(
                width, height, "yuv420p", interpolation=Interpolation.BICUBIC
            )
            written.put(small, frame)
        written.end()
    return file.getvalue()


def rgb(
    frame: VideoFrame, height: int | None = None, width: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture as RGB, of another size if that is given."""
    return frame.to_ndarray(
        format="rgb24",
        height=height or frame.height,
        width=width or frame.width,
        interpolation=Interpolation.BICUBIC,
    )


class _Written:
    """A track of H.264 that takes the times and the colours of another one."""

    def __init__(
        self,
        target: OutputContainer,
        like: VideoStream,
        settings: dict[str, str],
        size: tuple[int, int] | None = None,
    ):
        """Adds the track.

        Args:
          target: That receives it.
          like: The track whose times, shape of pixels and colours it has.
          settings: Of x264.
          size: Height and width; None: the same.
        """
        self._target, self._like = target, like
        track: Any = target.add_stream("libx264", rate=like.average_rate or 25)
        context, its = track.codec_context, like.codec_context
        track.height, track.width = size or (its.height, its.width)
        track.pix_fmt = "yuv420p"
        track.time_base = context.time_base = like.time_base
        context.thread_count = 1  # Whose number changes what x264 writes.
        if like.sample_aspect_ratio:
            context.sample_aspect_ratio = like.sample_aspect_ratio
        context.color_primaries, context.color_trc = its.color_primaries, its.color_trc
        context.colorspace, context.color_range = its.colorspace, _range(its)
        track.options = settings | _ALWAYS
        self._track = track

    def put(self, picture: VideoFrame, like: VideoFrame) -> None:
        """Writes a picture at the time of another one."""
        picture.pts, picture.time_base = like.pts, self._like.time_base
        picture.colorspace, picture.color_range = like.colorspace, like.color_range
        self._target.mux(self._track.encode(picture))

    def end(self) -> None:
        """Writes what the encoder still holds."""
        self._target.mux(self._track.encode())


@contextlib.contextmanager
def _opened(content: Content) -> Generator[tuple[Any, VideoStream], None, None]:
    with Source(content, _LIMITS).opened() as (container, stream):
        yield container, stream


def _decoded(container: Any, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in container.demux(stream):
        yield from _frames(stream, packet)


def _frames(stream: VideoStream, packet: Any) -> Iterator[VideoFrame]:
    """Yields the pictures of a packet, of 8 bits and 4:2:0, in the usual range."""
    try:
        for frame in stream.codec_context.decode(packet):
            if frame.format.name != "yuv420p":
                frame = _usual(frame)
            yield frame
    except av.FFmpegError as error:
        if packet.size:  # Not the end, which some decoders report as an error.
            raise ClipError("decode", f"a picture is damaged ({error})") from error


def _codec_of(track: Any) -> str:
    """Returns the name of a track's codec, whichever decoder reads it."""
    context = track.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def _range(context: Any) -> int:
    """Returns the range of levels that `_usual` leaves."""
    full = ColorRange.JPEG.value
    is_kept = context.pix_fmt == "yuv420p"
    found = int(context.color_range)
    return found if is_kept or found != full else int(ColorRange.MPEG.value)


def _usual(frame: VideoFrame) -> VideoFrame:
    """Returns a picture of any format as yuv420p."""
    found = frame.reformat(format="yuv420p", dst_color_range=ColorRange.MPEG)
    found.pts, found.time_base = frame.pts, frame.time_base
    return found
