"""Tables as Parquet files: written whole, checked before they are read."""

import contextlib
import io
import os
import pathlib
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.store import files, regular
from vidsme_jax.store.texts import storable

# Limits of what is read: a part is one batch, and small files can claim to be large.
_MOST_FOOTER = 1 << 24  # Bytes.
_MOST_ROWS = 1 << 20  # Of a file.


def of_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Returns a table of rows by name; all texts in it are `texts.storable`."""
    return pa.Table.from_pylist(
        [{name: _storable(value) for name, value in row.items()} for row in rows],
        schema=schema,
    )


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [storable(text) for text in value]
    return value


def write(path: pathlib.Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically, compressed and with checksums.

    Raises:
      OSError: It cannot be written.
    """
    files.write_atomically(path, _parquet(table))


def create(path: pathlib.Path, table: pa.Table) -> None:
    """Writes such a file where there is none.

    Raises:
      FileExistsError: There is one.
      OSError: It cannot be written.
    """
    files.create(path, _parquet(table))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # Numbers hardly repeat: a dictionary of them costs a third more bytes.
    how: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}
    pq.write_table(table, sink, write_page_checksum=True, **how)
    return sink.getvalue().to_pybytes()


@contextlib.contextmanager
def opened(
    path: pathlib.Path, pieces: io.BufferedIOBase | None = None
) -> Generator[pq.ParquetFile, None, None]:
    """Opens a Parquet file; its checksums are verified as it is read.

    Args:
      path: Of the file.
      pieces: The file, opened, in place of that at the path.

    Raises:
      ValueError: It is damaged or too large, or cannot be read.
    """
    try:
        with contextlib.nullcontext(pieces) if pieces else regular.opened(path) as file:
            _check_footer(file)
        with pq.ParquetFile(
            pieces or path,
            page_checksum_verification=True,
            thrift_string_size_limit=_MOST_FOOTER,
            thrift_container_size_limit=_MOST_FOOTER,
        ) as file:
            _check_counts(file.metadata)
            yield file
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ValueError(str(error)) from error


def _check_footer(file: io.BufferedIOBase) -> None:
    """Checks a file before Arrow opens it, which waits for ever at a pipe."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    footer = int.from_bytes(file.read(4), "little")
    if footer > min(size, _MOST_FOOTER):
        raise ValueError(f"its footer claims to have {footer} bytes")


def _check_counts(about: pq.FileMetaData) -> None:
    # Not its columns: where they are damaged, Arrow ends the process.
    rows = sum(about.row_group(k).num_rows for k in range(about.num_row_groups))
    if about.num_rows > _MOST_ROWS or about.num_rows < 0:
        raise ValueError(f"it claims to have {about.num_rows} rows")
    if about.num_rows != rows:
        raise ValueError("its groups have not as many rows as it claims")
