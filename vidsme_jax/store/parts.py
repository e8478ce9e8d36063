"""Numbered Parquet files with one record of settings: what is computed once and kept.

A part is written under a temporary name, synced and linked to its own, so that it is
either whole or absent, and of two writers of one name the second is refused. Each part,
and a JSON record beside them, holds the settings that its content depends on, so that
content of other settings is refused wherever it comes from. Each also says when it was
written: parts count in that order, whatever their names.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.base import AuditError
from vidsme_jax.store import files, regular
from vidsme_jax.store.texts import storable

_SETTINGS, _WRITTEN = b"vidsme_jax.settings", b"vidsme_jax.written"  # Of a part.
_READERS = 8  # Threads that read the parts when a folder is opened.
_NAME = re.compile(
    r"part-([0-9]{6}|[1-9][0-9]{6,17})(?:-([1-9][0-9]{0,5}-of-[1-9][0-9]{0,5}))?\.parquet"
)
_LATEST = 2**63  # No part is written so late, in nanoseconds.
# Limits of what is read: a part is one batch, and small files can claim to be large.
_MOST_RECORD = _MOST_FOOTER = 1 << 24  # Bytes.
_MOST_ROWS = 1 << 20  # Of a file.
_MOST_LISTED = 20  # Settings that differ.


@dataclasses.dataclass(frozen=True)
class Record:
    """The settings of a folder's content, in a JSON file.

    Attributes:
      path: Of the file.
      difference: The message about a setting that differs: a format string of `where`,
        `key`, `before` and `now`.
      remedy: What to do about a damaged file, or "".
    """

    path: pathlib.Path
    difference: str
    remedy: str = ""

    def read(self) -> dict[str, Any]:
        """Returns the settings, empty if there is no file.

        Raises:
          AuditError: The file is damaged.
        """
        if not self.path.exists():
            return {}
        try:
            with regular.opened(self.path) as file:
                text = file.read(_MOST_RECORD + 1)
            if len(text) > _MOST_RECORD:
                raise ValueError(f"it has more than {_MOST_RECORD >> 20} MiB")
            return _object(text)
        except (OSError, ValueError) as error:
            raise AuditError([damaged(self.path, error, self.remedy)]) from error

    def write(self, settings: dict[str, Any]) -> None:
        """Writes the settings, which must be JSON-ready."""
        files.write_atomically(self.path, _text(settings))

    def create(self, settings: dict[str, Any]) -> None:
        """Writes the settings where there are none yet.

        Raises:
          FileExistsError: Another process has written some.
        """
        files.create(self.path, _text(settings))

    def differences(
        self, before: dict[str, Any], now: dict[str, Any], where: pathlib.Path
    ) -> list[str]:
        """Returns a message for each setting that is not the same, as far as 20."""
        keys = sorted(set(before) | set(now))
        differing = [key for key in keys if before.get(key) != now.get(key)]
        listed = [
            self.difference.format(
                where=where, key=key, before=before.get(key), now=now.get(key)
            )
            for key in differing[:_MOST_LISTED]
        ]
        if more := len(differing) - len(listed):
            listed.append(f"{where}: {more} other settings differ, too")
        return listed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What the parts of a folder hold.

    Attributes:
      noun: Their content in messages, such as "signals".
      format: Raised by hand when numbers or columns change; parts of another format are
        refused.
      schema: Of their columns.
      remembered: The columns that are read when a folder is opened; every row has all.
      remedy: What to do about a damaged part.
    """

    noun: str
    format: int
    schema: pa.Schema
    remembered: tuple[str, ...]
    remedy: str

    def other_format(self, before: dict[str, Any], where: pathlib.Path) -> str:
        """Returns that content with these settings is of another format."""
        return (
            f"{where}: its {self.noun} have format {before.get('format', 0)!r}, this "
            f"version reads format {self.format}; take another --workdir, or "
            "--config.overwrite=true, or make their report with the version that wrote "
            "them"
        )

    def record(self, folder: pathlib.Path) -> Record:
        """Returns the record of a folder."""
        difference = (
            f"{{where}}: its {self.noun} were computed with {{key}} = {{before!r}}, "
            "this run has {now!r}; take another --workdir, or --config.overwrite=true"
        )
        remedy = "delete it, the parts have its content too"
        return Record(folder / "run.json", difference, remedy)


