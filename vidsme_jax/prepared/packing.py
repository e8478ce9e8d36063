"""Packs staged clips into the shards of the next version, on any machine."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from vidsme_jax.prepared import records
from vidsme_jax.prepared.layout import Entry, RecordFacts, Shard
from vidsme_jax.prepared.staging import Staging
from vidsme_jax.store import files

UNFINISHED = "unfinished"


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """The newest intact state of a shard before this run.

    Attributes:
      home: The name of its folder, "" if there is no such state.
      entries: Of its clips.
      facts: Of its records in a bucket; see `layout.facts_of`.
    """

    home: str = ""
    entries: tuple[Entry, ...] = ()
    facts: RecordFacts | None = None

    @property
    def digests(self) -> list[str]:
        """The digests of its records, in their order."""
        return [entry.digest for entry in self.entries if not entry.stage]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
    """The next state of a shard; it can be sent to another process.

    Attributes:
      number: Of the shard.
      before: Its state before.
      entries: Of its clips, prepared and failed.
      fresh: The names of the staged clips to add, by digest.
      rewrite: Whether its records differ from those before.
      used: The names of the staged clips to delete when the shard is complete.
    """

    number: int
    before: State
    entries: tuple[Entry, ...]
    fresh: Mapping[str, str]
    rewrite: bool
    used: tuple[str, ...]

    def differs(self, home: str) -> bool:
        """Returns whether the shard differs from that in a folder."""
        return self.before.home != home or self.entries != self.before.entries

    def records(self, before: pathlib.Path | None, staging: Staging) -> Iterator[bytes]:
        """Yields the records; see `records.merged`."""
        digests = self.before.digests
        return records.merged(self.entries, before, digests, self.fresh, staging)

    @property
    def takes_over(self) -> bool:
        """Whether some of its records are copied from the state before."""
        return any(not e.stage and e.digest not in self.fresh for e in self.entries)


def plan_of(packings: Sequence[Packing], base: str) -> str:
    """Returns the SHA-256 of the content of the next version.

    Args:
      packings: Of all shards.
      base: The name of the version before, or "".
    """
    digest = hashlib.sha256(base.encode())
    for packing in packings:
        parts = [
            (entry.digest, entry.rows, entry.stage, entry.cause)
            for entry in packing.entries
        ]
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Packer:
    """Writes shards to `unfinished/` in a local or network folder."""

    folder: pathlib.Path
    num_shards: int
    staging: Staging

    def __call__(self, packing: Packing) -> None:
        """Writes a shard.

        Raises:
          AuditError: A record or staged clip is damaged.
          OSError: The shard cannot be written.
        """
        home = packing.before.home
        unfinished = self.folder / UNFINISHED
        unfinished.mkdir(exist_ok=True)
        shard = self._shard(UNFINISHED, packing)
        before = self._shard(home, packing).records if home else None
        if packing.rewrite:
            records.write(shard.records, packing.records(before, self.staging))
        elif before is not None and home != UNFINISHED:
            files.link(before, shard.records)
        if packing.differs(UNFINISHED):
            shard.write(packing.entries)
        self.staging.delete(packing.used)

    def _shard(self, home: str, packing: Packing) -> Shard:
        return Shard(self.folder / home, packing.number, self.num_shards)
