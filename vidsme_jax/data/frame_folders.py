"""Folders of numbered pictures, each of which is a clip: `000001.jpg`, `frame_2.png`.

The last number in a picture's name is its place: `frame_2` stands before `frame_10`. A
folder has no rate of frames, so no seconds can be asked for.
"""

import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from vidsme_jax.data.names import PICTURE_SUFFIXES

_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")
_LEAST = 2  # Numbered pictures of a folder that is a clip.


def is_clip(names: Iterable[str]) -> bool:
    """Returns whether the files of a folder, by their names, make it a clip."""
    numbered = (name for name in names if number_of(name) is not None)
    return sum(1 for _, name in zip(range(_LEAST), numbered, strict=False)) == _LEAST


def number_of(name: str) -> int | None:
    """Returns the number of a picture; None of what is none, or has no number.

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
    """Returns the bytes of all pictures of a folder, and the last time of change in ns.

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
