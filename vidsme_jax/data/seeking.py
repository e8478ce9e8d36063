"""The table of a video's frames, and decoding by it: from keyframes, exactly.

A video is demuxed once without decoding, which gives the time stamps (`pts`) and the
keyframes of all its frames, and which of them no other is decoded from.
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
    """The decoder does not put out what the table of the file says."""


@dataclasses.dataclass(frozen=True)
class Table:
    """What is known of the frames of a video, in display order.

    Attributes:
      pts: In units of `time_base`; empty where the file cannot be sought in.
      keyframes: Where decoding can begin by what the file says, in the same units; the
        first may be before the first frame that is shown.
      times: Seconds from the first frame, shape (decodable,).
      period: Seconds that the last frame is shown.
      start: Of the first frame, in seconds by the file's clock.
      stamped: Whether `times` are the file's own, not made from its frame rate.
      damage: What was found broken, in words.
      disposable: The `pts` of pictures that no other picture is decoded from.
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
    """The time stamps if all are there and each is later than the one before."""
    known = [stamp for stamp in stamps if stamp is not None]
    rising = all(a < b for a, b in itertools.pairwise(known))
    return known if rising and len(known) == len(stamps) else None


def scan(
    source: Source, container: InputContainer, stream: VideoStream
) -> Table | None:
    """Reads the table of frames without decoding; None if it cannot be trusted."""
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
            # Not shown, but decoded for others: what is edited out, and hidden frames
            # of VP8 (bit 4 of the first byte, RFC 6386 section 9.1).
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

    Disposable frames that are not wanted stay out of the decoder.

    Raises:
      TableMismatch: If the decoder skips, adds or renames a frame on the way, or begins
        with one that is no keyframe: what is decoded from it would be garbage.
    """
    if wanted[-1] >= len(table.pts):
        raise TableMismatch
    left_out = table.disposable.difference(table.pts[index] for index in wanted)
    if left_out:  # What is concealed would be so with other pictures.
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
            # Where a container has no list of keyframes, or a wrong one, FFmpeg calls
            # every packet one; the decoder knows better. What it makes of a first
            # keyframe that is edited out is not seen, but all begins there.
            begins = not start == table.keyframes[0] < table.pts[0]
        for frame in frames:
            if frame.pts is not None and frame.pts < start:
                continue  # Shown before the keyframe, or the seek went far back.
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
    """Yields frames after a seek, which may have landed too early or in between."""
    begun = False
    for packet in container.demux(stream):
        begun = begun or (packet.is_keyframe and packet.pts == start)
        source.check_time()
        if begun and packet.pts not in left_out:
            yield from source.decoded(stream, packet)
