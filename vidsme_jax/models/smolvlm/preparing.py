"""What SmolVLM2's video processor does to frames, and the file that says it.

A frame is resized twice, each time as a picture of whole grey levels: to a longest
side, the other one made even, and then, whatever its aspect, to the square that the
tower takes. The published files name two longest sides, `size` of images (2048) and
`video_size` (512): transformers 5.24 takes `size` for videos too if it is there, and so
does this module; where the two differ, the model's remarks say so.

The models were trained with Pillow's form of the filter (Lanczos) and `video_size` [1].
Pillow's form is built here; torchvision's, which transformers 5 runs, is at most two
grey levels away from it.

[1] https://github.com/huggingface/smollm, vision/smolvlm2/smolvlm/datasets/dataset.py
"""

import dataclasses

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import MAX_SIDE, Fields
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessor_config, processor_config
from vidsme_jax.models.preprocessing import Preprocessing

_KIND = "SmolVLMVideoProcessor"
_RATES = 1e-6, 1e6  # Frames a second.
_LARGEST = 4096  # Pixels of the longest side.
_DEFAULTS = {
    "image_mean": 0.5,
    "image_std": 0.5,
    "resample": int(Image.Resampling.LANCZOS),
}
_SIZE, _SQUARE = {"longest_edge": 4 * 364}, {"longest_edge": 364}
_IMAGES = ("do_image_splitting", "return_row_col_info")  # Of still images.
_FORMS = ({"longest_edge"}, {"height", "width"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoResizes:
    """Resizes frames to `size`, then to the square of the tower.

    Attributes:
      size: The longest side, or height and width, in pixels.
      square: The second step, and what follows on the device.
    """

    size: int | tuple[int, int]
    square: Preprocessing

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Returns (height, width) after the first step.

        The shorter side is truncated, then made even by a pixel more.
        """
        if isinstance(self.size, tuple):
            return self.size
        long, aspect = min(self.size, _LARGEST), width / height
        if width >= height:
            short = int(long / aspect)
            return max(short + short % 2, 1), long
        short = int(long * aspect)
        return long, max(short + short % 2, 1)

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> UInt8[np.ndarray, "frames size size 3"]:
        """Resizes every frame."""
        height, width = self.target(frames.shape[1], frames.shape[2])
        side = self.square.size
        out = np.zeros((len(frames), side, side, 3), np.uint8)
        kind = Image.Resampling(self.square.resample)
        for k, frame in enumerate(frames):
            image = Image.fromarray(np.ascontiguousarray(frame))
            image = image.resize((width, height), kind)
            out[k] = np.asarray(image.resize((side, side), kind))
        return out


def read(
    checkpoint: Checkpoint, image_size: int, problems: list[str]
) -> tuple[TwoResizes, tuple[str, ...]]:
    """Reads the settings for video frames from the file that transformers takes.

    That is `video_processor` in `processor_config.json`, else
    `video_preprocessor_config.json`, else `preprocessor_config.json`: of an adapter,
    else of its base.

    Args:
      checkpoint: Whose files are read.
      image_size: The tower's input size; settings that lead to another are a problem.
      problems: Receives what is wrong, a sentence each.

    Returns:
      The preprocessing, and what a reader of the report should know about it.
    """
    found = processor_config.settings(checkpoint, _KIND, problems)
    if found is None:
        found = {"max_image_size": {"longest_edge": image_size}}, ""
    raw, where = found
    fields = Fields(raw, where, problems)
    size, remarks = _first_size(fields)
    square = fields.take("max_image_size", dict, _SQUARE)
    if square != {"longest_edge": image_size}:
        default = " (the default)" * ("max_image_size" not in fields.raw)
        problems.append(
            f"{where}: max_image_size is {content.shown(square)}{default}, the tower "
            f"takes {image_size} x {image_size}; expected longest_edge {image_size}"
        )
    fields.expect("do_center_crop", False, None)
    own = {"size", "max_image_size", "video_sampling", "do_center_crop", *_IMAGES}
    known = {key: value for key, value in fields.raw.items() if key not in own}
    side = {"height": image_size, "width": image_size}
    made = preprocessor_config.read(
        _DEFAULTS | known | {"size": side},
        preprocessor_config.Kind(_KIND, side, None),
        image_size,
        problems,
        where,
    )
    # As float32 has it: transformers takes the mean from whole grey levels.
    grey = np.asarray(made.mean, np.float32) * np.float32(255)
    if np.isin(grey, np.arange(256)).all():
        problems.append(
            f"{where}: with a mean of {list(made.mean)} a frame of one colour becomes "
            "zeros, which the model takes for padding and leaves out"
        )
    return TwoResizes(size=size, square=made), remarks


def _first_size(
    fields: Fields,
) -> tuple[int | tuple[int, int], tuple[str, ...]]:
    """Reads the first step's size; returns it with the remarks on it."""
    sampling = fields.take("video_sampling", dict, None)
    size = fields.take("size", dict, None)
    remarks = []
    if sampling is not None:
        inner = Fields(sampling, f"{fields.where}.video_sampling", fields.problems)
        rate = inner.number("fps", 1.0, *_RATES)
        most = inner.size("max_frames", 64)
        own = inner.take("video_size", dict, size)
        inner.close({})
        remarks.append(
            f"its processor samples at most {most} frames of a video, {rate:g} a "
            "second; config.video alone decides here which are shown"
        )
        if size is None:
            size = own
        elif size != own:
            remarks.append(
                f"frames are first resized to size {size}, as transformers 5 does, not "
                f"to the video_size of training, {own}, also in {fields.where}"
            )
    size = _SIZE if size is None else size
    whole = all(type(x) is int and 1 <= x <= MAX_SIDE for x in size.values())
    if set(size) not in _FORMS or not whole:
        fields.problems.append(
            f"{fields.where}: size is {content.shown(size)}; expected longest_edge, or "
            f"height and width, whole numbers from 1 to {MAX_SIDE}"
        )
        return MAX_SIDE, tuple(remarks)
    if set(size) == {"longest_edge"}:
        return size["longest_edge"], tuple(remarks)
    return (size["height"], size["width"]), tuple(remarks)
