"""Reads how many pixels video frames may have, for Qwen-VL and VideoLLaMA3.

`smart_resize` explains what the budget of each kind limits.
"""

from typing import Literal, NamedTuple

from vidsme_jax.checkpoints import content
from vidsme_jax.checkpoints.fields import MAX_SIZE, Fields
from vidsme_jax.models.preprocessing import CLIP_MEAN, CLIP_STD

Name = Literal["qwen2", "qwen3", "video_llama_3"]
PATCHES = "patch_size", "temporal_patch_size", "merge_size"
WORDS = {
    "qwen2": "{} to {} pixels a frame",
    "qwen3": "{} to {} pixels a clip",
    "video_llama_3": "{} pixels a frame to {} a clip",
}
_MOST_PIXELS = 1 << 32  # The limit of a budget, far beyond any in use.
_EDGES = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}


class Kind(NamedTuple):
    """A class of video processors, with its defaults of absent keys."""

    name: str
    size: tuple[int, int]  # The least and the most pixels.
    trained: tuple[int, int]  # The same of training.
    patches: tuple[int, int, int]  # The defaults of `PATCHES`.
    tokens: int | None  # The default of `max_video_tokens`; None: there is no such key.
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


_QWEN2, _QWEN3 = (128 * 28**2, 768 * 28**2), (128 * 32**2, 768 * 32**2)
_CLIP, _CLIP_3 = (16 * 28**2, 16384 * 28**2), (4 * 32**2, 24576 * 32**2)
_NAMES = ("Qwen2VLVideoProcessor", "Qwen3VLVideoProcessor", "VideoLlama3VideoProcessor")
KINDS = {
    "qwen2": Kind(_NAMES[0], _QWEN2, _QWEN2, (14, 2, 2), 128000, CLIP_MEAN, CLIP_STD),
    "qwen3": Kind(_NAMES[1], _QWEN3, _CLIP_3, (16, 2, 2), 768),
    "video_llama_3": Kind(_NAMES[2], _QWEN2, _CLIP, (14, 1, 2), None),
}


def read(fields: Fields, kind: Name, images: bool) -> tuple[int, int]:
    """Reads the least and the most pixels, in either spelling.

    If both are present, transformers takes `min_pixels` and `max_pixels`; for videos of
    "qwen3" it takes `size`, and the two are refused if they differ from it.

    Args:
      fields: The processor's settings.
      kind: The kind of the budget.
      images: Whether the file is for images only.
    """
    problems, before = fields.problems, len(fields.problems)
    size, found = fields.take("size", dict, {}), []
    by_size = kind == "qwen3" and not images
    right = set(size) <= {*_EDGES, *_EDGES.values()}
    for (edge, pixels), absent, largest in zip(
        _EDGES.items(), KINDS[kind].size, (MAX_SIZE, _MOST_PIXELS), strict=True
    ):
        given = {f"size.{key}": size.get(key) for key in (edge, pixels)}
        given |= {pixels: fields.raw.get(pixels)}
        given = {key: value for key, value in given.items() if value is not None}
        right &= not size or bool(set(given) - ({pixels} if by_size else set()))
        inner = Fields(given, fields.where, problems)
        values = [inner.size(key, absent, largest) for key in given] or [absent]
        taken = values[0] if size else absent
        if by_size and values[-1] != taken:
            problems.append(
                f"{fields.where}: {pixels} is {values[-1]}, but {taken} by size, which "
                f"transformers takes; remove {pixels}"
            )
        found.append(values[-1])
    least, most = found
    if not right:
        problems.append(
            f"{fields.where}: size is {content.shown(size)}; expected shortest_edge "
            "and longest_edge, the least and the most pixels"
        )
    elif least > most and len(problems) == before:
        problems.append(
            f"{fields.where}: the least pixels, {least}, are more than the most, "
            f"{most}; see size, min_pixels and max_pixels"
        )
    return least, most
