"""The files of records of a prepared corpus, one a shard."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)

from vidsme_jax.base import AuditError
from vidsme_jax.data.features import parsed
from vidsme_jax.prepared.layout import Entry, Shard
from vidsme_jax.store.parts import damaged


def merged(
    entries: Sequence[Entry],
    before: Shard | None,
    known: Sequence[Entry],
    fresh: Mapping[str, pathlib.Path],
) -> Iterator[bytes]:
    """Yields the records of a shard, one in memory at a time."""
    good = [entry.digest for entry in known if not entry.stage]
    places = {digest: place for place, digest in enumerate(good)}
    with contextlib.ExitStack() as held:
        reader: Any = None
        if before is not None:
            reader = array_record_module.ArrayRecordReader(str(before.records))
            held.callback(reader.close)
        for entry in entries:
            if entry.stage:
                continue
            if entry.digest in fresh:
                record = fresh[entry.digest].read_bytes()
            else:
                assert before is not None
                try:
                    record = reader.read([places[entry.digest]])[0]
                except (RuntimeError, IndexError) as error:
                    remedy = "delete it and its clips are prepared again"
                    problem = damaged(before.records, error, remedy)
                    raise AuditError([problem]) from error
            example = parsed(record)
            stored = example.features.feature["rows"].bytes_list
            stored.value[:] = [entry.text().encode()]
            yield example.SerializeToString(deterministic=True)


def write(path: pathlib.Path, records: Iterator[bytes]) -> None:
    """Writes a file of records, whole or not at all."""
    partial = path.with_name(path.name + ".tmp")
    # Pictures do not get smaller, and a group of one makes every record quick to find.
    how = "group_size:1,uncompressed"
    writer = array_record_module.ArrayRecordWriter(str(partial), how)
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """Makes a file of records appear in another folder as well."""
    try:
        os.link(source, target)
    except OSError:  # A file system without links.
        partial = target.with_name(target.name + ".tmp")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
