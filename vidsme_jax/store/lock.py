"""A lock on a folder that several runs may want to write to."""

import contextlib
import errno
import fcntl
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

import filelock

from vidsme_jax.base import AuditError
from vidsme_jax.store import files, regular

# What file systems without locks answer, network file systems above all.
_WITHOUT = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_NAME = ".lock"
_SWEPT = ("", "figures")  # What else runs keep in a folder, they sweep themselves.


@contextlib.contextmanager
def locked(folder: pathlib.Path, taken: str | None = None) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made if it is absent.

    What a run that was killed has left half written there is deleted. The lock of a
    process that dies is released with it. On a file system without locks the block
    runs without one.

    Args:
      folder: To lock.
      taken: The error if another process holds the lock.

    Raises:
      AuditError: Another process holds the lock, or its file is none.
      OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / _NAME
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise AuditError([f"{file}: not a regular file, so no lock; delete it"])
    # Not the soft lock of filelock, which outlives its process.
    lock = filelock.FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        taken = taken or "another run is writing to it; take another --workdir"
        raise AuditError([f"{folder}: {taken}"]) from error
    except NotImplementedError:  # A network file system without locks.
        pass
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
    try:
        if lock.is_locked:
            for name in _SWEPT:
                files.sweep(folder / name)
        yield
    finally:
        lock.release()


def held(file: pathlib.Path) -> BinaryIO:
    """Opens a file so that `unread` sees it as long as it is open.

    Raises:
      BlockingIOError: It is being deleted.
      OSError: It cannot be opened.
    """
    opened = regular.opened(file)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _WITHOUT:
            opened.close()
            raise
    return opened


@contextlib.contextmanager
def unread(file: pathlib.Path) -> Iterator[bool]:
    """Yields whether nobody has a file open by `held`, nor can in the block.

    On a file system without locks nobody is seen.
    """
    with contextlib.ExitStack() as opened:
        free = True
        try:
            fcntl.flock(
                opened.enter_context(regular.opened(file)),
                fcntl.LOCK_EX | fcntl.LOCK_NB,
            )
        except BlockingIOError:
            free = False
        except OSError:  # It is gone, or there are no locks.
            pass
        yield free
