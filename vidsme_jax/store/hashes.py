"""SHA-256 of files, each of which is read once as long as it looks the same.

A file looks the same while its size, its times and its place on the disk do: no program
can set the time of the last change of a file's entry, so that content written over, or
put in its place, shows. One that was changed a moment ago might change again within the
same tick of the clock, and is not remembered.
"""

import json
import os
import pathlib
import time

from vidsme_jax.store import files, regular

_SETTLED = 2 * 10**9  # Nanoseconds: the coarsest clock of a file system.
_MOST = 2**28  # Bytes of what is remembered.

# Size, time of change of the content and of the entry in ns, and number of the entry.
_Look = tuple[int, int, int, int]


class Hashes:
    """What is known of the files of a folder, by their paths relative to it.

    Attributes:
      changed: Whether more is known than was read.
    """

    def __init__(self, folder: pathlib.Path):
        """Knows nothing yet."""
        self.changed = False
        self._folder = folder
        self._known: dict[str, tuple[_Look, str]] = {}

    def read(self, path: pathlib.Path) -> None:
        """Takes what `write` has written, in place of what was known.

        Raises:
          OSError: It cannot be read.
          ValueError: It is nothing that `write` writes.
        """
        with regular.opened(path) as file:
            text = file.read(_MOST + 1)
        if len(text) > _MOST:
            raise ValueError(f"it has more than {_MOST} bytes")
        try:
            found = json.loads(text)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(found, dict) or not all(map(_is_known, found.values())):
            raise ValueError("it says something else than looks and hashes of files")
        self._known = {name: (tuple(x[:4]), x[4]) for name, x in found.items()}

    def write(self, path: pathlib.Path) -> None:
        """Writes what is known of files that are still there.

        Raises:
          OSError: It cannot be written.
        """
        known = {name: [*look, its] for name, (look, its) in self._known.items()}
        there = {k: x for k, x in known.items() if (self._folder / k).exists()}
        files.write_atomically(path, json.dumps(there, sort_keys=True).encode())
        self.changed = False

    def of(self, path: pathlib.Path) -> str:
        """Returns the SHA-256 of a regular file in the folder, in hex.

        Raises:
          OSError: It is no regular file, or cannot be read.
        """
        name, before = path.relative_to(self._folder).as_posix(), _look(path)
        known = self._known.get(name)
        if known is not None and known[0] == before:
            return known[1]
        begun, found = time.time_ns(), regular.sha256(path)
        self._known.pop(name, None)
        if _look(path) == before and max(before[1:3]) < begun - _SETTLED:
            self._known[name] = before, found
            self.changed = True
        return found


def _look(path: pathlib.Path) -> _Look:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _is_known(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 5:
        return False
    *look, its = value
    is_hash = isinstance(its, str) and len(its) == 64
    return is_hash and all(type(number) is int for number in look)
