"""A lock on a folder that several runs may want to write to."""

import contextlib
import errno
import pathlib
from collections.abc import Iterator

import filelock

from vidsme_jax.base import AuditError

# What file systems without locks answer, network file systems above all.
_WITHOUT = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def locked(folder: pathlib.Path, taken: str | None = None) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made if it is absent.

    The lock of a process that dies is released with it. On a file system without locks
    the block runs without one.

    Args:
      folder: To lock.
      taken: The error if another process holds the lock.

    Raises:
      AuditError: Another process holds the lock.
      OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not the soft lock of filelock, which outlives its process.
    lock = filelock.FileLock(folder / ".lock", fallback_to_soft=False)
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
        yield
    finally:
        lock.release()
