"""A version of a prepared corpus in a bucket, read through local copies.

    gs://BUCKET/DIR/prepared/uniform_16_png/1.0.0/   the same files as in a folder
      dataset_info.json                              the last object, created atomically

A version is complete when it has its last object. Version numbers have no gaps: one
that was abandoned, or replaced and deleted, has a tombstone as last object, so that the
newest version is found by name even if a listing lags.
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

from vidsme_jax.prepared import layout
from vidsme_jax.prepared.layout import INFO, Shard
from vidsme_jax.store import files
from vidsme_jax.store.buckets import Bucket, Stored
from vidsme_jax.store.lock import unread

SETTINGS, FEATURES = "settings.json", "features.json"
REQUESTS = 16  # Concurrent requests for small objects.
_LAST = re.compile(rf"1\.(0|[1-9][0-9]{{0,17}})\.0/{re.escape(INFO)}")
_REPLACED = "replaced_by"  # The key of a tombstone.


def tombstone(version: str) -> bytes:
    """Returns the last object of a number without a version, or with a deleted one.

    Args:
      version: The version that replaces it.
    """
    return json.dumps({_REPLACED: version}).encode()


def is_complete(folder: Bucket, number: int) -> bool:
    """Returns whether a number has a complete version.

    Raises:
      OSError: The server does not answer.
    """
    try:
        content = json.loads(folder.content(f"1.{number}.0/{INFO}"))
    except FileNotFoundError:
        return False
    except ValueError:  # A complete version with a damaged description.
        return True
    return not (isinstance(content, dict) and _REPLACED in content)


def newest(
    folder: Bucket, listed: dict[str, Stored] | None = None
) -> tuple[int | None, int]:
    """Returns the number of the newest complete version, and the next free number.

    Args:
      folder: Of a variant.
      listed: A listing of its objects, which may lag; None requests one.

    Raises:
      OSError: The server does not answer.
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
    """Local copies of one version; safe for several threads and processes.

    Descriptions and indexes are copied at once, the records of a shard on `fetch`. A
    copy that does not match its index is fetched again.

    Attributes:
      version: The version in the bucket.
      folder: The folder of the copies, with the layout of a version.
      num_shards: The number of shards.
    """

    def __init__(self, version: Bucket, folder: pathlib.Path, num_shards: int):
        """Copies descriptions and indexes.

        Raises:
          OSError: The server does not answer, or the copies cannot be written.
        """
        self.version, self.folder, self.num_shards = version, folder, num_shards
        folder.mkdir(parents=True, exist_ok=True)
        indexes = [self.shard(number).index.name for number in range(num_shards)]
        with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
            names = [INFO, FEATURES, *indexes]
            list(pool.map(lambda name: copy(version, name, folder / name), names))
        self._locks = [threading.Lock() for _ in range(num_shards)]

    def shard(self, number: int) -> Shard:
        """Returns a shard with its index; its records are local after `fetch`."""
        return Shard(self.folder, number, self.num_shards)

    def fetch(self, number: int) -> Shard:
        """Fetches the records of a shard, unless they are local.

        Raises:
          FileNotFoundError: They are no longer in the bucket.
          OSError: They cannot be fetched or written.
          ValueError: They do not match the index.
        """
        shard = self.shard(number)
        with self._locks[number]:
            _, facts = shard.indexed()
            try:
                shard.check(facts)
            except ValueError:  # Missing, or of an earlier corpus at this URL.
                self.version.fetch(shard.records.name, shard.records)
                shard.check(facts)
        return shard


def copy(bucket: Bucket, name: str, path: pathlib.Path) -> bool:
    """Copies a small object to a file; a file with equal content is not written.

    Returns:
      Whether the object exists; if not, the file is deleted.

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
    """Returns the error of a bucket without a complete version of a variant.

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
    """Returns the folder for the copies of a variant's versions."""
    return cache / hashlib.sha256(variant.url.encode()).hexdigest()[:32]


def delete_others(folder: pathlib.Path) -> None:
    """Deletes the copies of a variant's other versions, unless they are being read."""
    for other in folder.parent.glob("1.*.0"):
        if other != folder:
            with unread(other / INFO) as free, contextlib.suppress(OSError):
                if free:
                    shutil.rmtree(other)
