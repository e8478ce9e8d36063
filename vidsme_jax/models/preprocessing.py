"""Frames to the input size of a tower, as the image processors' PIL path does it.

Resizing and cropping happen on the host in uint8; scaling and normalisation are left to
the device, which halves neither accuracy nor bytes on the way: a uint8 frame is a
quarter of a float32 one.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vidsme_jax.checkpoints.fields import Fields, by_key

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3
_LONGEST = 32  # Times the input size: the long side of a frame before the crop.
IGNORED = by_key(
    {
        "names only": "_valid_processor_keys",
        "the family decides": """feature_extractor_type image_processor_type
            processor_class video_processor_type""",
        "of the model, whose config says it": """patch_size
            vision_feature_select_strategy""",
        "of the tokenizer": "video_token image_token",
        "of still images": """aspect_ratio_setting image_grid_pinpoints
            num_additional_image_tokens""",
        "of still images; frames are cropped to one size": "do_pad",
        "frames are cropped to one size": "pad_size size_divisor",
        "frames are sampled before": "do_sample_frames fps num_frames",
        "of the processor's input": "input_data_format video_metadata",
        "of the processor's output": """data_format device return_metadata
            return_tensors""",
        "of the processor's speed": "disable_grouping",
        "said by the form of `size`": "default_to_square",
        "of another processor": "crop_pct",
    }
)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resizes and crops to `size`; then, on the device, (x / 255 - mean) / std.

    Of frames so long and thin that the crop keeps next to nothing of them, only that
    part is resized: the whole would take memory without end.

    `resize` is the length of the short side before the centre crop; None resizes
    straight to the square, whatever the aspect (SigLIP).
    """

    resize: int | None
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> UInt8[np.ndarray, "frames size size 3"]:
        """Resizes (PIL, bicubic) and crops every frame."""
        size = self._resized(*frames.shape[1:3])
        box = None
        if max(size) > _LONGEST * self.size:
            frames, size, box = _middle(frames, size, self.size)
        out = np.zeros((len(frames), self.size, self.size, 3), np.uint8)
        for k, frame in enumerate(frames):
            image = Image.fromarray(np.ascontiguousarray(frame))
            if image.size != size:
                image = image.resize(size, Image.Resampling.BICUBIC, box)
            out[k] = _crop(np.asarray(image), self.size)
        return out

    def to_json(self) -> dict[str, Any]:
        """Returns the `preprocessor_config.json` that describes it."""
        square = {"height": self.size, "width": self.size}
        steps = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb")
        kind = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True}
        kind |= {"size": {"shortest_edge": self.resize}, "crop_size": square}
        if self.resize is None:
            kind = {"image_processor_type": "SiglipImageProcessor", "size": square}
        return {
            **kind,
            **dict.fromkeys(steps, True),
            "resample": _BICUBIC,
            "rescale_factor": 1 / 255,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Returns (width, height) before the crop."""
        if self.resize is None:
            return self.size, self.size
        short, long = min(height, width), max(height, width)
        # The long side is truncated, not rounded: as the processors do.
        longer = int(self.resize * long / short)
        return (self.resize, longer) if width == short else (longer, self.resize)


def siglip(image_size: int) -> Preprocessing:
    """Returns the preprocessing of SigLIP towers, which no file need describe."""
    half = (0.5, 0.5, 0.5)
    return Preprocessing(None, image_size, half, half)


def straight_from_json(
    raw: dict[str, Any] | None, image_size: int, problems: list[str]
) -> Preprocessing:
    """Reads a `preprocessor_config.json` that resizes without keeping the aspect.

    Args:
      raw: The file's content; None is SigLIP's own at the tower's size.
      image_size: The tower's input size; another is a problem.
      problems: Receives what is wrong.
    """
    if raw is None:
        return siglip(image_size)
    fields = Fields(raw, "preprocessor_config.json", problems)
    fields.expect("do_center_crop", False, None)
    fields.take("crop_size", (dict, int), {})
    mean, std = _common(fields)
    size = fields.take("size", dict, {"height": image_size, "width": image_size})
    if (size.get("height"), size.get("width")) != (image_size, image_size):
        problems.append(
            f"{fields.where}: size is {size}, the tower takes {image_size} x "
            f"{image_size}"
        )
    fields.close(IGNORED)
    return Preprocessing(None, image_size, mean, std)


def _common(fields: Fields) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Reads the steps that every processor has; returns mean and deviation."""
    for step in ("do_resize", "do_rescale", "do_normalize"):
        fields.expect(step, True)
    fields.expect("do_convert_rgb", True, False, None)
    fields.expect("resample", _BICUBIC, None)
    factor = fields.take("rescale_factor", float, 1 / 255)
    if abs(factor - 1 / 255) > 1e-9:
        fields.problems.append(
            f"{fields.where}: rescale_factor is {factor}, expected 1/255"
        )
    # CLIP's are the default of every class.
    mean = fields.take("image_mean", list, list(_CLIP_MEAN))
    std = fields.take("image_std", list, list(_CLIP_STD))
    return tuple(mean), tuple(std)


def from_json(
    raw: dict[str, Any] | None, image_size: int, problems: list[str]
) -> Preprocessing:
    """Reads a `preprocessor_config.json`; None is CLIP's own at the tower's size.

    Args:
      raw: The file's content.
      image_size: The tower's input size; another crop is a problem.
      problems: Receives what is wrong.
    """
    if raw is None:
        return Preprocessing(image_size, image_size, _CLIP_MEAN, _CLIP_STD)
    fields = Fields(raw, "preprocessor_config.json", problems)
    fields.expect("do_center_crop", True)
    resize = _side(raw.get("size"), image_size)
    crop = _side(raw.get("crop_size"), image_size)
    fields.take("size", (dict, int), {})
    fields.take("crop_size", (dict, int), {})
    mean, std = _common(fields)
    fields.close(IGNORED)
    if resize is None:
        problems.append(
            f"{fields.where}: size is {raw.get('size')!r}, expected shortest_edge"
        )
    if crop != image_size:
        problems.append(
            f"{fields.where}: crop_size is {raw.get('crop_size')!r}, "
            f"the tower takes {image_size}"
        )
    if resize is not None and resize < image_size:
        problems.append(
            f"{fields.where}: size {resize} is smaller than the crop {image_size}"
        )
    return Preprocessing(resize or image_size, image_size, mean, std)


def _side(size: Any, default: int) -> int | None:
    """The one side that a size names, None if it names more than one."""
    if size is None:
        return default
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    sides = {size.get("height"), size.get("width")}
    return int(sides.pop()) if len(sides) == 1 and None not in sides else None


def _middle(
    frames: np.ndarray, size: tuple[int, int], kept: int
) -> tuple[np.ndarray, tuple[int, int], tuple[float, float, float, float]]:
    """What a resizing to `size` and the crop need of long frames.

    Returns:
      The middle of the frames, with a margin for the filter; the size to give it, of
      which the long side is `kept`; and the box of it that gets that size.
    """
    axis = 2 if size[0] > size[1] else 1  # The long one.
    long, resized = frames.shape[axis], max(size)
    scale = long / resized
    start = (resized - kept) // 2 * scale
    end = start + kept * scale
    margin = 2 + math.ceil(3 * max(scale, 1.0))
    low, high = max(0, int(start) - margin), min(long, math.ceil(end) + margin)
    middle = frames.take(range(low, high), axis)
    box, short = (start - low, end - low), 1.0 * frames.shape[3 - axis]
    if axis == 2:
        return middle, (kept, size[1]), (box[0], 0.0, box[1], short)
    return middle, (size[0], kept), (0.0, box[0], short, box[1])


def _crop(image: np.ndarray, size: int) -> np.ndarray:
    top, left = ((n - size) // 2 for n in image.shape[:2])
    return image[top : top + size, left : left + size]
