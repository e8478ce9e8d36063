"""The formats of manifests: a file to rows, unchecked but for its columns."""

import csv
import json
import pathlib
from typing import Any

from vidsme_jax.base import AuditError, nearest

# The columns ([] where there is no object), and each row with its place in the file.
_Raw = tuple[list[str], list[tuple[str, Any]]]


def near(path: pathlib.Path) -> str:
    """The file with the nearest name in the same folder, as '; did you mean ...?'."""
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent} either)"
    return nearest(path.name, [entry.name for entry in path.parent.iterdir()])


def read(source: str, path: pathlib.Path) -> list[tuple[str, Any]]:
    """Reads a manifest.

    Args:
      source: Its name in errors.
      path: A `.json`, `.jsonl`, `.csv` or `.parquet` file.

    Returns:
      Each row, whatever it is, with its place in the file.

    Raises:
      AuditError: There is no such file, or it is none of its kind, or has no `video`.
    """
    if not path.is_file():
        raise AuditError([f"{source}: no such manifest{near(path)}"])
    try:
        columns, raw = READERS[path.suffix.lower()](path)
    except (OSError, ValueError, csv.Error) as error:
        text = " ".join(str(error).split())
        raise AuditError([f"{source}: cannot be read: {text}"]) from error
    except RecursionError as error:
        raise AuditError([f"{source}: cannot be read: nested too deeply"]) from error
    if not raw:
        raise AuditError([f"{source}: the manifest has no rows"])
    if columns and "video" not in columns:
        hint = nearest("video", columns)
        raise AuditError(
            [f"{source}: no column 'video'; its columns: {', '.join(columns)}{hint}"]
        )
    return raw


def _columns(rows: list[tuple[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for _, v in rows if isinstance(v, dict) for k in v))


def _read_json(path: pathlib.Path) -> _Raw:
    data = json.loads(path.read_text("utf-8-sig"))
    if not isinstance(data, list):
        kind = type(data).__name__
        raise ValueError(f"it must be a list of objects, one a row; it is a {kind}")
    rows = [(f"row {n}", row) for n, row in enumerate(data, 1)]
    return _columns(rows), rows


def _read_jsonl(path: pathlib.Path) -> _Raw:
    rows, problems = [], []
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line)))
            except json.JSONDecodeError as error:
                problems.append(f"line {number}: {error.msg} (column {error.colno})")
    if problems:
        raise ValueError("; ".join(problems))
    return _columns(rows), rows


def _read_csv(path: pathlib.Path) -> _Raw:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows = [(f"line {reader.line_num}", row) for row in reader]
        return list(reader.fieldnames or ()), rows


def _read_parquet(path: pathlib.Path) -> _Raw:
    import pyarrow.parquet

    # Not a data set: "a=1" in a folder's name is no column of the manifest.
    table = pyarrow.parquet.ParquetFile(path).read()
    rows = [(f"row {n}", row) for n, row in enumerate(table.to_pylist(), 1)]
    return table.column_names, rows


# By suffix.
READERS = {".json": _read_json, ".jsonl": _read_jsonl}
READERS |= {".csv": _read_csv, ".parquet": _read_parquet}
