"""The files of records of a prepared corpus, one a shard."""

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
    good: Sequence[str],
    fresh: Mapping[str, str],
    staging: Staging,
) -> Iterator[bytes]:
    """Yields the records of a shard, one in memory at a time.

    Args:
      entries: Of the shard.
      before: The records of its state before, if it has one.
      good: The digests of those records, in their order.
      fresh: The names of the staged clips, by digest, that are taken in their place.
      staging: Where these are.

    Raises:
      AuditError: A record is damaged.
      OSError: A staged clip cannot be read.
    """
    places = {digest: place for place, digest in enumerate(good)}
    with contextlib.ExitStack() as held:
        reader: Any = None
        if before is not None:
            reader = array_record_module.ArrayRecordReader(str(before))
            held.callback(reader.close)
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
    """Writes a file of records, whole or not at all.

    Raises:
      OSError: It cannot be written.
    """
    # Pictures do not get smaller, and a group of one makes every record quick to find.
    how = "group_size:1,uncompressed"
    with files.replacing(path) as file:
        try:
            writer = array_record_module.ArrayRecordWriter(str(file.name), how)
            try:
                for record in records:
                    writer.write(record)
            finally:
                writer.close()
        except RuntimeError as error:  # As array_record says it, such as a full disk.
            raise OSError(str(error)) from error
