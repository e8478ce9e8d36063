"""Limits of clips, and of their thumbnails in a report."""

import dataclasses
import pathlib

from vidsme_jax.base import ClipError

Content = pathlib.Path | bytes  # A file, or its content.

# Aspect ratio of a frame: 16 wide screens side by side are 28 to 1.
_MOST_OBLONG = 64
_WIDEST = 8  # Width of a thumbnail over the wanted height.


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of one clip.

    Attributes:
      max_pixels: Pixels of one frame, width times height; 8192 x 4320 by default.
      max_seconds: Wall seconds from opening the file to its last decoded frame.
      max_frames: Frames in the file; by default 46 hours at 60 Hz.
    """

    max_pixels: int = 8192 * 4320
    max_seconds: float = 600.0
    max_frames: int = 10_000_000

    def check_size(self, width: int, height: int) -> None:
        """Raises a `ClipError` if a frame has too many pixels, or is too oblong."""
        if width * height > self.max_pixels:
            size = f"{width}x{height} pixels; at most {self.max_pixels} are decoded"
            raise ClipError(
                "decode", f"its frames have {size} (config.video.max_pixels)"
            )
        if max(width, height) > _MOST_OBLONG * min(width, height) > 0:
            cause = f"its frames have {width}x{height} pixels; one side may be at most"
            raise ClipError("decode", f"{cause} {_MOST_OBLONG} times the other")


def thumbnail_size(width: int, height: int, wanted: int) -> tuple[int, int]:
    """Returns width and height of a thumbnail with the same aspect ratio.

    It has the wanted height, or less so that it is at most 8 times as wide as that.

    Example:
      >>> thumbnail_size(1280, 720, 96), thumbnail_size(2000, 40, 96)
      ((171, 96), (768, 15))
    """
    scale = min(wanted / height, _WIDEST * wanted / width)
    return max(1, round(width * scale)), max(1, round(height * scale))
