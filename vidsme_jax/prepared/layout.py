"""Prepared corpora on disk: the frames of every clip, decoded once, a TFDS dataset.

    DIR/prepared/uniform_16_png/        a variant: sampling, frames, encoding
      settings.json                     the same, and the number of shards
      1.0.0/                            whole: `tfds.builder_from_directory` opens it
        dataset_info.json, features.json
        prepared-clips.array_record-00000-of-00004
        index-00000-of-00004.parquet    who is in the shard, who failed and why
      unfinished/, staged/              of a run that has not ended; nobody reads them

The content hash of a clip decides its shard and its place, so that the order is the
same however the corpus was built. A version is renamed into place when it is whole.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ml_collections import ConfigDict

from vidsme_jax.base import AuditError, Item
from vidsme_jax.store.files import write_atomically

NAME, SPLIT = "prepared", "clips"
_FORMAT = 1  # Of the folder; a later one is refused.
_TAIL = 1 << 16  # Bytes at the end of a shard that its index knows the hash of.
_SCHEMA = pa.schema(
    [(n, pa.string()) for n in "key rows places files stage cause".split()]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """How clips are prepared; several variants live side by side in one folder.

    Attributes:
      sampling: See `sampling.frame_indices`, as for the next two.
      num_frames: T.
      fps: 0 where the sampling does not read it.
      jpeg_quality: 1 to 100; 0 is lossless PNG.
    """

    sampling: str
    num_frames: int
    fps: float
    jpeg_quality: int

    @classmethod
    def of(cls, config: ConfigDict) -> "Variant":
        """The variant that a configuration asks for."""
        video: Any = config.video
        corpus: Any = config.corpus
        return cls(
            sampling=video.sampling,
            num_frames=video.num_frames,
            fps=float(video.fps) if video.sampling == "fps" else 0.0,
            jpeg_quality=corpus.jpeg_quality,
        )

    @property
    def name(self) -> str:
        """Of the folder, which is the name of a TFDS config."""
        rate = f"{self.fps:g}" if self.fps else ""
        coding = f"jpeg{self.jpeg_quality}" if self.jpeg_quality else "png"
        return f"{self.sampling}{rate}_{self.num_frames}_{coding}"

    def folder(self, root: pathlib.Path) -> pathlib.Path:
        """Where the variant is, or would be, in a folder of prepared corpora."""
        return root / NAME / self.name


@dataclasses.dataclass(frozen=True)
class Entry:
    """A clip in the index of its shard, prepared or failed.

    Attributes:
      key: SHA-256 of the video's content, or of its name where it cannot be read.
      rows: JSON: the rows of the manifests that name the clip, each an `Item`.
      places: JSON: where in the corpus each of these rows is.
      files: JSON: size and time of change of each of its files, by path.
      stage: Of the failure, "" if it is prepared.
      cause: Of the failure.
    """

    key: str
    rows: str
    places: str
    files: str
    stage: str = ""
    cause: str = ""


def rows_text(items: Sequence[Item]) -> str:
    """The rows of a clip as JSON."""
    rows = [dataclasses.asdict(item) | {"path": str(item.path)} for item in items]
    return dump(rows)


def dump(value: Any) -> str:
    """JSON of which there is one for each value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


# --------------------------------------------------------------------- one shard


def shard_of(key: str, num_shards: int) -> int:
    """The shard of a clip; shards hold ascending ranges of keys."""
    return int(key[:8], 16) * num_shards >> 32


def shard_files(
    folder: pathlib.Path, shard: int, num_shards: int
) -> tuple[pathlib.Path, pathlib.Path]:
    """The records and the index of a shard."""
    place = f"{shard:05}-of-{num_shards:05}"
    records = folder / f"{NAME}-{SPLIT}.array_record-{place}"
    return records, folder / f"index-{place}.parquet"


def write_index(
    folder: pathlib.Path, shard: int, num_shards: int, entries: Sequence[Entry]
) -> None:
    """Writes the index of a shard whose records are in place: now it is whole."""
    records, index = shard_files(folder, shard, num_shards)
    about = json.dumps(_facts(records))
    columns = [dataclasses.asdict(entry) for entry in entries]
    table = pa.Table.from_pylist(
        columns, schema=_SCHEMA.with_metadata({"shard": about})
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_atomically(index, sink.getvalue().to_pybytes())


def read_index(folder: pathlib.Path, shard: int, num_shards: int) -> list[Entry]:
    """Reads the index of a shard and checks the records against it.

    Raises:
      ValueError: Says what is wrong with which file.
    """
    records, index = shard_files(folder, shard, num_shards)
    if not index.is_file():
        raise ValueError(f"{index.name} is missing")
    try:
        table = pq.ParquetFile(index, page_checksum_verification=True).read()
        rows = table.to_pylist()
        known = json.loads(table.schema.metadata[b"shard"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index.name} is damaged ({error})") from error
    if not records.is_file():
        raise ValueError(f"{records.name} is missing")
    if (size := records.stat().st_size) != known["bytes"]:
        raise ValueError(
            f"{records.name} has {size} bytes, its index says {known['bytes']}: it was "
            "cut, or belongs to another corpus"
        )
    if _facts(records) != known:
        raise ValueError(
            f"{records.name} is not the file that its index describes: it was changed, "
            "or belongs to another corpus"
        )
    return [Entry(**row) for row in rows]


def _facts(records: pathlib.Path) -> dict[str, Any]:
    """What tells a file of records from another at little cost.

    Its end holds the places of all records; the data before have checksums of their
    own, which array_record verifies as it reads.
    """
    size = records.stat().st_size
    with records.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        return {"bytes": size, "tail": hashlib.sha256(file.read()).hexdigest()}


# ------------------------------------------------------------------ whole corpora


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
    """What `write_settings` wrote, or {} if there is nothing."""
    path = folder / "settings.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise AuditError([f"{path}: damaged ({error})"]) from error


def write_settings(folder: pathlib.Path, variant: Variant, num_shards: int) -> None:
    """Writes down how the clips of a folder are prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.asdict(variant)
    settings |= {"format": _FORMAT, "num_shards": num_shards}
    write_atomically(folder / "settings.json", json.dumps(settings, indent=2).encode())


def check_settings(folder: pathlib.Path, variant: Variant) -> int:
    """Returns the number of shards, or says what is not as it was asked for."""
    found = read_settings(folder)
    wanted = dataclasses.asdict(variant) | {"format": _FORMAT}
    problems = [
        f"{folder}: its settings.json says {key} = {found.get(key)!r}; this run has "
        f"{value!r}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if problems:
        raise AuditError(problems)
    return found["num_shards"]


def versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """The whole versions of a variant, the newest last."""
    found = [path for path in folder.glob("1.*.0") if path.name.split(".")[1].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split(".")[1]))


def file_stamp(path: pathlib.Path) -> list[int] | None:
    """Size and time of change in ns; None for what is not a file that is there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
