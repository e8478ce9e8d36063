"""Numbered Parquet files with one record of settings: what is computed once and kept.

A part is written under a temporary name, synced and renamed, so that it is either whole
or absent. Each part, and a JSON record beside them, holds the settings that its content
depends on, so that content of other settings is refused wherever it comes from.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.base import AuditError
from vidsme_jax.store import files, regular
from vidsme_jax.store.texts import storable

_SETTINGS = b"vidsme_jax.settings"  # Of a part's metadata.
_READERS = 8  # Threads that read the parts when a folder is opened.
_NAME = re.compile(r"part-([0-9]{6}|[1-9][0-9]{6,17})\.parquet")
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
        files.write_atomically(self.path, json.dumps(settings, indent=2).encode())

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


class Parts:
    """A folder of parts; several processes may write to it, each its own numbers.

    All of them open it before one of them writes.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        kind: Kind,
        remember: Callable[[int, pa.Table], None],
        process: int = 0,
        processes: int = 1,
    ):
        """Opens the folder, making it if absent, and checks every part.

        Args:
          folder: Of the parts.
          settings: JSON-ready; what the content depends on.
          kind: Of the content.
          remember: Receives the number and the remembered columns of each part, in
            ascending order, and later of each part that is written.
          process: The place of this process among those that write to the folder.
          processes: How many they are.

        Raises:
          AuditError: The folder holds content of other settings or another format, or
            damaged parts; names each.
          OSError: The folder cannot be made or written.
        """
        self._folder, self._kind, self._remember = folder, kind, remember
        self._settings = json.loads(json.dumps(settings | {"format": kind.format}))
        self._record = kind.record(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
        before = self._record.read()
        if before and (problems := self._problems(before, folder)):
            raise AuditError(problems)
        last = self._look_through()
        if not before:
            self._record.write(self._settings)
        # Each process has numbers of its own, all above those that are there.
        self._next, self._stride = last + 1 + process, processes

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes one part; its texts are stored as `texts.storable`.

        Raises:
          OSError: It cannot be written; the parts that are there stay as they are.
        """
        number, table = self._next, table_of(rows, self._kind.schema)
        about = {_SETTINGS: json.dumps(self._settings, sort_keys=True).encode()}
        write_table(self.path(number), table.replace_schema_metadata(about))
        self._next += self._stride
        self._remember(number, table)

    def read(self, number: int) -> pa.Table:
        """Reads one part.

        Raises:
          AuditError: It is damaged.
        """
        part = self.path(number)
        try:
            with opened(part) as file:
                return self._table(file)
        except ValueError as error:
            raise self.damage(number, error) from error

    def damage(self, number: int, cause: Exception) -> AuditError:
        """Returns that a part has content that no part is written with."""
        return AuditError([damaged(self.path(number), cause, self._kind.remedy)])

    def path(self, number: int) -> pathlib.Path:
        """Returns the file of a part."""
        return self._folder / f"part-{number:06}.parquet"

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

    def _look_through(self) -> int:
        """Remembers what each part holds; returns the largest number, or -1."""

        def look(part: pathlib.Path) -> pa.Table | list[str]:
            try:
                with opened(part) as file:
                    before = _settings_of(file)
                    return self._problems(before, part) or self._table(
                        file, list(self._kind.remembered)
                    )
            except ValueError as error:
                return [damaged(part, error, self._kind.remedy)]

        names = map(_NAME.fullmatch, os.listdir(self._folder))
        numbers = sorted(int(name[1]) for name in names if name)
        problems = []
        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            looked = pool.map(look, map(self.path, numbers))
            for number, found in zip(numbers, looked, strict=True):
                if isinstance(found, list):
                    problems += found
                else:
                    self._remember(number, found)
        if problems:
            raise AuditError(problems)
        return max(numbers, default=-1)


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
    sink = pa.BufferOutputStream()
    # Numbers hardly repeat: a dictionary of them costs a third more bytes.
    how: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}
    pq.write_table(table, sink, write_page_checksum=True, **how)
    files.write_atomically(path, sink.getvalue().to_pybytes())


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
