"""Files with the time of writing and a digest of their content.

A byte that was changed by accident is found, and so is a file of another program; a
deliberate forgery is not.
"""

import datetime
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.settings.rules import is_integer, is_number
from vidsme_jax.store import received
from vidsme_jax.store.files import create, write_atomically
from vidsme_jax.wording import printable

Test = Callable[[Any], bool]

_FORMAT = 2
_MOST = 2**24  # Bytes of a file.
_LARGEST = 1e12  # Of the numbers in a file.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_HEX = re.compile("[0-9a-f]{64}")
_OWN = ("format", "time", "digest")
_REMEDY = "put it back as it was written, or take another --workdir"


def write(
    path: pathlib.Path, content: Mapping[str, Any], *, replaces: bool = True
) -> dict[str, Any]:
    """Writes a file whole, and returns what it says, as JSON gives it back.

    Args:
      path: The path of the file.
      content: JSON-ready; `format`, `time` (UTC) and `digest` are added: the SHA-256 of
        the canonical JSON of all else.
      replaces: Whether a file that is there is replaced.

    Raises:
      FileExistsError: It is there, and must not be replaced.
      OSError: It cannot be written.
    """
    record = json.loads(json.dumps({"format": _FORMAT, "time": _now(), **content}))
    record["digest"] = _digest(record)
    (write_atomically if replaces else create)(path, text(record))
    return record


def text(record: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a file that says so."""
    return (json.dumps(record, indent=1) + "\n").encode()


def read(
    path: pathlib.Path, fields: Mapping[str, Test], remedy: str = _REMEDY
) -> dict[str, Any] | None:
    """Returns what `write` has written; None if there is no file.

    Args:
      path: The path of the file.
      fields: What each field of the content may hold; it has all of them.
      remedy: What to do about a file that is damaged.

    Raises:
      AuditError: The file is damaged, was changed, or is of another format.
    """
    record: Any = None
    try:
        record = json.loads(received.content(path, _MOST))
        wrong = _wrong(record, fields)
    except FileNotFoundError:
        if not path.is_symlink():
            return None
        wrong = "it is a link that leads nowhere"
    except json.JSONDecodeError as error:
        wrong = f"it cannot be read (no JSON: {error.msg}, line {error.lineno})"
    except (OSError, ValueError, RecursionError) as error:
        wrong = f"it cannot be read ({printable(str(error), 300)})"
    if wrong:
        raise AuditError([f"{path}: {wrong}; {remedy}"])
    return record


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the canonical JSON, in hex."""
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def _wrong(content: Any, fields: Mapping[str, Test]) -> str:
    """Returns what is wrong with the content of a file, or ""."""
    record: dict[str, Any] = content
    if not isinstance(content, dict) or record.get("format") != _FORMAT:
        return f"it has not format {_FORMAT}, which this version reads"
    rest = {key: value for key, value in record.items() if key != "digest"}
    if record.get("digest") != _digest(rest):
        return "its digest does not fit: it was changed after it was written"
    if set(record) != {*_OWN, *fields}:
        return "it has not what such a file has"
    tests = {"time": is_time, **fields}
    faulty = [key for key, is_one in tests.items() if not is_one(record[key])]
    return f"its {', '.join(faulty)} cannot be that of such a file" if faulty else ""


def is_text(value: Any) -> bool:
    """Returns whether a value is text."""
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    """Returns whether a value is a bool."""
    return isinstance(value, bool)


def is_time(value: Any) -> bool:
    """Returns whether a value is a time as `write` writes it."""
    return is_text(value) and _TIME.fullmatch(value) is not None


def is_digest(value: Any) -> bool:
    """Returns whether a value is a SHA-256 in hex."""
    return is_text(value) and _HEX.fullmatch(value) is not None


def is_amount(value: Any) -> bool:
    """Returns whether a value is a number that a sentence can hold."""
    return is_number(value) and abs(value) < _LARGEST


def is_count(value: Any) -> bool:
    """Returns whether a value is a count of something that is there."""
    return is_integer(value) and 0 < value < _LARGEST


def is_counts(value: Any) -> bool:
    """Returns whether a value is an object of counts."""
    return values_of(is_count)(value)


def or_none(test: Test) -> Test:
    """Allows None as well."""
    return lambda value: value is None or test(value)


def list_of(test: Test) -> Test:
    """Allows lists whose entries pass a test."""

    def is_one(value: Any) -> bool:
        several: list[Any] = value
        return isinstance(value, list) and all(map(test, several))

    return is_one


def values_of(test: Test) -> Test:
    """Allows objects whose values pass a test."""

    def is_one(value: Any) -> bool:
        its: dict[str, Any] = value
        return isinstance(value, dict) and all(map(test, its.values()))

    return is_one


def having(**fields: Test) -> Test:
    """Allows objects that have these fields and no others."""

    def is_one(value: Any) -> bool:
        its: dict[str, Any] = value
        return (
            isinstance(value, dict)
            and its.keys() == fields.keys()
            and all(test(its[key]) for key, test in fields.items())
        )

    return is_one
