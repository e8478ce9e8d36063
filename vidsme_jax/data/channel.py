"""Messages between two processes: JSON, and bytes beside it, without a copy on the way.

Each is written to a file in memory of its own, whose descriptor goes through a socket.
Nothing that comes in is code: neither side can make the other run anything.
"""

import json
import mmap
import os
import socket
import struct
import tempfile
from typing import Any

_HEADER = struct.Struct("<QQ")  # The bytes of the JSON, and those of the data.


def send(to: socket.socket, about: dict[str, Any], data: Any = b"") -> None:
    """Sends a message.

    Args:
      to: A socket of the family `AF_UNIX`.
      about: JSON-ready.
      data: Bytes, or a contiguous array of them.

    Raises:
      OSError: The other side is gone, or there is no memory.
    """
    text = json.dumps(about).encode()
    view = memoryview(data).cast("B") if len(data) else memoryview(b"")
    file = _in_memory()
    try:
        for part in (memoryview(text), view):
            while part:
                part = part[os.write(file, part) :]
        socket.send_fds(to, [_HEADER.pack(len(text), len(view))], [file])
    finally:
        os.close(file)


def receive(source: socket.socket) -> tuple[dict[str, Any], memoryview]:
    """Waits for a message, as long as the socket's timeout says.

    Returns:
      What `send` was given; the bytes may be written to, which nobody else sees.

    Raises:
      EOFError: The other side is gone.
      TimeoutError: Nothing came.
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
    """Returns the descriptor of a new file that no folder has."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("clip")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
