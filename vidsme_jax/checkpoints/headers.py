"""Checks the header of a safetensors file before the library reads it.

A file begins with the length of the header, then the header as JSON: type, shape and
place of the bytes of each tensor. The bytes of all tensors follow the header without
gaps and end with the file, so that every declared size is checked.

The format is described at https://huggingface.co/docs/safetensors
"""

import math
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

from safetensors import safe_open

from vidsme_jax.checkpoints import content
from vidsme_jax.store import regular

# Most bytes of a header; that of 100,000 tensors has about ten million.
LARGEST = 2**25
_MOST_AXES = 16
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
Header = dict[str, tuple[tuple[int, ...], str]]


def read(path: pathlib.Path) -> Header:
    """Returns shape and type of each tensor, by the name in the file.

    Raises:
      ValueError: It is no such file, or its header does not fit the file.
      OSError: It cannot be read.
      SafetensorError: The library refuses it.
    """
    with regular.opened(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        begin = file.read(8)
        if len(begin) < 8:
            raise ValueError(f"it has {size} bytes, no header")
        length = struct.unpack("<Q", begin)[0]
        if length > size - 8:
            raise ValueError(f"its header claims {length} bytes, the file has {size}")
        if length > LARGEST:
            raise ValueError(
                f"its header has {length} bytes, at most {LARGEST} are read: save "
                "fewer tensors in a file"
            )
        raw = content.parsed(file.read(length))
    if not isinstance(raw, dict):
        raise ValueError(f"its header is no object but {content.shown(raw)}")
    notes = raw.pop("__metadata__", None)
    if notes is not None and not _are_texts(notes):
        raise ValueError("the __metadata__ of its header is no object of texts")
    out: Header = {}
    extents = []
    for name, entry in raw.items():
        shape, dtype, extent = _entry(name, entry)
        out[name] = shape, dtype
        extents.append((*extent, name))
    place = 0
    for start, end, name in sorted(extents):
        if start != place:
            raise ValueError(
                f"{content.name(name)} begins at byte {start} of the data, and the "
                f"tensor before it ends at {place}"
            )
        place = end
    if place != size - 8 - length:
        raise ValueError(
            f"its tensors have {place} bytes, and {size - 8 - length} follow the header"
        )
    with safe_open(path, framework="numpy"):
        return out


def _entry(name: str, entry: Any) -> tuple[tuple[int, ...], str, tuple[int, int]]:
    """Returns shape, type, and begin and end of a tensor's bytes in the data."""
    entry = entry if isinstance(entry, Mapping) else {}
    dtype, shape, place = map(entry.get, ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BITS:
        found = content.shown(dtype)
        raise ValueError(
            f"{content.name(name)}: dtype is {found}, expected {', '.join(_BITS)}"
        )
    if not _are_sizes(shape) or len(shape) > _MOST_AXES:
        found = content.shown(shape)
        raise ValueError(
            f"{content.name(name)}: shape is {found}, expected at most {_MOST_AXES} "
            "sizes"
        )
    if not _are_sizes(place) or len(place) != 2 or place[0] > place[1]:
        found = content.shown(place)
        raise ValueError(
            f"{content.name(name)}: data_offsets is {found}, expected [begin, end]"
        )
    if math.prod(shape) * _BITS[dtype] != 8 * (place[1] - place[0]):
        raise ValueError(
            f"{content.name(name)}: {place[1] - place[0]} bytes for {dtype} "
            f"{content.shown(shape)}"
        )
    return tuple(shape), dtype, (place[0], place[1])


def _are_sizes(value: Any) -> bool:
    """Returns whether a value is a list of sizes that 64 bits hold."""
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size < 2**63 for size in value
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
