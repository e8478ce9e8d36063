"""What of a video's format is not seen in the frames that a model gets.

Frames are converted to `rgb24` by FFmpeg's swscale with the flag `SWS_BICUBIC`: the
stored pixels, rounded to 8 bits, by the colour matrix and the range that the frame
names. Where it names none they are those of BT.601 and 16 to 235, in high definition
too; a matrix that swscale cannot convert is taken for BT.709.

Of 8-bit 4:2:0 with even sides, which nearly all video is, every flag gives the same:
frames are PyAV's bit for bit, and, on the clips of the release, decord 0.6's. Where the
flag matters (4:2:0 of 10 bits, with odd sides or as NV12; 4:2:2 with odd sides; 4:1:1,
4:1:0, 4:4:0) colours at sharp edges differ, by some tens of levels, from those of a
reader with another flag, such as PyAV's default `SWS_BILINEAR`. With decord's these
formats were not compared. In particular:

- high dynamic range (PQ, HLG; BT.2020) is not mapped to that of a screen: such frames
  look flat and pale. Ten bits alone lose nothing but their last two.
- interlaced frames keep the lines of both fields.
- pixels that are not square stay as they are stored: the picture is not stretched.
- transparency is left out: a pixel has its stored colour, whatever is behind it.
- the rotation flag is applied.

Each of the first four is reported once per clip, in `Frames.warnings`.
"""

from collections.abc import Iterator

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_CURVES = {16: "PQ", 18: "HLG"}  # ITU-T H.273, table 3.
_BT2020 = 9  # Of colour primaries, table 2.
_SQUARE = 0.01  # By which a pixel's sides may differ: encoders round.


def of_stream(stream: VideoStream) -> Iterator[str]:
    """Yields what a reader of the report should know of a track."""
    aspect, context = stream.sample_aspect_ratio, stream.codec_context
    if aspect and abs(aspect - 1) > _SQUARE:
        width, height = context.width, context.height
        shown = f"{round(width * aspect)}x{height}"
        yield (
            f"pixels are not square (sample aspect ratio {aspect}): frames are "
            f"{width}x{height}, as stored, not {shown}, as players show them"
        )
    # The decoders of VP8 and VP9 leave out the picture that holds it.
    if stream.metadata.get("alpha_mode") == "1":
        yield _TRANSPARENT


def of_frame(frame: VideoFrame) -> Iterator[str]:
    """Yields what a reader of the report should know of a decoded frame."""
    curve = _CURVES.get(frame.color_trc)
    if curve or frame.color_primaries == _BT2020:
        kind = f"high dynamic range ({curve})" if curve else "wide gamut (BT.2020)"
        yield f"{kind}: frames keep their stored values, not mapped to a usual screen's"
    if frame.interlaced_frame:
        yield "interlaced: each frame has the lines of two moments, as stored"
    if _is_transparent(frame):
        yield _TRANSPARENT


_TRANSPARENT = "transparency is left out: pixels have their stored colours"


def _is_transparent(frame: VideoFrame) -> bool:
    """Whether a pixel is; a format that may say so, such as GIF's, need not."""
    if not any(part.is_alpha for part in frame.format.components):
        return False
    return bool(np.min(frame.to_ndarray(format="rgba")[..., 3]) < 255)
