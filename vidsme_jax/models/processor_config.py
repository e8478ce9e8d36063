"""Finds the video settings in the files of a checkpoint's processor."""

import pathlib
from collections.abc import Mapping
from typing import Any

from vidsme_jax.checkpoints import content, files
from vidsme_jax.checkpoints.files import Checkpoint
from vidsme_jax.models import preprocessing, preprocessor_config
from vidsme_jax.models.preprocessing import Preprocessing
from vidsme_jax.models.preprocessor_config import FILE, Kind

_WHOLE, _VIDEO = "processor_config.json", "video_preprocessor_config.json"


def read(
    checkpoint: Checkpoint,
    kind: Kind,
    image_size: int,
    problems: list[str],
    default: Preprocessing | None = None,
) -> Preprocessing:
    """Reads the preprocessing of frames; see `settings` and `preprocessor_config`.

    Args:
      checkpoint: The checkpoint whose files are read.
      kind: The class of the video processor.
      image_size: The tower's input size.
      problems: Receives problems.
      default: The result without any settings; None: these are a problem.
    """
    found = settings(checkpoint, kind.name, problems, needed=default is None)
    if found is None:
        return default or preprocessing.siglip(image_size)
    raw, where = found
    return preprocessor_config.read(raw, kind, image_size, problems, where)


def settings(
    checkpoint: Checkpoint, name: str, problems: list[str], *, needed: bool = True
) -> tuple[Any, str] | None:
    """Finds the settings for video frames in the same place as transformers.

    That is `video_processor` in `processor_config.json`, else
    `video_preprocessor_config.json`: of an adapter, else of its base. Without them it
    is `preprocessor_config.json`, which may be for images only.

    Args:
      checkpoint: The checkpoint whose files are read.
      name: The class of the video processor, for the message.
      problems: Receives problems.
      needed: Whether absent settings are a problem.

    Returns:
      The settings and the name of their place; None if there are none.
    """
    images = False
    for folder in checkpoint.folders:
        paths = (folder / name for name in (_WHOLE, _VIDEO))
        for path in filter(pathlib.Path.is_file, paths):
            raw, where = files.read_json(path), path.name
            if path.name == _WHOLE:
                images |= "image_processor" in raw
                raw, where = raw.get("video_processor"), f"{where}: video_processor"
            if raw is not None:
                return raw, where
    if (raw := checkpoint.json(FILE)) is not None:
        return raw, FILE
    remedy = "the preprocessing of frames is unknown; save the model's"
    if images:
        problems.append(
            f"{_WHOLE}: it has an image_processor but no video_processor, and there is "
            f"neither {_VIDEO} nor {FILE}: {remedy} {name} there"
        )
    elif needed:
        problems.append(
            f"no {_WHOLE} with a video_processor, no {_VIDEO} and no {FILE}: {remedy} "
            f"{name} there"
        )
    return None


def compare(
    checkpoint: Checkpoint, wanted: Mapping[str, int], problems: list[str]
) -> None:
    """Refuses a processor that writes another number of tokens than there are rows.

    Args:
      checkpoint: The checkpoint whose `processor_config.json` is read.
      wanted: The values of keys by the model's config; absent or null is allowed.
      problems: Receives problems.
    """
    for folder in checkpoint.folders:
        if not (path := folder / _WHOLE).is_file():
            continue
        raw = files.read_json(path)
        problems += [
            f"{_WHOLE}: {key} is {content.shown(raw[key])}, but by config.json it is "
            f"{value}: a frame would have another number of tokens than of rows"
            for key, value in wanted.items()
            if raw.get(key) not in (None, value)
        ]
        return
