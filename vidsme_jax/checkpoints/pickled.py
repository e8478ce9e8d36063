"""Pickled torch weights (`.bin`) without torch and without running their code.

A file that torch wrote is a zip archive: `data.pkl` describes the tensors, `data/KEY`
holds the bytes of each storage. The description is unpickled with a reader that knows
the few names which tensors need and refuses every other, so that nothing of the file is
executed; the bytes are read only when a tensor is.

The format is described at https://pytorch.org/docs/stable/notes/serialization.html
"""

import collections
import dataclasses
import io
import operator
import pathlib
import pickle
import pickletools
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np

# Storage class of torch: (safetensors' name of the type, NumPy's).
_TYPES: dict[str, tuple[str, Any]] = {
    "DoubleStorage": ("F64", np.float64),
    "FloatStorage": ("F32", np.float32),
    "HalfStorage": ("F16", np.float16),
    "BFloat16Storage": ("BF16", ml_dtypes.bfloat16),
    "LongStorage": ("I64", np.int64),
    "IntStorage": ("I32", np.int32),
    "ShortStorage": ("I16", np.int16),
    "CharStorage": ("I8", np.int8),
    "ByteStorage": ("U8", np.uint8),
    "BoolStorage": ("BOOL", np.bool_),
}
# What a description of tensors is made of; others could ask for memory without end.
_OPCODES = frozenset(
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINUNICODE SHORT_BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST "
    "APPEND APPENDS EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET "
    "LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID".split()
)
_FAULTS = (
    *(pickle.UnpicklingError, EOFError, AttributeError, TypeError, LookupError),
    *(OverflowError, UnicodeError),
)
_DTYPES = {name: dtype for name, dtype in _TYPES.values()}


@dataclasses.dataclass(frozen=True)
class PickledTensor:
    """Where the values of one tensor lie in the file, and how they are laid out."""

    dtype: str  # As safetensors names it.
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # In elements.
    start: int  # Of the tensor's first element, in bytes from the file's beginning.
    available: int  # Elements from there to the end of the storage.

    def fits(self, file_size: int) -> bool:
        """Whether the layout stays within the storage, and that within the file."""
        steps = zip(self.shape, self.stride, strict=True)
        last = sum((size - 1) * step for size, step in steps)
        empty = 0 in self.shape
        end = self.start + self.available * np.dtype(_DTYPES[self.dtype]).itemsize
        inside = last < self.available and end <= file_size
        return empty or (min(self.stride, default=0) >= 0 and inside)


def headers(path: pathlib.Path) -> dict[str, PickledTensor]:
    """Describes the tensors of a `.bin` file.

    Raises:
      ValueError: It is no such file, or wants to run something.
      OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("no archive of torch (it has no data.pkl)")
            root = pickles[0].removesuffix("data.pkl")
            if archive.getinfo(pickles[0]).file_size > 2**28:
                raise ValueError("its data.pkl is over 256 MiB")
            starts = {
                info.filename.removeprefix(f"{root}data/"): _start(path, info)
                for info in archive.infolist()
                if info.filename.startswith(f"{root}data/")
            }
            order = f"{root}byteorder"
            if order in archive.namelist() and (
                archive.getinfo(order).file_size > 16
                or archive.read(order) != b"little"
            ):
                raise ValueError("its byte order is not little-endian")
            described = archive.read(pickles[0])
            _check_opcodes(described)
            content = _Unpickler(io.BytesIO(described), starts).load()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        if isinstance(error, RecursionError):
            raise ValueError("its description is nested too deeply") from error
        raise ValueError(
            f"no zip archive, as torch writes since version 1.6 ({error})"
        ) from error
    except _FAULTS as error:
        raise ValueError(f"its description cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, expected tensors")
    tensors = {n: t for n, t in content.items() if isinstance(t, PickledTensor)}
    size = path.stat().st_size
    broken = [n for n, t in tensors.items() if not t.fits(size)]
    if broken:
        raise ValueError(f"{broken[0]}: not a tensor within its storage")
    for name, other in content.items():
        if name not in tensors:
            raise ValueError(
                f"{name}: not a tensor but a value of type {type(other).__name__}, as "
                "in what a training keeps to go on: save the tensors alone, with "
                "save_pretrained"
            )
    return tensors


def read(path: pathlib.Path, tensor: PickledTensor) -> np.ndarray:
    """Returns a read-only view of a tensor's values, mapped from the file."""
    dtype = np.dtype(_DTYPES[tensor.dtype])
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    steps = zip(tensor.shape, tensor.stride, strict=True)
    count = 1 + sum((size - 1) * step for size, step in steps)
    flat = np.memmap(path, dtype, "r", tensor.start, (count,))
    strides = tuple(step * dtype.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)


def _check_opcodes(described: bytes) -> None:
    """Refuses what tensors do not need, before anything of it is carried out."""
    try:
        for opcode, argument, _ in pickletools.genops(described):
            if opcode.name not in _OPCODES:
                raise pickle.UnpicklingError(f"it has {opcode.name}; refused")
            if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(described):
                raise pickle.UnpicklingError(f"it remembers {argument} things; refused")
    except ValueError as error:
        raise pickle.UnpicklingError(str(error)) from error


class _Storage:
    """What a persistent id of the pickle stands for."""

    def __init__(self, kind: str, start: int, count: int):
        self.kind, self.start, self.count = kind, start, count


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries, tensors, and nothing else."""

    def __init__(self, file: io.BytesIO, starts: dict[str, int]):
        super().__init__(file)
        self._starts = starts

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in _TYPES:
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v3"):
            raise pickle.UnpicklingError(
                "it has tensors of a type that is new in torch, such as 8-bit floats "
                "of a quantised model; refused: give the unquantised weights"
            )
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; refused")

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("a reference that is no storage's")
        _, kind, key, _, count = pid
        if list(map(type, (kind, key, count))) != [str, str, int]:
            raise pickle.UnpicklingError("a reference that is no storage's")
        if kind not in _TYPES or key not in self._starts:
            raise pickle.UnpicklingError(f"unknown storage {kind!r} {key!r}")
        return _Storage(kind, self._starts[key], count)


def _tensor(
    storage: _Storage,
    offset: int,
    size: Any,
    stride: Any,
    _gradient: Any = None,
    _hooks: Any = None,
    views: Any = None,
) -> Any:
    """Stands for a tensor; `views` says what is done to its values when it is read."""
    if views:
        raise pickle.UnpicklingError(
            f"it has a tensor that is a view of others with {views!r}; refused: save "
            "tensors of their own (resolve_neg() and resolve_conj() make them)"
        )
    name, dtype = _TYPES[storage.kind]
    offset = operator.index(offset)
    start = storage.start + offset * np.dtype(dtype).itemsize
    shape, steps = tuple(map(int, size)), tuple(map(int, stride))
    if len(shape) != len(steps) or min((offset, *shape)) < 0:
        raise pickle.UnpicklingError(f"a tensor of shape {shape}, strides {steps}")
    return PickledTensor(name, shape, steps, start, storage.count - offset)


def _start(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
    """Returns where the bytes of an entry begin; torch stores them uncompressed."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed; torch stores it plainly")
    if info.header_offset < 0:
        raise ValueError(f"{info.filename} begins before the file does, by its entry")
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        found = file.read(4)
    if len(found) < 4:
        raise ValueError(f"{info.filename} begins behind the file's end, by its entry")
    name, extra = struct.unpack("<HH", found)
    return info.header_offset + 30 + name + extra
