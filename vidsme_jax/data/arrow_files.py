"""One file of a dataset, Arrow or Parquet: columns of text at once, videos one by one.

An Arrow file is memory-mapped, so only the requested data is read. Of a Parquet file
the values up to the requested one are read, from the start of its row group or from the
value read last. Data is validated before it is converted to Python objects.
"""

import bisect
import contextlib
import functools
import itertools
import os
import pathlib
import stat
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.data import hub_features, parquet
from vidsme_jax.data.parquet import Check, arrow_errors

_MOST_COLUMNS = 10_000
_MOST_BYTES = 1 << 30  # Of the columns read at once.
_END = b"\xff\xff\xff\xff\0\0\0\0"  # The end of an Arrow stream.
_PARQUET = b"PAR1"  # The magic number of Parquet.
_AHEAD = 1 << 20  # Bytes of a Parquet file read at a time.
_LOCK = threading.Lock()  # Guards `_LAST`, the one row group that is open.
_LAST: dict[tuple[pathlib.Path, str, int], tuple[Iterator[pa.RecordBatch], int]] = {}

Media = tuple[bool, str | None]  # Whether there are bytes; the path.


class ArrowFile:
    """An Arrow stream, as `datasets` saves and caches it."""

    def __init__(self, path: pathlib.Path):
        """Reads the schema.

        Raises:
          ValueError: The file is damaged or cut short.
        """
        self._path = path
        with arrow_errors(), self._opened([]) as (file, stream):
            self.schema = stream.schema
            _check_names(self.schema)
            file.seek(max(0, file.size() - len(_END)))
            if file.read(len(_END)) != _END:
                raise ValueError(f"{path.name} is cut short: its end is missing")

    def count(self) -> int:
        """Returns the number of rows."""
        simple = (f.name for f in self.schema if not hub_features.may_be_large(f.type))
        name = next(simple, self.schema.names[0])
        return sum(batch.num_rows for batch in self._batches([name]))

    def rows(self, columns: list[str], check: Check) -> Iterator[dict[str, Any]]:
        """Yields the rows of the given columns; see `parquet.rows`."""
        size = 0
        for batch in self._batches(columns):
            size += batch.nbytes
            check("bytes in its texts", size, _MOST_BYTES)
            lists = []
            for name in columns:
                with arrow_errors():
                    batch[name].validate(full=True)
                    chunks = pa.chunked_array([batch[name]])
                lists.append(parquet.values(name, chunks, check))
            for row in zip(*lists, strict=True):
                yield dict(zip(columns, row, strict=True))

    def media(self, column: str, check: Check) -> Iterator[Media]:
        """Yields, for each row, whether a column has bytes, and its path."""
        del check  # A path takes as much memory as disk.
        for batch in self._batches([column]):
            with arrow_errors():
                found = _media(batch[column])
            yield from found

    def value(self, column: str, row: int) -> Any:
        """Reads one value; see `_value`."""
        before = 0
        for batch in self._batches([column]):
            if row < before + batch.num_rows:
                with arrow_errors():
                    return _value(batch[column].slice(row - before, 1))
            before += batch.num_rows
        raise ValueError(f"{self._path.name} has {before} rows, no row {row}")

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yields batches of the columns; checks their length against the file size."""
        places = [self.schema.get_field_index(name) for name in columns]
        with arrow_errors(), self._opened(places) as (file, stream):
            for batch in stream:
                batch.validate()
                if batch.num_rows > file.size():
                    claim = f"{batch.num_rows} rows in {file.size()} bytes"
                    raise ValueError(f"{self._path.name} claims {claim}")
                yield batch

    @contextlib.contextmanager
    def _opened(self, places: list[int]) -> Generator[tuple[Any, Any], None, None]:
        options = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
        with pa.memory_map(str(self._path)) as file:
            with pa.ipc.open_stream(file, options=options) as stream:
                yield file, stream


class ParquetFile:
    """A Parquet file, as on the hub."""

    def __init__(self, path: pathlib.Path):
        """Reads the schema.

        Raises:
          ValueError: The file is damaged.
        """
        self._path = path
        with arrow_errors(), pq.ParquetFile(path) as file:
            self.schema, about = file.schema_arrow, file.metadata
            _check_names(self.schema)
            groups = range(about.num_row_groups)
            self._sizes = [about.row_group(k).num_rows for k in groups]

    def count(self) -> int:
        """Returns the number of rows."""
        return sum(self._sizes)

    def rows(self, columns: list[str], check: Check) -> Iterator[dict[str, Any]]:
        """Yields the rows of the given columns; see `parquet.rows`."""
        return parquet.rows(self._path, columns, check)

    def media(self, column: str, check: Check) -> Iterator[Media]:
        """Yields, for each row, whether a column has bytes, and its path."""
        if not hub_features.is_media(self.schema.field(column).type):
            yield from ((there, None) for there in self._there(column))
            return
        path, there = f"{column}.path", self._there(f"{column}.bytes")
        for row in parquet.rows(self._path, [path], check):
            yield next(there, False), row[path]

    def value(self, column: str, row: int) -> Any:
        """Reads one value; see `_value`."""
        ends = list(itertools.accumulate(self._sizes))
        if not 0 <= row < self.count():
            raise ValueError(f"{self._path.name} has {self.count()} rows, no row {row}")
        group = bisect.bisect_right(ends, row)
        row -= ends[group] - self._sizes[group]
        media = hub_features.is_media(self.schema.field(column).type)
        leaf = f"{column}.bytes" if media else column
        with _LOCK, arrow_errors():
            values, at = _LAST.pop((self._path, leaf, group), (None, 0))
            _LAST.clear()
            if values is None or at > row:
                values, at = self._values(leaf, group), 0
            for place, batch in enumerate(values, at):
                if place == row:
                    _LAST[self._path, leaf, group] = values, row + 1
                    return _value(batch.column(0))
        raise ValueError(f"{self._path.name} is damaged: row group {group} is short")

    def _values(self, leaf: str, group: int) -> Iterator[pa.RecordBatch]:
        options: dict[str, Any] = {"pre_buffer": False, "buffer_size": _AHEAD}
        with pq.ParquetFile(self._path, **options) as file:
            yield from file.iter_batches(
                1, row_groups=[group], columns=[leaf], use_threads=False
            )

    def _there(self, leaf: str) -> Iterator[bool]:
        """Yields whether each row has a value, from the statistics where possible."""
        with arrow_errors(), pq.ParquetFile(self._path) as file:
            about, names = file.metadata, range(file.metadata.num_columns)
            place = next(k for k in names if file.schema.column(k).path == leaf)
            known = []
            for group, size in enumerate(self._sizes):
                found = about.row_group(group).column(place).statistics
                counts = found is not None and found.has_null_count
                known.append((size, found.null_count if found and counts else None))
        for group, (size, nulls) in enumerate(known):
            if nulls in (0, size):
                yield from [nulls == 0] * size
                continue
            with arrow_errors():
                for batch in self._values(leaf, group):
                    yield from _flat(batch.column(0)).is_valid().to_pylist()


File = ArrowFile | ParquetFile


def open_file(path: pathlib.Path) -> File:
    """Opens a file of a dataset; unchanged files are cached.

    Raises:
      ValueError: It is damaged, or of a type that Arrow does not read.
      OSError: It cannot be read.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is not a regular file")
    return _open_file(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _open_file(path: pathlib.Path, size: int, changed: int) -> File:
    """Opens a file by its magic number: names in the hub's cache have no suffix."""
    del size, changed
    with path.open("rb") as file:
        is_parquet = file.read(len(_PARQUET)) == _PARQUET
    return ParquetFile(path) if is_parquet else ArrowFile(path)


def _check_names(schema: pa.Schema) -> None:
    names = schema.names
    if not names:
        raise ValueError("it has no columns")
    if len(names) > _MOST_COLUMNS:
        raise ValueError(f"it has {len(names)} columns; at most {_MOST_COLUMNS}")
    if len(set(names)) < len(names):
        raise ValueError("it has several columns of the same name")


def _flat(array: pa.Array) -> pa.Array:
    """Returns the innermost field of nested structs of one field."""
    while pa.types.is_struct(array.type):
        array = array.flatten()[0]
    return array


def _media(array: pa.Array) -> list[Media]:
    """Returns, for each value, whether it has bytes, and its path."""
    if not hub_features.is_media(array.type):
        return [(there, None) for there in array.is_valid().to_pylist()]
    inside = dict(zip([f.name for f in array.type], array.flatten(), strict=True))
    paths = inside["path"]
    paths.validate(full=True)
    there = inside["bytes"].is_valid().to_pylist()
    return list(zip(there, paths.to_pylist(), strict=True))


def _value(one: pa.Array) -> Any:
    """Returns the value of an array of length 1: bytes, text, a list of bytes, or None.

    For a struct of bytes and path this is the bytes.

    Raises:
      ValueError: It is damaged.
    """
    if hub_features.is_media(one.type):
        one = one.flatten()[[f.name for f in one.type].index("bytes")]
    one = _flat(one)
    one.validate(full=True)
    value = one[0].as_py()
    if isinstance(value, list):
        inside = (each if isinstance(each, dict) else {} for each in value)
        return [each.get("bytes") for each in inside]
    return value
