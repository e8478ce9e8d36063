"""Indices of parts: what many of them hold, in one file.

A folder of parts is opened by reading a few columns of each. An index repeats these
columns of some hundred parts, with the size of each file and the time that it says, so
that a folder of many thousands is opened in seconds. A part that is gone or of another
size is not taken from an index, nor is an index that is damaged or of other settings;
nothing is lost with it. No part gets a number that an index has: it could have the size
of the one that is gone.
"""

import collections
import contextlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from absl import logging

from vidsme_jax.store import tables
from vidsme_jax.store.mirrors import Mirror

_PARTS = 512  # Of an index; as many are opened one by one at most.
# Of an index, unless it is of one part; `tables` reads no more than twice as many.
_ROWS = 1 << 19
_NAME = re.compile(r"index-[0-9]{6,18}(-[0-9]+-of-[0-9]+)?\.parquet")
_SETTINGS = b"vidsme_jax.settings"
_OWN = (
    pa.field("part", pa.string()),
    pa.field("size", pa.int64()),
    pa.field("written", pa.int64()),
)


class Entry(NamedTuple):
    """A part as an index knows it.

    Attributes:
      part: The name of its file.
      size: Of its file, in bytes.
      written: When it was written, in nanoseconds.
      table: Its remembered columns.
    """

    part: str
    size: int
    written: int
    table: pa.Table


class Indices:
    """The indices of a folder of parts."""

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any],
        columns: pa.Schema,
        mirror: Mirror | None,
    ):
        """Reads nothing yet.

        Args:
          folder: Of the parts.
          settings: JSON-ready; those of the parts.
          columns: The remembered ones.
          mirror: Of the folder, if it mirrors one in an object store.
        """
        about = {_SETTINGS: json.dumps(settings, sort_keys=True).encode()}
        self._schema = pa.schema([*_OWN, *columns], metadata=about)
        self._folder, self._mirror = folder, mirror
        self._entries: list[Entry] = []
        self._rows = 0  # Of these.
        self._whole: collections.deque[pa.Table] = collections.deque()

    def read(self) -> dict[str, Entry]:
        """Returns the parts of all indices, by name.

        Raises:
          OSError: An index cannot be fetched.
        """
        there = self._mirror.listed() if self._mirror else {}
        local = (path.name for path in self._folder.glob("index-*"))
        names = sorted(filter(_NAME.fullmatch, {*there, *local}))
        if self._mirror:
            with contextlib.suppress(FileNotFoundError):  # Listed, and deleted since.
                self._mirror.fetch(*(name for name in names if name in there))
        return {each.part: each for name in names for each in self._read(name)}

    def add(self, entry: Entry) -> None:
        """Takes a part that no index has."""
        rows = len(entry.table)
        if self._entries and self._rows + rows > _ROWS:
            self._close()
        self._entries.append(entry)
        self._rows += rows
        if len(self._entries) >= _PARTS:
            self._close()

    def write(self, name: str) -> None:
        """Writes an index, if enough parts have been added.

        Args:
          name: Of a part, which only its writer has; the index is named after it.
        """
        if not self._whole:
            return
        name = name.replace("part", "index", 1)
        try:
            tables.create(self._folder / name, self._whole[0])
            if self._mirror:
                self._mirror.create(name)
        except OSError as error:
            logging.warning("%s: not written (%s)", self._folder / name, error)
        self._whole.popleft()

    def _close(self) -> None:
        self._whole.append(self._joined(self._entries))
        self._entries, self._rows = [], 0

    def _read(self, name: str) -> list[Entry]:
        try:
            with tables.opened(self._folder / name) as file:
                its = file.schema_arrow
                about = its.metadata == self._schema.metadata
                if not (about and its.equals(self._schema)):
                    raise ValueError("its columns or settings are not of these parts")
                table = file.read(use_threads=False)
            if any(column.null_count for column in table.columns):
                raise ValueError("a row lacks a value")
            table.validate(full=True)  # Its texts may be none.
            entries = list(self._split(table))
            if len({each.part for each in entries}) < len(entries):
                raise ValueError("it has a part twice")
            if any(each.written < 0 for each in entries):
                raise ValueError("the time of a part is none")
            return entries
        except ValueError as error:
            where = self._folder / name
            logging.warning("%s: ignored, its parts are read (%s)", where, error)
            return []

    def _split(self, table: pa.Table) -> Iterator[Entry]:
        """Yields the parts that the content of an index is of."""
        own = [table.column(field.name).to_pylist() for field in _OWN]
        remembered, start = table.select(self._schema.names[len(_OWN) :]), 0
        for (part, size, written), rows in itertools.groupby(zip(*own, strict=True)):
            count = sum(1 for _ in rows)
            yield Entry(part, size, written, remembered.slice(start, count))
            start += count

    def _joined(self, entries: list[Entry]) -> pa.Table:
        """Returns the content of an index."""
        counts = [len(each.table) for each in entries]

        def repeated(field: pa.Field) -> pa.Array:
            each = zip((getattr(x, field.name) for x in entries), counts, strict=True)
            values = itertools.chain.from_iterable(itertools.repeat(*x) for x in each)
            return pa.array(values, field.type)

        columns = pa.concat_tables([each.table for each in entries]).combine_chunks()
        own = [repeated(field) for field in _OWN]
        return pa.Table.from_arrays([*own, *columns.columns], schema=self._schema)


def unlike(part: pathlib.Path, why: str) -> str:
    """Returns the message about a part that is not the one that an index has."""
    return (
        f"{part}: {why}; delete every index-*.parquet in {part.parent}, with which "
        "nothing is lost, and run it again"
    )
