"""The formats of manifests: a file to rows, unchecked but for its columns."""

import codecs
import collections
import csv
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.data import names

# The columns ([] where there is no object), and each row with its place in the file.
Raw = tuple[list[str], list[tuple[str, Any]]]
_SHOWN = 20  # Faulty lines.


def read(source: str, path: pathlib.Path) -> Raw:
    """Reads a manifest.

    Args:
      source: Its name in errors.
      path: A `.json`, `.jsonl`, `.csv` or `.parquet` file.

    Returns:
      Its columns, none where no row is an object; and each row, whatever it is, with
      its place in the file.

    Raises:
      AuditError: There is no such file, or it is none of its kind, or has no row.
    """
    if not path.is_file():
        missing = names.why_missing(path.absolute()) or names.near(path)
        raise AuditError([f"{source}: no such manifest{missing}"])
    try:
        columns, raw = READERS[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise AuditError([f"{source}: cannot be read: {_not_utf8(error)}"]) from error
    except (OSError, ValueError, csv.Error) as error:
        text = " ".join(str(error).split())
        raise AuditError([f"{source}: cannot be read: {text}"]) from error
    except RecursionError as error:
        raise AuditError([f"{source}: cannot be read: nested too deeply"]) from error
    if not raw:
        raise AuditError([f"{source}: the manifest has no rows"])
    return columns, raw


def _not_utf8(error: UnicodeDecodeError) -> str:
    """Says in which character set a text seems to be, and the remedy."""
    if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "it is UTF-16; save it as UTF-8, such as by iconv -f UTF-16 -t UTF-8"
    return f"{error}; save it as UTF-8, such as by iconv -f CP1252 -t UTF-8"


class _Ambiguous(dict):
    """An object that has a key twice; `keys_twice` says which."""

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
    """Returns columns, of which one alone may have a name that is not empty."""
    if twice := _twice(columns):
        raise ValueError(f"it has several columns named {_some(twice)}; rename one")
    return list(columns)


def _some(listed: Sequence[str]) -> str:
    rest = len(listed) - _SHOWN
    return ", ".join(map(repr, listed[:_SHOWN])) + (f", {rest} more" * (rest > 0))


def _problem(place: str, row: Any) -> str:
    """Returns that a row has a key twice, or ""."""
    if not isinstance(row, _Ambiguous):
        return ""
    return f"{place}: the object has {_some(row.keys_twice)} more than once; remove one"


def _columns(rows: list[tuple[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for _, v in rows if isinstance(v, dict) for k in v))


def _read_json(path: pathlib.Path) -> Raw:
    try:
        data = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data" and error.lineno > 1
        hint = "; if it holds an object a line, name it .jsonl" if lines else ""
        raise ValueError(f"{error}{hint}") from error
    if not isinstance(data, list):
        kind = type(data).__name__
        raise ValueError(f"it must be a list of objects, one a row; it is a {kind}")
    rows = [(f"row {n}", row) for n, row in enumerate(data, 1)]
    _refuse([problem for row in rows if (problem := _problem(*row))])
    return _columns(rows), rows


def _refuse(problems: list[str], what: str = "rows") -> None:
    if problems:
        rest = len(problems) - _SHOWN
        more = [f"and {rest} more {what}"] if rest > 0 else []
        raise ValueError("; ".join(problems[:_SHOWN] + more))


def _read_jsonl(path: pathlib.Path) -> Raw:
    rows, problems = [], []
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                problems.append(f"line {number}: {error.msg} (column {error.colno})")
            else:
                rows.append((f"line {number}", row))
                problems += filter(None, [_problem(*rows[-1])])
    _refuse(problems, "lines")
    return _columns(rows), rows


def _read_csv(path: pathlib.Path) -> Raw:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        columns = _distinct(reader.fieldnames or ())  # Of a repeated one the last wins.
        if len(columns) == 1 and (other := set(columns[0]) & {";", "\t", "|"}):
            found = repr(other.pop())
            raise ValueError(
                f"its columns are separated by {found}; separate by commas"
            )
        return columns, [(f"line {reader.line_num}", row) for row in reader]


def _read_parquet(path: pathlib.Path) -> Raw:
    import pyarrow.parquet

    # Not a data set: "a=1" in a folder's name is no column of the manifest.
    table = pyarrow.parquet.ParquetFile(path).read()
    columns = _distinct(table.column_names)
    return columns, [(f"row {n}", row) for n, row in enumerate(table.to_pylist(), 1)]


# By suffix.
READERS = {".json": _read_json, ".jsonl": _read_jsonl}
READERS |= {".csv": _read_csv, ".parquet": _read_parquet}
