"""The versions of a prepared corpus in a bucket, without renames and locks.

A run claims the next free version number by creating `plan.json`, the SHA-256 of the
content of the version. Runs with the same plan, and a run that continues after a kill,
create the same objects; a run with another plan takes the following number. The last
object, `dataset_info.json`, completes the version. Before it, a run creates tombstones
in the numbers that it has skipped: so of two runs that started from one version, one is
refused; its clips stay staged, and it starts again from the version of the other.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import itertools
import json
import pathlib
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NoReturn

from absl import logging

from vidsme_jax.prepared import copies, dataset, layout, records
from vidsme_jax.prepared.copies import REQUESTS, Copies
from vidsme_jax.prepared.layout import INFO, RecordFacts, Shard, Variant
from vidsme_jax.prepared.packing import Packing, State, plan_of
from vidsme_jax.prepared.staging import Staging
from vidsme_jax.store.buckets import Bucket, Stored

_PLAN = "plan.json"
_OBJECT = re.compile(r"1\.(0|[1-9][0-9]{0,17})\.0/(.+)")


class BucketVersions:
    """The versions of a variant; several runs may use this at once.

    Attributes:
      base: The newest version, None if there is none.
      num_shards: The number of shards of every version.
    """

    def __init__(
        self, folder: Bucket, variant: Variant, num_shards: int, work: pathlib.Path
    ):
        """Lists the versions, and copies the index of the newest.

        Args:
          folder: Of the variant.
          variant: How clips are prepared.
          num_shards: The number of shards if the variant is new.
          work: An empty folder on this machine.

        Raises:
          AuditError: It has other settings.
          OSError: The server does not answer.
        """
        self._folder, self._variant, self._work = folder, variant, work
        self.num_shards = self._settled(num_shards)
        self._listed = folder.names()
        number, self._free = copies.newest(folder, self._listed)
        self._copies = self.base = None
        self._newest = -1 if number is None else number
        if number is not None:
            name = f"1.{number}.0"
            self.base = folder.folder(name)
            self._copies = Copies(self.base, work / name, self.num_shards)

    def _settled(self, num_shards: int) -> int:
        """Returns the number of shards, as decided by the first run of the variant."""
        own = self._work / copies.SETTINGS
        if not copies.copy(self._folder, copies.SETTINGS, own):
            layout.write_settings(self._work, self._variant, num_shards)
            try:
                self._folder.create(copies.SETTINGS, own.read_bytes())
            except FileExistsError:  # Another run was faster.
                copies.copy(self._folder, copies.SETTINGS, own)
        return layout.check_settings(self._work, self._variant, self._folder.url)

    def states(self) -> list[State]:
        """Returns the state of each shard in the newest version."""
        with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(self._state, range(self.num_shards)))

    def _state(self, number: int) -> State:
        if self.base is None or self._copies is None:
            return State()
        home = self._copies.folder.name
        shard = self._copies.shard(number)
        try:
            entries, facts = shard.indexed()
            stored = self._listed.get(f"{home}/{shard.records.name}")
            if stored is None and not self.base.has(shard.records.name):
                raise ValueError(f"{shard.records.name} is missing")
            if stored is not None and stored.size != facts["bytes"]:
                raise ValueError(f"{shard.records.name} has {stored.size} bytes")
        except ValueError as error:
            where = self.base.url
            logging.warning("%s: %s; preparing its clips again", where, error)
            return State()
        return State(home=home, entries=entries, facts=facts)

    @contextlib.contextmanager
    def packing(
        self, packings: Sequence[Packing], lengths: Sequence[int], staging: Staging
    ) -> Generator[Callable[[Packing], None] | None, None, None]:
        """Publishes the next version from the shards written in the block.

        See `FolderVersions.packing`.

        Raises:
          OSError: The version cannot be written, or another run has published one.
        """
        home = self._copies.folder.name if self._copies else ""
        differs = not home or any(packing.differs(home) for packing in packings)
        described = self._copies and dataset.counts(self._copies.folder)
        number = self._newest
        if differs or described != lengths:
            number, done = self._claimed(plan_of(packings, home))
            version = self._folder.folder(f"1.{number}.0")
            if done:  # By another run of the same plan.
                yield None
            else:
                existing = frozenset(version.names())
                given = self.base, self.num_shards, staging, existing
                try:
                    yield BucketPacker(version, *given)
                except OSError:
                    # Another run of this plan has finished and deleted staged clips.
                    if not copies.is_complete(self._folder, number):
                        raise
                else:
                    self._publish(version, number, lengths)
        else:
            yield None
        names = (name for packing in packings for name in packing.used)
        _each(lambda name: staging.delete([name]), names)
        self._clean(number)

    def _claimed(self, plan: str) -> tuple[int, bool]:
        """Claims a number for a plan; returns it, and whether it is complete."""
        content = json.dumps({"plan": plan}).encode()
        for number in itertools.count(self._free):
            version = self._folder.folder(f"1.{number}.0")
            claimed = True
            try:
                version.create(_PLAN, content)
            except FileExistsError:
                claimed = False
            if copies.is_complete(self._folder, number):
                if not claimed:
                    self._refuse(number)
                return number, True
            if claimed and not version.has(INFO):
                return number, False
        raise AssertionError("there is always a next number")

    def _publish(self, version: Bucket, number: int, lengths: Sequence[int]) -> None:
        """Completes a version after all its shards."""
        listed = version.names()
        with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
            sizes = pool.map(
                lambda n: self._size(version, listed, n), range(self.num_shards)
            )
            size = sum(sizes)
        with tempfile.TemporaryDirectory(dir=self._work) as own:
            made = pathlib.Path(own)
            name = f"1.{number}.0"
            dataset.describe(made, name, self._variant, lengths, size)
            last = (made / INFO).read_bytes()
            for path in sorted(made.iterdir()):
                if path.name != INFO:
                    with contextlib.suppress(FileExistsError):  # Of the same plan.
                        version.create(path.name, path.read_bytes())
        for skipped in range(self._free, number):
            try:
                gone = copies.tombstone(name)
                self._folder.create(f"1.{skipped}.0/{INFO}", gone)
            except FileExistsError:
                if copies.is_complete(self._folder, skipped):
                    self._refuse(skipped)
        try:
            version.create(INFO, last)
        except FileExistsError:
            if not copies.is_complete(self._folder, number):
                self._refuse(number)

    def _size(self, version: Bucket, listed: dict[str, Stored], number: int) -> int:
        """Returns the size of a shard's records in bytes.

        Raises:
          FileNotFoundError: The shard is missing.
        """
        shard = Shard(self._work, number, self.num_shards)
        if shard.index.name not in listed and not version.has(shard.index.name):
            cause = "the shard was written, and is missing"
            raise FileNotFoundError(
                errno.ENOENT, cause, f"{version.url}/{shard.index.name}"
            )
        name = shard.records.name
        return (listed.get(name) or version.stored(name)).size

    def _refuse(self, number: int) -> NoReturn:
        raise OSError(
            errno.EEXIST,
            "another run has published the next version meanwhile; nothing is lost: "
            "the clips of this run stay staged, and the next run adds them",
            f"{self._folder.url}/1.{number}.0",
        )

    def _clean(self, newest: int) -> None:
        """Deletes the objects of earlier numbers, except their tombstones."""
        gone = []
        for name in self._folder.names():
            match = _OBJECT.fullmatch(name)
            if match and int(match[1]) < newest and match[2] != INFO:
                gone.append(name)
        numbers = {name.split("/")[0] for name in gone}
        last = copies.tombstone(f"1.{newest}.0")
        for version in sorted(numbers):  # First, so that readers find it deleted.
            self._folder.replace(f"{version}/{INFO}", last)
        _each(self._folder.delete, gone)


@dataclasses.dataclass(frozen=True)
class BucketPacker:
    """Writes shards locally and uploads them to a version in a bucket.

    Attributes:
      version: A claimed version.
      base: The version before.
      num_shards: Of both.
      staging: Holds the staged clips.
      existing: Objects of the version uploaded by an earlier run.
    """

    version: Bucket
    base: Bucket | None
    num_shards: int
    staging: Staging
    existing: frozenset[str]

    def __call__(self, packing: Packing) -> None:
        """Uploads the records of a shard, and then its index.

        Raises:
          AuditError: A record or staged clip is damaged.
          OSError: An object cannot be read or written, or the disk is full.
        """
        with tempfile.TemporaryDirectory(prefix="vidsme-") as work:
            shard = Shard(pathlib.Path(work), packing.number, self.num_shards)
            if shard.index.name in self.existing:
                return
            facts = packing.before.facts
            if packing.rewrite:
                facts = self._put(shard, packing)
            elif shard.records.name not in self.existing:
                assert self.base is not None
                name = shard.records.name
                self.base.copy(name, self.version, name)
            shard.write(packing.entries, facts)
            with contextlib.suppress(FileExistsError):  # By a run of the same plan.
                self.version.create_from(shard.index.name, shard.index)

    def _put(self, shard: Shard, packing: Packing) -> RecordFacts:
        """Writes and uploads the records; returns the facts of the uploaded object."""
        name = shard.records.name
        if name not in self.existing:
            before = None
            if packing.takes_over:
                assert self.base is not None
                before = shard.folder / "before"
                self.base.fetch(name, before)
            made = packing.records(before, self.staging)
            records.write(shard.records, made)
            with contextlib.suppress(FileExistsError):  # By a run of the same plan.
                self.version.create_from(name, shard.records)
                with shard.records.open("rb") as file:
                    return layout.facts_of(file)
        with self.version.opened(name) as file:
            return layout.facts_of(file)


def _each(work: Callable[[str], None], names: Iterable[str]) -> None:
    """Calls a function with each of many names, several at a time."""
    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
        for _ in pool.map(work, names):
            pass
