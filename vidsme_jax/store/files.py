"""Files that are either whole or not there."""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Callable, Generator
from typing import BinaryIO

from vidsme_jax.wording import printable

_WITHOUT_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}
# Ends the name of a file that is not whole yet; no other program writes such names.
_PARTIAL = re.compile(r"\.vidsme-[0-9a-f]{8}\.tmp$")


def is_partial(name: str) -> bool:
    """Returns whether a file of this name is not whole yet."""
    return _PARTIAL.search(name) is not None


def unwritable(folder: pathlib.Path, what: str) -> list[str]:
    """Returns the sentence about a folder that can be neither made nor written, if any.

    Args:
      folder: May be absent; nothing is made.
      what: Of which flag or key, such as "--workdir".
    """
    at = folder
    while not os.path.lexists(at) and at != at.parent:
        at = at.parent
    wrong = ""
    if not at.is_dir():
        wrong = f"{printable(str(at))} is there and no folder; take another"
    elif not os.access(at, os.W_OK | os.X_OK):
        wrong = f"no right to write in {printable(str(at.absolute()))}"
    return [f"{what} is {printable(str(folder))}: {wrong}"] if wrong else []


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Generator[BinaryIO, None, None]:
    """Yields a new file that takes the place of a path when the block ends.

    Until then it is in the same folder under a temporary name. A link at the path is
    replaced, not followed. If the block raises, nothing changes.

    Raises:
      OSError: The file cannot be written; names the path.
    """
    with _partial(path, os.replace) as file:
        yield file


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes a file so that it is either whole or not there, whatever happens.

    Raises:
      OSError: It cannot be written; names it.
    """
    with replacing(path) as file:
        file.write(data)


def create(path: pathlib.Path, data: bytes) -> None:
    """Writes a file that must not be there, whole or not at all.

    Where the file system has no hard links, a file that appears in the very moment of
    writing is replaced.

    Raises:
      FileExistsError: The file exists.
      OSError: It cannot be written; names it.
    """
    with _partial(path, _appear) as file:
        file.write(data)


def _appear(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a file its name, which nothing may have."""
    exists = FileExistsError(errno.EEXIST, "it is there already", str(path))
    try:
        os.link(partial, path)
        partial.unlink()
    except FileExistsError as error:
        raise exists from error
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        if os.path.lexists(path):
            raise exists from None
        os.replace(partial, path)


@contextlib.contextmanager
def _partial(
    path: pathlib.Path, put: Callable[[pathlib.Path, pathlib.Path], None]
) -> Generator[BinaryIO, None, None]:
    """Yields a new file, which `put` gives its name when the block ends."""
    partial = path.with_name(f"{path.name}.vidsme-{secrets.token_hex(4)}.tmp")
    try:
        with partial.open("xb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                put(partial, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise
        _sync(path.parent)  # The new name, too, survives a loss of power.
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        # Without a name an error of writing does not say where.
        raise OSError(error.errno, error.strerror, str(path)) from error


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """Makes a file appear under another name as well, in place of what is there.

    Raises:
      OSError: It cannot.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # A file system without links.
        with source.open("rb") as content, replacing(target) as file:
            shutil.copyfileobj(content, file)


def sweep(folder: pathlib.Path, of: str = "") -> None:
    """Deletes what runs that were killed have left half written in a folder.

    Only while no other run writes to it: what is half written might be another's.

    Args:
      folder: Whose own files are looked at, not those of its folders.
      of: What the names of the files contain that no other run writes.
    """
    with contextlib.suppress(OSError):  # Not there, or not ours to list.
        for name in filter(_PARTIAL.search, os.listdir(folder)):
            if of not in name:
                continue
            with contextlib.suppress(OSError):  # A folder, or not ours to delete.
                (folder / name).unlink()


def _sync(folder: pathlib.Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
