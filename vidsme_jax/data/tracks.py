"""Chooses the main video track of a file.

Files carry cover art, a thumbnail, a picture per chapter, a low-resolution preview, or
a second camera as further video tracks. The choice excludes

1. tracks marked as attached picture;
2. among several, stills: one frame, or less than a tenth of the frames of the longest
   track;

and prefers, among the rest, FFmpeg's choice (marked as default, then by size and bit
rate). A warning names the chosen track and every other one with more than one frame.

Frames are counted by reading the packets of the file, without decoding: counts in
headers are not trusted.
"""

from collections.abc import Callable, Sequence

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vidsme_jax.base import ClipError

_STILL = 10  # The main track has more than a tenth of the longest track's frames.


def videos(container: InputContainer) -> list[VideoStream]:
    """Returns the video tracks without attached pictures.

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
      tracks: The tracks to count.
      check: Called with every count; raises if it takes too long.
    """
    counts = {track.index: 0 for track in tracks}
    try:
        for packet in container.demux(*tracks):
            if packet.size and not packet.is_discard:
                counts[packet.stream.index] += 1
                check(counts[packet.stream.index])
    except (av.FFmpegError, IndexError):
        pass  # The file is truncated, which decoding the chosen track reports.
    return counts


def main(
    container: InputContainer, tracks: Sequence[VideoStream], counts: dict[int, int]
) -> tuple[VideoStream, tuple[str, ...]]:
    """Returns the main track, and a warning if others have several frames."""
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
