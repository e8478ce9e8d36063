"""What a clip may cost, and what its pictures in a report."""

import dataclasses
import pathlib

from vidsme_jax.base import ClipError

Content = pathlib.Path | bytes  # A file, or what it would contain.

# One side of a picture over the other: 16 wide screens side by side are 28 to 1.
_MOST_OBLONG = 64
_WIDEST = 8  # Of thumbnails: width over the height that is asked for.


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one clip may cost.

    Attributes:
      max_pixels: Of one frame, width times height; the default is 8192 x 4320.
      max_seconds: From the first look at the file to the last of its frames.
      max_frames: In the file; the default is 46 hours of 60 a second.
    """

    max_pixels: int = 8192 * 4320
    max_seconds: float = 600.0
    max_frames: int = 10_000_000

    def check_size(self, width: int, height: int) -> None:
        """Raises a `ClipError` if a frame has too many pixels, or an absurd shape."""
        if width * height > self.max_pixels:
            size = f"{width}x{height} pixels; at most {self.max_pixels} are decoded"
            raise ClipError(
                "decode", f"its frames have {size} (config.video.max_pixels)"
            )
        if max(width, height) > _MOST_OBLONG * min(width, height) > 0:
            cause = f"its frames have {width}x{height} pixels; one side may be at most"
            raise ClipError("decode", f"{cause} {_MOST_OBLONG} times the other")


def thumbnail_size(width: int, height: int, wanted: int) -> tuple[int, int]:
    """Returns width and height of a small picture of the same shape.

    It has the wanted height, or less where it would be over `_WIDEST` times as wide.

    Example:
      >>> thumbnail_size(1280, 720, 96), thumbnail_size(2000, 40, 96)
      ((171, 96), (768, 15))
    """
    scale = min(wanted / height, _WIDEST * wanted / width)
    return max(1, round(width * scale)), max(1, round(height * scale))
