"""Reads `preprocessor_config.json`, the settings of an image or video processor.

Every form of a key that the processors of transformers 5.24 know is built as with PIL
there, or refused. An absent key takes the default of the processor's class; `null` is
false, or no value, which is refused if a step needs it.
"""

import dataclasses
import math
import reprlib
from typing import Any

from vidsme_jax.checkpoints.fields import MAX_SIDE, Fields, by_key
from vidsme_jax.models.preprocessing import (
    BICUBIC,
    CLIP_MEAN,
    CLIP_STD,
    Preprocessing,
    Resize,
)

FILE = "preprocessor_config.json"
IGNORED = by_key(
    {
        "names only": "_valid_processor_keys",
        "the family decides": """feature_extractor_type image_processor_type
            processor_class video_processor_type""",
        "of the model, whose config has it": """image_seq_length patch_size
            vision_feature_select_strategy""",
        "of the tokenizer": "video_token image_token",
        "of still images": """aspect_ratio_setting crop_to_patches image_grid_pinpoints
            max_patches min_patches num_additional_image_tokens""",
        "of still images; frames are resized to one size": "do_pad",
        "frames are resized to one size": "pad_size size_divisor",
        "frames are sampled before": "do_sample_frames fps initial_shift num_frames",
        "of the processor's input": "input_data_format video_metadata",
        "of the processor's output": """data_format device return_metadata
            return_tensors""",
        "of the processor's speed": "disable_grouping",
        "of another processor": "crop_pct",
    }
)
# The sets of keys that processors resize by with PIL, and all that they accept.
_SIDES, _MOST = {"height", "width"}, {"max_height", "max_width"}
_BUILT = (_SIDES, {"shortest_edge"}, {"shortest_edge", "longest_edge"}, _MOST)
_KNOWN = (*_BUILT, {"longest_edge"}, {"min_pixels", "max_pixels"})
_FORMS = """height and width, shortest_edge (and longest_edge), or max_height and
    max_width"""
_FORMS = " ".join(_FORMS.split())
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_MOST_VALUE = 1e6  # The limit of means, deviations and factors, far beyond any in use.


@dataclasses.dataclass(frozen=True)
class Kind:
    """A class of processors, with its defaults of absent keys.

    Attributes:
      name: The name of the class.
      size: The default of `size`.
      crop_size: The default of `crop_size`; None: the class does not crop.
      mean: The default of `image_mean`.
      std: The default of `image_std`.
      square: The default of `default_to_square`.
    """

    name: str
    size: dict[str, int]
    crop_size: dict[str, int] | None
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    square: bool = False


_CROP = {"height": 224, "width": 224}
CLIP = Kind("CLIPImageProcessor", {"shortest_edge": 224}, _CROP)
NEXT_VIDEO = dataclasses.replace(CLIP, name="LlavaNextVideoVideoProcessor")
ONEVISION = Kind("LlavaOnevisionVideoProcessor", {"height": 384, "width": 384}, None)


def read(
    raw: Any, kind: Kind, image_size: int, problems: list[str], where: str = FILE
) -> Preprocessing:
    """Reads the settings of a processor.

    Frames smaller than the crop are padded with zeros, before the normalisation. A
    rescaling by another factor than 1 / 255, or none, becomes part of mean and
    deviation.

    Args:
      raw: The file's content, or the processor's part of it.
      kind: The processor's class, for absent keys.
      image_size: The tower's input size; settings that give another are a problem.
      problems: Receives problems.
      where: The name of the file.
    """
    fields = Fields(raw, where, problems)
    resizes = _flag(fields, "do_resize", True)
    crops = _flag(fields, "do_center_crop", kind.crop_size is not None)
    _flag(fields, "do_convert_rgb", True)  # Frames are RGB already.
    for key in ("offset", "rescale_offset"):  # Of Vivit and EfficientNet.
        fields.expect(key, False, None)
    square = _flag(fields, "default_to_square", kind.square)
    before = len(problems)
    size = _sides(fields, "size", kind.size, resizes and "do_resize", square)
    crop = _sides(fields, "crop_size", kind.crop_size, crops and "do_center_crop", True)
    if len(problems) == before:
        _check(fields, kind, image_size, size, crop)
    mean, std = _normalisation(fields, kind)
    preprocessing = Preprocessing(
        size=image_size,
        mean=mean,
        std=std,
        resize=Resize(**size) if size is not None and set(size) in _BUILT else None,
        crop=crops,
        resample=_resample(fields, resizes),
    )
    fields.close(IGNORED)
    return preprocessing


def _flag(fields: Fields, key: str, default: bool) -> bool:
    """Reads a boolean; null is false."""
    value = _given(fields, key, default)
    if value is None or isinstance(value, bool):
        return bool(value)
    _refuse(fields, key, "true or false")
    return default


