"""The pictures of a folder as the frames of a clip, read on demand."""

import dataclasses
import hashlib
import os
import pathlib

from vidsme_jax.base import ClipError
from vidsme_jax.data import frame_folders, links, opening, stages
from vidsme_jax.data.frame_folders import number_of
from vidsme_jax.data.limits import Limits
from vidsme_jax.data.pictures import Pictures
from vidsme_jax.wording import counted, printable

# Bytes of a picture's file: per pixel at most, and for metadata.
_PIXEL, _REST = 8, 1 << 24
_SHOWN = 60  # Characters of a name in a message.


def open_folder(folder: pathlib.Path, limits: Limits) -> Pictures:
    """Opens a folder as a clip; no picture is read yet.

    Raises:
      ClipError: "open", if the folder cannot be read, has no numbered picture, two with
        the same number, or links out of its parent folder; "decode", if it has too many
        pictures.
    """
    try:
        names = sorted(entry.name for entry in frame_folders.pictures(folder))
    except OSError as error:
        cause = f"the folder cannot be read ({error.strerror}): {folder}"
        raise ClipError("open", cause) from error
    places: dict[int, str] = {}
    without = [name for name in names if number_of(name) is None]
    for name in names:
        if (number := number_of(name)) is None:
            continue
        if number in places:
            both = " and ".join(_shown(x) for x in (places[number], name))
            cause = f"two pictures have the number {number}: {both}; remove one"
            raise ClipError("open", cause)
        places[number] = name
    if not places:
        raise ClipError("open", f"a folder without numbered pictures: {folder}")
    if len(places) > limits.max_frames:
        raise ClipError("decode", f"more than {limits.max_frames} frames")
    files = [folder / places[number] for number in sorted(places)]
    _check_links(folder, files)
    most = limits.max_pixels * _PIXEL + _REST
    return _OfFolder(
        _Files(files, most), limits=limits, warnings=_warnings(places, without)
    )


@dataclasses.dataclass(frozen=True)
class _OfFolder(Pictures):
    """The pictures of a folder, identified with their names."""

    def content_hash(self) -> str:
        """Returns the SHA-256 of all names and pictures in order, in hex."""
        digest, files = hashlib.sha256(), self.frames
        assert isinstance(files, _Files)
        with stages.spending(stages.HASH):
            for index, path in enumerate(files.paths):
                content = files[index]
                digest.update(os.fsencode(path.name))
                digest.update(f"\0{len(content)}\0".encode())
                digest.update(content)
        return digest.hexdigest()


class _Files:
    """The bytes of files, each read on access."""

    def __init__(self, paths: list[pathlib.Path], most: int):
        self.paths, self._most = paths, most

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> bytes:
        with opening.open_regular(self.paths[index]) as file:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > self._most else file.read(self._most + 1)
        if max(size, len(content)) > self._most:
            cause = f"{_shown(self.paths[index].name)} has more than {self._most} bytes"
            raise ClipError("open", f"{cause} (by config.video.max_pixels)")
        return content


def _check_links(folder: pathlib.Path, files: list[pathlib.Path]) -> None:
    """Raises a `ClipError` if a picture is a link out of the folder's parent."""
    _, inside = links.inside(folder.parent)
    for path in files:
        if path.is_symlink() and not links.real(str(path)).startswith(inside):
            cause = f"the picture {_shown(path.name)} is a link out of {folder.parent}"
            raise ClipError("open", cause)


def _warnings(places: dict[int, str], without: list[str]) -> tuple[str, ...]:
    """Returns warnings about gaps in the numbers and pictures without a number."""
    found = []
    first, last = min(places), max(places)
    if gaps := last - first + 1 - len(places):
        missing = next(n for n in range(first, last) if n not in places)
        found.append(
            f"{counted(gaps, 'number')} from {first} to {last} without a picture, the "
            f"first {missing}: frames are taken as if there were no gap"
        )
    if without:
        found.append(
            f"{counted(len(without), 'picture')} without a number left out, such as "
            f"{_shown(min(without))}"
        )
    return tuple(found)


def _shown(name: str) -> str:
    return printable(name, _SHOWN)
