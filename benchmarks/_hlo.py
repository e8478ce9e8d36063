r"""Kernels of a compiled program, from its optimised HLO text (`compiled.as_text()`).

    found = _hlo.kernels(compiled.as_text())
    _hlo.traffic(_hlo.select(found, "head"))      # bytes a call of the program
    len(_hlo.moving(found, least=2**20))          # kernels that compute nothing

On a GPU every instruction outside a fused computation is a kernel or a call of a
library; one inside a loop is listed once with the number of its runs. Bytes are those
of operands and results, as if each kernel met its operands in memory, not in a cache:

- a slice reads what it cuts out; an update in place reads and writes the update;
- an operand of a fusion counts once, and only the part that the result depends on.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Iterator

TRANSCENDENTAL = frozenset(
    "exponential exponential-minus-one log log-plus-one logistic tanh sine cosine tan "
    "power sqrt rsqrt cbrt erf atan2 divide".split()
)
_FREE = frozenset(
    "parameter constant get-tuple-element tuple bitcast after-all partition-id "
    "replica-id opt-barrier domain".split()
)
_MOVES = _FREE | frozenset(
    "copy copy-start slice dynamic-slice dynamic-update-slice concatenate transpose "
    "reshape broadcast pad reverse gather convert bitcast-convert iota".split()
)
_SLICES = frozenset(("slice", "dynamic-slice", "gather"))
_COLLECTIVES = ("all-", "reduce-scatter", "collective-")
# The kind of a kernel that only moves data, the most specific first.
_TELLING = "dynamic-update-slice dynamic-slice gather slice concatenate transpose pad"
_TELLING = (*_TELLING.split(), "reverse", "convert", "copy", "copy-start")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel of a program.

    Attributes:
      name: Of the instruction.
      opcode: Of the instruction; with the target after a colon for a custom call.
      kind: "gemm", "custom call", "collective", "reduce", "elementwise"; "scalar" (loop
        counters), "fill" (reads no array); or for one that only moves data the opcode
        that says most, such as "dynamic-slice" or "copy".
      op_name: The path of named scopes that the instruction's metadata gives.
      runs: In a call of the program.
      read: Bytes a run.
      written: Bytes a run.
      operations: Elements a run by opcode, inside a fusion too; of a reduction the
        elements that go in.
    """

    name: str
    opcode: str
    kind: str
    op_name: str
    runs: int
    read: int
    written: int
    operations: collections.Counter[str]

    @property
    def transcendental(self) -> int:
        """Exponentials, logarithms, roots, divisions and the like, a run."""
        return sum(n for op, n in self.operations.items() if op in TRANSCENDENTAL)

    @property
    def elementwise(self) -> int:
        """Other operations on elements that are not mere moves, a run."""
        rest = self.operations.items()
        return sum(n for op, n in rest if op not in TRANSCENDENTAL | _MOVES | {"dot"})

    @property
    def moves(self) -> bool:
        """Whether it reads and writes without computing."""
        return self.kind in _TELLING


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shapes: tuple[tuple[int, int], ...]  # Elements and bytes of each part.
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def elements(self) -> int:
        return sum(count for count, _ in self.shapes)

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.shapes)

    def called(self, key: str) -> str | None:
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None


_Computation = dict[str, _Instruction]


def kernels(text: str) -> list[Kernel]:
    """Lists the kernels of a program.

    Args:
      text: Of a compiled program.

    Raises:
      ValueError: The text has no entry, or the trip count of a loop is not known.
    """
    computations, entry = _parse(text)
    if entry is None:
        raise ValueError("no HLO text of a compiled program: it has no ENTRY")
    return list(_walk(computations, entry, 1))


def select(found: Iterable[Kernel], pattern: str) -> list[Kernel]:
    """Returns those of whose name, opcode, kind or named scopes a part matches."""
    texts = lambda k: (k.name, k.opcode, k.kind, k.op_name)
    return [k for k in found if any(re.search(pattern, x) for x in texts(k))]


def moving(found: Iterable[Kernel], least: int = 0) -> list[Kernel]:
    """Returns those that only move at least `least` bytes a run."""
    return [k for k in found if k.moves and k.read + k.written >= least]


def traffic(found: Iterable[Kernel]) -> int:
    """Returns the bytes read and written in a call of the program."""
    return sum(k.runs * (k.read + k.written) for k in found)


def launches(found: Iterable[Kernel]) -> int:
    """Returns how often kernels start in a call of the program."""
    return sum(k.runs for k in found)


def operations(found: Iterable[Kernel]) -> collections.Counter[str]:
    """Returns the operations on elements in a call of the program, by opcode."""
    total: collections.Counter[str] = collections.Counter()
    for kernel in found:
        for opcode, count in kernel.operations.items():
            total[opcode] += kernel.runs * count
    return total


def _walk(computations: dict, name: str, runs: int) -> Iterator[Kernel]:
    walk = functools.partial(_walk, computations)
    for found in computations[name].values():
        inner = found.called("calls") or found.called("to_apply")
        if found.opcode == "while":
            yield from walk(found.called("body"), runs * _trips(computations, found))
        elif found.opcode == "call" or (
            found.opcode in ("async-start", "fusion-start", "custom-call-start")
        ):
            yield from walk(inner, runs)
        elif found.opcode == "conditional":  # All branches: at most one of them runs.
            for branch in re.findall(r"%([\w.\-]+)", found.attributes):
                yield from walk(branch, runs) if branch in computations else ()
        elif found.opcode not in _FREE and not found.opcode.endswith("-done"):
            yield _kernel(computations, computations[name], found, runs)


