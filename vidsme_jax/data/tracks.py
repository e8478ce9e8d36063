"""The track of a file that holds the film, among others that hold pictures.

Files carry cover art, a thumbnail, a picture a chapter, a preview of low resolution, or
a second camera as further video tracks. What is taken:

1. no track that is marked as attached picture;
2. of several, no still: one frame, or under a tenth of those of the track with most;
3. of several with moving pictures, the one that FFmpeg prefers (marked as default, then
   by size and bit rate).

A warning names what is taken and every other track of more than one frame.

Frames are counted by reading the packets of the file, without decoding: what a header
says of their number is not believed.
"""

from collections.abc import Callable, Sequence

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vidsme_jax.base import ClipError

_STILL = 10  # A film has more than a tenth of the frames of the longest track.


def videos(container: InputContainer) -> list[VideoStream]:
    """Returns the video tracks; a picture attached to an audio file is none.

    Raises:
      ClipError: "open", if there is none.
    """
    found = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not found:
        kinds = sorted({stream.type for stream in container.streams if stream.type})
        has = f"it has {' and '.join(kinds)} only" if kinds else "it has no stream"
        covered = ", and cover art is not video" if container.streams.video else ""
        raise ClipError("open", f"no video stream ({has}{covered})")
    return found


def count(
    container: InputContainer,
    tracks: Sequence[VideoStream],
    check: Callable[[int], None],
) -> dict[int, int]:
    """Returns the number of shown frames by the index of the track.

    Args:
      container: Just opened; it is read to its end.
      tracks: Whose packets are counted.
      check: Called with every count, to stop what takes too long.
    """
    counts = {track.index: 0 for track in tracks}
    try:
        for packet in container.demux(*tracks):
            if packet.size and not packet.is_discard:
                counts[packet.stream.index] += 1
                check(counts[packet.stream.index])
    except (av.FFmpegError, IndexError):
        pass  # The file breaks off, which decoding the chosen track reports.
    return counts


def main(
    container: InputContainer, tracks: Sequence[VideoStream], counts: dict[int, int]
) -> tuple[VideoStream, tuple[str, ...]]:
    """Returns the track with the film, and a warning if others have several frames."""
    most = max(counts.values())
    least = max(1, most // _STILL)
    moving = [track for track in tracks if counts[track.index] > least]
    moving = moving or [track for track in tracks if counts[track.index] == most]
    best = container.streams.best("video")
    taken = next((track for track in moving if track is best), None)
    if taken is None:
        taken = max(moving, key=lambda track: counts[track.index])
    others = [t for t in tracks if t is not taken and counts[t.index] > 1]
    if not others:
        return taken, ()
    left = ", ".join(_named(track, counts) for track in others)
    several = f"{1 + len(others)} video tracks"
    return taken, (f"{several}: {_named(taken, counts)} is taken, not {left}",)


def _named(track: VideoStream, counts: dict[int, int]) -> str:
    context = track.codec_context
    kind = "of unknown codec"
    if context is not None:
        kind = f"of {context.width}x{context.height} pixels ({context.name})"
    return f"track {track.index} {kind} with {counts[track.index]} frames"
