"""`tfds:` sources: the clips of a TFDS dataset on disk, read without TensorFlow.

A clip's address is `tfds:NAME[/CONFIG]/VERSION/SPLIT/INDEX`. Datasets are found in
TFDS_DATA_DIR, or in TFDS's default folder. A video is a sequence of images, an array
(frames, height, width, 3), the bytes of a video file, or the path of one, relative to
`corpus.video_root` or the dataset's folder. Pictures have times if the example has a
number `fps`: frames per second.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data import clocks, dataset_folders, features, field_columns
from vidsme_jax.data.cells import Address
from vidsme_jax.data.dataset_folders import root
from vidsme_jax.data.field_columns import RATE
from vidsme_jax.data.pictures import Pictures
from vidsme_jax.data.tfrecords import TFRecords
from vidsme_jax.wording import nearest

_LONGEST_PATH = 4096
_TRIED = 16  # Examples read to find a readable one.


class Dataset:
    """One version of a dataset on disk.

    Attributes:
      folder: Its folder.
      features: Its features by name, A/B for nested ones.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens the dataset.

        Raises:
          AuditError: It cannot be read.
        """
        self.folder = folder
        make: Any = _Builder  # TFDS declares another signature.
        try:
            features.features_of(folder)
            self._builder = make(folder)
        except Exception as error:  # TFDS raises many kinds.
            text = " ".join(str(error).split())
            raise AuditError([f"{folder}: TFDS cannot open it ({text})"]) from error
        formats = self._builder.info.available_file_formats()
        self._formats = sorted(str(f.value) for f in formats)
        if not set(self._formats) & {"array_record", "tfrecord"}:
            problem = (
                f"{folder}: stored as {', '.join(self._formats)}; array_record and "
                "tfrecord can be read: build it with `tfds build "
                "--file_format=array_record`"
            )
            raise AuditError([problem])
        self.features = features.flat(self._builder.info.features)
        self._sources: dict[str, Any] = {}  # By split.

    def places(self, split: str) -> list[tuple[str, int]]:
        """Returns the split and the index of every example of a split expression.

        Raises:
          AuditError: There is no such split, or it claims more examples than it holds.
        """
        splits: Any = self._builder.info.splits
        try:
            asked = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
        except Exception as error:
            known = f"{', '.join(sorted(splits))}{nearest(split, list(splits))}"
            raise AuditError([f"no split {split!r}; it has {known}"]) from error
        found = []
        for part in asked:
            name = str(part.splitname)
            self._check_lengths(name)
            ends = slice(part.from_, part.to).indices(splits[name].num_examples)
            found += [(name, index) for index in range(*ends)]
        return found

    def example(self, split: str, index: int) -> bytes:
        """Returns the serialised example at an index of a split."""
        if split not in self._sources:
            self._sources[split] = self._opened(split)
        return self._sources[split][index]

    def _check_lengths(self, split: str) -> None:
        """Raises an `AuditError` if a split claims more examples than it holds."""
        about: Any = self._builder.info.splits[split]
        try:
            files = [pathlib.Path(path) for path in about.filepaths]
            if any(path.parent != self.folder for path in files):
                raise ValueError("dataset_info.json names files of another folder")
            dataset_folders.check_lengths(files, about.shard_lengths)
        except (OSError, ValueError) as error:
            raise AuditError([f"{self.folder}: {error}"]) from error

    def _opened(self, split: str) -> Any:
        if "array_record" in self._formats:
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            return self._builder.as_data_source(split, deserialize_method=raw)
        about: Any = self._builder.info.splits[split]
        files = [pathlib.Path(path) for path in about.filepaths]
        return TFRecords(files, about.shard_lengths)

    def value(self, example: bytes, name: str) -> Any:
        """Returns one feature of an example; encoded images stay encoded."""
        feature = self.features[name]
        if features.kind_of(feature) == features.IMAGES:
            stored = features.parsed(example).features.feature[name]
            return list(stored.bytes_list.value)
        alone = features.nested(name, feature)
        value: Any = tfds.features.FeaturesDict(alone).deserialize_example_np(example)
        for part in name.split("/"):
            value = value[part]
        if isinstance(feature, tfds.features.ClassLabel):
            return feature.int2str(int(value))
        return value

    def rate(self, example: bytes) -> clocks.Rate | None:
        """Returns the frame rate of an example, its number `fps`; None without one."""
        return clocks.rate_of(self.value(example, RATE)) if self.has_rate else None

    @property
    def has_rate(self) -> bool:
        """Whether the examples have a number `fps`."""
        feature = self.features.get(RATE)
        if not isinstance(feature, tfds.features.Tensor):
            return False
        kind: Any = feature.np_dtype
        return bool(np.issubdtype(kind, np.number))

    def mapping(self, fields: Sequence[str]) -> dict[str, str]:
        """Returns the feature of each field; see `field_columns.of_fields`.

        Args:
          fields: `corpus.fields`: FIELD=FEATURE.

        Raises:
          AuditError: No single feature can be the video.
        """
        could = features.could_be_video(self.features)
        each = self.features.items()
        videos = [name for name, kind in each if features.kind_of(kind) is not None]
        types = {name: type(kind).__name__ for name, kind in each}
        return field_columns.of_fields(fields, types, could, videos, "feature")


_opened = functools.cache(Dataset)  # By folder.


def rows(source: str, fields: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Returns the features of a source, and its rows in the form of a manifest's.

    An example that cannot be read keeps its row: its clip will fail.

    Args:
      source: `tfds:NAME[:CONFIG]/SPLIT`, the split in the syntax of TFDS.
      fields: `corpus.fields`.

    Raises:
      AuditError: There is no such dataset, split or feature, or the rows select
        segments of frames without times.
    """
    _, split = dataset_folders.parse(source)
    dataset = _opened(dataset_folders.find(source))
    mapping = dataset.mapping(fields)
    stem = "/".join(dataset.folder.parts[len(root().parts) :])
    columns = {key: value for key, value in mapping.items() if key != "video"}
    kind = features.kind_of(dataset.features[mapping["video"]])
    untimed = kind in (features.IMAGES, features.ARRAY) and not dataset.has_rate
    if {"start", "end"} & set(columns) and untimed:
        raise field_columns.untimed(mapping["video"], fields, "number", "examples")
    field_columns.log_unread_label(source, dataset.features, fields, "feature")
    places = dataset.places(split)
    of_paths = _are_paths(dataset, mapping["video"], places)
    found = []
    for part, index in places:
        row: dict[str, Any] = {"video": Address(f"tfds:{stem}/{part}/{index}")}
        example = _readable(dataset, part, index) if columns or of_paths else None
        if example is not None:
            row |= {k: _plain(dataset.value(example, v)) for k, v in columns.items()}
            if of_paths:
                row["video"] = _plain(dataset.value(example, mapping["video"]))
        found.append(row)
    return list(dataset.features), found


