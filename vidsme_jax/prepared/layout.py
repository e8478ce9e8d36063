"""Prepared corpora on disk: a TFDS dataset with the sampled frames of every clip.

    DIR/prepared/uniform_16_png/        a variant: sampling, frames, encoding
      settings.json                     the same, and the number of shards
      1.0.0/                            a complete version, readable by
                                        `tfds.builder_from_directory`
        dataset_info.json, features.json
        prepared-clips.array_record-00000-of-00004
        index-00000-of-00004.parquet    the shard's clips, and failures with causes
      unfinished/, staged/              of an unfinished run; never read

The content hash of a clip determines its shard and position, so that the order does not
depend on how the corpus was built. A version is renamed into place when it is complete.
"""

import dataclasses
import hashlib
import io
import json
import operator
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple, TypedDict, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.addresses import is_url
from vidsme_jax.base import ROLES, AuditError, Item
from vidsme_jax.data import dataset_folders, names, segments
from vidsme_jax.data.reading import Stamp
from vidsme_jax.settings import views
from vidsme_jax.store import tables
from vidsme_jax.store.buckets import Bucket
from vidsme_jax.store.records import Record
from vidsme_jax.store.texts import restored

NAME, SPLIT, INFO = "prepared", "clips", "dataset_info.json"
REMEDY = "`vidsme prepare` with the same configuration prepares"
_FORMAT = 5  # Incremented by hand when the stored format changes; others are refused.
MOST_SHARDS = 4096
_MOST_BYTES, _MOST_CLIPS = 1 << 30, 5_000_000  # Limits of an index.
_VERSION = re.compile(r"1\.(0|[1-9][0-9]{0,17})\.0")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TAIL = 1 << 16  # Bytes at the end of a shard whose hash is in its index.
_SCHEMA = pa.schema([(n, pa.string()) for n in "digest rows stage cause".split()])

Place = pathlib.Path | Bucket
P = TypeVar("P", pathlib.Path, Bucket, Place)


def root_of(name: str | pathlib.Path) -> Place:
    """Returns the folder or bucket of prepared corpora named in the configuration.

    Raises:
      AuditError: It is a URL that cannot be used.
    """
    text = str(name)
    return Bucket(text) if is_url(text) else names.configured(text)


def subfolder(place: P, name: str) -> P:
    """Returns a subfolder of a folder or bucket."""
    return place.folder(name) if isinstance(place, Bucket) else place / name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """How clips are prepared; one folder may hold several variants.

    Attributes:
      sampling: See `sampling.frame_indices`, as for the next two.
      num_frames: T.
      fps: 0 if the sampling does not use it.
      jpeg_quality: 1 to 100; 0 is lossless PNG.
    """

    sampling: str
    num_frames: int
    fps: float
    jpeg_quality: int

    @classmethod
    def of(cls, settings: views.Settings) -> "Variant":
        """Returns the variant of a run's settings."""
        video = settings.video
        return cls(
            sampling=video.sampling,
            num_frames=video.num_frames,
            fps=float(video.fps) if video.sampling == "fps" else 0.0,
            jpeg_quality=settings.corpus.jpeg_quality,
        )

    @property
    def name(self) -> str:
        """The name of its folder and of the TFDS config."""
        rate = f"{self.fps:g}" if self.fps else ""
        coding = f"jpeg{self.jpeg_quality}" if self.jpeg_quality else "png"
        return f"{self.sampling}{rate}_{self.num_frames}_{coding}"

    def folder(self, root: P) -> P:
        """Returns the variant's folder in a folder of prepared corpora."""
        return subfolder(subfolder(root, NAME), self.name)


class RecordFacts(TypedDict):
    """A fingerprint of a file of records: its size, and the SHA-256 of its end."""

    bytes: int
    tail: str


class Row(NamedTuple):
    """A row of a manifest, its place in the corpus, and the file's stamp."""

    place: int
    stamp: Stamp
    item: Item


@dataclasses.dataclass(frozen=True)
class Entry:
    """A clip in the index of its shard, prepared or failed.

    Attributes:
      digest: See `digest_of`; the SHA-256 of its key if the file cannot be read.
      rows: The rows of the clip.
      stage: Of the failure, "" if it is prepared.
      cause: Of the failure.
    """

    digest: str
    rows: tuple[Row, ...]
    stage: str = ""
    cause: str = ""

    def text(self) -> str:
        """Returns the items of the rows as JSON; equal items give equal text."""
        return _dump([row.item._asdict() for row in self.rows])


