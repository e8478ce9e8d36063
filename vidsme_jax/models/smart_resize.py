"""The resizing of Qwen-VL and VideoLLaMA3, to a size that depends on the clip.

A frame keeps its aspect up to whole rows of patches, and its pixels stay within a
budget of one of three kinds:

* "qwen2" (Qwen2-VL, Qwen2.5-VL): for a frame; long clips share `tokens` among frames;
* "qwen3" (Qwen3-VL): for the clip; no frame has more than `tokens`;
* "video_llama_3": the least for a frame, the most for the clip.

The first two are those of transformers 5.24 with `cap_pixels_per_frame=True`, which is
not its default: without it, frames of long clips ("qwen2") or of short ones ("qwen3")
have more pixels than in the tools of the models' authors [1]. Frames are resized with
Pillow; torchvision, which transformers uses, differs by at most two grey levels.

Axes: `frames`; `height`, `width` of decoded frames; `down`, `across` of resized ones.

[1] https://github.com/QwenLM/Qwen3-VL, qwen-vl-utils, vision_process.py
"""

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vidsme_jax.base import ClipError
from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import Fields
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import pixel_budget, preprocessor_config, processor_config
from vidsme_jax.models.pixel_budget import KINDS, PATCHES, WORDS, Name
from vidsme_jax.models.preprocessing import BICUBIC
from vidsme_jax.models.rows import MAX_FRAMES
from vidsme_jax.models.tiles import Tiling

