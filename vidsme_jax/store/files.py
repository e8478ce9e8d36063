"""Files that are either whole or not there."""

import contextlib
import os
import pathlib


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes a file so that it is either whole or not there, whatever happens.

    Raises:
      OSError: It cannot be written; names it.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # Without a name an error of writing does not say where.
        raise OSError(error.errno, error.strerror, str(path)) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # The new name, too, survives a loss of power.
    finally:
        os.close(folder)