class Writer(NamedTuple):
    """Who writes parts, where others may write to the same folder at the same time.

    Attributes:
      process: The place of this process among those that work on one share together;
        all of them open the folder before one of them writes.
      processes: How many they are.
      share: "" or "I-of-N", which the names of its parts have; other shares may write
        at any time.
    """

    process: int = 0
    processes: int = 1
    share: str = ""

    def name(self, number: int) -> str:
        """Returns the name of a part."""
        return f"part-{number:06}{f'-{self.share}' if self.share else ''}.parquet"


ALONE = Writer()


class Parts:
    """A folder of parts; several processes may write to it, each its own names."""

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        kind: Kind,
        remember: Callable[[int, pa.Table], None],
        writer: Writer = ALONE,
    ):
        """Opens the folder, making it if absent, and checks every part.

        Args:
          folder: Of the parts.
          settings: JSON-ready; what the content depends on.
          kind: Of the content.
          remember: Receives the place of each part in the order in which they were
            written, from 0, and its remembered columns; later those of each part that
            is written.
          writer: Who is going to write.

        Raises:
          AuditError: The folder holds content of other settings or another format, or
            damaged parts; names each.
          OSError: The folder cannot be made or written.
        """
        self._folder, self._kind, self._remember = folder, kind, remember
        self._settings = json.loads(json.dumps(settings | {"format": kind.format}))
        self._record, self._writer = kind.record(folder), writer
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder, f"-{writer.share}.parquet" if writer.share else "")
        before = self._record.read()
        if before and (problems := self._problems(before, folder)):
            raise AuditError(problems)
        self._names: list[str] = []  # Of parts, by place.
        self._written = 0
        own = self._look_through()
        if not before:
            self._create_record()
        # Each process has numbers of its own, all above those that are there.
        self._next = max(own, default=-1) + 1 + writer.process

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes one part; its texts are stored as `texts.storable`.

        Raises:
          FileExistsError: Another process has written it.
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        name, table = self._writer.name(self._next), table_of(rows, self._kind.schema)
        self._written = max(_now(), self._written + 1)
        about = {
            _SETTINGS: json.dumps(self._settings, sort_keys=True).encode(),
            _WRITTEN: str(self._written).encode(),
        }
        try:
            create_table(self._folder / name, table.replace_schema_metadata(about))
        except FileExistsError as error:
            of = f" of share {self._writer.share}" if self._writer.share else ""
            raise FileExistsError(
                error.errno,
                f"another process has written it: two processes write the parts{of}; "
                "stop one of them",
                error.filename,
            ) from error
        self._next += self._writer.processes
        self._names.append(name)
        self._remember(len(self._names) - 1, table)

    def read(self, place: int) -> pa.Table:
        """Reads one part.

        Raises:
          AuditError: It is damaged.
        """
        try:
            with opened(self._folder / self._names[place]) as file:
                return self._table(file)
        except ValueError as error:
            raise self.damage(place, error) from error

    def damage(self, place: int, cause: Exception) -> AuditError:
        """Returns that a part has content that no part is written with."""
        part = self._folder / self._names[place]
        return AuditError([damaged(part, cause, self._kind.remedy)])

    def _create_record(self) -> None:
        """Writes the settings; another process may have done so meanwhile."""
        try:
            self._record.create(self._settings)
        except FileExistsError:
            problems = self._problems(self._record.read(), self._folder)
            if problems:
                raise AuditError(problems) from None

    def _problems(self, before: dict[str, Any], where: pathlib.Path) -> list[str]:
        """Returns why content with these settings is not that of this run."""
        if before.get("format") != self._kind.format:
            return [self._kind.other_format(before, where)]
        return self._record.differences(before, self._settings, where)

    def _table(
        self, file: pq.ParquetFile, columns: list[str] | None = None
    ) -> pa.Table:
        if not file.schema_arrow.equals(self._kind.schema):
            raise ValueError(f"its columns are not those of {self._kind.noun}")
        table = file.read(columns, use_threads=False)
        for name in self._kind.remembered:
            if table.column(name).null_count:
                raise ValueError(f"a row has no {name}")
        return table

    def _look_through(self) -> list[int]:
        """Remembers what each part holds; returns the numbers of this writer's."""

        def look(name: str) -> tuple[int, pa.Table] | list[str]:
            part = self._folder / name
            try:
                with opened(part) as file:
                    before, written = _settings_of(file), _time_of(file)
                    if problems := self._problems(before, part):
                        return problems
                    return written, self._table(file, list(self._kind.remembered))
            except ValueError as error:
                return [damaged(part, error, self._kind.remedy)]

        matches = filter(None, map(_NAME.fullmatch, os.listdir(self._folder)))
        named = sorted((int(each[1]), each[2] or "", each[0]) for each in matches)
        found, problems = [], []
        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            names = [name for _, _, name in named]
            for name, looked in zip(names, pool.map(look, names), strict=True):
                if isinstance(looked, list):
                    problems += looked
                else:
                    found.append((looked[0], name, looked[1]))
        if problems:
            raise AuditError(problems)
        found.sort(key=lambda each: each[0])  # Those of one time stay in their order.
        for place, (written, name, table) in enumerate(found):
            self._names.append(name)
            self._written = max(self._written, written)
            self._remember(place, table)
        return [number for number, share, _ in named if share == self._writer.share]


