"""Rows that are kept by an id, in Parquet files of limited size.

What is kept so can be had again from elsewhere: a file that is damaged is no loss.
"""

import os
import pathlib
import re
from collections.abc import Collection, Iterator

import pyarrow as pa

from vidsme_jax.store import files, tables

ID = pa.field("id", pa.binary(16))
_ROWS = 2**13  # Of a file: what is written at a time is held at once.
_NAME = re.compile(r"(.+)-[0-9]{3,6}\.parquet")


def write(folder: pathlib.Path, stem: str, all_of_it: Iterator[pa.Table]) -> None:
    """Writes tables in place of all that a stem had.

    Args:
      folder: Made if absent, and in place of a link.
      stem: Begins the names of the files.
      all_of_it: Each becomes a file; see `places`.

    Raises:
      OSError: They cannot be written.
    """
    if folder.is_symlink():  # What it names is somebody else's.
        folder.unlink()
    folder.mkdir(exist_ok=True)
    files.sweep(folder)
    names = set()
    for number, table in enumerate(all_of_it):
        name = f"{stem}-{number:03}.parquet"
        tables.write(folder / name, table)
        names.add(name)
    for name in _files(folder).get(stem, []):
        if name not in names:
            (folder / name).unlink()


def places(count: int) -> Iterator[slice]:
    """Yields which of so many rows each file has."""
    for first in range(0, count, _ROWS):
        yield slice(first, min(first + _ROWS, count))


def read(
    folder: pathlib.Path, stem: str, wanted: Collection[pa.Field]
) -> Iterator[pa.Table]:
    """Yields the content of each file of a stem.

    Args:
      folder: Of the files; it may be absent.
      stem: Begins their names.
      wanted: The columns to read; others may be there.

    Raises:
      ValueError: A file is damaged, or has not the columns.
    """
    for name in _files(folder).get(stem, []):
        with tables.opened(folder / name) as file:
            columns = [field.name for field in (ID, *wanted)]
            for field in (ID, *wanted):
                if not file.schema_arrow.field(field.name).equals(field):
                    raise ValueError(f"its column {field.name} is of another type")
            table = file.read(columns, use_threads=False)
        if table.column(ID.name).null_count:
            raise ValueError("a row has no id")
        yield table


def has(folder: pathlib.Path, stem: str, names: Collection[str]) -> bool:
    """Returns whether there are files of a stem, all of them with some columns.

    Raises:
      ValueError: A file is damaged.
    """
    there = _files(folder).get(stem, [])
    for name in there:
        with tables.opened(folder / name) as file:
            if not set(names) <= set(file.schema_arrow.names):
                return False
    return bool(there)


def keep_latest(folder: pathlib.Path, beginning: str, most: int) -> None:
    """Deletes the files of all stems that begin so but those written last.

    Raises:
      OSError: One cannot be deleted.
    """
    written = {
        stem: max((folder / name).stat().st_mtime_ns for name in names)
        for stem, names in _files(folder).items()
        if stem.startswith(beginning)
    }
    for stem in sorted(written, key=lambda stem: -written[stem])[most:]:
        for name in _files(folder)[stem]:
            (folder / name).unlink()


def _files(folder: pathlib.Path) -> dict[str, list[str]]:
    """Returns the names of the files of each stem, in their order."""
    found: dict[str, list[str]] = {}
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for name in names:
        if match := _NAME.fullmatch(name):
            found.setdefault(match[1], []).append(name)
    return found
