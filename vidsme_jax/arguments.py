"""Checks of the arguments of public functions: one sentence says what is wrong.

Each raises one of the errors of `base`, and costs little next to the work that follows.
"""

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from vidsme_jax.base import AuditError, ClipError, ScoreTable
from vidsme_jax.wording import nearest

_SHAPE = "uint8, shape (frames, height, width, 3)"


def require(holds: Any, sentence: str) -> None:
    """Raises an `AuditError` of one sentence unless a condition holds."""
    if not holds:
        raise AuditError([sentence])


def number(
    name: str,
    value: Any,
    low: int | float,
    high: int | float = math.inf,
    *,
    open: str = "",
) -> Any:
    """Returns a real number if it is in a range.

    Args:
      name: The argument's name, for the message.
      value: The argument; a bool is no number, an array only without axes.
      low: The lower end.
      high: The upper end; a number is finite.
      open: The ends that are excluded: "(", ")" or "()".
    """
    kinds = int, float, np.integer, np.floating
    plain = value.item() if getattr(value, "shape", None) == () else value
    real = isinstance(plain, kinds) and not isinstance(plain, bool)
    inside = real and low <= plain <= high and math.isfinite(plain)
    outside = ("(" in open and plain == low) or (")" in open and plain == high)
    if inside and not outside:
        return plain
    first, last = "(" if "(" in open else "[", ")" if ")" in open else "]"
    span = f"in {first}{low:g}, {high:g}{last}"
    if math.isinf(high):
        span = f"{'>' if '(' in open else '>='} {low:g}" if low > -high else "finite"
    raise AuditError([f"{name} is {_shown(value)}; it must be a number {span}"])


def count(name: str, value: Any, low: int = 1) -> int:
    """Returns an integer if it is at least `low`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(
        whole and value >= low,
        f"{name} is {_shown(value)}; it must be an integer >= {low}",
    )
    return int(value)


def text_list(name: str, value: Any, example: str) -> tuple[str, ...]:
    """Returns the texts of a list; refuses one text, which is no list."""
    if isinstance(value, str):
        raise AuditError([f"{name} is {value!r}, one text; give a list: [{value!r}]"])
    several = tuple(value) if isinstance(value, Iterable) else ()
    wrong = [each for each in several if not isinstance(each, str)]
    require(
        not wrong, f"{name} holds {_shown(wrong[0] if wrong else 0)}, which is no text"
    )
    require(
        several, f"{name} is {_shown(value)}; give at least one, such as [{example!r}]"
    )
    return several


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    """Returns a name if it is known."""
    known = tuple(known)
    if isinstance(value, str) and value in known:
        return value
    hint = nearest(value, known) if isinstance(value, str) else ""
    listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    raise AuditError([f"{name} is {_shown(value)}; known: {listed}{hint}"])


def series(name: str, values: Any, *, least: int = 1) -> np.ndarray:
    """Returns numbers as an array of one axis; all must be finite."""
    for place, value in enumerate(values) if isinstance(values, list | tuple) else ():
        require(
            not isinstance(value, bool | np.bool_),
            f"{name}[{place}] is {value}; it must be a number",
        )
    try:
        array = np.asarray(values)
    except ValueError as error:  # Of lists of several lengths.
        raise AuditError([f"{name} cannot be read as numbers ({error})"]) from error
    require(
        array.dtype.kind in "iuf",
        f"{name} holds {array.dtype}; it must hold numbers",
    )
    require(
        array.ndim == 1,
        f"{name} has shape {array.shape}; it must have one axis",
    )
    require(
        len(array) >= least,
        f"{name} has {len(array)} entries; it must have at least {least}",
    )
    finite = np.isfinite(array)
    if not finite.all():
        place = int(np.flatnonzero(~finite)[0])
        raise AuditError(
            [f"{name}[{place}] is {array[place]}; all entries must be finite"]
        )
    return array


def folder_or_name(name: str, value: Any) -> str:
    """Returns a checkpoint's folder or name as text."""
    if isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str):
        return os.fspath(value)
    raise AuditError(
        [f"{name} is {_shown(value)}; it must be a folder, a hub id or random:NAME"]
    )


def flag(name: str, value: Any) -> bool:
    """Returns a bool; refuses texts, of which "no" would count as true."""
    require(
        isinstance(value, bool | np.bool_),
        f"{name} is {_shown(value)}; it must be True or False",
    )
    return bool(value)


def table(value: Any) -> ScoreTable:
    """Returns a `ScoreTable`; refuses anything else."""
    kind = type(value).__name__
    require(isinstance(value, ScoreTable), f"table is a {kind}; give a base.ScoreTable")
    return value


def same_length(**named: Any) -> None:
    """Raises an `AuditError` if lengths differ."""
    lengths = {name: len(value) for name, value in named.items()}
    listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
    require(
        len(set(lengths.values())) == 1,
        f"lengths differ: {listed}; they must be the same",
    )


def frames(stage: str, pixels: Any, least: int = 1) -> None:
    """Raises a `ClipError` if something is not the frames of one clip."""
    problem = ""
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        problem = f"frames are a {kind}; give an array of NumPy, {_SHAPE}"
    elif pixels.ndim == 3 and 3 in pixels.shape:
        problem = f"frames have shape {pixels.shape}, one frame; give frames[None]"
    elif pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3:
        problem = (
            f"frames have shape {pixels.shape}, channels first; give "
            "frames.transpose(0, 2, 3, 1)"
        )
    elif pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels[:1].size:
        problem = f"frames have shape {pixels.shape}; give {_SHAPE}"
    elif pixels.dtype != np.uint8:
        problem = f"frames are {pixels.dtype}; give uint8, 0 to 255"
        if pixels.dtype.kind == "f" and 0 <= pixels.min() <= pixels.max() <= 1:
            problem = (
                f"frames are {pixels.dtype} from 0 to 1; give "
                "(255 * frames).round().astype(numpy.uint8)"
            )
    elif len(pixels) < least:
        problem = f"frames are {len(pixels)}; give at least {least}"
    if problem:
        raise ClipError(stage, problem)


def _shown(value: Any) -> str:
    if getattr(value, "ndim", 0):
        return f"an array of shape {value.shape}"
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:60]}..."
