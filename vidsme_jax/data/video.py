"""Decodes the sampled frames of one video exactly, and few others.

The frame table is read first, without decoding. Then each sampled frame is decoded from
the keyframe at or before it, without the packets of disposable unsampled frames. Every
output frame must be the next of the table, and the first must be a keyframe according
to the decoder too. If a frame is not, or is damaged, decoding is repeated with all
packets; if that fails too, or the file has no reliable table, the video is decoded from
end to end and the frames that decode are counted. Frame counts and rates in headers are
never trusted: no frame is chosen by them. The average rate is only used for the frames'
clock, as in transformers' video processors. Damage outside of the decoded frames goes
unnoticed.

`tracks.py` chooses among several video tracks; `formats.py` describes the conversion to
RGB, and the treatment of high dynamic range, interlacing, oblong pixels and
transparency.

Axes: `frames`, the sampled ones; `height`, `width`, of the upright picture.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from vidsme_jax.base import ClipError, Frames
from vidsme_jax.data import clocks, opening, stages, webp
from vidsme_jax.data.chosen_frames import ChosenFrames
from vidsme_jax.data.limits import Content, Limits
from vidsme_jax.data.opening import HeaderLength, Source
from vidsme_jax.data.sampling import Choose
from vidsme_jax.data.seeking import Table, TableMismatch, increasing, scan, seek_frames
from vidsme_jax.data.segments import WHOLE, Segment

LIMITS = Limits()


def decode_chosen(
    content: Content, choose: Choose, limits: Limits = LIMITS, part: Segment = WHOLE
) -> Frames:
    """Decodes chosen frames of a video.

    Args:
      content: A file, or its content.
      choose: Called with the number of frames and the seconds of each; returns the
        wanted indices, not decreasing, as `sampling.frame_indices` does.
      limits: The limits of the video.
      part: The part that the frames are chosen from; their clock starts with it.

    Returns:
      The frames upright in RGB at full resolution; if the size changes within the
      video, all have that of the first sampled one. Of a damaged or truncated file the
      readable frames are used. `warnings` reports this, several video tracks, and
      format properties lost in the conversion.

    Raises:
      ClipError: "open" if the file is no video, "decode" if no frame can be decoded or
        the video exceeds the limits.
    """
    source = Source(content, limits)
    table, chosen = _decode(source, choose)
    return Frames(
        pixels=chosen.pixels,
        indices=chosen.indices,
        content_hash=source.content_hash(),
        clock=clocks.of_frames(
            source.rate, chosen.indices, table.times, part.indices(table.times)
        ),
        warnings=(
            *_length_warnings(source.header_length, table),
            *source.warnings,
            *chosen.warnings(),
        ),
        container=source.container | {"frames": float(len(table.times))},
    )


def thumbnails(
    content: Content, indices: Sequence[int], height: int, limits: Limits = LIMITS
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Decodes frames of a video again, scaled down.

    Args:
      content: A file, or its content.
      indices: As in `Frames.indices`, not decreasing.
      height: In pixels; the width keeps the aspect ratio.
      limits: The limits of the video.

    Raises:
      ClipError: As `decode_chosen`; also "decode" if a frame no longer decodes.
    """
    source = Source(content, limits)
    return _decode(source, lambda count, times: indices, height)[1].pixels


def content_hash(content: Content, limits: Limits = LIMITS) -> str:
    """Returns the SHA-256 of the bytes of a video, in hex.

    Raises:
      ClipError: "open" if the file cannot be read, "decode" if it takes too long.
    """
    return Source(content, limits).content_hash()


def _decode(
    source: Source, choose: Choose, height: int | None = None
) -> tuple[Table, ChosenFrames]:
    """Decodes the chosen frames, by seeking if the file allows it."""
    if webp.is_animated(opening.head(source.content)):
        return webp.decode(source, choose, height)
    with source.opened() as opened:
        with stages.spending(stages.SCAN):
            table = scan(source, *opened)
        if table is not None:
            chosen = _by_seeking(source, *opened, table, choose, height)
            if chosen is not None:
                return table, chosen
    if table is not None and table.disposable:
        table = dataclasses.replace(table, disposable=frozenset())
        with source.opened() as opened:
            chosen = _by_seeking(source, *opened, table, choose, height)
        if chosen is not None:
            return table, chosen
    return _in_sequence(source, choose, height)


