"""One file of a dataset, Arrow or Parquet: columns of text at once, videos one by one.

A file of Arrow is mapped into memory, so that what is not asked for is not read; of one
of Parquet the part is read that leads to the value, from the beginning of its group of
rows or from the value that was read last. What is read is checked before Python is
given any of it.
"""

import bisect
import contextlib
import functools
import itertools
import os
import pathlib
import stat
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.data import hub_features, parquet
from vidsme_jax.data.parquet import Check

_MOST_COLUMNS = 10_000
_MOST_BYTES = 1 << 30  # Of the columns that are read at once.
_END = b"\xff\xff\xff\xff\0\0\0\0"  # Of a stream of Arrow.
_PARQUET = b"PAR1"  # How a file of Parquet begins.
_AHEAD = 1 << 20  # Bytes that are read of a file of Parquet at a time.
_LOCK = threading.Lock()  # One group of rows is in memory at a time: the last one.
_LAST: dict[tuple[pathlib.Path, str, int], tuple[Iterator[Any], int]] = {}

Media = tuple[bool, str | None]


class ArrowFile:
    """A stream of Arrow, as `datasets` saves and caches them."""

    def __init__(self, path: pathlib.Path):
        """Reads the schema; raises a ValueError if there is none."""
        self._path = path
        with _of_arrow(), self._opened([]) as (file, stream):
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
        """Yields the rows of some columns; see `parquet.rows`."""
        size = 0
        for batch in self._batches(columns):
            size += batch.nbytes
            check("bytes in its texts", size, _MOST_BYTES)
            lists = []
            for name in columns:
                with _of_arrow():
                    batch[name].validate(full=True)
                    chunks = pa.chunked_array([batch[name]])
                lists.append(parquet.values(name, chunks, check))
            for row in zip(*lists, strict=True):
                yield dict(zip(columns, row, strict=True))

    def media(self, column: str, check: Check) -> Iterator[Media]:
        """Yields of each row whether a column has bytes, and the path that it has."""
        del check  # A path takes as much in memory as in the file.
        for batch in self._batches([column]):
            with _of_arrow():
                found = _media(batch[column])
            yield from found

    def value(self, column: str, row: int) -> Any:
        """Reads one value; see `_value`."""
        before = 0
        for batch in self._batches([column]):
            if row < before + batch.num_rows:
                with _of_arrow():
                    return _value(batch[column].slice(row - before, 1))
            before += batch.num_rows
        raise ValueError(f"{self._path.name} has {before} rows, no row {row}")

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        """Yields some columns, whose lengths are those that the file can have."""
        places = [self.schema.get_field_index(name) for name in columns]
        with _of_arrow(), self._opened(places) as (file, stream):
            for batch in stream:
                batch.validate()
                if batch.num_rows > file.size():
                    claim = f"{batch.num_rows} rows in {file.size()} bytes"
                    raise ValueError(f"{self._path.name} claims {claim}")
                yield batch

    @contextlib.contextmanager
    def _opened(self, places: list[int]) -> Iterator[tuple[Any, Any]]:
        how = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
        with pa.memory_map(str(self._path)) as file:
            with pa.ipc.open_stream(file, options=how) as stream:
                yield file, stream


class ParquetFile:
    """A file of Parquet, as they are on the hub."""

    def __init__(self, path: pathlib.Path):
        """Reads the schema; raises a ValueError if there is none."""
        self._path = path
        with _of_arrow(), pq.ParquetFile(path) as file:
            self.schema, about = file.schema_arrow, file.metadata
            _check_names(self.schema)
            groups = range(about.num_row_groups)
            self._sizes = [about.row_group(k).num_rows for k in groups]

    def count(self) -> int:
        """Returns the number of rows."""
        return sum(self._sizes)

    def rows(self, columns: list[str], check: Check) -> Iterator[dict[str, Any]]:
        """Yields the rows of some columns; see `parquet.rows`."""
        return parquet.rows(self._path, columns, check)

    def media(self, column: str, check: Check) -> Iterator[Media]:
        """Yields of each row whether a column has bytes, and the path that it has."""
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
        with _LOCK, _of_arrow():
            values, at = _LAST.pop((self._path, leaf, group), (None, 0))
            _LAST.clear()
            if values is None or at > row:
                values, at = self._values(leaf, group), 0
            for place, batch in enumerate(values, at):
                if place == row:
                    _LAST[self._path, leaf, group] = values, row + 1
                    return _value(batch.column(0))
        raise ValueError(f"{self._path.name} is damaged: row group {group} is short")

    def _values(self, leaf: str, group: int) -> Iterator[Any]:
        how: dict[str, Any] = {"pre_buffer": False, "buffer_size": _AHEAD}
        with pq.ParquetFile(self._path, **how) as file:
            yield from file.iter_batches(
                1, row_groups=[group], columns=[leaf], use_threads=False
            )

    def _there(self, leaf: str) -> Iterator[bool]:
        """Yields whether each row has a value, by the statistics where they say so."""
        with _of_arrow(), pq.ParquetFile(self._path) as file:
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
            with _of_arrow():
                for batch in self._values(leaf, group):
                    yield from _flat(batch.column(0)).is_valid().to_pylist()


File = ArrowFile | ParquetFile


def opened(path: pathlib.Path) -> File:
    """Opens a file of a dataset; one that has not changed only once.

    Raises:
      ValueError: It is damaged, or holds what Arrow does not read.
      OSError: It cannot be read.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is no regular file")
    return _opened(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _opened(path: pathlib.Path, size: int, changed: int) -> File:
    """Opens a file by how it begins: the hub's cache has names without suffixes."""
    del size, changed
    with path.open("rb") as file:
        is_parquet = file.read(len(_PARQUET)) == _PARQUET
    return ParquetFile(path) if is_parquet else ArrowFile(path)


@contextlib.contextmanager
def _of_arrow() -> Iterator[None]:
    """Raises a ValueError in place of what Arrow says of a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(str(error)) from error


def _check_names(schema: pa.Schema) -> None:
    names = schema.names
    if not names:
        raise ValueError("it has no columns")
    if len(names) > _MOST_COLUMNS:
        raise ValueError(f"it has {len(names)} columns; at most {_MOST_COLUMNS}")
    if len(set(names)) < len(names):
        raise ValueError("it has several columns of one name")


def _flat(array: Any) -> Any:
    """Returns what is innermost of structs of one field."""
    while pa.types.is_struct(array.type):
        array = array.flatten()[0]
    return array


def _media(array: Any) -> list[Media]:
    """Returns of each value whether it has bytes, and its path."""
    if not hub_features.is_media(array.type):
        return [(there, None) for there in array.is_valid().to_pylist()]
    inside = dict(zip([f.name for f in array.type], array.flatten(), strict=True))
    paths = inside["path"]
    paths.validate(full=True)
    there = inside["bytes"].is_valid().to_pylist()
    return list(zip(there, paths.to_pylist(), strict=True))


def _value(one: Any) -> Any:
    """Returns the value of an array of one: bytes, a text, a list of bytes, or None.

    Of a struct of bytes and path it is the bytes.

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
