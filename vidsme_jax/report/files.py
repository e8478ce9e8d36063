"""Writes and reads the files of a work directory; each is written atomically."""

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
_OPTIONAL = ("source", "unit")  # Columns of text that a table may lack.
# Starts of a formula, also after spaces; spreadsheets accept full-width signs too.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BREAKS = ("\t", "\r", "\n")
_MAX_LINE = 10_000_000  # Bytes of a line of failures.
_MAX_PROBLEMS = 20  # Damaged lines in a message.
_STATISTICS = ("flow_variance", "brightness_std", "q", "r")
_NAMES = frozenset(field.name for field in dataclasses.fields(Failure))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8; escapes what cannot be encoded, such as odd file names."""
    write_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes strict JSON.

    Raises:
      ValueError: A number is not finite.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_failures(path: pathlib.Path, failures: Iterable[Failure]) -> None:
    """Writes one JSON line per failure; an empty file if there are none."""
    lines = [json.dumps(vars(failure)) + "\n" for failure in failures]
    write_text(path, "".join(lines))


def read_failures(path: pathlib.Path) -> list[Failure]:
    """Reads the failures that `write_failures` wrote; none if there is no file.

    Raises:
      AuditError: It cannot be read, or is damaged; lists the first 20 damaged lines.
    """
    found: list[Failure] = []
    problems: list[str] = []
    try:
        with regular.opened(path) as file:
            for number in itertools.count(1):
                if not (line := file.readline(_MAX_LINE)):
                    break
                if problem := _add_failure(line, found):
                    problems.append(f"{path}: line {number}: {problem}")
                if len(problems) == _MAX_PROBLEMS:
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
    """Adds the failure of a line to `found`; returns what is wrong with it, or ""."""
    if len(line) == _MAX_LINE:
        return f"longer than {_MAX_LINE} bytes"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({printable(str(error), 100)})"
    if not isinstance(values, dict) or values.keys() != _NAMES:
        return f"it must have {', '.join(sorted(_NAMES))} and nothing else"
    if set(map(type, values.values())) != {str}:
        return "its values must be text"
    found.append(Failure(**values))
    return ""


def scores_of(table: ScoreTable) -> tuple[pa.Table, tuple[str, ...]]:
    """Returns the content of `scores.parquet`, one row per item.

    Returns:
      The table, with all digits, and the names of its columns of text.
    """
    texts = (*_TEXT, *(x for x in _OPTIONAL if getattr(table, x) is not None))
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
    """Writes `scores.parquet` and `scores.csv`: one row per item, with all digits.

    In the CSV file an apostrophe precedes text that a spreadsheet would run as a
    formula; the Parquet file has the text unchanged.
    """
    write_table(folder / "scores", *scores_of(table))


def write_parquet(path: pathlib.Path, table: pa.Table) -> None:
    """Writes a table as Parquet, with all digits."""
    content = pa.BufferOutputStream()
    parquet.write_table(table, content)
    write_atomically(path, content.getvalue().to_pybytes())


def write_table(stem: pathlib.Path, table: pa.Table, texts: Sequence[str]) -> None:
    """Writes a table as `.parquet` and `.csv`, with all digits; see `as_csv`."""
    write_parquet(stem.with_suffix(".parquet"), table)
    write_atomically(stem.with_suffix(".csv"), as_csv(table, texts))


def as_csv(table: pa.Table, texts: Sequence[str]) -> bytes:
    """Returns a table as CSV, with all digits; `texts` are columns for `as_text`."""
    for name in texts:
        harmless = [as_text(text) for text in table.column(name).to_pylist()]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(harmless, pa.string()))
    content = pa.BufferOutputStream()
    csv.write_csv(table, content)
    return content.getvalue().to_pybytes()


def as_text(text: str) -> str:
    """Returns untrusted text for a CSV file, with an apostrophe before a formula.

    Example:
      >>> as_text("=1+1"), as_text("1+1")
      ("'=1+1", '1+1')
    """
    risky = text.startswith(_BREAKS) or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if risky else text


def encodable(text: str) -> str:
    """Escapes lone surrogates, which occur in file names that are not UTF-8.

    Example:
      >>> encodable("a\\udcff.mp4")
      'a\\\\udcff.mp4'
    """
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
