"""The features of a TFDS dataset, and which of them can be a video.

TFDS imports the module of each feature that a file names, and its own `Video` imports
TensorFlow; both are avoided here.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from vidsme_jax.data import dataset_folders

IMAGES, ARRAY, BYTES, PATH = "images", "an array", "bytes", "a path"
_OWN = "tensorflow_datasets."
_TEMPLATES = ("filepathTemplate", "filepath_template")  # protobuf accepts both.
_FIELDS = "DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y"  # TFDS's.
_TEMPLATE = re.compile(rf"(\{{({_FIELDS})\}}|[^{{}}]){{0,500}}")
_SHOWN = 80  # Characters of a template.
_PATHS = ("video", "video_path", "path", "filepath", "file_path", "filename", "file")


def parsed(record: bytes) -> Any:
    """Returns the `tf.train.Example` of a record, parsed without TensorFlow."""
    kind: Any = tf_example_pb2
    return kind.Example.FromString(record)


def features_of(folder: pathlib.Path) -> Any:
    """Reads features.json and checks that its features are TFDS's own.

    To be called before TFDS opens the folder: TFDS imports the module of each feature
    that features.json and dataset_info.json name.

    Raises:
      ValueError: A feature is of another module, or a file that describes the dataset
        is missing, damaged or too large.
      OSError: A file cannot be read.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt"):  # TFDS may read all of these.
            dataset_folders.check_size(path)
    content = _json(folder / "features.json")
    about = _json(folder / "dataset_info.json")
    inside = about.get("features") if isinstance(about, dict) else None
    _check_templates(about)
    for name, described in (("features", content), ("dataset_info", inside)):
        try:
            named = set(_classes(described))
        except RecursionError as error:
            raise ValueError(f"{name}.json is nested too deeply") from error
        foreign = sorted(name for name in named if not name.startswith(_OWN))
        if foreign:
            raise ValueError(
                f"{name}.json names {', '.join(foreign[:5])}; only the features of "
                "tensorflow_datasets are read, since TFDS would import any other module"
            )
    return content


def _check_templates(about: Any) -> None:
    """Raises a `ValueError` for templates that are not plain names of TFDS's files."""
    splits = about.get("splits") if isinstance(about, dict) else None
    for split in splits if isinstance(splits, list) else ():
        for key in _TEMPLATES if isinstance(split, dict) else ():
            template = split.get(key, "")
            if not isinstance(template, str) or not _TEMPLATE.fullmatch(template):
                shown = repr(template)[:_SHOWN]
                raise ValueError(
                    f"dataset_info.json: {key} is {shown}; it must be the template of "
                    "a file name"
                )


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.name} is missing") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from error


def _classes(node: Any) -> Iterator[str]:
    """Yields the classes that a description of features names, in either form."""
    if isinstance(node, list):
        for part in node:
            yield from _classes(part)
    elif isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(value, str):
                yield from _classes(value)
            elif key in ("pythonClassName", "python_class_name", "type"):
                yield value
            elif key == "json":
                yield from _classes(json.loads(value))


def _without_video(node: Any) -> Any:
    """Replaces `Video` features by sequences of `Image`."""
    if isinstance(node, list):
        return [_without_video(part) for part in node]
    if not isinstance(node, dict):
        return node
    if str(node.get("pythonClassName", "")).endswith("video_feature.Video"):
        kind = "tensorflow_datasets.core.features"
        about = {k: v for k, v in node["video"].items() if k != "ffmpegExtraArgs"}
        shape = about.get("shape", {}).get("dimensions", [])[1:] or ["-1", "-1", "3"]
        image = {
            "pythonClassName": f"{kind}.image_feature.Image",
            "image": about | {"shape": {"dimensions": shape}},
        }
        return {
            "pythonClassName": f"{kind}.sequence_feature.Sequence",
            "sequence": {"feature": image, "length": "-1"},
        }
    return {key: _without_video(value) for key, value in node.items()}


def without_video(folder: pathlib.Path) -> Any:
    """Returns the features of a dataset, with videos as sequences of images."""
    return tfds.features.FeaturesDict.from_json(_without_video(features_of(folder)))


def could_be_video(features: dict[str, Any]) -> list[str]:
    """Returns the features that can be the video: by kind or, failing that, by name."""
    kinds = {name: kind_of(feature) for name, feature in features.items()}
    could = [name for name, kind in kinds.items() if kind not in (None, PATH)]
    return could or [n for n, kind in kinds.items() if kind == PATH and n in _PATHS]


def flat(features: Any, before: str = "") -> dict[str, Any]:
    """Returns every feature by its name on disk, A/B for a nested one."""
    found = {}
    for name, feature in sorted(features.items()):
        inside = getattr(feature, "feature", None)
        if isinstance(feature, tfds.features.FeaturesDict):
            found |= flat(feature, f"{before}{name}/")
        elif isinstance(inside, tfds.features.FeaturesDict):
            parts = flat(inside, f"{before}{name}/")
            found |= {k: tfds.features.Sequence(f) for k, f in parts.items()}
        else:
            found[before + name] = feature
    return found


def nested(name: str, feature: Any) -> dict[str, Any]:
    """Returns a feature in nested dictionaries by the parts of its name; see `flat`."""
    first, _, rest = name.partition("/")
    return {first: nested(rest, feature) if rest else feature}


def kind_of(feature: Any) -> str | None:
    """Returns the form in which a feature can hold a video; None if it cannot."""
    if isinstance(getattr(feature, "feature", None), tfds.features.Image):
        return IMAGES
    if isinstance(feature, tfds.features.Text):
        return PATH
    if not isinstance(feature, tfds.features.Tensor):
        return None
    if feature.np_dtype == np.object_ and feature.shape == ():
        return BYTES
    shape: Any = feature.shape
    frames = len(shape) == 4 and shape[-1] == 3
    return ARRAY if frames and feature.np_dtype == np.uint8 else None
