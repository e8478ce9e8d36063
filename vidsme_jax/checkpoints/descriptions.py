"""Reads the pickled description of tensors in a `.bin` file, without `pickle`.

A description is a program for a stack machine. Only the opcodes that describe tensors
are executed here, and only calls of three functions of torch and of an empty
`OrderedDict` are known: as records of this module, so that nothing is imported, called
or changed. All else is refused.

The format is described at https://pytorch.org/docs/stable/notes/serialization.html
"""

import collections
import dataclasses
import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from vidsme_jax.checkpoints import content

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
DTYPES = {name: np.dtype(dtype) for name, dtype in _TYPES.values()}
_MOST_STEPS = 1_000_000  # A tensor takes about 35; each takes about a microsecond.
_MOST_AXES, _LARGEST = 8, 2**48  # Limits of a shape: axes, product of its sizes.
_KNOWN = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", name) for name in _TYPES),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ARGUMENTS = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE".split()
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(ValueError):
    """Raised for a description of other things than tensors, or a damaged one."""


class Extent(NamedTuple):
    """The place in the file and the number of a storage's bytes."""

    start: int
    size: int


@dataclasses.dataclass(frozen=True)
class PickledTensor:
    """The place and the layout of one tensor's values in the file.

    Attributes:
      dtype: As safetensors names it.
      shape: Of the tensor.
      stride: In elements.
      start: Byte of the tensor's first element in the file.
      available: Elements from there to the end of the storage.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether its values are inside the storage, and at distinct places."""
        return max(self.reach, math.prod(self.shape)) <= self.available

    @property
    def reach(self) -> int:
        """Number of elements of the storage from its first to its last value."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in steps)


class _Name(NamedTuple):
    """The name of a callable or a storage type; nothing is imported."""

    module: str
    name: str


class _Storage(NamedTuple):
    """A storage that a persistent id names."""

    kind: str
    start: int
    length: int


def read(described: bytes, find: Callable[[str], Extent | None]) -> Any:
    """Executes a description, which makes dictionaries, lists and tensors.

    Args:
      described: The bytes of `data.pkl`.
      find: Returns the place of a storage by its key; None if there is none.

    Raises:
      Refused: It has what no tensor needs, or is damaged.
    """
    machine = _Machine(find)
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(described)):
            if step >= _MOST_STEPS:
                raise Refused(
                    f"its description has over {_MOST_STEPS} steps: save fewer tensors "
                    "in a file"
                )
            if opcode.name == "STOP":
                return machine.pop()
            machine.execute(opcode.name, argument)
    except Refused:
        raise
    except ValueError as error:  # `genops` found no opcode, or no end of one.
        cause = content.name(str(error))
        raise Refused(f"its description cannot be read ({cause})") from error
    raise Refused("its description cannot be read (it does not end)")


class _Machine:
    """The stack, its marks, and the memo."""

    def __init__(self, find: Callable[[str], Extent | None]):
        self._find = find
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Removes the last value of the stack and returns it."""
        self._top()
        return self._stack.pop()

    def execute(self, name: str, argument: Any) -> None:
        """Executes one opcode."""
        push = self._stack.append
        if name in _ARGUMENTS:
            push(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise Refused(f"its description has no memo of number {argument}")
            push(self._memo[argument])
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _TUPLES:
            push(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        elif name == "TUPLE":
            push(tuple(self._since_mark()))
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            push({} if name == "EMPTY_DICT" else [])
        elif name in ("SETITEM", "SETITEMS"):
            single = name == "SETITEM"
            self._set([self.pop(), self.pop()][::-1] if single else self._since_mark())
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self._since_mark()
            self._top(list).extend(items)
        elif name == "BINPERSID":
            push(self._storage(self.pop()))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            push(self._name(argument if name == "GLOBAL" else None))
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            push(_called(function, arguments))
        elif name == "BUILD":  # Attributes of a dictionary, such as `_metadata`.
            self.pop()
            self._top(collections.OrderedDict)
        elif name not in ("PROTO", "FRAME"):
            raise Refused(
                f"its description has the opcode {name}, which no tensor needs; refused"
            )

    def _top(self, kind: type = object) -> Any:
        """Returns the last value of the stack, which must be of a kind."""
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Refused("its description reads beyond its stack")
        if not isinstance(self._stack[-1], kind):
            found = type(self._stack[-1]).__name__
            raise Refused(f"its description takes a {found} for a {kind.__name__}")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise Refused("its description reads beyond its stack")
        place = self._marks.pop()
        items = self._stack[place:]
        del self._stack[place:]
        return items

    def _set(self, items: list[Any]) -> None:
        into = self._top(dict)
        if len(items) % 2 or any(type(key) not in (str, int) for key in items[::2]):
            raise Refused(
                "its description has a dictionary whose keys are neither texts nor "
                "integers"
            )
        into.update(zip(items[::2], items[1::2], strict=True))

    def _name(self, written: str | None) -> _Name:
        if written is None:
            name, module = self.pop(), self.pop()
            found = _Name(
                *(part if type(part) is str else "?" for part in (module, name))
            )
        else:
            found = _Name(*written.split(" ", 1))
        if found in _KNOWN:
            return found
        if found == ("torch._utils", "_rebuild_tensor_v3"):
            raise Refused(
                "it has tensors of a type that is new in torch, such as 8-bit floats "
                "of a quantised model; refused: give the unquantised weights"
            )
        raise Refused(
            f"it calls {content.name('.'.join(found))}, which no tensor needs; refused"
        )

    def _storage(self, pid: Any) -> _Storage:
        kinds = [_Name, str, int]
        if type(pid) is not tuple or len(pid) != 5 or pid[0] != "storage":
            raise Refused("it has a reference that names no storage")
        _, kind, key, _, count = pid
        if [*map(type, (kind, key, count))] != kinds or kind.name not in _TYPES:
            raise Refused("it has a reference that names no storage")
        extent = self._find(key)
        if extent is None:
            raise Refused(f"unknown storage {kind.name} {content.shown(key)}")
        width = np.dtype(_TYPES[kind.name][1]).itemsize
        if not 0 <= count * width <= extent.size:
            raise Refused(
                f"storage {content.shown(key)} has {extent.size} bytes, and its "
                f"description claims {content.shown(count)} values of {width}"
            )
        return _Storage(kind.name, extent.start, count)


def _called(function: Any, arguments: Any) -> Any:
    """Returns the result of a call of one of the known functions."""
    if type(function) is _Name and type(arguments) is tuple:
        if function.name == "OrderedDict" and not arguments:
            return collections.OrderedDict()
        if function.name == "_rebuild_tensor_v2" and 4 <= len(arguments) <= 7:
            return _tensor(*arguments[:4], *arguments[6:])
        is_parameter = function.name == "_rebuild_parameter"
        if is_parameter and arguments and type(arguments[0]) is PickledTensor:
            return arguments[0]
    raise Refused("it has a call that makes no tensor; refused")


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, views: Any = None
) -> PickledTensor:
    """Returns a tensor; `views`, such as {"neg": True}, change values that are read."""
    if views:
        raise Refused(
            f"it has a tensor that is a view of others with {content.shown(views)}; "
            "refused: save the results of resolve_neg() and resolve_conj() instead"
        )
    layout = (shape, stride)
    if type(storage) is not _Storage or any(type(part) is not tuple for part in layout):
        raise Refused("it has a tensor without a storage or a shape")
    numbers = (offset, *shape, *stride)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    sizes = math.prod(size for size in shape if whole and size)
    if not whole or not len(shape) == len(stride) <= _MOST_AXES or sizes > _LARGEST:
        found = f"shape {content.shown(shape)}, strides {content.shown(stride)}"
        raise Refused(f"it has a tensor of {found}")
    name, dtype = _TYPES[storage.kind]
    start = storage.start + offset * np.dtype(dtype).itemsize
    return PickledTensor(name, shape, stride, start, storage.length - offset)
