"""A lock on a folder that several runs may want to write to."""

import contextlib
import errno
import fcntl
import pathlib
from collections.abc import Generator
from typing import BinaryIO

import filelock

from vidsme_jax.base import AuditError
from vidsme_jax.store import files, regular, share_names

# What file systems without locks answer, network file systems above all.
_WITHOUT = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_NAME = ".lock"
_SECONDS = 30.0  # That a share waits while others take their own locks.
_SWEPT = ("", "figures")  # What else runs keep in a folder, they sweep themselves.


@contextlib.contextmanager
def locked(
    folder: pathlib.Path, taken: str | None = None, share: str = ""
) -> Generator[None, None, None]:
    """Keeps other processes out of a folder, which is made if it is absent.

    Of a share only processes of the same share, and of the whole folder, are kept out.
    What a run of the whole folder that was killed has left half written is deleted. The
    lock of a process that dies is released with it. On a file system without locks the
    block runs without one.

    Args:
      folder: To lock.
      taken: The error if another process holds the lock.
      share: "I-of-N", or "" of the whole folder.

    Raises:
      AuditError: Another process holds the lock, or its file is none.
      OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = taken or "another run is writing to it; take another --workdir"
    with contextlib.ExitStack() as stack:
        if share:
            with contextlib.ExitStack() as door:
                if not _take(folder / _NAME, door, _SECONDS):
                    raise AuditError([f"{folder}: {taken}"])
                if not _take(folder / f"{_NAME}-{share}", stack):
                    of = share_names.of_file(share)
                    problem = f"another process scores share {of} of it; stop one"
                    raise AuditError([f"{folder}: {problem}"])
            yield
            return
        lock = _take(folder / _NAME, stack)
        if lock is None:
            raise AuditError([f"{folder}: {taken}"])
        for file in sorted(folder.glob(f"{_NAME}-*")):
            if not _take(file, stack):
                of = share_names.of_file(file.name.removeprefix(f"{_NAME}-"))
                problem = f"another process scores share {of} of it; wait for its end"
                raise AuditError([f"{folder}: {problem}"])
        for name in _SWEPT if lock.is_locked else ():
            files.sweep(folder / name)
        yield


def _take(
    file: pathlib.Path, stack: contextlib.ExitStack, seconds: float = 0.0
) -> filelock.BaseFileLock | None:
    """Locks a file as long as a stack is open.

    Returns:
      The lock, which is not locked on a file system without locks; None if another
      process holds it.
    """
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise AuditError([f"{file}: not a regular file, so no lock; delete it"])
    # Not the soft lock of filelock, which outlives its process.
    lock = filelock.FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout:
        return None
    except NotImplementedError:  # A network file system without locks.
        return lock
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
    stack.callback(lock.release)
    return lock


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
def unread(file: pathlib.Path) -> Generator[bool, None, None]:
    """Yields whether no process holds a file by `held`, and prevents it in the block.

    On a file system without locks no process is found.
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