def fetch(address: str, fields: Sequence[str]) -> bytes | Pictures:
    """Returns the video of an example, encoded as stored.

    Raises:
      ClipError: It cannot be read.
    """
    *parts, split, index = ["", "", *address.removeprefix("tfds:").split("/")]
    if not any(parts) or ".." in parts or not (split and index.isdecimal()):
        raise ClipError("open", "an example is tfds:NAME[/CONFIG]/VERSION/SPLIT/INDEX")
    try:
        dataset = _opened(root().joinpath(*filter(None, parts)))
        name = dataset.mapping(fields)["video"]
        example = dataset.example(split, int(index))
        value = dataset.value(example, name)
        if isinstance(value, bytes):
            return value
        return Pictures(value, dataset.rate(example))
    except AuditError as error:
        raise ClipError("open", "; ".join(error.problems)) from error
    except Exception as error:  # Of array_record or TFDS: any kind.
        text = " ".join(str(error).split())
        raise ClipError("open", f"the example cannot be read ({text})") from error


class _Builder(read_only_builder.ReadOnlyBuilder, skip_registration=True):
    """TFDS's builder of a stored dataset, with videos as sequences of images.

    TFDS's own `Video` feature imports TensorFlow when it is created.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        replaced = features.without_video(pathlib.Path(str(self.data_path)))
        return tfds.core.DatasetInfo(builder=self, features=replaced)


def _readable(dataset: Dataset, split: str, index: int) -> bytes | None:
    try:
        return dataset.example(split, index)
    except Exception:  # `fetch` reports the cause.
        return None


def _are_paths(dataset: Dataset, name: str, places: Sequence[tuple[str, int]]) -> bool:
    """Returns whether the first readable example holds a path instead of a video."""
    kind = features.kind_of(dataset.features[name])
    if kind != features.BYTES:
        return kind == features.PATH
    found = (_readable(dataset, *place) for place in places[:_TRIED])
    example = next((example for example in found if example is not None), None)
    value = b"\0" if example is None else dataset.value(example, name)
    try:
        return len(value) <= _LONGEST_PATH and value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _plain(value: Any) -> Any:
    """Returns a value with JSON types."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return [_plain(part) for part in value] if isinstance(value, list) else value