def _kernel(computations: dict, around: _Computation, found: _Instruction, runs: int):
    """Describes one instruction, by its fused computation if it has one."""
    inside = computations.get(found.called("calls") or "")
    if found.opcode != "fusion" or inside is None:  # As the only one of a fusion.
        inside = {name: _parameter(around[name]) for name in found.operands}
        inside |= {found.name: dataclasses.replace(found, root=True)}
    need, written = _needed(inside)
    read = sum(
        math.ceil(one.bytes * need[one.name] / max(one.elements, 1))
        for one in inside.values()
        if one.opcode == "parameter"
    )
    done: collections.Counter[str] = collections.Counter()
    for one in inside.values():
        reduces = one.opcode.startswith("reduce") and one.operands
        counted = inside[one.operands[0]] if reduces else one
        if one.opcode not in _FREE and need[one.name]:
            done[one.opcode] += counted.elements if reduces else need[one.name]
    opcode, kind = found.opcode, _kind(found.opcode, inside, need)
    if opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', found.attributes)
        opcode += ":" + (target[1] if target else "")
        kind = "gemm" if re.search("gemm|matmul", opcode) else "custom call"
        written = found.shapes[0][1]  # What follows is room to work in.
    scopes = re.search(r'op_name="([^"]*)"', found.attributes)
    return Kernel(
        name=found.name,
        opcode=opcode,
        kind=kind,
        op_name=scopes[1] if scopes else "",
        runs=runs,
        read=read,
        written=written,
        operations=done,
    )


def _needed(inside: _Computation) -> tuple[collections.Counter[str], int]:
    """Returns how many elements of each instruction are needed, and bytes written."""
    need: collections.Counter[str] = collections.Counter()
    root = next(one for one in inside.values() if one.root)
    parts = root.operands if root.opcode == "tuple" else (root.name,)
    written = 0
    for part in parts:
        need[part] = inside[part].elements
        target = inside[part]
        while target.opcode == "bitcast":
            target = inside[target.operands[0]]
        update = _update(inside, target)
        written += (update or inside[part]).bytes
    for one in reversed(inside.values()):
        count = need[one.name]
        if not count:
            continue
        update = _update(inside, one)
        for place, operand in enumerate(one.operands):
            of = inside.get(operand)
            if of is None:
                continue
            if update is not None:
                wanted = 0 if place == 0 else of.elements
            elif one.opcode in (*_SLICES, "broadcast"):
                wanted = count if place == 0 else of.elements
            else:
                wanted = math.ceil(of.elements * count / max(one.elements, 1))
            need[operand] = min(of.elements, need[operand] + wanted)
        if update is not None:
            need[one.name] = update.elements
    return need, written


def _update(inside: _Computation, one: _Instruction) -> _Instruction | None:
    """Returns what is written into an operand of the fusion, where it lies."""
    places = {"dynamic-update-slice": 1, "scatter": 2}
    if one.opcode not in places:
        return None
    target = inside[one.operands[0]]
    while target.opcode == "bitcast":
        target = inside[target.operands[0]]
    where = places[one.opcode]
    return inside[one.operands[where]] if target.opcode == "parameter" else None


def _kind(opcode: str, inside: _Computation, need) -> str:
    if opcode.startswith(_COLLECTIVES):
        return "collective"
    # Scalars are indices and counters.
    arrays = {x.opcode for x in inside.values() if need[x.name] > 1}
    if arrays & {"dot", "convolution"}:
        return "gemm"
    busy = arrays - _MOVES
    if not arrays:
        return "scalar"
    if not busy:
        return next((one for one in _TELLING if one in arrays), "fill")
    return "reduce" if any(one.startswith("reduce") for one in busy) else "elementwise"


def _trips(computations: dict, loop: _Instruction) -> int:
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = computations[loop.called("condition")]
    bodies = [
        condition,
        *(
            computations.get(one.called("calls") or "", {})
            for one in condition.values()
        ),
    ]
    bounds = [
        int(found[1])
        for body in bodies
        for one in body.values()
        if one.opcode == "constant"
        and (found := re.match(r"\((\d+)\)", one.attributes))
    ]
    if len(bounds) != 1:
        raise ValueError(f"{loop.name}: its trip count is not known")
    return bounds[0]


def _parse(text: str) -> tuple[dict[str, _Computation], str | None]:
    computations: dict[str, _Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None and line.startswith("  "):
            found = _instruction(line)
            current[found.name] = found
    return computations, entry


def _instruction(line: str) -> _Instruction:
    """Reads `[ROOT] %name = shape opcode(operands), attributes`."""
    head, rest = line.strip().split(" = ", 1)
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].strip()
    opcode, rest = rest.split("(", 1)
    end = _closing("(" + rest) - 1
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    attributes = rest[end:] if opcode != "constant" else "(" + rest
    return _Instruction(
        head.split()[-1].lstrip("%"),
        tuple(_sizes(shape)),
        opcode,
        operands,
        attributes,
        head.startswith("ROOT"),
    )


def _closing(text: str) -> int:
    """Returns where the bracket that the text starts with has been closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"unbalanced brackets: {text[:80]}")


def _sizes(shape: str) -> Iterator[tuple[int, int]]:
    for kind, dims in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shape):
        count = math.prod(int(n) for n in dims.split(",") if n)
        bits = re.search(r"\d+", kind)
        yield count, math.ceil(count * (int(bits[0]) if bits else 8) / 8)


def _parameter(one: _Instruction) -> _Instruction:
    return dataclasses.replace(one, opcode="parameter", operands=(), root=False)
