"""The TFDS builder of prepared clips: what is stored of a clip, what TFDS must know.

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
from tensorflow_datasets.core.splits import SplitDict
from tensorflow_datasets.proto import tf_example_pb2

from vidsme_jax.base import Frames, MotionStatistics
from vidsme_jax.prepared.layout import NAME, SPLIT, Variant


def features(variant: Variant) -> tfds.features.FeaturesDict:
    """What is stored of a clip. float64 goes as bytes: TFDS would round it."""
    f = tfds.features
    coding = "jpeg" if variant.jpeg_quality else "png"
    real = f.Tensor(shape=(), dtype=np.float64, encoding=f.Encoding.BYTES)
    count = f.Scalar(np.int64)
    return f.FeaturesDict(
        {
            "frames": f.Sequence(
                f.Image(shape=(None, None, 3), encoding_format=coding)
            ),
            "indices": f.Sequence(count),
            "height": count,
            "width": count,
            "flow_variance": real,
            "brightness_std": real,
            "content_hash": f.Text(),
            "warnings": f.Sequence(f.Text()),
            "rows": f.Text(),
        }
    )


def encode(
    frames: Frames, motion: MotionStatistics, variant: Variant
) -> dict[str, Any]:
    """What `features` stores; the rows are filled in when shards are written."""
    if variant.jpeg_quality:
        how = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, variant.jpeg_quality])
    else:
        how = (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1])
    pictures = []
    for frame in frames.pixels:
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        pictures.append(io.BytesIO(cv2.imencode(how[0], bgr, how[1])[1].tobytes()))
    return {
        "frames": pictures,
        "indices": list(frames.indices),
        "height": frames.pixels.shape[1],
        "width": frames.pixels.shape[2],
        "flow_variance": motion.flow_variance,
        "brightness_std": motion.brightness_std,
        "content_hash": frames.content_hash,
        "warnings": list(frames.warnings),
        "rows": "",
    }


def decode(record: dict[str, Any]) -> tuple[Frames, MotionStatistics]:
    """The inverse of `encode`, from a record of the data source."""
    frames = Frames(
        pixels=np.stack(record["frames"]),
        indices=tuple(int(index) for index in record["indices"]),
        content_hash=record["content_hash"].decode(),
        warnings=tuple(text.decode() for text in record["warnings"]),
    )
    motion = (float(record[key]) for key in ("flow_variance", "brightness_std"))
    return frames, MotionStatistics(*motion)


def parsed(record: bytes) -> Any:
    """The `tf.train.Example` of a record, which needs no TensorFlow."""
    kind: Any = tf_example_pb2
    return kind.Example.FromString(record)


class PreparedClips(tfds.core.DatasetBuilder, skip_registration=True):
    """The TFDS builder of a version, whose shards are written already."""

    name = NAME

    def __init__(self, variant: Variant, version: str, folder: pathlib.Path):
        self._variant = variant
        self.VERSION = tfds.core.Version(version)
        config = tfds.core.BuilderConfig(name=variant.name, version=version)
        super().__init__(data_dir=folder, config=config)

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config  # TFDS warns of any that its class does not list.

    def _info(self) -> tfds.core.DatasetInfo:
        quality = self._variant.jpeg_quality
        coding = f"JPEG of quality {quality}" if quality else "PNG, lossless"
        return tfds.core.DatasetInfo(
            builder=self,
            features=features(self._variant),
            description=(
                "Video clips for a membership-inference audit by vidsme_jax: "
                f"{self._variant.num_frames} frames, sampling "
                f"{self._variant.sampling}, as {coding}; motion statistics from the "
                "frames as they were decoded; `rows` holds the manifests' rows as JSON."
            ),
        )

    def _download_and_prepare(self, *_: object, **__: object) -> None:
        raise NotImplementedError("`python -m vidsme_jax.prepare` does this.")

    def _as_dataset(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("Use as_data_source.")


def describe(
    folder: pathlib.Path,
    version: str,
    variant: Variant,
    lengths: Sequence[int],
    size: int,
) -> None:
    """Writes the files by which TFDS opens a folder of shards."""
    info = PreparedClips(variant, version, folder).info
    info.set_file_format("array_record")
    template = tfds.core.ShardedFileTemplate(
        dataset_name=NAME,
        data_dir=epath.Path(folder),
        split=SPLIT,
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=list(lengths),
        num_bytes=size,
        filename_template=template,
    )
    info.set_splits(SplitDict([split]))
    info.write_to_directory(folder)


def counts(folder: pathlib.Path) -> list[int] | None:
    """The records of each shard by what `describe` wrote; None if it is damaged."""
    try:
        info = tfds.builder_from_directory(folder).info
        return list(info.splits[SPLIT].shard_lengths)
    except Exception:  # TFDS raises many kinds.
        return None
