"""Prepared clips as a TFDS dataset: the features of a clip, and TFDS's metadata.

Axes: `frames`, the sampled ones; `height`, `width`, of the upright picture.
"""

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core.splits import SplitDict

from vidsme_jax.base import Frames, MotionStatistics
from vidsme_jax.clock import Clock
from vidsme_jax.data import features as checked_features
from vidsme_jax.prepared.layout import NAME, SPLIT, Shard, Variant
from vidsme_jax.store import facts

_UNKNOWN = Clock(times=(), shown=(), duration=0.0)


def features(variant: Variant) -> tfds.features.FeaturesDict:
    """Returns the stored features. float64 is stored as bytes: TFDS would round it."""
    f = tfds.features
    coding = "jpeg" if variant.jpeg_quality else "png"
    real = f.Tensor(shape=(), dtype=np.float64, encoding=f.Encoding.BYTES)
    seconds = f.Tensor(shape=(None,), dtype=np.float64, encoding=f.Encoding.BYTES)
    count = f.Scalar(np.int64)
    picture = f.Image(shape=(None, None, 3), encoding_format=coding)
    return f.FeaturesDict(
        {
            "frames": f.Sequence(picture),
            "indices": f.Sequence(count),
            "height": count,
            "width": count,
            "flow_variance": real,
            "brightness_std": real,
            "content_hash": f.Text(),
            "times": seconds,  # Of the clock; empty if unknown.
            "shown": seconds,
            "duration": real,
            "warnings": f.Sequence(f.Text()),
            "container": f.Text(),  # As JSON.
            "rows": f.Text(),
        }
    )


def encode(
    frames: Frames, motion: MotionStatistics, variant: Variant
) -> dict[str, Any]:
    """Returns an example of `features`; its rows are set when shards are written."""
    if variant.jpeg_quality:
        suffix, flags = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, variant.jpeg_quality]
    else:
        suffix, flags = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]
    bgr = (cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames.pixels)
    pictures = [cv2.imencode(suffix, frame, flags)[1].tobytes() for frame in bgr]
    clock = frames.clock or _UNKNOWN
    return {
        "frames": [io.BytesIO(picture) for picture in pictures],
        "indices": list(frames.indices),
        "height": frames.pixels.shape[1],
        "width": frames.pixels.shape[2],
        **vars(motion),
        "content_hash": frames.content_hash,
        "times": np.array(clock.times),
        "shown": np.array(clock.shown),
        "duration": clock.duration,
        "warnings": list(frames.warnings),
        "container": facts.text_of(frames.container),
        "rows": "",
    }


def decode(record: dict[str, Any]) -> tuple[Frames, MotionStatistics]:
    """Decodes a record of the data source; the inverse of `encode`.

    Raises:
      ValueError: Its times are invalid.
    """
    frames = Frames(
        pixels=np.stack(record["frames"]),
        indices=tuple(int(index) for index in record["indices"]),
        content_hash=record["content_hash"].decode(),
        clock=_clock(record),
        warnings=tuple(text.decode() for text in record["warnings"]),
        container=facts.container_of(record["container"].decode()),
    )
    motion = (float(record[key]) for key in ("flow_variance", "brightness_std"))
    return frames, MotionStatistics(*motion)


def _clock(record: dict[str, Any]) -> Clock | None:
    """Returns the clock of a record; raises a `ValueError` if it is invalid."""
    times, shown = record["times"].tolist(), record["shown"].tolist()
    duration = float(record["duration"])
    if not times and not shown:
        return None
    if not len(times) == len(shown) == len(record["indices"]):
        count = len(record["indices"])
        raise ValueError(f"{len(times)} and {len(shown)} times of {count} frames")
    if not np.isfinite([*times, *shown, duration]).all():
        raise ValueError("a time of a frame is not finite")
    return Clock(times=tuple(times), shown=tuple(shown), duration=duration)


def describe(
    folder: pathlib.Path,
    version: str,
    variant: Variant,
    lengths: Sequence[int],
    size: int,
) -> None:
    """Writes the metadata with which TFDS opens a folder of shards.

    `lengths` are the numbers of records of the shards, `size` is their total in bytes.
    """
    identity = dataset_info.DatasetIdentity(
        NAME, tfds.core.Version(version), str(folder), "", config_name=variant.name
    )
    quality = variant.jpeg_quality
    coding = f"JPEG of quality {quality}" if quality else "PNG, lossless"
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(variant),
        description=(
            "Video clips for a membership-inference audit by vidsme_jax: "
            f"{variant.num_frames} frames, sampling {variant.sampling}, as {coding}; "
            "motion statistics from the frames as they were decoded; `rows` holds the "
            "manifests' rows as JSON."
        ),
    )
    info.set_file_format("array_record")
    template = tfds.core.ShardedFileTemplate(
        epath.Path(folder),
        dataset_name=NAME,
        split=SPLIT,
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(SPLIT, list(lengths), size, template)
    info.set_splits(SplitDict([split]))
    info.write_to_directory(folder)


def counts(folder: pathlib.Path) -> list[int] | None:
    """Returns the number of records of each shard by the metadata of `describe`.

    None if the metadata is damaged, or names other files than the shards.
    """
    try:
        checked_features.features_of(folder)  # TFDS would import any module.
        info: Any = tfds.builder_from_directory(folder).info
        about = info.splits[SPLIT]
        lengths, files = list(about.shard_lengths), list(map(str, about.filepaths))
    except Exception:  # TFDS raises many kinds.
        return None
    numbers = range(len(lengths))
    shards = [str(Shard(folder, k, len(lengths)).records) for k in numbers]
    right = info.file_format == tfds.core.FileFormat.ARRAY_RECORD and files == shards
    return lengths if right else None
