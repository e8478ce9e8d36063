"""Files that are either whole or not there."""

import os
import pathlib


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes a file so that it is either whole or not there."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
