"""Files of others are opened only if they are regular ones.

A FIFO in place of one would hold a run until somebody writes into it, a device might
never end. A link counts as what it leads to: the hub's cache is made of links.
"""

import hashlib
import io
import os
import pathlib
import stat
from collections.abc import Iterable

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def opened(path: pathlib.Path) -> io.BufferedReader:
    """Opens a regular file for reading, and waits for nothing.

    Raises:
      OSError: It is no regular file, or cannot be opened.
    """
    kind = os.stat(path).st_mode  # First, since to open a device may have effects.
    if stat.S_ISREG(kind):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISREG(kind):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    raise OSError(f"{_named(kind)}, not a regular file")


def sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a regular file, in hex.

    Raises:
      OSError: It is no regular file, or cannot be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problem(paths: Iterable[pathlib.Path]) -> str:
    """Returns the sentence about paths that are neither files nor folders, or ""."""
    for path in paths:
        try:
            kind = path.stat().st_mode
        except OSError:  # A link that leads nowhere counts as absent.
            continue
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            return (
                f"{path.name} is {_named(kind)}, not a regular file, and is not read: "
                f"put the file itself in {path.parent}, or take it away"
            )
    return ""


def _named(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a folder")
