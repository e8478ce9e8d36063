"""The formats of manifests: a file to rows, unchecked but for its columns."""

import codecs
import csv
import json
import pathlib
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


def _columns(rows: list[tuple[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for _, v in rows if isinstance(v, dict) for k in v))


def _read_json(path: pathlib.Path) -> Raw:
    data = json.loads(path.read_text("utf-8-sig"))
    if not isinstance(data, list):
        kind = type(data).__name__
        raise ValueError(f"it must be a list of objects, one a row; it is a {kind}")
    rows = [(f"row {n}", row) for n, row in enumerate(data, 1)]
    return _columns(rows), rows


def _read_jsonl(path: pathlib.Path) -> Raw:
    rows, problems = [], []
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line)))
            except json.JSONDecodeError as error:
                problems.append(f"line {number}: {error.msg} (column {error.colno})")
    if problems:
        rest = len(problems) - _SHOWN
        more = [f"and {rest} more lines"] if rest > 0 else []
        raise ValueError("; ".join(problems[:_SHOWN] + more))
    return _columns(rows), rows


def _read_csv(path: pathlib.Path) -> Raw:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows = [(f"line {reader.line_num}", row) for row in reader]
        return list(reader.fieldnames or ()), rows


def _read_parquet(path: pathlib.Path) -> Raw:
    import pyarrow.parquet

    # Not a data set: "a=1" in a folder's name is no column of the manifest.
    table = pyarrow.parquet.ParquetFile(path).read()
    rows = [(f"row {n}", row) for n, row in enumerate(table.to_pylist(), 1)]
    return table.column_names, rows


# By suffix.
READERS = {".json": _read_json, ".jsonl": _read_jsonl}
READERS |= {".csv": _read_csv, ".parquet": _read_parquet}
