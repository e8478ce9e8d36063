"""A folder on this machine that mirrors one in an object store.

What is written goes into the folder first and is then put whole; what is read is
fetched whole, once for each version that the store has of it, or read in pieces. Files
that were written and not put, since the server stopped or the run was killed, are still
in the folder, and are put when it is used next.
"""

import concurrent.futures
import contextlib
import pathlib
from collections.abc import Callable, Collection

from vidsme_jax.store import files
from vidsme_jax.store.buckets import Bucket, Stored

_MOST_GAPS = 10_000  # Numbers that are asked for by name.
_REQUESTS = 16  # At a time.


class Mirror:
    """A folder of files and the objects of the same names.

    Attributes:
      folder: On this machine.
      bucket: The objects.
    """

    def __init__(self, folder: pathlib.Path, bucket: Bucket, versions: pathlib.Path):
        """Looks at nothing yet.

        Args:
          folder: Receives files.
          bucket: Has the objects.
          versions: A folder that remembers which version of its object each file is.
        """
        self.folder, self.bucket, self._versions = folder, bucket, versions
        self._there: dict[str, Stored] = {}

    def within(self, name: str) -> "Mirror":
        """Returns the mirror of a folder of this one."""
        return Mirror(
            self.folder / name, self.bucket.folder(name), self._versions / name
        )

    def look(self) -> None:
        """Lists the objects."""
        self._there = self.bucket.names()

    def listed(self) -> dict[str, Stored]:
        """Returns the objects that a listing showed, or that were found since."""
        return dict(self._there)

    def find(self, name: str) -> bool:
        """Returns whether an object is there, whether or not a listing shows it."""
        if name not in self._there:
            with contextlib.suppress(FileNotFoundError):
                self._there[name] = self.bucket.stored(name)
        return name in self._there

    def clean(self) -> None:
        """Deletes the files whose objects were deleted since."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            name = path.name
            if name not in self._there and self._version(name).exists():
                if not self.find(name):
                    self.drop(name)

    def unsent(self) -> list[str]:
        """Returns the files that were never put, nor fetched."""
        return sorted(
            path.name
            for path in (self.folder.iterdir() if self.folder.is_dir() else ())
            if path.is_file()
            and not files.is_partial(path.name)
            and not self._version(path.name).exists()
        )

    def current(self, name: str) -> bool:
        """Returns whether the file is the object that was listed."""
        there = self._there.get(name)
        with contextlib.suppress(OSError):
            known = self._version(name).read_text()
            same = there is None or known == there.version
            return same and (self.folder / name).is_file()
        return False

    def fetch(self, *names: str) -> None:
        """Copies objects to their files, several at a time, unless these are current.

        Raises:
          OSError: One cannot be copied.
        """
        with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
            for _ in pool.map(self._fetch, names):
                pass

    def _fetch(self, name: str) -> None:
        if self.current(name):
            return
        self._version(name).unlink(missing_ok=True)
        # Asked for first: one that is put again meanwhile is another version then.
        known = self._there.get(name) or self.bucket.stored(name)
        self.bucket.fetch(name, self.folder / name)
        self._note(name, known)

    def create(self, name: str) -> None:
        """Puts a file where no object is.

        Raises:
          FileExistsError: There is one, of other content.
          OSError: It cannot be put; the file stays.
        """
        self.bucket.create_from(name, self.folder / name)
        self._note(name, self.bucket.stored(name))

    def replace(self, name: str) -> None:
        """Puts a file in place of the object.

        Raises:
          OSError: It cannot be put; the file stays.
        """
        self.bucket.replace_from(name, self.folder / name)
        self._note(name, self.bucket.stored(name))

    def delete(self, name: str) -> None:
        """Deletes the object, not the file.

        Raises:
          OSError: It cannot be deleted.
        """
        self.bucket.delete(name)
        self._there.pop(name, None)
        self._version(name).unlink(missing_ok=True)

    def clear(self, folders: Collection[str]) -> None:
        """Deletes the objects of some folders of this one.

        Raises:
          OSError: One cannot be deleted.
        """
        self.look()
        its = [name for name in self._there if name.split("/")[0] in folders]
        with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
            for _ in pool.map(self.delete, its):
                pass

    def drop(self, name: str) -> None:
        """Deletes the file, not the object."""
        self._version(name).unlink(missing_ok=True)
        (self.folder / name).unlink(missing_ok=True)

    def forget(self, name: str) -> bool:
        """Deletes a damaged file whose object may be whole; returns whether it did."""
        if not self.find(name):
            return False
        self.drop(name)
        return True

    def _note(self, name: str, stored: Stored) -> None:
        """Remembers which version of an object the file is."""
        self._there[name] = stored
        path = self._version(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, stored.version.encode())

    def _version(self, name: str) -> pathlib.Path:
        return self._versions / name


def numbered(
    mirror: Mirror, name: Callable[[int], str], known: list[int], step: int
) -> list[int]:
    """Returns numbers of objects that are there and that a listing did not show.

    Args:
      mirror: Of the objects.
      name: Of a number.
      known: The numbers that were listed.
      step: Between two numbers of one writer, who leaves none out.
    """
    last = max(known, default=-1)
    # Somebody else's name may have any number; a listing that lags leaves out a few.
    few = last + 1 - len(known) <= _MOST_GAPS
    gaps = sorted(set(range(last)) - set(known)) if few else []
    found = [number for number in gaps if mirror.find(name(number))]
    for start in range(last + 1, last + 1 + step):
        number = start
        while mirror.find(name(number)):
            found.append(number)
            number += step
    return found
