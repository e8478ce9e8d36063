"""A version of a prepared corpus in a bucket, read through copies on this machine.

    gs://BUCKET/DIR/prepared/uniform_16_png/1.0.0/   the same files as in a folder
      dataset_info.json                              put last, where there is none

A version is whole when it has its last object. Numbers are not left out: one that was
given up, or replaced and deleted, has a last object that says so, so that the newest
version is found by name even where a listing lags.
"""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import pathlib
import re
import shutil
import threading
from typing import Any

from vidsme_jax.prepared import layout
from vidsme_jax.prepared.layout import INFO, Shard
from vidsme_jax.store import files
from vidsme_jax.store.buckets import Bucket, Stored
from vidsme_jax.store.lock import unread

SETTINGS, FEATURES = "settings.json", "features.json"
REQUESTS = 16  # At a time, of small objects.
_LAST = re.compile(rf"1\.(0|[1-9][0-9]{{0,17}})\.0/{re.escape(INFO)}")
_REPLACED = "replaced_by"  # The key of a last object that stands for no version.


def tombstone(version: str) -> bytes:
    """Returns the last object of a number that has no version, or none any more.

    Args:
      version: The one that counts instead.
    """
    return json.dumps({_REPLACED: version}).encode()


def is_complete(folder: Bucket, number: int) -> bool:
    """Returns whether there is a whole version of a number.

    Raises:
      OSError: The server does not say.
    """
    try:
        content = json.loads(folder.content(f"1.{number}.0/{INFO}"))
    except FileNotFoundError:
        return False
    except ValueError:  # A whole version whose description is damaged.
        return True
    return not (isinstance(content, dict) and _REPLACED in content)


def newest(
    folder: Bucket, listed: dict[str, Stored] | None = None
) -> tuple[int | None, int]:
    """Returns the number of the newest whole version, and the next free number.

    Args:
      folder: Of a variant.
      listed: Its objects as a listing has them, which may lag; None asks for them.

    Raises:
      OSError: The server does not say.
    """
    listed = folder.names() if listed is None else listed
    found = (match for name in listed if (match := _LAST.fullmatch(name)))
    top = max((int(match[1]) for match in found), default=-1)
    following = itertools.count(top + 1)
    free = next(n for n in following if not folder.has(f"1.{n}.0/{INFO}"))
    for number in range(free - 1, -1, -1):
        if is_complete(folder, number):
            return number, free
    return None, free


class Copies:
    """Copies of one version; safe to use from several threads and processes.

    What describes it is copied at once, its records shard by shard when they are asked
    for. A copy that is not what its index describes is made again.

    Attributes:
      version: Where it is.
      folder: Of the copies, as a version has them in a folder.
    """

    def __init__(self, version: Bucket, folder: pathlib.Path, num_shards: int):
        """Copies what describes the version.

        Raises:
          OSError: The server does not answer, or the copies cannot be written.
        """
        self.version, self.folder, self.num_shards = version, folder, num_shards
        folder.mkdir(parents=True, exist_ok=True)
        indexes = [self.shard(number).index.name for number in range(num_shards)]
        with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
            copies = pool.map(self._copy, [INFO, FEATURES, *indexes])
            for _ in copies:
                pass
        self._locks = [threading.Lock() for _ in range(num_shards)]

    def __reduce__(self) -> tuple[Any, ...]:
        return Copies, (self.version, self.folder, self.num_shards)

    def _copy(self, name: str) -> None:
        """Copies a small object; one that is absent is absent in the copy."""
        copy(self.version, name, self.folder / name)

    def shard(self, number: int) -> Shard:
        """Returns a shard, whose index is here; its records are after `fetch`."""
        return Shard(self.folder, number, self.num_shards)

    def fetch(self, number: int) -> Shard:
        """Sees to it that the records of a shard are here.

        Raises:
          FileNotFoundError: They are in the bucket no more.
          OSError: They cannot be fetched, or kept.
          ValueError: They are not what the index describes.
        """
        shard = self.shard(number)
        with self._locks[number]:
            _, facts = shard.indexed()
            try:
                shard.check(facts)
            except ValueError:  # Not here yet, or of another corpus at this URL.
                self.version.fetch(shard.records.name, shard.records)
                shard.check(facts)
        return shard


def copy(bucket: Bucket, name: str, path: pathlib.Path) -> bool:
    """Copies a small object to a file, which stays untouched where it is the same.

    Returns:
      Whether there is such an object; without, the file is deleted.

    Raises:
      OSError: The server does not answer, or the file cannot be written.
    """
    try:
        content = bucket.content(name)
    except FileNotFoundError:
        path.unlink(missing_ok=True)
        return False
    if not path.is_file() or path.read_bytes() != content:
        files.write_atomically(path, content)
    return True


def not_found(place: Bucket) -> str:
    """Returns that a bucket has no whole version of a variant, and what it has.

    Raises:
      OSError: The server does not answer.
    """
    root, _, name = place.url.rpartition("/")
    listed = Bucket(root).names()
    others = sorted(
        {
            each.partition("/")[0]
            for each in listed
            if _LAST.fullmatch(each.partition("/")[2])
        }
    )
    there = ", ".join(others) or "nothing"
    root = root.removesuffix(f"/{layout.NAME}")
    return (
        f"corpus.prepared: {root} has no clips prepared as {name} (it has {there}); "
        f"{layout.REMEDY} them"
    )


def folder_of(cache: pathlib.Path, variant: Bucket) -> pathlib.Path:
    """Returns the folder of the copies of a variant's versions."""
    return cache / hashlib.sha256(variant.url.encode()).hexdigest()[:32]


def delete_others(folder: pathlib.Path) -> None:
    """Deletes the copies of other versions beside one, but for those that are read."""
    for other in folder.parent.glob("1.*.0"):
        if other != folder:
            with unread(other / INFO) as free, contextlib.suppress(OSError):
                if free:
                    shutil.rmtree(other)