def _sides(
    fields: Fields,
    key: str,
    default: dict[str, int] | None,
    step: str | bool,
    square: bool,
) -> dict[str, int] | None:
    """Reads one of the forms of a size.

    Args:
      fields: The processor's settings.
      key: The key of the size.
      default: The value if the key is absent.
      step: The key of the step that needs the size; False if the step is off.
      square: Whether a single number is a square, else it is the short side.

    Returns:
      The sides by the processors' keys; None without the step.
    """
    value: Any = _given(fields, key, default)
    if value is None:
        if step:
            fields.problems.append(f"{fields.where}: {key} is missing; {step} needs it")
        return None
    sides = value
    if isinstance(value, int):
        sides = (
            {"height": value, "width": value} if square else {"shortest_edge": value}
        )
    elif isinstance(value, list):
        pair = value if len(value) == 2 else (None, None)
        sides = dict(zip(("height", "width"), pair, strict=True))
    # In an allowed set of keys those that are null count as absent.
    known = isinstance(sides, dict) and set(sides) in _KNOWN
    named = {k: v for k, v in sides.items() if v is not None} if known else {}
    whole = all(type(side) is int and 1 <= side <= MAX_SIDE for side in named.values())
    if named and whole and not isinstance(value, bool):
        return named if step else None
    most = f"a whole number from 1 to {MAX_SIDE}"
    objects = f"an object of them with the keys {_FORMS}"
    _refuse(fields, key, f"{most}, two of them as [height, width], or {objects}")
    return None


def _check(
    fields: Fields,
    kind: Kind,
    image_size: int,
    size: dict[str, int] | None,
    crop: dict[str, int] | None,
) -> None:
    """Refuses settings that do not give every frame the tower's size."""
    square = {"height": image_size, "width": image_size}
    takes = f"the tower takes {image_size} x {image_size}"

    def shown(key: str, value: dict[str, int]) -> str:
        absent = key not in fields.raw
        return f"{key} is {value}{f' (the default of {kind.name})' * absent}"

    problem = None
    if size is not None and set(size) not in _BUILT:
        problem = f"{shown('size', size)}, which is not supported; expected {_FORMS}"
    elif crop is not None and crop != square:
        problem = f"{shown('crop_size', crop)}, {takes}; expected {square}"
    elif crop is None and size is None:
        problem = f"do_resize and do_center_crop are both false, but {takes}"
    elif crop is None and size is not None and size != square:
        problem = (
            f"{shown('size', size)} without a crop, but {takes}; expected {square}"
        )
    if problem is not None:
        fields.problems.append(f"{fields.where}: {problem}")


def _resample(fields: Fields, needed: bool) -> int:
    """Reads Pillow's number of the filter; bicubic if it is absent."""
    value = _given(fields, "resample", BICUBIC)
    if type(value) is int and 0 <= value < len(_FILTERS):
        return value
    if value is not None or needed:
        filters = ", ".join(f"{k} ({name})" for k, name in enumerate(_FILTERS))
        _refuse(fields, "resample", f"one of {filters}")
    return BICUBIC


def _normalisation(
    fields: Fields, kind: Kind
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Reads mean and deviation, for pixels from 0 to 1.

    With another factor f than 1 / 255, (f x - mean) / std is (x / 255 - mean / g) /
    (std / g), where g = 255 f.
    """
    rescales = _flag(fields, "do_rescale", True)
    normalises = _flag(fields, "do_normalize", True)
    mean = _channels(fields, "image_mean", kind.mean, -_MOST_VALUE, normalises)
    std = _channels(fields, "image_std", kind.std, 1 / _MOST_VALUE, normalises)
    factor = _given(fields, "rescale_factor", 1 / 255)
    if not _within(factor, 1 / _MOST_VALUE):
        if factor is not None or rescales:
            _refuse(fields, "rescale_factor", "a number above 0, such as 1/255")
        factor = 1 / 255
    g = 255 * factor if rescales else 255.0
    if math.isclose(g, 1.0, rel_tol=1e-12):
        return mean, std
    return tuple(x / g for x in mean), tuple(x / g for x in std)


def _channels(
    fields: Fields, key: str, default: tuple[float, ...], least: float, needed: bool
) -> tuple[float, ...]:
    """Reads three numbers, or one for all channels; 0, or 1, if they are not used."""
    value = _given(fields, key, list(default))
    three = value if isinstance(value, list) else [value] * 3
    right = len(three) == 3 and all(_within(x, least) for x in three)
    if not right and (value is not None or needed):
        above = " above 0" if least > 0 else ""
        _refuse(fields, key, f"three numbers{above}, or one for all channels")
    if needed:
        return tuple(float(x) for x in three) if right else default
    return (1.0,) * 3 if least > 0 else (0.0,) * 3


def _within(value: Any, least: float) -> bool:
    """Returns whether a value is a number from `least` to `_MOST_VALUE`, no boolean."""
    number = type(value) in (int, float)
    return number and least <= value <= _MOST_VALUE


def _given(fields: Fields, key: str, default: Any) -> Any:
    """Returns a key's value; the default if it is absent, None if it is null."""
    return fields.expect(key, fields.raw.get(key, default))


def _refuse(fields: Fields, key: str, expected: str) -> None:
    """Adds a problem with a key's value."""
    found = reprlib.repr(fields.raw.get(key))
    fields.problems.append(f"{fields.where}: {key} is {found}, expected {expected}")
