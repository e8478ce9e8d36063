"""The versions of a prepared corpus in a folder.

Shards are written to `unfinished/`, which is renamed to the next version when it is
complete. Then the version before is deleted; if it is being read, by the next run.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Generator, Sequence

from absl import logging

from vidsme_jax.prepared import dataset, layout
from vidsme_jax.prepared.layout import Shard, Variant
from vidsme_jax.prepared.packing import UNFINISHED, Packer, Packing, State
from vidsme_jax.prepared.staging import Staging
from vidsme_jax.store import files
from vidsme_jax.store.lock import unread


class FolderVersions:
    """The versions of a variant; the caller must hold the variant's lock.

    Attributes:
      base: The folder of the newest version, None if there is none.
      num_shards: The number of shards of every version.
    """

    def __init__(self, folder: pathlib.Path, variant: Variant, num_shards: int):
        """Lists the versions, and deletes temporary files of killed runs.

        Args:
          folder: Of the variant.
          variant: How clips are prepared.
          num_shards: The number of shards if the variant is new.

        Raises:
          AuditError: It has other settings.
        """
        if not layout.record(folder).read():
            layout.write_settings(folder, variant, num_shards)
        self.num_shards = layout.check_settings(folder, variant)
        self._folder, self._variant = folder, variant
        self._unfinished = folder / UNFINISHED
        self._versions = layout.versions(folder)
        self.base = self._versions[-1] if self._versions else None
        files.sweep(self._unfinished)

    def states(self) -> list[State]:
        """Returns the newest intact state of each shard."""
        return [self._state(number) for number in range(self.num_shards)]

    def _state(self, number: int) -> State:
        for folder in (self._unfinished, *self._versions[::-1]):
            try:
                entries = Shard(folder, number, self.num_shards).read()
                return State(home=folder.name, entries=entries)
            except ValueError as error:
                if folder != self._unfinished:
                    logging.warning("%s: %s; preparing its clips again", folder, error)
        return State()

    @contextlib.contextmanager
    def packing(
        self, packings: Sequence[Packing], lengths: Sequence[int], staging: Staging
    ) -> Generator[Callable[[Packing], None] | None, None, None]:
        """Publishes the next version from the shards written in the block.

        Args:
          packings: Of all shards.
          lengths: The number of records of each.
          staging: Holds their staged clips.

        Yields:
          A function that writes a shard, to be called with each packing; None if the
          newest version is up to date.

        Raises:
          OSError: The version cannot be written.
        """
        base = self.base
        home = base.name if base else ""
        differs = any(packing.differs(home) for packing in packings)
        if base is None or differs or dataset.counts(base) != lengths:
            yield Packer(self._folder, self.num_shards, staging)
            self._publish(lengths)
        else:
            yield None
            for packing in packings:
                staging.delete(packing.used)
        for old in layout.versions(self._folder)[:-1]:
            _delete(old)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        staged = self._folder / "staged"
        for folder in (*staged.glob("*"), staged):
            with contextlib.suppress(OSError):  # Missing, or not empty.
                folder.rmdir()

    def _publish(self, lengths: Sequence[int]) -> None:
        """Renames `unfinished/` to the next version."""
        before = [int(path.name.split(".")[1]) for path in self._versions]
        version = f"1.{max(before, default=-1) + 1}.0"
        shards = self._unfinished.glob("*.array_record-*")
        size = sum(path.stat().st_size for path in shards)
        dataset.describe(self._unfinished, version, self._variant, lengths, size)
        os.replace(self._unfinished, self._folder / version)


def _delete(version: pathlib.Path) -> None:
    """Deletes a replaced version, unless it is being read."""
    with unread(version / layout.INFO) as free:
        if free and version.is_symlink():
            version.unlink()
        elif free:
            shutil.rmtree(version)
        else:
            logging.info("%s is being read; the next run deletes it", version)
