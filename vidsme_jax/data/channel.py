"""Messages between two processes: JSON with binary data, transferred without a copy.

Each message is written to an in-memory file, and its descriptor is sent through a Unix
socket. Messages contain no code: neither side can make the other execute anything.
"""

import json
import mmap
import os
import socket
import struct
import tempfile
from typing import Any

import numpy as np

_HEADER = struct.Struct("<QQ")  # The lengths of the JSON and of the data, in bytes.


def send(
    to: socket.socket, about: dict[str, Any], data: bytes | np.ndarray = b""
) -> None:
    """Sends a message.

    Args:
      to: A socket of the family `AF_UNIX`.
      about: JSON-ready.
      data: Bytes, or a contiguous array of them.

    Raises:
      OSError: The other side is closed, or there is no memory.
    """
    text = json.dumps(about).encode()
    view = memoryview(data) if isinstance(data, bytes) else data.data
    view = view.cast("B") if view.nbytes else memoryview(b"")
    file = _in_memory()
    try:
        for part in (memoryview(text), view):
            while part:
                part = part[os.write(file, part) :]
        socket.send_fds(to, [_HEADER.pack(len(text), len(view))], [file])
    finally:
        os.close(file)


def receive(source: socket.socket) -> tuple[dict[str, Any], memoryview]:
    """Waits for a message until the socket's timeout.

    Returns:
      The arguments of `send`; the data is a private writable copy.

    Raises:
      EOFError: The other side is closed.
      TimeoutError: No message arrived.
    """
    try:
        header, files, _, _ = socket.recv_fds(source, _HEADER.size, 1)
    except ConnectionError as error:
        raise EOFError from error
    try:
        if len(header) < _HEADER.size or not files:
            raise EOFError
        length, size = _HEADER.unpack(header)
        whole = mmap.mmap(files[0], length + size, access=mmap.ACCESS_COPY)
    finally:
        for file in files:
            os.close(file)
    view = memoryview(whole)
    return json.loads(bytes(view[:length])), view[length:]


def _in_memory() -> int:
    """Returns the descriptor of a new file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("clip")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
