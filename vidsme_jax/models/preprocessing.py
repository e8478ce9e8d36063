"""Resizes frames to the input size of a tower, as image processors do with PIL.

Resizing and cropping run on the host in uint8; scaling and normalisation run on the
device: sending uint8 costs a quarter of the bytes of float32 and loses nothing.
`preprocessor_config.py` reads the files that describe a preprocessing.

Axes: `frames`; `height`, `width` of decoded frames; `size`, the tower's input.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vidsme_jax.base import ClipError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BICUBIC = 3  # Pillow's number of the filter, as in the files.
_LONGEST = 32  # The most that a frame's long side may be before the crop, in `size`s.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resize:
    """The size that frames are resized to; the names are those of processors' `size`.

    One of: `height` and `width`, for any aspect; `shortest_edge`, alone or with
    `longest_edge`, the limit of the other side; `max_height` and `max_width`, the box
    that frames are fitted into.
    """

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    max_height: int | None = None
    max_width: int | None = None

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Returns (height, width) of a resized frame; sides are truncated.

        With both edges, the short side is rounded if the long one would exceed
        `longest_edge`; the long side follows from the short one before rounding.

        Example:
          >>> Resize(shortest_edge=224).target(480, 640)
          (224, 298)
        """
        if self.height is not None and self.width is not None:
            return self.height, self.width
        if self.max_height is not None and self.max_width is not None:
            scale = min(self.max_height / height, self.max_width / width)
            return int(height * scale), int(width * scale)
        assert self.shortest_edge is not None
        short, long = min(height, width), max(height, width)
        exact: float = self.shortest_edge
        if self.longest_edge is not None and long / short * exact > self.longest_edge:
            exact = self.longest_edge * short / long
        shorter = round(exact)
        longer = long if shorter == short else int(exact * long / short)
        return (longer, shorter) if width < height else (shorter, longer)

    def to_json(self) -> dict[str, int]:
        """Returns the `size` of a `preprocessor_config.json`."""
        sides = dataclasses.asdict(self)
        return {key: side for key, side in sides.items() if side is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resizes and crops to `size`; then, on the device, (x / 255 - mean) / std.

    Frames so thin that they would grow to more than 32 times the tower's side are
    refused: they would need unlimited memory, and the crop would discard nearly all.

    Attributes:
      size: The side of the tower's square input, in pixels.
      mean: The mean of the three channels; includes another rescaling than by 1 / 255.
      std: The standard deviation of each channel, in the same units.
      resize: How frames are resized; None: they are not.
      crop: Whether the centre is cropped; smaller frames are padded with zeros. If not,
        `resize` gives the square.
      resample: The number of Pillow's filter.
    """

    size: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    resize: Resize | None
    crop: bool = True
    resample: int = BICUBIC

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> UInt8[np.ndarray, "frames size size 3"]:
        """Resizes and crops every frame.

        Raises:
          ClipError: "preprocess", if the frames are so thin that no pixel would be left
            or the resized frames would be too large.
        """
        height, width = target = frames.shape[1], frames.shape[2]
        if self.resize is not None:
            target = self.resize.target(height, width)
            if min(target) < 1:
                cause = f"frames of {width}x{height} pixels are too thin to be resized"
                sides = f"to {target[1]}x{target[0]} ({self.resize.to_json()})"
                raise ClipError("preprocess", f"{cause} {sides}")
        filtered = Image.Resampling(self.resample)
        if max(target) > max(height, width, _LONGEST * self.size):
            raise ClipError(
                "preprocess",
                f"frames of {width}x{height} pixels would be resized to {target[1]}x"
                f"{target[0]}; expected at most {_LONGEST} times the tower's side of "
                f"{self.size}",
            )
        if frames.shape[1:3] != target:
            resized = (_resized(frame, target, filtered) for frame in frames)
        else:
            resized = frames
        out = np.zeros((len(frames), self.size, self.size, 3), np.uint8)
        for k, frame in enumerate(resized):
            _put_centre(frame, out[k])
        return out

    def to_json(self) -> dict[str, Any]:
        """Returns the `preprocessor_config.json` of this preprocessing."""
        square = {"height": self.size, "width": self.size}
        kind = {"image_processor_type": "SiglipImageProcessor"}
        if self.crop:
            kind = {"image_processor_type": "CLIPImageProcessor", "crop_size": square}
        return {
            **kind,
            **dict.fromkeys(("do_rescale", "do_normalize", "do_convert_rgb"), True),
            "do_center_crop": self.crop,
            "do_resize": self.resize is not None,
            "size": square if self.resize is None else self.resize.to_json(),
            "resample": self.resample,
            "rescale_factor": 1 / 255,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


def clip(size: int) -> Preprocessing:
    """Returns the preprocessing of CLIP towers: short side to `size`, then a crop."""
    return Preprocessing(size=size, resize=Resize(shortest_edge=size))


def siglip(size: int) -> Preprocessing:
    """Returns the preprocessing of SigLIP towers: a resize to the square."""
    half, square = (0.5, 0.5, 0.5), Resize(height=size, width=size)
    return Preprocessing(size=size, mean=half, std=half, resize=square, crop=False)


def _resized(
    frame: UInt8[np.ndarray, "height width 3"],
    target: tuple[int, int],
    filtered: Image.Resampling,
) -> UInt8[np.ndarray, "down across 3"]:
    """Resizes one frame to (down, across) = `target`."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((target[1], target[0]), filtered))


def _put_centre(
    image: UInt8[np.ndarray, "height width 3"], out: UInt8[np.ndarray, "size size 3"]
) -> None:
    """Writes the centre of an image into the centre of an array of zeros.

    If a difference is odd, the larger part is cropped at the end, or padded at the
    start.
    """
    taken, put = [], []
    for side, size in zip(image.shape[:2], out.shape[:2], strict=True):
        before = (side - size) // 2  # Negative: the zeros at the start.
        taken.append(slice(max(0, before), max(0, before) + size))
        put.append(slice(max(0, -before), max(0, -before) + min(side, size)))
    out[tuple(put)] = image[tuple(taken)]