def damaged(path: pathlib.Path, cause: Exception | str, remedy: str = "") -> str:
    """Returns the message about a damaged file."""
    text = f"{path}: damaged ({' '.join(str(cause).split())})"
    return f"{text}; {remedy}" if remedy else text


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Returns a table of rows by name; all texts in it are `texts.storable`."""
    return pa.Table.from_pylist(
        [{name: _storable(value) for name, value in row.items()} for row in rows],
        schema=schema,
    )


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [storable(text) for text in value]
    return value


def write_table(path: pathlib.Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically, compressed and with checksums.

    Raises:
      OSError: It cannot be written.
    """
    files.write_atomically(path, _parquet(table))


def create_table(path: pathlib.Path, table: pa.Table) -> None:
    """Writes such a file where there is none.

    Raises:
      FileExistsError: There is one.
      OSError: It cannot be written.
    """
    files.create(path, _parquet(table))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; its checksums are verified as it is read.

    Raises:
      ValueError: It is damaged or too large, or cannot be read.
    """
    try:
        _check_footer(path)
        with pq.ParquetFile(
            path,
            page_checksum_verification=True,
            thrift_string_size_limit=_MOST_FOOTER,
            thrift_container_size_limit=_MOST_FOOTER,
        ) as file:
            _check_counts(file.metadata)
            yield file
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ValueError(str(error)) from error


def _check_footer(path: pathlib.Path) -> None:
    """Checks a file before Arrow opens it, which waits for ever at a pipe."""
    with regular.opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        footer = int.from_bytes(file.read(4), "little")
    if footer > min(size, _MOST_FOOTER):
        raise ValueError(f"its footer claims to have {footer} bytes")


def _check_counts(about: pq.FileMetaData) -> None:
    # Not its columns: where they are damaged, Arrow ends the process.
    rows = sum(about.row_group(k).num_rows for k in range(about.num_row_groups))
    if about.num_rows > _MOST_ROWS or about.num_rows < 0:
        raise ValueError(f"it claims to have {about.num_rows} rows")
    if about.num_rows != rows:
        raise ValueError("its groups have not as many rows as it claims")


def _now() -> int:
    """Returns the time, in nanoseconds."""
    return time.time_ns()


def _text(settings: dict[str, Any]) -> bytes:
    return json.dumps(settings, indent=2).encode()


def _time_of(file: pq.ParquetFile) -> int:
    """Returns when a part was written; 0 where it does not say so."""
    written = (file.schema_arrow.metadata or {}).get(_WRITTEN, b"0")
    if not (written.isdigit() and len(written) < 20 and int(written) < _LATEST):
        raise ValueError("its time is none")
    return int(written)


def _settings_of(file: pq.ParquetFile) -> dict[str, Any]:
    written = (file.schema_arrow.metadata or {}).get(_SETTINGS, b"{}")
    try:
        return _object(written)
    except ValueError as error:
        raise ValueError("its settings are not readable") from error


def _object(text: bytes) -> dict[str, Any]:
    """Returns what JSON text says, which must be an object."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not an object")
    return found
