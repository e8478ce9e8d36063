"""The formats of manifests: reads a file to rows, checking only its columns.

The size of a manifest is limited, also after decompression.
"""

import codecs
import collections
import csv
import json
import os
import pathlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.data import names
from vidsme_jax.wording import printable

# The columns ([] where there is no object), and each row with its place in the file.
Raw = tuple[list[str], list[tuple[str, Any]]]
_SHOWN = 20  # Faulty lines in a message.
_LONGEST = 4000  # Characters of a message.
MOST_ROWS = 5_000_000
_MOST_COLUMNS = 10_000
# Of JSON; nested brackets take some 30 times their size in memory.
_MOST_VALUES, _LONGEST_LINE = 1 << 25, 1 << 22
_GIB = 1 << 30
# Bytes of a file by suffix.
_MOST_BYTES = {".json": _GIB // 4, ".jsonl": _GIB, ".csv": _GIB, ".parquet": _GIB}
_SPLIT = "split it into several; one role may have several sources"


def read(source: str, path: pathlib.Path, wanted: Collection[str]) -> Raw:
    """Reads a manifest.

    Args:
      source: Its name in errors.
      path: A `.json`, `.jsonl`, `.csv` or `.parquet` file.
      wanted: The columns to read.

    Returns:
      All its columns, none if no row is an object; and each row, of any type, with its
      place in the file.

    Raises:
      AuditError: There is no such file, or it is damaged, empty or too large.
    """
    if not os.path.isfile(path):
        missing = names.why_missing(path.absolute()) or names.near(path)
        raise AuditError([f"{source}: no such manifest{missing}"])
    suffix = path.suffix.lower()
    try:
        check_amount("bytes", os.path.getsize(path), _MOST_BYTES[suffix])
        columns, raw = READERS[suffix](path, frozenset(wanted))
    except UnicodeDecodeError as error:
        raise AuditError([f"{source}: cannot be read: {_not_utf8(error)}"]) from error
    except (OSError, ValueError, csv.Error) as error:
        text = printable(" ".join(str(error).split()), _LONGEST)
        raise AuditError([f"{source}: cannot be read: {text}"]) from error
    except RecursionError as error:
        raise AuditError([f"{source}: cannot be read: nested too deeply"]) from error
    if not raw:
        raise AuditError([f"{source}: the manifest has no rows"])
    return columns, raw


def check_amount(what: str, found: int, most: int) -> None:
    """Raises a `ValueError` if an amount exceeds its limit."""
    if found > most:
        raise ValueError(f"it has {found} {what}, at most {most} are read; {_SPLIT}")


def _not_utf8(error: UnicodeDecodeError) -> str:
    """Returns the probable character set of a text, and the remedy."""
    if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "it is UTF-16; save it as UTF-8, such as by iconv -f UTF-16 -t UTF-8"
    return f"{error}; save it as UTF-8, such as by iconv -f CP1252 -t UTF-8"


class _Ambiguous(dict):
    """An object with repeated keys.

    Attributes:
      keys_twice: The repeated keys.
    """

    keys_twice: list[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = _Ambiguous(found)
        found.keys_twice = _twice(key for key, _ in pairs)
    return found


def _twice(columns: Iterable[str]) -> list[str]:
    return [name for name, n in collections.Counter(columns).items() if n > 1 and name]


def _distinct(columns: Sequence[str]) -> list[str]:
    """Returns columns; raises a `ValueError` if a name is repeated, unless empty."""
    if twice := _twice(columns):
        raise ValueError(f"it has several columns named {_some(twice)}; rename one")
    return list(columns)


def _some(listed: Sequence[str]) -> str:
    return names.some(map(repr, listed), _SHOWN)


class _Rows:
    """Collects the rows of a JSON file, and the columns of all of them."""

    def __init__(self, wanted: frozenset[str]):
        self.columns: dict[str, None] = {}
        self.rows: list[tuple[str, Any]] = []
        self.problems: list[str] = []  # The first.
        self._faulty = 0
        self._wanted = wanted
        self._last: list[str] | None = None  # The keys of the last row.

    def add(self, place: str, row: Any) -> None:
        """Adds a row, with its wanted columns only."""
        if isinstance(row, dict):
            if isinstance(row, _Ambiguous):
                some = _some(row.keys_twice)
                self.fault(f"{place}: the object has {some} more than once; remove one")
            if (keys := list(row)) != self._last:
                self.columns |= dict.fromkeys(keys)
                check_amount("columns", len(self.columns), _MOST_COLUMNS)
                self._last = keys
            if not row.keys() <= self._wanted:
                row = {name: row[name] for name in self._wanted if name in row}
        self.rows.append((place, row))
        if len(self.rows) > MOST_ROWS:
            check_amount("rows", len(self.rows), MOST_ROWS)

    def fault(self, problem: str) -> None:
        """Adds a problem of a row; all but the first 20 are only counted."""
        self._faulty += 1
        if len(self.problems) < _SHOWN:
            self.problems.append(problem)

    def close(self, what: str) -> Raw:
        """Returns columns and rows; raises a `ValueError` with all problems."""
        if rest := self._faulty - len(self.problems):
            self.problems.append(f"and {rest} more {what}")
        if self.problems:
            raise ValueError("; ".join(self.problems))
        return list(self.columns), self.rows


def _read_json(path: pathlib.Path, wanted: frozenset[str]) -> Raw:
    text = path.read_text("utf-8-sig")
    check_amount("values", sum(map(text.count, ",[{")), _MOST_VALUES)
    try:
        data = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data" and error.lineno > 1
        hint = "; if it holds one object per line, name it .jsonl" if lines else ""
        raise ValueError(f"{error}{hint}") from error
    if not isinstance(data, list):
        kind = type(data).__name__
        raise ValueError(f"it must be a list of objects, one per row; it is a {kind}")
    found = _Rows(wanted)
    for number, row in enumerate(data, 1):
        found.add(f"row {number}", row)
    return found.close("rows")


def _read_jsonl(path: pathlib.Path, wanted: frozenset[str]) -> Raw:
    found = _Rows(wanted)
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            if len(line) > _LONGEST_LINE:
                check_amount("characters of a line", len(line), _LONGEST_LINE)
            try:
                row = _decoded(line)
            except json.JSONDecodeError as error:
                found.fault(f"line {number}: {error.msg} (column {error.colno})")
            except ValueError as error:  # A number with too many digits.
                found.fault(f"line {number}: {error}")
            else:
                found.add(f"line {number}", row)
    return found.close("lines")


def _decoded(line: str) -> Any:
    """Returns the value of a line of JSON."""
    try:  # Fast path: most lines have no white space around the object.
        row, end = _DECODER.raw_decode(line)
    except json.JSONDecodeError:
        return _DECODER.decode(line)
    return row if line[end:].isspace() else _DECODER.decode(line)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _read_csv(path: pathlib.Path, wanted: frozenset[str]) -> Raw:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(filter(None, reader), [])
        check_amount("columns", len(header), _MOST_COLUMNS)
        columns = _distinct(header)
        if len(columns) == 1 and (other := set(columns[0]) & {";", "\t", "|"}):
            found = repr(other.pop())
            raise ValueError(
                f"its columns are separated by {found}; separate by commas"
            )
        places = [(k, name) for k, name in enumerate(columns) if name in wanted]
        rows: list[tuple[str, Any]] = []
        for cells in filter(None, reader):
            count = len(cells)
            row: dict[Any, Any] = {n: cells[k] for k, n in places if k < count}
            if count > len(columns):
                row[None] = cells[len(columns) :]
            rows.append((f"line {reader.line_num}", row))
            check_amount("rows", len(rows), MOST_ROWS)
    return columns, rows


def _read_parquet(path: pathlib.Path, wanted: frozenset[str]) -> Raw:
    from vidsme_jax.data import parquet

    found, count = parquet.schema(path)
    check_amount("rows", count, MOST_ROWS)
    check_amount("columns", len(found), _MOST_COLUMNS)
    columns = _distinct(found)
    kept = [name for name in columns if name in wanted]
    if not kept:
        return columns, [("row 1", {})] * bool(count)
    rows = enumerate(parquet.rows(path, kept, check_amount), 1)
    return columns, [(f"row {number}", row) for number, row in rows]


# By suffix.
READERS = {".json": _read_json, ".jsonl": _read_jsonl}
READERS |= {".csv": _read_csv, ".parquet": _read_parquet}
