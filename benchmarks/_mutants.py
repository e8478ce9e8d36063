"""One small fault of a source file at a time, by its syntax tree.

Docstrings, annotations, decorators, assertions, and whatever says something to users
(f-strings, what is raised or logged, lists of problems) are left as they are.
"""

import ast
import copy
import hashlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
    *("operator", "comparison", "boolean", "constant", "axis", "sign", "term"),
    *("exchange", "statement"),
)
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SAYING = {"AuditError", "ClipError", "ValueError", "warning", "info", "error"}
_TYPES = {"int", "float", "str", "bytes", "bool", "list", "dict", "tuple", "set"}


class Mutant(NamedTuple):
    """A fault.

    Attributes:
      kind: One of `KINDS`.
      line: Of the source, from 1.
      before: The source that is replaced, on one line, with what is around it.
      after: The same with the fault.
      source: The whole file with the fault.
    """

    kind: str
    line: int
    before: str
    after: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Returns every fault that a file can have, in the order of its lines."""
    found = []
    for kind, node, changed in _changes(ast.parse(source)):
        mutated, before, after = _replaced(source, node, changed)
        found.append(Mutant(kind, node.lineno, before, after, mutated))
    return sorted(found, key=lambda mutant: mutant.line)


def pick(sources: dict[str, str], count: int, seed: str) -> list[tuple[str, Mutant]]:
    """Picks faults of some files at random, as many of one kind as of another.

    A fault has a random rank of its own: what is edited elsewhere moves none.

    Args:
      sources: By path.
      count: How many.
      seed: The same gives the same faults of the same files.

    Returns:
      Path and fault; no two are of the same line.
    """

    def rank(*words: str) -> bytes:
        return hashlib.sha256("\0".join((seed, *words)).encode()).digest()

    found = [(path, x) for path, source in sources.items() for x in mutants(source)]
    found.sort(key=lambda fault: rank(fault[0], fault[1].before, fault[1].after))
    of_kind = {
        kind: [fault for fault in found if fault[1].kind == kind][::-1]
        for kind in sorted(KINDS, key=rank)
    }
    chosen: list[tuple[str, Mutant]] = []
    lines: set[tuple[str, int]] = set()
    while any(of_kind.values()):
        for faults in of_kind.values():
            while faults:
                path, mutant = faults.pop()
                if (path, mutant.line) in lines:
                    continue
                if len(chosen) == count:
                    return chosen
                lines.add((path, mutant.line))
                chosen.append((path, mutant))
                break
    return chosen


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.expr | ast.stmt, ast.AST]]:
    """Yields each kind of fault, the node that has it, and what stands there then."""
    for node in _code(tree):
        match node:
            case ast.BinOp(op=op) if not _is_type(node):
                if type(op) in _OPERATORS:
                    changed = copy.copy(node)
                    changed.op = _OPERATORS[type(op)]()
                    yield "operator", node, changed
                if isinstance(op, ast.Add | ast.Sub | ast.Mult):
                    yield "term", node, node.left
                    if not isinstance(op, ast.Sub):
                        yield "term", node, node.right
            case ast.Compare(ops=[op]):
                changed = copy.copy(node)
                changed.ops = [_COMPARISONS[type(op)]()]
                yield "comparison", node, changed
            case ast.BoolOp(op=op, values=values):
                other = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield "boolean", node, ast.BoolOp(other, values)
                yield "term", node, values[0]
                yield "term", node, values[-1]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield "boolean", node, operand
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                yield "sign", node, operand
            case ast.Constant(value=bool() as value):
                yield "constant", node, ast.Constant(not value)
            case ast.Constant(value=int() as value):
                yield "constant", node, ast.Constant(value + 1)
                yield "constant", node, ast.Constant(value - 1)
            case ast.Constant(value=float() as value):
                yield "constant", node, ast.Constant(value + 1.0)
                yield "constant", node, ast.Constant(value * 2.0)
            case ast.Call(args=args):
                for k, (one, other) in enumerate(itertools.pairwise(args)):
                    kept = (
                        ast.Starred | ast.Constant
                    )  # A pattern, a name: it would not run.
                    if not isinstance(one, kept) and not isinstance(other, kept):
                        changed = copy.copy(node)
                        changed.args = [*args[:k], other, one, *args[k + 2 :]]
                        yield "exchange", node, changed
                for keyword in node.keywords:
                    if keyword.arg == "axis":
                        yield from _axes(keyword.value)
            case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Continue():
                yield "statement", node, ast.Pass()
            case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
                yield "statement", node, ast.Pass()


def _axes(value: ast.expr) -> Iterator[tuple[str, ast.expr, ast.AST]]:
    try:
        axis = ast.literal_eval(value)
    except ValueError:
        return
    if isinstance(axis, int):
        for other in (axis - 1, axis + 1):
            yield "axis", value, ast.parse(str(other), mode="eval").body


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields every node that is neither a type nor said to anybody."""
    for name, field in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for node in field if isinstance(field, list) else [field]:
            if isinstance(node, ast.AST) and not _says(node):
                yield node
                yield from _code(node)


def _says(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Raise() | ast.Assert() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(ast.Name("problems")))):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in _SAYING
    return False


def _is_type(node: ast.BinOp) -> bool:
    """Returns whether it is a union of types."""
    sides = node.left, node.right
    return isinstance(node.op, ast.BitOr) and any(
        (isinstance(side, ast.Constant) and side.value is None)
        or (isinstance(side, ast.Name) and side.id in _TYPES)
        or (isinstance(side, ast.BinOp) and _is_type(side))
        for side in sides
    )


def _replaced(
    source: str, node: ast.expr | ast.stmt, changed: ast.AST
) -> tuple[str, str, str]:
    """Returns the file with a node changed; its lines before and after, as one."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None and node.end_col_offset is not None
    begin = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    whole = source.encode()
    text = ast.unparse(ast.fix_missing_locations(changed))
    if isinstance(node, ast.expr) and not isinstance(changed, ast.Constant | ast.Name):
        text = f"({text})"
    first = whole.rfind(b"\n", 0, begin) + 1
    last = whole.find(b"\n", end)
    head, tail = whole[first:begin].decode(), whole[end:last].decode()
    shown = (head + x + tail for x in (whole[begin:end].decode(), text))
    before, after = (" ".join(x.split()) for x in shown)
    return whole[:begin].decode() + text + whole[end:].decode(), before, after
