"""Folders of numbered pictures as clips: `000001.jpg`, `frame_2.png`.

Pictures are ordered by the last number in their names: `frame_2` before `frame_10`. A
folder has no frame rate, so segments in seconds cannot be selected.
"""

import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from vidsme_jax.data.names import PICTURE_SUFFIXES

_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")
_LEAST = 2  # Numbered pictures that make a folder a clip.


def is_clip(names: Iterable[str]) -> bool:
    """Returns whether the names of a folder's files make it a clip."""
    numbered = (name for name in names if number_of(name) is not None)
    return len(list(itertools.islice(numbered, _LEAST))) == _LEAST


def number_of(name: str) -> int | None:
    """Returns the number of a picture; None for another file or a name without one.

    Example:
      >>> number_of("frame_010.png"), number_of("._1.jpg"), number_of("cover.jpg")
      (10, None, None)
    """
    stem, suffix = os.path.splitext(name)
    if name.startswith(".") or suffix.lower() not in PICTURE_SUFFIXES:
        return None
    found = _NUMBER.search(stem)
    return int(found[1]) if found else None


def stamp(folder: pathlib.Path) -> tuple[int, int]:
    """Returns the size of a folder's pictures in bytes, and the latest mtime in ns.

    Raises:
      OSError: It cannot be read.
    """
    size, changed = 0, folder.stat().st_mtime_ns
    for entry in pictures(folder):
        about = entry.stat()
        size, changed = size + about.st_size, max(changed, about.st_mtime_ns)
    return size, changed


def pictures(folder: pathlib.Path) -> Iterator[os.DirEntry[str]]:
    """Yields the pictures in a folder that are not hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in PICTURE_SUFFIXES and not entry.name.startswith("."):
                yield entry
