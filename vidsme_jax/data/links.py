"""Resolves links in the paths of many files at once.

Each folder is resolved once, not once per file.
"""

import collections
import itertools
import os
import pathlib
import re
from collections.abc import Sequence

_LISTED = 100  # A folder with this many wanted files is listed.
_CROWDED = 20  # Unless it has this many times as many files: then each is checked.
_DEPTH = 16  # Nested folders that are cached.
_LONG = 512  # Characters of a folder's path from which its parents are not cached.
_ROUNDS = 8  # Attempts to resolve links to themselves.
# A repository in the cache of the Hugging Face hub, whose snapshots link to its blobs.
_REPOSITORY = re.compile(r"(datasets|models|spaces)--.+")
_HERE = ("", os.curdir, os.pardir)


def resolved(names: Sequence[str]) -> list[str]:
    """Returns `real` of each path; the files need not exist."""
    folders = _Folders()
    split = [name.rpartition(os.sep) for name in names]
    counts = collections.Counter(above or slash for above, slash, _ in split)
    # By folder: the prefix of paths in it, and the names in it known to be no links.
    plain: dict[str, tuple[str, frozenset[str]]] = {}
    found = []
    for above, slash, base in split:
        folder = above or slash
        if folder not in plain:
            home = folders.real(folder)
            plain[folder] = os.path.join(home, ""), _plain(home, counts[folder])
        start, certain = plain[folder]
        if base in certain:
            found.append(start + base)
        else:
            found.append(folders.joined(folder, base))
    return found


def real(path: str) -> str:
    """Returns an absolute path with all resolvable links resolved.

    At a link to itself `os.path.realpath` gives up and appends the rest unresolved,
    which may contain further links: those are resolved too. A path that never converges
    is returned with its links; the system cannot open it.
    """
    found = os.path.realpath(path)
    for _ in range(_ROUNDS):
        before, found = found, os.path.realpath(found)
        if found == before:
            return found
    return os.path.abspath(path)


def inside(folder: pathlib.Path) -> tuple[pathlib.Path, tuple[str, ...]]:
    """Returns a folder without links, and the prefixes of paths inside it.

    Paths in a snapshot of the Hugging Face hub may be blobs of its repository.
    """
    root = pathlib.Path(real(str(folder)))
    found = [os.path.join(root, "")]
    for snapshot in (root, *root.parents):
        repository = snapshot.parent.parent
        is_one = _REPOSITORY.fullmatch(repository.name)
        if snapshot.parent.name == "snapshots" and is_one:
            found.append(os.path.join(repository, "blobs", ""))
    return root, tuple(found)


class _Folders:
    """A cache of resolved folders."""

    def __init__(self):
        self._known: dict[str, str] = {}

    def real(self, folder: str) -> str:
        """Returns `real` of a folder."""
        if folder not in self._known:
            parts, most = [folder], _DEPTH if len(folder) < _LONG else 1
            while len(parts) < most and (above := os.path.dirname(parts[-1])):
                if above in self._known or above == parts[-1]:
                    break
                parts.append(above)
            for part in reversed(parts):
                self._known[part] = self.joined(*os.path.split(part))
        return self._known[folder]

    def joined(self, folder: str, base: str) -> str:
        """Returns `real` of a file in a folder."""
        if base in _HERE or folder not in self._known:
            return real(os.path.join(folder, base))
        path = os.path.join(self._known[folder], base)
        return real(path) if os.path.islink(path) else path


def _plain(folder: str, count: int) -> frozenset[str]:
    """Returns the names in a folder that are not links; none if not worth listing.

    `folder` is without links, `count` the number of its files that are wanted.
    """
    if count < _LISTED:
        return frozenset()
    try:
        with os.scandir(folder) as entries:
            some = itertools.islice(entries, _CROWDED * count)
            found = frozenset(each.name for each in some if not each.is_symlink())
            crowded = next(entries, None) is not None
    except OSError:
        return frozenset()
    return frozenset() if crowded else found
