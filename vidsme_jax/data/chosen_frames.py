"""The chosen frames of a video: upright, in RGB, of one size.

Axes: `frames`, the chosen ones; `height`, `width`, of the upright picture.
"""

from collections.abc import Sequence

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from vidsme_jax.base import ClipError
from vidsme_jax.data import formats
from vidsme_jax.data.limits import thumbnail_size


class ChosenFrames:
    """Collects the chosen frames as upright RGB of one size.

    Attributes:
      pixels: RGB; set by the first call of `put`.
      indices: The chosen frames in display order; an index may be repeated.
      wanted: The distinct indices, ascending.
    """

    pixels: UInt8[np.ndarray, "frames height width 3"]

    def __init__(self, indices: Sequence[int], height: int | None):
        """Takes the chosen indices; a height scales frames down, None does not."""
        self.indices = tuple(indices)
        self.wanted = sorted(set(indices))
        self._height = height
        self._size: tuple[int, int] | None = None
        self._resized = 0
        self._damaged = 0
        self._warnings: dict[str, None] = {}  # In the order of their first frames.
        self._reformatter = VideoReformatter()

    def put(self, index: int, frame: VideoFrame) -> None:
        """Converts a frame and stores it at every place that chose it."""
        if self._size is None:
            self._size = frame.width, frame.height
        self._resized += self._size != (frame.width, frame.height)
        self._damaged += frame.is_corrupt
        self._warnings |= dict.fromkeys(formats.of_frame(frame))
        transposed, left, down = _orientation(frame)
        width, height = self._size
        if self._height is not None:
            if transposed:
                height, width = thumbnail_size(height, width, self._height)
            else:
                width, height = thumbnail_size(width, height, self._height)
        rgb = self._rgb(frame, width, height)
        rgb = rgb.transpose(1, 0, 2) if transposed else rgb
        rgb = rgb[::down, ::left]
        if index == self.wanted[0]:
            self.pixels = np.empty((len(self.indices), *rgb.shape), np.uint8)
        elif rgb.shape != self.pixels.shape[1:]:
            cause = f"frame {index} is rotated and the frames before it are not"
            raise ClipError("decode", cause)
        for place, chosen in enumerate(self.indices):
            if chosen == index:
                self.pixels[place] = rgb

    def _rgb(
        self, frame: VideoFrame, width: int, height: int
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Converts a frame to RGB by swscale, with its own colour matrix and range.

        `formats.py` describes where the result equals other readers' bit for bit.
        """
        options = {"width": width, "height": height, "format": "rgb24"}
        options["interpolation"] = "BICUBIC" if self._height is None else "AREA"
        try:
            picture = self._reformatter.reformat(frame, **options)
        except av.FFmpegError:  # A colour matrix that swscale does not know.
            options |= {"src_colorspace": "ITU709", "dst_colorspace": "ITU709"}
            try:
                picture = self._reformatter.reformat(frame, **options)
            except av.FFmpegError as error:
                cause = f"pixel format {frame.format.name} cannot be converted to RGB"
                raise ClipError("decode", cause) from error
        return picture.to_ndarray()

    def warnings(self) -> tuple[str, ...]:
        """Returns the warnings about damage, changes of size and the format."""
        found = []
        if self._damaged:
            found.append(f"{self._damaged} of the sampled frames are damaged")
        if self._resized and self._size:
            scaled = f"{self._resized} sampled frames are scaled to"
            size = "x".join(map(str, self._size))
            found.append(f"the frame size changes; {scaled} {size}")
        return (*found, *self._warnings)


def _orientation(frame: VideoFrame) -> tuple[bool, int, int]:
    """Returns how to turn a frame upright: transpose or not, then the x and y steps.

    The display matrix is 3 x 3 of 32-bit integers; its first two rows and columns map
    the axes. Rotations by other than quarter turns are ignored.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, 1, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(b) > abs(a) and abs(c) > abs(d):
        return True, 1 if c > 0 else -1, 1 if b > 0 else -1
    return False, 1 if a >= 0 else -1, 1 if d >= 0 else -1
