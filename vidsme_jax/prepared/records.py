"""The record files of a prepared corpus, one per shard."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from google.protobuf import message

from vidsme_jax.base import AuditError
from vidsme_jax.data.features import parsed
from vidsme_jax.prepared.layout import Entry
from vidsme_jax.prepared.staging import REMEDY, Staging
from vidsme_jax.store import files
from vidsme_jax.store.records import damaged


def merged(
    entries: Sequence[Entry],
    before: pathlib.Path | None,
    digests: Sequence[str],
    fresh: Mapping[str, str],
    staging: Staging,
) -> Iterator[bytes]:
    """Yields the records of a shard, with one in memory at a time.

    Args:
      entries: Of the shard.
      before: The record file of its state before, if any.
      digests: The digests of those records, in their order.
      fresh: The names of staged clips by digest, which replace records.
      staging: Holds the staged clips.

    Raises:
      AuditError: A record is damaged.
      OSError: A staged clip cannot be read.
    """
    places = {digest: place for place, digest in enumerate(digests)}
    with contextlib.ExitStack() as stack:
        reader: Any = None
        if before is not None:
            reader = array_record_module.ArrayRecordReader(str(before))
            stack.callback(reader.close)
        for entry in entries:
            if entry.stage:
                continue
            name = fresh.get(entry.digest)
            try:
                if name is None:
                    record = reader.read([places[entry.digest]])[0]
                else:
                    record = staging.content(name)
                example = parsed(record)
            except (RuntimeError, IndexError, message.DecodeError) as error:
                where = before if name is None else staging.where(name)
                assert where is not None
                raise AuditError([damaged(where, error, REMEDY)]) from error
            stored = example.features.feature["rows"].bytes_list
            stored.value[:] = [entry.text().encode()]
            yield example.SerializeToString(deterministic=True)


def write(path: pathlib.Path, records: Iterator[bytes]) -> None:
    """Writes a record file atomically.

    Raises:
      OSError: It cannot be written.
    """
    # Pictures do not compress further; groups of one give random access.
    options = "group_size:1,uncompressed"
    with files.replacing(path) as file:
        try:
            writer = array_record_module.ArrayRecordWriter(str(file.name), options)
            try:
                for record in records:
                    writer.write(record)
            finally:
                writer.close()
        except RuntimeError as error:  # array_record's error, such as a full disk.
            raise OSError(str(error)) from error
