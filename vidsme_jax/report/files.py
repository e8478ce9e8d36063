"""The files of a work directory, each written whole or not at all."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from vidsme_jax.base import AuditError, Failure, ScoreTable
from vidsme_jax.store import regular
from vidsme_jax.store.files import write_atomically
from vidsme_jax.wording import printable

_TEXT = ("id", "video", "role", "group")
_KNOWN = ("source", "unit")  # Texts that a table may lack.
# What may begin a formula, also after spaces; spreadsheets read full-width signs too.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BREAKS = ("\t", "\r", "\n")
_MOST = 10_000_000  # Bytes of a line of failures.
_SHOWN = 20  # Damaged lines in a message.
_STATISTICS = ("flow_variance", "brightness_std", "q", "r")
_NAMES = frozenset(field.name for field in dataclasses.fields(Failure))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8; what cannot be encoded (odd file names) is escaped."""
    write_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes strict JSON.

    Raises:
      ValueError: A number is not finite.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_failures(path: pathlib.Path, failures: Iterable[Failure]) -> None:
    """Writes one line a failure; an empty file when there are none."""
    lines = [json.dumps(vars(failure)) + "\n" for failure in failures]
    write_text(path, "".join(lines))


def read_failures(path: pathlib.Path) -> list[Failure]:
    """Reads what `write_failures` has written; nothing if there is no file.

    Raises:
      AuditError: Lines of it are no failures; lists the first of them.
    """
    found: list[Failure] = []
    problems: list[str] = []
    try:
        with regular.opened(path) as file:
            for number in itertools.count(1):
                if not (line := file.readline(_MOST)):
                    break
                if problem := _add_failure(line, found):
                    problems.append(f"{path}: line {number}: {problem}")
                if len(problems) == _SHOWN:
                    break
    except FileNotFoundError:
        return found
    except (OSError, ValueError) as error:
        problems.append(f"{path}: cannot be read ({error})")
    if problems:
        problems.append(f"{path}: damaged; run the audit again, which replaces it")
        raise AuditError(problems)
    return found


def _add_failure(line: bytes, found: list[Failure]) -> str:
    """Adds what a line holds; returns what is wrong with it, or ""."""
    if len(line) == _MOST:
        return f"longer than {_MOST} bytes"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({printable(str(error), 100)})"
    if not isinstance(values, dict) or values.keys() != _NAMES:
        return f"it must have {', '.join(sorted(_NAMES))} and nothing else"
    if set(map(type, values.values())) != {str}:
        return "its values must be text"
    found.append(Failure(**values))
    return ""


def scores_of(table: ScoreTable) -> tuple[pa.Table, tuple[str, ...]]:
    """Returns the content of `scores.parquet`, a row an item, and its columns of text.

    Every digit is kept.
    """
    texts = (*_TEXT, *(x for x in _KNOWN if getattr(table, x) is not None))
    columns: dict[str, Any] = {
        name: [encodable(str(value)) for value in getattr(table, name).tolist()]
        for name in texts
    }
    columns["content"] = [encodable(str(value)) for value in table.cluster.tolist()]
    columns["n_rows"] = pa.array(table.num_rows, pa.int64())
    if table.num_response_rows is not None:
        columns["n_response_rows"] = pa.array(table.num_response_rows, pa.int64())
    numbers = {name: getattr(table, name) for name in _STATISTICS} | table.scores
    for name, values in numbers.items():
        columns[name] = pa.array(values, pa.float64())
    return pa.table(columns), texts


def write_scores(folder: pathlib.Path, table: ScoreTable) -> None:
    """Writes `scores.parquet` and `scores.csv`: a row an item, every digit kept.

    In the CSV file an apostrophe precedes text that a spreadsheet would run as a
    formula; the Parquet file has all text as it is.
    """
    write_table(folder / "scores", *scores_of(table))


def write_parquet(path: pathlib.Path, table: pa.Table) -> None:
    """Writes a table, every digit kept."""
    content = pa.BufferOutputStream()
    parquet.write_table(table, content)
    write_atomically(path, content.getvalue().to_pybytes())


def write_table(stem: pathlib.Path, table: pa.Table, texts: Sequence[str] = ()) -> None:
    """Writes a table as `.parquet` and `.csv`.

    Args:
      stem: The path of both without the ending.
      table: With every digit kept.
      texts: Columns of text of others; see `as_text`.
    """
    write_parquet(stem.with_suffix(".parquet"), table)
    write_atomically(stem.with_suffix(".csv"), as_csv(table, texts))


def as_csv(table: pa.Table, texts: Sequence[str] = ()) -> bytes:
    """Returns a table as CSV.

    Args:
      table: With every digit kept.
      texts: Columns of text of others; see `as_text`.
    """
    for name in texts:
        harmless = [as_text(text) for text in table.column(name).to_pylist()]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(harmless, pa.string()))
    content = pa.BufferOutputStream()
    csv.write_csv(table, content)
    return content.getvalue().to_pybytes()


def as_text(text: str) -> str:
    """Returns text of others for a CSV file, with an apostrophe before a formula."""
    risky = text.startswith(_BREAKS) or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if risky else text


def encodable(text: str) -> str:
    """Escapes lone surrogates, as file names that are not UTF-8 have them."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
