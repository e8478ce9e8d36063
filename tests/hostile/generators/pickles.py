"""Pickled descriptions of tensors, written opcode by opcode: no torch is needed."""

import io
import struct
import zipfile
from collections.abc import Iterator

GLOBAL = "c{}\n{}\n".format
TENSOR = GLOBAL("torch._utils", "_rebuild_tensor_v2").encode()
_ORDERED = GLOBAL("collections", "OrderedDict").encode() + b")R"
HEAD, END = b"\x80\x02", b"."


def text(value: str) -> bytes:
    """Returns the opcode of a text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """Returns the opcode of an integer of any size."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    size = value.bit_length() // 8 + 1
    if size < 256:
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    return (
        b"\x8b" + struct.pack("<I", size) + value.to_bytes(size, "little", signed=True)
    )


def tuple_of(*parts: bytes) -> bytes:
    """Returns the opcodes of a tuple."""
    return b"(" + b"".join(parts) + b"t"


def storage(kind: str, key: str, count: int) -> bytes:
    """Returns the opcodes of a reference to a storage."""
    of = GLOBAL("torch", kind).encode()
    pid = tuple_of(text("storage"), of, text(key), text("cpu"), number(count))
    return pid + b"Q"


def tensor(
    key: str,
    shape: tuple[int, ...],
    *,
    kind: str = "FloatStorage",
    count: int | None = None,
    offset: int = 0,
    stride: tuple[int, ...] | None = None,
) -> bytes:
    """Returns the opcodes of a tensor, contiguous by default."""
    steps, size = [], 1
    for side in reversed(shape):
        steps.insert(0, size)
        size *= side
    stride = tuple(steps) if stride is None else stride
    return (
        TENSOR
        + tuple_of(
            storage(kind, key, size if count is None else count),
            number(offset),
            tuple_of(*map(number, shape)),
            tuple_of(*map(number, stride)),
            b"\x89",
            _ORDERED,
        )
        + b"R"
    )


def dictionary(entries: dict[str, bytes]) -> bytes:
    """Returns a whole description: a dictionary of what opcodes make."""
    inside = b"".join(text(name) + value for name, value in entries.items())
    return HEAD + b"}(" + inside + b"u" + END


def archive(description: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """Returns the file that torch would write."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as to:
            to.writestr("archive/data.pkl", description)
            for key, data in (
                {"0": bytes(64)} if storages is None else storages
            ).items():
                to.writestr(f"archive/data/{key}", data)
            to.writestr("archive/version", "3\n")
        return file.getvalue()


def descriptions() -> Iterator[tuple[str, bytes]]:
    """Yields descriptions by name, the first of them honest."""
    plain = tensor("0", (4, 4))
    yield "honest", dictionary({"a": plain})
    yield "empty", HEAD + b"}" + END
    for what, entry in {
        "a shape of 2^62": tensor("0", (2**62, 2)),
        "a shape of 5000 digits": tensor("0", (10**4999,)),
        "a negative shape": tensor("0", (-1,)),
        "a negative stride": tensor("0", (4,), stride=(-1,)),
        "an offset beyond": tensor("0", (4,), offset=100),
        "a negative offset": tensor("0", (4,), offset=-100),
        "more than the file": tensor("0", (2**20, 2**20)),
        "a count that lies": tensor("0", (4, 4), count=2**60),
        "all of one element": tensor("0", (2**40,), stride=(0,)),
        "an unknown storage": tensor("1", (4, 4)),
        "an unknown kind": tensor("0", (4, 4), kind="EvilStorage"),
        "rank 1000": tensor("0", (1,) * 1000),
        "a shape and no strides": tensor("0", (4,), stride=()),
        "a shape of texts": TENSOR
        + tuple_of(
            storage("FloatStorage", "0", 16),
            number(0),
            tuple_of(text("4")),
            tuple_of(text("1")),
            b"\x89",
            _ORDERED,
        )
        + b"R",
        "a shape of one text": TENSOR
        + tuple_of(
            storage("FloatStorage", "0", 16), number(0), text("44"), text("11"), b"\x89"
        )
        + b"R",
        "no tensor but a number": number(1),
        "no tensor but itself": b"h\0",
        "a tensor of a list": TENSOR + tuple_of(b"]", number(0)) + b"R",
        "state on a tensor": plain + b"}(" + text("dtype") + text("EVIL") + b"ub",
        "a shape set later": plain + b"}(" + text("shape") + text("44") + b"ub",
        "a start set later": plain + b"}(" + text("start") + number(-100) + b"ub",
        "slots on a tensor": plain
        + tuple_of(b"N", b"}(" + text("start") + number(-100) + b"u")
        + b"b",
        "state on the reader": TENSOR
        + tuple_of(b"N", b"}(" + text("__name__") + text("owned") + b"u")
        + b"b0"
        + plain,
        "defaults of the reader": TENSOR
        + tuple_of(b"N", b"}(" + text("__defaults__") + tuple_of(b"N") + b"u")
        + b"b0"
        + plain,
        "state on a class": GLOBAL("collections", "OrderedDict").encode()
        + tuple_of(b"N", b"}(" + text("owned") + number(1) + b"u")
        + b"b0"
        + plain,
        "a parameter of nothing": GLOBAL("torch._utils", "_rebuild_parameter").encode()
        + b")R",
        "a parameter": GLOBAL("torch._utils", "_rebuild_parameter").encode()
        + tuple_of(plain, b"\x88", _ORDERED)
        + b"R",
    }.items():
        yield what, dictionary({"a": entry})
    for module, name in (
        *(("os", "system"), ("posix", "system"), ("builtins", "eval")),
        *(("builtins", "exec"), ("builtins", "getattr"), ("subprocess", "Popen")),
        *(
            ("torch", "load"),
            ("torch.storage", "_load_from_bytes"),
            ("collections", "defaultdict"),
        ),
        *(("torch._utils", "_rebuild_tensor_v3"), ("torch", "_utils.os.system")),
        *(
            ("torch", "DoubleStorage.__class__"),
            ("collections", "OrderedDict.__init__"),
        ),
    ):
        call = GLOBAL(module, name).encode() + tuple_of(text("true")) + b"R"
        yield f"calls {module}.{name}", dictionary({"a": call})
    yield "a list", HEAD + b"](" + plain + b"e" + END
    yield "nothing", b""
    yield "an end alone", END
    yield "no end", HEAD + b"}(" + text("a") + plain
    yield "a mark alone", HEAD + b"(" + END
    yield "nested deeply", HEAD + b"(" * 50_000 + b"t" * 50_000 + END
    yield "lists in lists", HEAD + b"]" * 50_000 + b"a" * 49_999 + END
    yield "memory of 4 GiB", HEAD + b"}r\xff\xff\xff\xff" + END
    yield "a text of 4 GiB", HEAD + b"X\xff\xff\xff\xffa" + END
    yield "a long of 2 GiB", HEAD + b"\x8b\xff\xff\xff\x7f" + b"1" + END
    yield "bytes", HEAD + b"C\4abcd" + END
    yield "protocol 255", b"\x80\xff}" + END
    yield "a frame of 2^64", b"\x80\x04\x95" + b"\xff" * 8 + b"}" + END
    yield "two thousand tensors", dictionary({f"{n}": plain for n in range(2000)})
    yield "a name with escapes", dictionary({"\x1b]0;owned\x07": number(1)})
    yield "a name of surrogates", dictionary({"\ud800": plain})
    yield "a key that is a tuple", HEAD + b"}(" + tuple_of(b"N") + plain + b"u" + END
    yield "a key that is a list", HEAD + b"}(]" + plain + b"u" + END