_THINNEST = 200  # The largest ratio of a frame's sides that the processors take.
_USUAL = 16, 360, 640  # A usual clip: frames, and their pixels down and across.
_SPARE = 1.05  # Times the least pixels: allowed for a frame of a clip of any length.
_SHARED = 0.9  # Times `tokens`: shared among the frames of a long clip.
_TYPE, _COMPRESSION = "video_processor_type", "use_token_compression"
_CAP, _TOKENS = "cap_pixels_per_frame", "max_video_tokens"
# Keys that `preprocessor_config` does not read.
_OWN = frozenset(
    """size min_pixels max_pixels do_resize do_center_crop crop_size do_sample_frames
    fps min_frames max_frames""".split()
) | {_TYPE, *PATCHES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmartResize:
    """Resizes the frames of a clip to a size of about their aspect.

    Attributes:
      kind: The kind of the budget; see the module.
      factor: Pixels along a side of the block that becomes one visual row.
      temporal: Frames in a patch.
      least: The least pixels of the budget.
      most: The most pixels of the budget.
      tokens: "qwen2": the most visual rows of a clip, nine tenths of which its frames
        share; "qwen3": the most of a frame; else not used.
      mean: The mean of the three channels, for pixels from 0 to 1; the device applies
        it.
      std: The standard deviation of each channel, in the same units.
      resample: The number of Pillow's filter.
      compression: Whether the processor omits rows that hardly differ from those of the
        frame before; this class does not apply it.
    """

    kind: Name
    factor: int
    temporal: int
    least: int
    most: int
    tokens: int = 0
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = BICUBIC
    compression: bool = False

    def target(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Returns (down, across) of the resized frames, in pixels.

        If the budget is the clip's ("qwen3"), fewer frames than a patch has count as
        that many, and an odd number is compared with the budget as the nearest even one
        (halves to multiples of four), but scaled as it is.

        Raises:
          ClipError: "preprocess", if the frames are empty, or one side is more than 200
            times the other.
        """
        seen = f"frames of {width}x{height} pixels"
        if min(height, width) < 1:
            raise ClipError("preprocess", f"{seen} are empty")
        side, limit = self.factor, self._limit(frames)
        shown, counted = self._counts(frames)
        if self.kind == "qwen3" and min(height, width) < side:
            scale = max(side / height, side / width)
            height, width = int(height * scale), int(width * scale)
        if (aspect := max(height, width) / min(height, width)) > _THINNEST:
            raise ClipError(
                "preprocess",
                f"{seen} are too thin: one side is {aspect:g} times the other, and the "
                f"model's processor takes at most {_THINNEST} times",
            )
        down, across = round(height / side) * side, round(width / side) * side
        if counted * down * across > limit:
            by = math.sqrt(shown * height * width / limit)
            down = max(side, math.floor(height / by / side) * side)
            across = max(side, math.floor(width / by / side) * side)
        elif counted * down * across < self.least:
            by = math.sqrt(self.least / (shown * height * width))
            down = math.ceil(height * by / side) * side
            across = math.ceil(width * by / side) * side
        return down, across

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> UInt8[np.ndarray, "frames down across 3"]:
        """Resizes every frame; frames of the right size are returned unchanged.

        Raises:
          ClipError: See `target`.
        """
        count, height, width = frames.shape[:3]
        down, across = self.target(count, height, width)
        if (down, across) == (height, width):
            return frames
        out = np.empty((count, down, across, 3), np.uint8)
        kind = Image.Resampling(self.resample)
        for k, frame in enumerate(frames):
            image = Image.fromarray(np.ascontiguousarray(frame))
            out[k] = np.asarray(image.resize((across, down), kind))
        return out

    @property
    def most_rows(self) -> int:
        """The most visual rows of a frame of any aspect and clip.

        With the published budgets that is the most pixels of a frame / `factor`²;
        "qwen3" gives five frames, which are compared as four, a quarter more than
        `tokens`. Thin frames can have more if the budget is below 200 rows, or if the
        least is near the most: their short side is rounded up.
        """
        counts = range(self._counts(1)[0], 4 * self.temporal + 1)
        return max(map(self.rows_at_most, counts))

    def rows_at_most(self, frames: int) -> int:
        """Returns the most visual rows of a frame in a clip of this many frames."""
        # A clip that counts as one frame more is still enlarged by its own count.
        shared, area = min(self._counts(frames)), self.factor**2
        most, least = self._limit(frames) / shared / area, self.least / shared / area
        thin = math.sqrt(_THINNEST * most) if most < _THINNEST else 1.0
        long, short = math.sqrt(_THINNEST * least), math.sqrt(least / _THINNEST)
        return int(max(most, thin, (long + 1) * (short + 1)))

    @property
    def least_grid(self) -> tuple[int, int]:
        """Rows down and across of the smallest resized square frame.

        Of clips of any length: "qwen3" makes frames of short clips larger.
        """
        down, across = min(self.target(n, 1, 1) for n in (1, MAX_FRAMES))
        return down // self.factor, across // self.factor

    def _counts(self, frames: int) -> tuple[int, int]:
        """Returns how many frames the budget counts: for scaling, and for comparing."""
        if self.kind != "qwen3":
            return 1, 1
        shown = max(frames, self.temporal)
        return shown, round(shown / self.temporal) * self.temporal

    def _limit(self, frames: int) -> int:
        """Returns the most pixels of a frame; for "qwen3", of all frames together."""
        frames = max(frames, 1)
        if self.kind == "video_llama_3":
            return max(self.most // frames, 1)
        floor, area = int(self.least * _SPARE), self.factor * self.factor
        if self.kind == "qwen2":
            shared = int(self.tokens * area * _SHARED) * self.temporal // frames
            return max(min(self.most, shared), floor)
        frames = self._counts(frames)[0]
        return frames * max(min(self.tokens * area, self.most // frames), floor)


def read(
    checkpoint: Checkpoint,
    kind: Name,
    *,
    patch_size: int,
    merge_size: int,
    temporal_patch_size: int,
    problems: list[str],
) -> tuple[SmartResize, tuple[str, ...]]:
    """Reads the settings for video frames; see `processor_config.settings`.

    A file for images only has no budget for videos: mean, deviation and filter are
    taken from it, with the budget that the models were trained with.

    Args:
      checkpoint: The checkpoint whose files are read.
      kind: The kind of the budget, which depends on the family.
      patch_size: The tower's, by `config.json`, as the next two.
      merge_size: Patches along a side of a visual row.
      temporal_patch_size: Frames in a patch.
      problems: Receives problems.

    Returns:
      The preprocessing, and remarks on it for the report.
    """
    default = KINDS[kind]
    found = processor_config.settings(checkpoint, default.name, problems)
    if found is None:  # No further problems are reported then.
        found, problems = ({}, ""), []
    raw, where = found
    fields = Fields(raw, where, problems)
    images = where == preprocessor_config.FILE and not fields.raw.get(_TYPE)
    fields.expect(_TYPE, default.name, None)
    fields.expect("do_resize", True)
    fields.expect("do_center_crop", False, None)
    if not (images and kind == "video_llama_3"):  # Its images have other patches.
        wanted = (patch_size, temporal_patch_size, merge_size)
        _check_patches(fields, wanted, default.patches)
    least, most = pixel_budget.read(fields, kind, images)
    remarks = _sampling(fields)
    budget, trained = (WORDS[kind].format(*x) for x in ((least, most), default.trained))
    if images and budget != trained:
        least, most = default.trained
        remarks.append(
            f"{where} is for images: the budget of training, {trained}, replaces "
            f"{budget}, which transformers 5.24 takes from there"
        )
    elif where and budget != trained:
        remarks.append(f"{where} has {budget}, the models were trained with {trained}")
    tokens, compression = 0, False
    if default.tokens is None:
        keys = {_COMPRESSION}
        null = fields.raw.get(_COMPRESSION, True) is None  # Counts as false.
        compression = fields.take(_COMPRESSION, bool, True) and not null
    else:
        keys = {_CAP, _TOKENS}
        tokens = fields.size(_TOKENS, default.tokens)
        if fields.take(_CAP, bool, True) is False:
            problems.append(
                f"{where}: {_CAP} is false, but the models were trained with a cap; "
                "expected true, or no such key"
            )
        if fields.raw.get(_CAP) is None:
            remarks.append(
                "the pixels of a frame are capped as in training; transformers 5.24 "
                f"does so only with {_CAP}=True"
            )
    known = {k: value for k, value in fields.raw.items() if k not in _OWN | keys}
    side = {"height": 1, "width": 1}  # Any: the sizes are read above.
    read_rest = preprocessor_config.read(
        known | {"size": side},
        preprocessor_config.Kind(default.name, side, None, default.mean, default.std),
        1,
        problems,
        where,
    )
    resize = SmartResize(
        kind=kind,
        factor=patch_size * merge_size,
        temporal=temporal_patch_size,
        least=least,
        most=most,
        tokens=tokens,
        mean=read_rest.mean,
        std=read_rest.std,
        resample=read_rest.resample,
        compression=compression,
    )
    return resize, tuple(remarks)


def _check_patches(
    fields: Fields, wanted: tuple[int, ...], default: tuple[int, ...]
) -> None:
    """Refuses patches that differ from those of the model's config."""
    for key, value, absent in zip(PATCHES, wanted, default, strict=True):
        given = fields.take(key, int, None)
        if (found := absent if given is None else given) != value:
            note = " (the default)" * (given is None)
            fields.problems.append(
                f"{fields.where}: {key} is {content.shown(found)}{note}, but by "
                f"config.json it is {value}: frames would be cut into other patches "
                "than the tower takes"
            )


def _sampling(fields: Fields) -> list[str]:
    """Reads how the processor samples videos; returns remarks on it."""
    samples = fields.take("do_sample_frames", bool, False)
    rate = fields.number("fps", 2.0, 1e-6, 1e6)
    fewest, most = fields.size("min_frames", 4), fields.size("max_frames", 768)
    if not samples:
        return []
    return [
        f"its processor samples {rate:g} frames a second of a video, {fewest} to "
        f"{most} in all; config.video alone decides here which are shown"
    ]


def tiling(resize: SmartResize, patch_size: int, window: int = 0) -> Tiling:
    """Returns how a model cuts resized frames; see `Tiling` for the arguments."""
    down, across = resize.target(*_USUAL)
    return Tiling(
        patch_size=patch_size,
        merge=resize.factor // patch_size,
        group=resize.temporal,
        window=window,
        most=resize.most_rows,
        limit=resize.rows_at_most,
        least=resize.least_grid,
        usual=(down // resize.factor, across // resize.factor),
    )
