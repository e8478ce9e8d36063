"""The files of a work directory, each written whole or not at all."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from vidsme_jax.base import Failure, ScoreTable

_TEXT = ("id", "video", "role", "group")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # What may begin one.
_STATISTICS = ("flow_variance", "brightness_std", "q", "r")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary name beside `path` that takes its place when all went well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8; what cannot be encoded (odd file names) is escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes strict JSON.

    Raises:
      ValueError: A number is not finite.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_failures(path: pathlib.Path, failures: Iterable[Failure]) -> None:
    """Writes one line a failure; an empty file when there are none."""
    lines = (
        {"id": f.id, "video": f.video, "stage": f.stage, "cause": f.cause}
        for f in failures
    )
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_failures(path: pathlib.Path) -> list[Failure]:
    """Reads what `write_failures` has written; nothing if there is no file."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [Failure(**json.loads(line)) for line in lines]


def write_scores(folder: pathlib.Path, table: ScoreTable) -> None:
    """Writes `scores.parquet` and `scores.csv`: a row an item, every digit kept.

    In the CSV file an apostrophe stands before text that a spreadsheet would run as a
    formula; the Parquet file has all text as it is.
    """
    columns: dict[str, Any] = {
        name: [encodable(str(value)) for value in getattr(table, name).tolist()]
        for name in _TEXT
    }
    columns["n_rows"] = pa.array(table.num_rows.tolist(), pa.int64())
    for name in _STATISTICS:
        columns[name] = pa.array(getattr(table, name), pa.float64())
    for name, values in table.scores.items():
        columns[name] = pa.array(values, pa.float64())
    rows = pa.table(columns)
    with replacing(folder / "scores.parquet") as temporary:
        parquet.write_table(rows, temporary)
    for place, name in enumerate(_TEXT):
        harmless = [as_text(text) for text in rows.column(name).to_pylist()]
        rows = rows.set_column(place, name, pa.array(harmless, pa.string()))
    with replacing(folder / "scores.csv") as temporary:
        csv.write_csv(rows, temporary)


def as_text(text: str) -> str:
    """Text of others for a CSV file: an apostrophe stands before what is a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def encodable(text: str) -> str:
    """Text without lone surrogates, as file names that are not UTF-8 have them."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
