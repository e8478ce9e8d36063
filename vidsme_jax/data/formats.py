"""Properties of a video's format that its frames as RGB do not show.

Frames are converted to `rgb24` by FFmpeg's swscale with the flag `SWS_BICUBIC`: the
stored pixels, rounded to 8 bits, by the frame's own colour matrix and range. The
defaults are BT.601 and 16 to 235, also in high definition; a matrix that swscale cannot
convert is replaced by BT.709.

For 8-bit 4:2:0 with even sides, nearly all video, every flag gives the same result:
frames equal PyAV's bit for bit and, on the clips of the release, decord 0.6's. Where
the flag matters (4:2:0 of 10 bits, with odd sides or as NV12; 4:2:2 with odd sides;
4:1:1, 4:1:0, 4:4:0) colours at sharp edges differ, by some tens of levels, from those
of a reader with another flag, such as PyAV's default `SWS_BILINEAR`. These formats were
not compared with decord. In particular:

- high dynamic range (PQ, HLG; BT.2020) is not tone-mapped: such frames look flat and
  pale. Ten bits alone lose only their last two.
- interlaced frames keep the lines of both fields.
- non-square pixels stay as stored: the picture is not stretched.
- transparency is dropped: a pixel has its stored colour.
- the rotation flag is applied.

Each of the first four is reported once per clip, in `Frames.warnings`.
"""

from collections.abc import Iterator

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_CURVES = {16: "PQ", 18: "HLG"}  # ITU-T H.273, table 3.
_BT2020 = 9  # Colour primaries, table 2.
_SQUARE = 0.01  # Tolerance of a pixel's aspect ratio: encoders round.


def of_stream(stream: VideoStream) -> Iterator[str]:
    """Yields warnings about the format of a track."""
    aspect, context = stream.sample_aspect_ratio, stream.codec_context
    if aspect and abs(aspect - 1) > _SQUARE:
        width, height = context.width, context.height
        shown = f"{round(width * aspect)}x{height}"
        yield (
            f"pixels are not square (sample aspect ratio {aspect}): frames are "
            f"{width}x{height}, as stored, not {shown}, as players show them"
        )
    # The decoders of VP8 and VP9 do not output the alpha plane.
    if stream.metadata.get("alpha_mode") == "1":
        yield _TRANSPARENT


def of_frame(frame: VideoFrame) -> Iterator[str]:
    """Yields warnings about the format of a decoded frame."""
    curve = _CURVES.get(frame.color_trc)
    if curve or frame.color_primaries == _BT2020:
        kind = f"high dynamic range ({curve})" if curve else "wide gamut (BT.2020)"
        yield f"{kind}: frames keep their stored values and are not tone-mapped"
    if frame.interlaced_frame:
        yield "interlaced: each frame has the lines of two moments, as stored"
    if _is_transparent(frame):
        yield _TRANSPARENT


_TRANSPARENT = "transparency is left out: pixels have their stored colours"


def _is_transparent(frame: VideoFrame) -> bool:
    """Returns whether any pixel is transparent, in a format with an alpha channel."""
    if not any(part.is_alpha for part in frame.format.components):
        return False
    return bool(np.min(frame.to_ndarray(format="rgba")[..., 3]) < 255)
