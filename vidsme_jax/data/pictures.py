"""Clips stored as pictures: frames are sampled, decoded and scaled.

Axes: `frames`; `height`, `width`.
"""

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vidsme_jax.base import ClipError, Frames
from vidsme_jax.data import clocks
from vidsme_jax.data.limits import Limits, thumbnail_size
from vidsme_jax.data.sampling import Choice
from vidsme_jax.data.segments import Segment


@runtime_checkable
class Encoded(Protocol):
    """A sequence of encoded images, which may be read on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The frames of one example: encoded images, or an array of all.

    Attributes:
      frames: In display order.
      rate: Frames per second; None if the source has no rate.
      limits: Of their size.
      warnings: Warnings for the report.
    """

    frames: Encoded | np.ndarray
    rate: clocks.Rate | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    warnings: tuple[str, ...] = ()

    def content_hash(self) -> str:
        """Returns the SHA-256 of all frames, in hex."""
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(frame if isinstance(frame, bytes) else frame.tobytes())
        return digest.hexdigest()

    def sample_chosen(self, sampling: str, choice: Choice, part: Segment) -> Frames:
        """Returns the chosen frames; see `video.decode_chosen`.

        Args:
          sampling: The sampling of `choice`.
          choice: Chooses the frames.
          part: The part of the clip to choose from.

        Raises:
          ClipError: "decode", if a frame is not a picture, or times are needed and the
            pictures have none.
        """
        count = len(self.frames)
        if count == 0:
            raise ClipError("decode", "the example has no frame")
        if self.rate is None and sampling == "fps":
            cause = "frames without time stamps cannot be sampled by fps"
            raise ClipError("decode", f"{cause}; take uniform or midpoint")
        if self.rate is None and part.timed:
            cause = f"the segment {part.words}: pictures have no times"
            raise ClipError("decode", cause)
        stamps = np.arange(count) / float(self.rate or 1)
        chosen = tuple(choice(count, stamps))
        pixels, content = self._pixels(chosen), self.content_hash()
        return Frames(
            pixels=pixels,
            indices=chosen,
            content_hash=content,
            clock=clocks.of_frames(self.rate, chosen, stamps, part.indices(stamps)),
            warnings=(*self.warnings, *choice.warnings),
        )

    def thumbnails(
        self, indices: Sequence[int], height: int
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """Returns frames scaled down; see `video.thumbnails`."""
        return scaled(self._pixels(indices), height)

    def _pixels(
        self, indices: Sequence[int]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        if isinstance(self.frames, np.ndarray):
            self.limits.check_size(self.frames.shape[2], self.frames.shape[1])
            return self.frames[list(indices)]
        found = {}
        for index in dict.fromkeys(indices):
            self.limits.check_size(*_size(self.frames[index], index))
            data = np.frombuffer(self.frames[index], np.uint8)
            bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
            if bgr is None:
                raise ClipError("decode", f"frame {index} is not a picture")
            found[index] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        if len(sizes := {picture.shape for picture in found.values()}) > 1:
            raise ClipError(
                "decode", f"frames of {len(sizes)} sizes; all must be equal"
            )
        return np.stack([found[index] for index in indices])


def _size(picture: bytes, index: int) -> tuple[int, int]:
    """Returns width and height from the picture's header, without decoding it."""
    try:
        return Image.open(io.BytesIO(picture)).size
    except (OSError, ValueError, SyntaxError) as error:
        raise ClipError("decode", f"frame {index} is not a picture") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit.
        raise ClipError("decode", f"frame {index} is too large: {error}") from error


def scaled(
    pixels: UInt8[np.ndarray, "frames height width 3"], height: int
) -> UInt8[np.ndarray, "frames small_height small_width 3"]:
    """Scales frames down; see `thumbnail_size`."""
    size = thumbnail_size(pixels.shape[2], pixels.shape[1], height)
    return np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pixels])
