"""The versions of a prepared corpus in a bucket, where nothing is renamed or locked.

A run that makes a version first puts `plan.json` in a folder of the next number, where
there is none: the SHA-256 of what the version is going to hold. Runs of one plan put
the same objects, and so does one that continues after a kill; one of another plan takes
the number after. The last object, `dataset_info.json`, makes the version whole. Before
it puts that, a run puts last objects of its own into the numbers that it has passed
over: so of two runs that began from one version, one is refused, whose clips stay
staged, and which begins again from the version of the other.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from absl import logging

from vidsme_jax.prepared import copies, dataset, layout, records
from vidsme_jax.prepared.copies import REQUESTS, Copies
from vidsme_jax.prepared.layout import INFO, Shard, Variant
from vidsme_jax.prepared.packing import Packing, State, plan_of
from vidsme_jax.prepared.staging import Staging
from vidsme_jax.store.buckets import Bucket

_PLAN = "plan.json"
_OBJECT = re.compile(r"1\.(0|[1-9][0-9]{0,17})\.0/(.+)")


class BucketVersions:
    """Those of a variant; several runs may have this at once.

    Attributes:
      base: Where the newest one is, None if there is none.
      num_shards: Of every one.
    """

    def __init__(
        self, folder: Bucket, variant: Variant, num_shards: int, work: pathlib.Path
    ):
        """Looks what is there.

        Args:
          folder: Of the variant.
          variant: How clips are prepared.
          num_shards: Of a new one.
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
        """Returns the number of shards of the variant, by whoever began it."""
        own = self._work / copies.SETTINGS
        if not copies.copy(self._folder, copies.SETTINGS, own):
            layout.write_settings(self._work, self._variant, num_shards)
            try:
                self._folder.create(copies.SETTINGS, own.read_bytes())
            except FileExistsError:  # Another run was faster.
                copies.copy(self._folder, copies.SETTINGS, own)
        return layout.check_settings(self._work, self._variant, self._folder.url)

    def states(self) -> list[State]:
        """Returns the whole state of each shard in the newest version."""
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
    ) -> Iterator[Callable[[Packing], None] | None]:
        """Makes the next version of shards that are written in the block.

        See `FolderVersions.packing`.

        Raises:
          OSError: The version cannot be made, or another run has made one meanwhile.
        """
        home = self._copies.folder.name if self._copies else ""
        differs = not home or any(packing.differs(home) for packing in packings)
        described = self._copies and dataset.counts(self._copies.folder)
        number = self._newest
        if differs or described != lengths:
            number, done = self._claimed(plan_of(packings, home))
            version = self._folder.folder(f"1.{number}.0")
            if done:  # By another run, from the same clips.
                yield None
            else:
                there = frozenset(version.names())
                how = self.base, self.num_shards, staging, there
                try:
                    yield BucketPacker(version, *how)
                except OSError:
                    # Another run of this plan, which is done, deletes what was staged.
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
        """Returns the number whose version has a plan, and whether it is whole."""
        content = json.dumps({"plan": plan}).encode()
        for number in itertools.count(self._free):
            version = self._folder.folder(f"1.{number}.0")
            mine = True
            try:
                version.create(_PLAN, content)
            except FileExistsError:
                mine = False
            if copies.is_complete(self._folder, number):
                if not mine:
                    self._refuse(number)
                return number, True
            if mine and not version.has(INFO):
                return number, False
        raise AssertionError("there is always a next number")

    def _publish(self, version: Bucket, number: int, lengths: Sequence[int]) -> None:
        """Makes a version whole whose shards are all there."""
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
        for passed in range(self._free, number):
            try:
                gone = copies.tombstone(name)
                self._folder.create(f"1.{passed}.0/{INFO}", gone)
            except FileExistsError:
                if copies.is_complete(self._folder, passed):
                    self._refuse(passed)
        try:
            version.create(INFO, last)
        except FileExistsError:
            if not copies.is_complete(self._folder, number):
                self._refuse(number)

    def _size(self, version: Bucket, listed: dict[str, Any], number: int) -> int:
        """Returns how large the records of a shard are that must be there."""
        shard = Shard(self._work, number, self.num_shards)
        if shard.index.name not in listed and not version.has(shard.index.name):
            cause = "the shard was put, and is not there"
            raise FileNotFoundError(
                errno.ENOENT, cause, f"{version.url}/{shard.index.name}"
            )
        name = shard.records.name
        return (listed.get(name) or version.stored(name)).size

    def _refuse(self, number: int) -> NoReturn:
        raise OSError(
            errno.EEXIST,
            "another run has made the next version meanwhile; nothing is lost: the "
            "clips of this run are staged, and those of the other are taken over",
            f"{self._folder.url}/1.{number}.0",
        )

    def _clean(self, newest: int) -> None:
        """Deletes the objects of numbers before the newest, but the last of each."""
        gone = []
        for name in self._folder.names():
            match = _OBJECT.fullmatch(name)
            if match and int(match[1]) < newest and match[2] != INFO:
                gone.append(name)
        numbers = {name.split("/")[0] for name in gone}
        for version in sorted(
            numbers
        ):  # First, since whoever reads it sees it is gone.
            last = copies.tombstone(f"1.{newest}.0")
            self._folder.replace(f"{version}/{INFO}", last)
        _each(self._folder.delete, gone)


@dataclasses.dataclass(frozen=True)
class BucketPacker:
    """Writes shards on this machine and puts them into a version in a bucket.

    Attributes:
      version: Which has a plan.
      base: The version before.
      num_shards: Of both.
      staging: Where clips wait.
      there: Objects of the version that a run before has put.
    """

    version: Bucket
    base: Bucket | None
    num_shards: int
    staging: Staging
    there: frozenset[str]

    def __call__(self, packing: Packing) -> None:
        """Puts the records of a shard, and then its index.

        Raises:
          AuditError: What it is made of is damaged.
          OSError: An object cannot be read or put, or the disk is full.
        """
        with tempfile.TemporaryDirectory(prefix="vidsme-") as work:
            shard = Shard(pathlib.Path(work), packing.number, self.num_shards)
            if shard.index.name in self.there:
                return
            facts = dict(packing.before.facts)
            if packing.rewrite:
                facts = self._put(shard, packing)
            elif shard.records.name not in self.there:
                assert self.base is not None
                name = shard.records.name
                self.base.copy(name, self.version, name)
            shard.write(packing.entries, facts)
            with contextlib.suppress(FileExistsError):  # By a run of the same plan.
                self.version.create_from(shard.index.name, shard.index)

    def _put(self, shard: Shard, packing: Packing) -> dict[str, Any]:
        """Writes and puts the records; returns the facts of those that are there."""
        name = shard.records.name
        if name not in self.there:
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
