"""Decodes animated WebP, which FFmpeg does not: exact frames and times.

The file stores the duration of each frame; the pictures are decoded by Pillow, from the
first to the last wanted one, since each is drawn over the one before it.
"""

import io
import struct

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from vidsme_jax.base import ClipError
from vidsme_jax.data import clocks, opening
from vidsme_jax.data.chosen_frames import ChosenFrames
from vidsme_jax.data.opening import Source
from vidsme_jax.data.sampling import Choose
from vidsme_jax.data.seeking import Table

_CHUNK = struct.Struct("<4sI")
_DEFAULT_SECONDS = 0.1  # Per frame, if all durations in the file are 0.
_MOST_BYTES = 1 << 30  # Of the file, which Pillow reads into memory.


def is_animated(head: bytes) -> bool:
    """Returns whether a file is an animated WebP, by its first 21 bytes."""
    is_extended = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
    return is_extended and len(head) > 20 and bool(head[20] & 2)


def decode(
    source: Source,
    choose: Choose,
    height: int | None = None,
) -> tuple[Table, ChosenFrames]:
    """Decodes the chosen frames; see `video`.

    Raises:
      ClipError: "open" if the file is too large, "decode" if a frame cannot be decoded
        or the video exceeds the limits.
    """
    with opening.open_regular(source.content) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ClipError("open", f"a WebP of more than {_MOST_BYTES} bytes, the limit")
    width, tall = (1 + int.from_bytes(data[k : k + 3], "little") for k in (24, 27))
    source.limits.check_size(width, tall)
    seconds, whole = _durations(data, source)
    if not seconds:
        raise ClipError("decode", "the WebP has no complete frame")
    ends = np.cumsum(seconds)
    rate = clocks.rate_of(len(seconds) / float(ends[-1]))
    source.rate = rate
    source.container = {
        **{"codec": "webp", "format": "webp", "audio": "none", "encoder": ""},
        **{"width": float(width), "height": float(tall), "file_size": float(len(data))},
        **({} if rate is None else {"fps": float(rate)}),
        "duration": float(ends[-1]),
    }
    damage = () if whole else ("the file is truncated",)
    times = np.concatenate([[0.0], ends[:-1]])
    table = Table([], [], times, float(seconds[-1]), damage=damage)
    chosen = ChosenFrames(choose(len(times), times), height)
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            for index in range(chosen.wanted[-1] + 1):
                source.check_time()
                image.seek(index)
                if index in chosen.wanted:
                    rgba = np.asarray(image.convert("RGBA"))
                    chosen.put(index, VideoFrame.from_ndarray(rgba, "rgba"))
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        cause = f"a frame of the WebP does not decode ({error})"
        raise ClipError("decode", cause) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit.
        raise ClipError("decode", f"its frames are too large: {error}") from error
    return table, chosen


def _durations(data: bytes, source: Source) -> tuple[list[float], bool]:
    """Returns the seconds of each complete frame, and whether the file is complete.

    Raises:
      ClipError: "decode" if there are too many frames, or the time is up.
    """
    found, at = [], 12
    while at + _CHUNK.size <= len(data):
        kind, size = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        if at + size > len(data):
            break
        if kind == b"ANMF" and size >= 16:
            found.append(int.from_bytes(data[at + 12 : at + 15], "little") / 1000)
            source.check_count(len(found))
        source.check_time()
        at += size + size % 2
    promised = 8 + int.from_bytes(data[4:8], "little")
    if not any(found):
        found = [_DEFAULT_SECONDS] * len(found)
    return found, len(data) >= promised
