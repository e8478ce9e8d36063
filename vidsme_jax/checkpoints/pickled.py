"""Reads pickled torch weights (`.bin`) without torch and without running their code.

A file that torch wrote is a zip archive: `data.pkl` describes the tensors, `data/KEY`
holds the bytes of each storage, all uncompressed. `descriptions` reads the description
without running it; the bytes are read only when a tensor is.
"""

import pathlib
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

from vidsme_jax.checkpoints import content, descriptions
from vidsme_jax.checkpoints.descriptions import DTYPES, Extent, PickledTensor
from vidsme_jax.store import regular

# Bytes of an archive's directory, and of its description: enough for 25,000 tensors.
_LARGEST_PART = 2**22
_FAULTS = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    *(struct.error, EOFError, OverflowError),
)


def headers(path: pathlib.Path) -> dict[str, PickledTensor]:
    """Returns the places of the tensors of a `.bin` file, by name.

    Raises:
      ValueError: It is no such file, or holds other things than tensors.
      OSError: It cannot be read.
    """
    with regular.opened(path) as file:
        try:
            found = _described(file)
        except _FAULTS as error:
            raise ValueError(
                "no zip archive, as torch writes since version 1.6 "
                f"({content.name(str(error))})"
            ) from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, expected tensors")
    for name, tensor in found.items():
        if type(name) is not str or not isinstance(tensor, PickledTensor):
            raise ValueError(
                f"{content.name(str(name))}: not a tensor but a value of type "
                f"{type(tensor).__name__}, as in the state of a training: save the "
                "tensors alone, with save_pretrained"
            )
        if not tensor.fits:
            raise ValueError(f"{content.name(name)}: does not fit its storage")
    return dict(found)


def read(path: pathlib.Path, tensor: PickledTensor) -> np.ndarray:
    """Returns a read-only view of a tensor's values, mapped from the file."""
    dtype = DTYPES[tensor.dtype]
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    with regular.opened(path) as file:
        flat = np.memmap(file, dtype, "r", tensor.start, (tensor.reach,))
    strides = tuple(step * dtype.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)


def _described(file: BinaryIO) -> Any:
    """Returns the result of an archive's description."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(_Parts(file)) as archive:  # type: ignore[arg-type]
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(
                f"no archive of torch (it has {len(pickles)} data.pkl, expected 1)"
            )
        root = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{root}byteorder")
        if order is not None and _content(archive, order, 16) != b"little":
            raise ValueError("its byte order is not little-endian")
        described = _content(archive, entries[pickles[0]], _LARGEST_PART)

    def find(key: str) -> Extent | None:
        info = entries.get(f"{root}data/{key}")
        return None if info is None else _extent(file, size, info)

    return descriptions.read(described, find)


class _Parts:
    """A file that refuses to read a large part at once, such as its directory."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._read = file.read

    def read(self, size: int = -1) -> bytes:
        """Reads some bytes, or all that are left."""
        found = self._read(_LARGEST_PART + 1 if size < 0 else min(size, 2**23))
        if len(found) > _LARGEST_PART:
            raise ValueError(
                f"its directory of entries is over {_LARGEST_PART >> 20} MiB: save "
                "fewer tensors in a file"
            )
        return found


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """Returns the content of an entry; refuses more than `most` bytes."""
    _check(info)
    if max(info.file_size, info.compress_size) > most:
        raise ValueError(
            f"its {content.name(info.filename.rsplit('/')[-1])} has {info.file_size} "
            f"bytes, at most {most} are read: save fewer tensors in a file"
        )
    return archive.read(info)


def _check(info: zipfile.ZipInfo) -> None:
    name = content.name(info.filename)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, expected stored, as torch writes it")
    if info.header_offset < 0:
        raise ValueError(f"by its entry {name} begins before the file")


def _extent(file: BinaryIO, size: int, info: zipfile.ZipInfo) -> Extent:
    """Returns the place of an entry's bytes.

    Args:
      file: The archive.
      size: Bytes of the archive.
      info: Of the entry.
    """
    _check(info)
    found = b""
    if info.header_offset < size:
        file.seek(info.header_offset + 26)
        found = file.read(4)
    if len(found) == 4:
        name, extra = struct.unpack("<HH", found)
        start = info.header_offset + 30 + name + extra
        if 0 <= info.file_size <= size - start:
            return Extent(start, info.file_size)
    name = content.name(info.filename)
    raise ValueError(f"by its entry {name} ends beyond the file")
