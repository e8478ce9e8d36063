"""The frame table of a video, and frame-exact seeking from keyframes.

A video is demuxed once without decoding, which yields the time stamps (`pts`) of all
frames, the keyframes, and the disposable pictures.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidsme_jax.data import opening
from vidsme_jax.data.disposable import Disposables
from vidsme_jax.data.opening import Source


class TableMismatch(Exception):
    """The decoder's output disagrees with the frame table."""


@dataclasses.dataclass(frozen=True)
class Table:
    """The frames of a video, in display order.

    Attributes:
      pts: In units of `time_base`; empty if the file is not seekable.
      keyframes: By the container, in the same units; the first may precede the first
        shown frame.
      times: Seconds from the first frame, shape (decodable,).
      period: Duration of the last frame in seconds.
      start: Time of the first frame in seconds, by the file's clock.
      stamped: Whether `times` are the file's own, not derived from its frame rate.
      damage: Descriptions of damage found.
      disposable: The `pts` of pictures that no other picture is predicted from.
    """

    pts: list[int]
    keyframes: list[int]
    times: np.ndarray
    period: float
    start: float = 0.0
    stamped: bool = True
    damage: tuple[str, ...] = ()
    disposable: frozenset[int] = frozenset()


def increasing(stamps: Sequence[int | None]) -> list[int] | None:
    """Returns the time stamps if none is missing and they increase, else None."""
    known = [stamp for stamp in stamps if stamp is not None]
    rising = all(a < b for a, b in itertools.pairwise(known))
    return known if rising and len(known) == len(stamps) else None


def scan(
    source: Source, container: InputContainer, stream: VideoStream
) -> Table | None:
    """Reads the frame table without decoding; None if it is unreliable."""
    pts, keyframes, last, period = [], [], None, 0.0
    context = stream.codec_context
    vp8 = context.name == "vp8"
    disposables = Disposables(context.name, context.extradata)
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # The end.
                continue
            source.check_time()
            source.check_count(len(pts) + 1)
            if packet.pts is None or packet.is_corrupt:
                return None
            if packet.is_keyframe:
                keyframes.append(packet.pts)
            # Decoded as references but not shown: frames removed by an edit list, and
            # hidden frames of VP8 (bit 4 of the first byte, RFC 6386 section 9.1).
            if packet.is_discard or (vp8 and not memoryview(packet)[0] & 16):
                continue
            pts.append(packet.pts)
            disposables.add(packet)
            if last is None or packet.pts > last:
                last = packet.pts
                period = float(
                    (packet.duration or 0) * opening.seconds_per_tick(stream)
                )
    except (av.FFmpegError, IndexError):
        return None
    pts.sort()
    keyframes.sort()
    if not (increasing(pts) and keyframes and keyframes[0] <= pts[0]):
        return None
    unit = float(opening.seconds_per_tick(stream))
    times, start = (np.array(pts) - pts[0]) * unit, pts[0] * unit
    return Table(pts, keyframes, times, period, start, disposable=disposables.pts())


def seek_frames(
    source: Source,
    container: InputContainer,
    stream: VideoStream,
    table: Table,
    wanted: list[int],
) -> Iterator[tuple[int, VideoFrame]]:
    """Yields the wanted frames with their indices, decoding from keyframes.

    Unwanted disposable frames are not passed to the decoder.

    Raises:
      TableMismatch: The decoder skips, adds or relabels a frame, or starts with one
        that is not a keyframe, so that the following cannot be decoded.
    """
    if wanted[-1] >= len(table.pts):
        raise TableMismatch
    left_out = table.disposable.difference(table.pts[index] for index in wanted)
    if left_out:  # Error concealment would use other pictures.
        context = stream.codec_context
        context.options = {**context.options, "err_detect": "explode"}
    coming = [pts for pts in table.pts if pts not in left_out]
    position, start, frames, begins = -1, 0, iter(()), False
    for index in wanted:
        place = bisect.bisect_left(coming, table.pts[index])
        before = bisect.bisect_right(table.keyframes, table.pts[index]) - 1
        key = bisect.bisect_left(coming, table.keyframes[before])
        if position < 0 or key > position + 1:
            start, position = table.keyframes[before], key - 1
            container.seek(start, stream=stream)
            frames = _from_keyframe(source, container, stream, start, left_out)
            # Without a list of keyframes, or with a wrong one, FFmpeg marks each packet
            # as one; the decoder is right. A first keyframe before the first shown
            # frame is not output and cannot be checked.
            begins = not start == table.keyframes[0] < table.pts[0]
        for frame in frames:
            if frame.pts is not None and frame.pts < start:
                continue  # Shown before the keyframe, or the seek went too far back.
            position += 1
            other = position == len(coming) or frame.pts != coming[position]
            damaged = left_out and frame.is_corrupt
            if other or damaged or (begins and not frame.key_frame):
                raise TableMismatch
            begins = False
            if position == place:
                yield index, frame
                break
        else:
            raise TableMismatch


def _from_keyframe(
    source: Source,
    container: InputContainer,
    stream: VideoStream,
    start: int,
    left_out: frozenset[int],
) -> Iterator[VideoFrame]:
    """Yields frames from a keyframe on; the seek may have landed before it."""
    begun = False
    for packet in container.demux(stream):
        begun = begun or (packet.is_keyframe and packet.pts == start)
        source.check_time()
        if begun and packet.pts not in left_out:
            yield from source.decoded(stream, packet)
