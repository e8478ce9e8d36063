"""Frames to the input size of a tower, as the image processors' PIL path does it.

Resizing and cropping happen on the host in uint8; scaling and normalisation are left to
the device: sending uint8 costs a quarter of the bytes of float32 and loses nothing.
`preprocessor_config.py` reads the files that describe a preprocessing.

Axes: `frames`; `height`, `width` of what is decoded; `size`, the tower's input.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vidsme_jax.base import ClipError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BICUBIC = 3  # Pillow's number of the filter, as the files write it.
_LONGEST = 32  # Times the input size: the long side of a frame before the crop.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resize:
    """To what size a frame is brought; the names are those of the processors' `size`.

    One of: `height` and `width`, whatever the frame's aspect; `shortest_edge`, alone or
    with the `longest_edge` that the other side may have; `max_height` and `max_width`,
    into which the frame is fitted.
    """

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    max_height: int | None = None
    max_width: int | None = None

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Returns (height, width) of a resized frame; sides are truncated.

        With both edges named, the short side is rounded where the long one would
        exceed `longest_edge`, and the long side follows from the short one before its
        rounding.
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
        """Returns it as `size` of a `preprocessor_config.json`."""
        sides = dataclasses.asdict(self)
        return {key: side for key, side in sides.items() if side is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resizes and crops to `size`; then, on the device, (x / 255 - mean) / std.

    Frames so long and thin that they would grow to more than 32 times the tower's side,
    of which the crop keeps next to nothing, are refused: they would take memory without
    end.

    Attributes:
      size: The side of the square that the tower takes, in pixels.
      mean: Of the three channels; of another rescaling than by 1 / 255 it is a part.
      std: Likewise.
      resize: How frames are resized; None leaves them as they are.
      crop: Whether the centre is cut out of them; where they are smaller, zeros stand
        around them. Without it `resize` gives the square itself.
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
          ClipError: "preprocess", if no pixel of so thin a frame would be left, or too
            many would be made.
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
                f"{target[0]}; built for at most {_LONGEST} times the tower's side of "
                f"{self.size}",
            )
        if frames.shape[1:3] != target:
            made = (_resized(frame, target, filtered) for frame in frames)
        else:
            made = frames
        out = np.zeros((len(frames), self.size, self.size, 3), np.uint8)
        for k, frame in enumerate(made):
            _put_centre(frame, out[k])
        return out

    def to_json(self) -> dict[str, Any]:
        """Returns the `preprocessor_config.json` that describes it."""
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
    """Returns the preprocessing of CLIP towers: the short side to `size`, a crop."""
    return Preprocessing(size=size, resize=Resize(shortest_edge=size))


def siglip(size: int) -> Preprocessing:
    """Returns the preprocessing of SigLIP towers: straight to the square."""
    half, square = (0.5, 0.5, 0.5), Resize(height=size, width=size)
    return Preprocessing(size=size, mean=half, std=half, resize=square, crop=False)


def _resized(
    frame: np.ndarray, target: tuple[int, int], filtered: Image.Resampling
) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((target[1], target[0]), filtered))


def _put_centre(image: np.ndarray, out: np.ndarray):
    """Writes the centre of an image into the centre of another size of zeros.

    Of an odd difference the larger part is cut off behind, or filled in front.
    """
    taken, put = [], []
    for side, size in zip(image.shape[:2], out.shape[:2], strict=True):
        before = (side - size) // 2  # Negative where zeros are put in front.
        taken.append(slice(max(0, before), max(0, before) + size))
        put.append(slice(max(0, -before), max(0, -before) + min(side, size)))
    out[tuple(put)] = image[tuple(taken)]
