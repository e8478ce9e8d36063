"""Parquet manifests: their columns as Python objects, within limits.

A small file may expand to a large one: dictionaries store a repeated text once, nulls
and runs take almost no space. The size in memory is checked from the metadata, and from
the dictionaries, before values are expanded.
"""

import contextlib
import pathlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_MOST_VALUES = 50_000_000  # Including each value in lists.
_MOST_BYTES = 1 << 30  # Uncompressed; for texts in lists, also when expanded.

# Takes the name of an amount, the amount and its limit; raises a ValueError above it.
Check = Callable[[str, int, int], None]


def schema(path: pathlib.Path) -> tuple[list[str], int]:
    """Returns the names of the columns, and the number of rows.

    Raises:
      ValueError: The file is damaged, or of a type that Arrow does not read.
    """
    # Not read as a dataset: "a=1" in a folder's name is not a column of the manifest.
    with arrow_errors(), pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names), file.metadata.num_rows


def rows(
    path: pathlib.Path, columns: list[str], check: Check
) -> Iterator[dict[str, Any]]:
    """Yields the rows as dictionaries.

    Args:
      path: Of the file.
      columns: The columns to read; A.B for the field B of the structs of A.
      check: Called with each amount and its limit.

    Raises:
      ValueError: The file is damaged, too large, or has values that Python cannot
        represent.
    """
    with arrow_errors():
        texts = _check_sizes(path, frozenset(columns), check)
        # Dictionary-encoded texts are shared in memory by all rows that have them.
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns)
                lists = [values(x, _column(table, x), check) for x in columns]
                for row in zip(*lists, strict=True):
                    yield dict(zip(columns, row, strict=True))


@contextlib.contextmanager
def arrow_errors() -> Generator[None, None, None]:
    """Raises a `ValueError` in place of Arrow's errors about damaged files."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(str(error)) from error


def _check_sizes(
    path: pathlib.Path, columns: frozenset[str], check: Check
) -> list[str]:
    """Checks the size of columns; returns the paths of their texts."""
    size, values, texts = 0, 0, {}
    with pq.ParquetFile(path) as file:
        about = file.metadata
        for number in range(about.num_columns):
            part = file.schema.column(number)
            if columns.isdisjoint((part.path, part.path.split(".")[0])):
                continue
            if part.physical_type == "BYTE_ARRAY":
                texts[part.path] = None
            for group in range(about.num_row_groups):
                chunk = about.row_group(group).column(number)
                each = part.length if part.physical_type.startswith("FIXED") else 16
                size += max(chunk.total_uncompressed_size, each * chunk.num_values)
                values += chunk.num_values
    check("bytes without compression", size, _MOST_BYTES)
    check("values", values, _MOST_VALUES)
    return list(texts)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Returns a column, or a field of a struct column."""
    if name in table.column_names:
        return table[name]
    return table.select([name.partition(".")[0]]).flatten()[name]


def values(name: str, column: pa.ChunkedArray, check: Check) -> list[Any]:
    """Returns the values of a column; of a struct only the names of its fields.

    Args:
      name: The name of the column.
      column: The column in Arrow.
      check: See `rows`.

    Raises:
      ValueError: Python cannot represent the values, or there are too many.
    """
    found: list[Any] = []
    try:
        for chunk in column.chunks:
            found += _of_chunk(chunk, check)
    except (ArithmeticError, LookupError, TypeError, UnicodeError) as error:
        raise ValueError(_unreadable(name, column.type, error)) from error
    except ValueError as error:
        if pa.types.is_temporal(column.type) or isinstance(error, pa.ArrowException):
            raise ValueError(_unreadable(name, column.type, error)) from error
        raise
    return found


def _of_chunk(chunk: pa.Array, check: Check) -> list[Any]:
    kind = chunk.type
    if pa.types.is_dictionary(kind):
        texts = [*chunk.dictionary.to_pylist(), None]
        return [texts[place] for place in chunk.indices.fill_null(-1).to_pylist()]
    if pa.types.is_struct(kind):
        inside = {kind.field(k).name: ... for k in range(kind.num_fields)}
        return [inside if there else None for there in chunk.is_valid().to_pylist()]
    if pa.types.is_fixed_size_list(kind):
        return _of_chunk(chunk.cast(pa.list_(kind.value_type)), check)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        flat = chunk.flatten()
        if pa.types.is_dictionary(flat.type):
            lengths = pc.call_function("binary_length", [flat.dictionary])
            size = pc.call_function("sum", [lengths.take(flat.indices)]).as_py() or 0
            check("bytes of texts in lists", size, _MOST_BYTES)
        elif pa.types.is_nested(flat.type):
            lengths = pc.call_function("list_value_length", [chunk]).to_pylist()
            return [None if n is None else [{}] * (n > 0) for n in lengths]
    elif pa.types.is_nested(kind):  # A map.
        return [{} if there else None for there in chunk.is_valid().to_pylist()]
    return chunk.to_pylist()


def _unreadable(name: str, kind: pa.DataType, error: Exception) -> str:
    return (
        f"the column {name!r} holds values of type {kind} that cannot be read "
        f"({error}); store them as text or, if it holds something else, leave it out "
        f"by '{name}=' in corpus.fields"
    )