def _by_seeking(
    source: Source,
    container: InputContainer,
    stream: VideoStream,
    table: Table,
    choose: Choose,
    height: int | None,
) -> ChosenFrames | None:
    """Decodes the chosen frames; None if the decoder and the table disagree."""
    chosen = ChosenFrames(choose(len(table.pts), table.times), height)
    try:
        for index, frame in seek_frames(
            source, container, stream, table, chosen.wanted
        ):
            chosen.put(index, frame)
    except (TableMismatch, av.FFmpegError, IndexError):
        return None
    return chosen


def _in_sequence(
    source: Source, choose: Choose, height: int | None
) -> tuple[Table, ChosenFrames]:
    """Decodes all frames twice: first to count them, then to store the chosen ones."""
    stamps: list[tuple[int | None, int | None]] = []
    damage: list[str] = []
    with source.opened() as (container, stream):
        for frame in _decode_all(source, container, stream, damage):
            stamps.append((frame.pts, frame.dts))
            source.check_count(len(stamps))
        unit, codec = opening.seconds_per_tick(stream), stream.codec_context.name
        rate = stream.average_rate or stream.guessed_rate
    if not stamps:
        reasons = f" ({'; '.join(dict.fromkeys(damage))})" if damage else ""
        raise ClipError("decode", f"no frame of the {codec} video decodes{reasons}")
    period = float(1 / rate) if rate else 0.04
    # Frames of AVI without `pts` still have the `dts` of their packets.
    times = next(filter(None, map(increasing, zip(*stamps, strict=True))), None)
    stamped = times is not None
    seconds = (
        np.array(times) * float(unit) if times else np.arange(len(stamps)) * period
    )
    table = Table(
        *([], [], seconds - seconds[0], period),
        start=float(seconds[0]),
        stamped=stamped,
        damage=tuple(damage),
    )

    chosen = ChosenFrames(choose(len(stamps), table.times), height)
    with source.opened() as (container, stream):
        for index, frame in enumerate(_decode_all(source, container, stream, [])):
            if index in chosen.wanted:
                chosen.put(index, frame)
            if index == chosen.wanted[-1]:
                return table, chosen
    raise ClipError("decode", f"frame {chosen.wanted[-1]} no longer decodes")


def _decode_all(
    source: Source, container: InputContainer, stream: VideoStream, damage: list[str]
) -> Iterator[VideoFrame]:
    """Yields every frame that decodes; appends descriptions of damage."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, IndexError):  # PyAV's, for a late stream.
            damage.append("the file is truncated")
            packet = None
        source.check_time()
        if packet is not None and packet.is_corrupt:
            damage.append("incomplete packet")
        try:
            yield from source.decoded(stream, packet)
        except av.EOFError:
            return  # The decoder has been flushed already.
        except av.FFmpegError:
            damage.append("undecodable packet")
        if packet is None:
            return


def _length_warnings(header: HeaderLength, table: Table) -> tuple[str, ...]:
    """Returns a warning if less decodes than the header promises, or on damage.

    A count alone proves nothing: formats count dropped frames, or those that an edit
    list removes; so both the count and the duration must fall short, and by more than
    the possible duration of the last frame. In a file that starts late, the end time is
    not the duration.
    """
    frames, seconds = header.frames, header.seconds
    if header.may_be_end:
        seconds = max(0.0, seconds - max(0.0, table.start))
    count, shown = len(table.times), float(table.times[-1]) + table.period
    longest = float(np.diff(table.times).max(initial=0))
    slack = max(2 * table.period, longest, 0.02 * seconds)
    fewer = frames == 0 or count < frames
    short = table.stamped and fewer and shown < seconds - slack
    if not (short or table.damage):
        return ()
    promised = [f"{frames} frames"] if frames > 0 else []
    promised += [f"{seconds:.2f} s"] if seconds > 0 else []
    reasons = f" ({', '.join(dict.fromkeys(table.damage))})" if table.damage else ""
    return (
        f"the file is damaged or cut short{reasons}: its header promises "
        f"{', '.join(promised) or 'no length'}; {count} frames, {shown:.2f} s, decode",
    )