def _item(fields: dict[str, Any]) -> Item:
    """Returns an item from its fields in JSON; raises a `ValueError` if invalid."""
    candidates = tuple(fields.pop("candidates"))
    item = Item(**fields, candidates=candidates)
    if not all(isinstance(text, str) for text in (*fields.values(), *candidates)):
        raise ValueError("a field of a row is not text")
    if item.role not in ROLES:
        raise ValueError(f"{item.role[:80]!r} is not a role")
    return item


def _dump(value: Any) -> str:
    """Returns JSON in valid Unicode: lone surrogates are escaped."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text.encode("utf-8", "backslashreplace").decode()


def digest_of(content_hash: str, key: str) -> str:
    """Returns the digest that identifies a prepared clip.

    For a whole file this is its content hash, for a segment the SHA-256 of the content
    hash followed by the fragment of the segment.

    Example:
      >>> digest_of("ab", "a.mp4"), digest_of("ab", "a.mp4#t=1,2")[:8]
      ('ab', 'ba864c27')
    """
    segment = segments.divided(key)[1]
    if segment is None:
        return content_hash
    return hashlib.sha256(f"{content_hash}{segment}".encode()).hexdigest()


# --------------------------------------------------------------------- one shard


def shard_of(digest: str, num_shards: int) -> int:
    """Returns the shard of a clip; shards hold ascending ranges of digests.

    Example:
      >>> shard_of("00000000ff", 4), shard_of("ffffffff00", 4)
      (0, 3)
    """
    return int(digest[:8], 16) * num_shards >> 32


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard of a version: its records, and the index of its clips."""

    folder: pathlib.Path
    number: int
    num_shards: int

    @property
    def records(self) -> pathlib.Path:
        """The array_record file."""
        return self.folder / f"{NAME}-{SPLIT}.array_record-{self._place}"

    @property
    def index(self) -> pathlib.Path:
        """The Parquet file that lists the clips in the records."""
        return self.folder / f"index-{self._place}.parquet"

    @property
    def _place(self) -> str:
        return f"{self.number:05}-of-{self.num_shards:05}"

    def write(self, entries: Sequence[Entry], facts: RecordFacts | None = None) -> None:
        """Writes the index after the records, which completes the shard.

        Args:
          entries: Of its clips.
          facts: Of its records, if these are not local; see `facts_of`.
        """
        facts = facts or _facts(self.records)
        columns = [
            vars(entry)
            | {"rows": _dump([(*r[:2], r.item._asdict()) for r in entry.rows])}
            for entry in entries
        ]
        schema = _SCHEMA.with_metadata({"shard": json.dumps(facts)})
        tables.write(self.index, tables.of_rows(columns, schema))

    def read(self) -> tuple[Entry, ...]:
        """Reads the index and checks the records against it.

        Raises:
          ValueError: A file is missing or damaged; names it.
        """
        entries, facts = self.indexed()
        self.check(facts)
        return entries

    def indexed(self) -> tuple[tuple[Entry, ...], RecordFacts]:
        """Reads the index: the clips, and the facts of their records.

        Raises:
          ValueError: It is missing or damaged.
        """
        index = self.index
        if not index.is_file():
            raise ValueError(f"{index.name} is missing")
        try:
            with tables.opened(index) as file:
                _check_index(file.metadata)
                table = file.read(_SCHEMA.names)
            facts = json.loads((table.schema.metadata or {})[b"shard"])
            operator.index(facts["bytes"])  # Raises for another type.
            return tuple(map(_entry, table.to_pylist())), facts
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{index.name} is damaged ({error})") from error

    def check(self, known: RecordFacts) -> None:
        """Checks the records against the facts in the index.

        Raises:
          ValueError: They are missing, or do not match.
        """
        records = self.records
        if not records.is_file():
            raise ValueError(f"{records.name} is missing")
        facts, problem = _facts(records), ""
        if facts["bytes"] != known["bytes"]:
            size = f"{facts['bytes']} bytes, in its index {known['bytes']}"
            problem = f"has {size}: it was truncated"
        elif facts != known:
            problem = "is not the file that its index describes: it was changed"
        if problem:
            raise ValueError(f"{records.name} {problem}, or belongs to another corpus")


def _check_index(about: pq.FileMetaData) -> None:
    """Raises a `ValueError` if an index would take too much memory."""
    groups = map(about.row_group, range(about.num_row_groups))
    size = sum(group.total_byte_size for group in groups)
    if size > _MOST_BYTES or about.num_rows > _MOST_CLIPS:
        limits = f"at most {_MOST_BYTES} of {_MOST_CLIPS} are read"
        raise ValueError(f"{size} bytes of {about.num_rows} clips; {limits}")


def _entry(about: dict[str, Any]) -> Entry:
    """Returns an entry from a row of an index; raises Python's errors if invalid."""
    rows = []
    for place, at, item in json.loads(restored(about["rows"])):
        size, changed = map(operator.index, at)
        rows.append(Row(operator.index(place), (size, changed), _item(item)))
    cause = restored(about["cause"])
    entry = Entry(about["digest"], tuple(rows), about["stage"], cause)
    if not _DIGEST.fullmatch(entry.digest):
        raise ValueError(f"{entry.digest[:80]!r} is not a SHA-256")
    return entry


def facts_of(records: BinaryIO | io.RawIOBase) -> RecordFacts:
    """Returns a cheap fingerprint of an open file of records.

    The end of the file holds the offsets of all records; the data before it has
    checksums, which array_record verifies on reading.
    """
    size = records.seek(0, os.SEEK_END)
    records.seek(max(0, size - _TAIL))
    return {
        "bytes": size,
        "tail": hashlib.sha256(records.read(_TAIL) or b"").hexdigest(),
    }


def _facts(records: pathlib.Path) -> RecordFacts:
    with records.open("rb") as file:
        return facts_of(file)


# ------------------------------------------------------------------ whole corpora


def record(folder: pathlib.Path) -> Record:
    """Returns the record of a variant's settings."""
    return Record(
        folder / "settings.json",
        "{where}: its settings.json says {key} = {before!r}; this run has {now!r}",
    )


def write_settings(folder: pathlib.Path, variant: Variant, num_shards: int) -> None:
    """Writes the settings of a variant to its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"format": _FORMAT, "num_shards": num_shards}
    record(folder).write(dataclasses.asdict(variant) | about)


def check_settings(
    folder: pathlib.Path, variant: Variant, where: str | None = None
) -> int:
    """Checks the settings of a variant; returns the number of shards.

    Args:
      folder: Of the variant.
      variant: The expected variant.
      where: The name of the folder in messages, if it is a copy.

    Raises:
      AuditError: The settings are damaged, or differ; lists every difference.
    """
    settings, where = record(folder), where or str(folder)
    try:
        if settings.path.exists():
            dataset_folders.check_size(settings.path)
    except (OSError, ValueError) as error:
        raise AuditError([f"{where}: {error}"]) from error
    try:
        found = settings.read()
    except AuditError as error:
        problems = [problem.replace(str(folder), where) for problem in error.problems]
        raise AuditError(problems) from error
    num_shards = found.pop("num_shards", 0)
    if found.get("format") != _FORMAT:
        problem = (
            f"{where}: its clips have format {found.get('format')}, this version "
            f"reads format {_FORMAT}; prepare them again in another folder"
        )
        raise AuditError([problem])
    wanted = dataclasses.asdict(variant) | {"format": _FORMAT}
    if problems := settings.differences(found, wanted, where):
        raise AuditError(problems)
    if type(num_shards) is not int or not 1 <= num_shards <= MOST_SHARDS:
        problem = f"{where}/{settings.path.name}: num_shards is {str(num_shards)[:80]}"
        raise AuditError([f"{problem}; it must be a number from 1 to {MOST_SHARDS}"])
    return num_shards


def versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the complete versions of a variant, the newest last."""
    matches = (_VERSION.fullmatch(path.name) for path in folder.glob("1.*.0"))
    numbers = sorted(int(match[1]) for match in matches if match)
    return [folder / f"1.{number}.0" for number in numbers]


def newest(root: pathlib.Path, variant: Variant) -> pathlib.Path:
    """Returns the newest complete version of a variant.

    Raises:
      AuditError: There is none.
    """
    if found := versions(variant.folder(root)):
        return found[-1]
    if not root.is_dir():
        near = names.near(root)
        raise AuditError([f"corpus.prepared: no such folder: {root}{near}"])
    others = sorted(p.parents[1].name for p in root.glob(f"{NAME}/*/1.*.0/*.json"))
    there = ", ".join(dict.fromkeys(others)) or "nothing"
    problem = f"{root} has no clips prepared as {variant.name}"
    raise AuditError([f"corpus.prepared: {problem} (it has {there}); {REMEDY} them"])
