"""Reads JSON files of checkpoints, and describes pointers and damaged files."""

import json
import os
import pathlib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.store import regular
from vidsme_jax.wording import printable

SHOWN = 20  # Problems of one kind in a message, and names in one line of it.
# Limits of a JSON file: bytes, and values, which take up to 100 bytes each in memory.
# The largest tokenizers in use have 35 MB and 1.5 million values.
LARGEST_JSON, MOST_VALUES = 2**27, 2**22
_LONGEST = 200  # Characters of a value, or of a name, that are shown.
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_LARGEST_POINTER = 1024  # Bytes, by the specification.
# Files that transformers reads too, which refuses a byte-order mark.
_PLAIN = frozenset(
    """config.json tokenizer.json tokenizer_config.json special_tokens_map.json
    added_tokens.json vocab.json""".split()
)


class _Brief(reprlib.Repr):
    """Shows values of few types, and only the type of all others.

    Others could refer to themselves many times over, and take as long to be shown.
    """

    repr_OrderedDict = reprlib.Repr.repr_dict

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, bool | float | bytes | None):
            return super().repr_instance(x, level)
        return f"<{type(x).__name__}>"


_BRIEF = _Brief()
_BRIEF.maxdict = _BRIEF.maxlist = _BRIEF.maxtuple = 6
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxlong, _BRIEF.maxother = 3, 160, 80, 160
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # UTF-8, UTF-16 (two orders).


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file that must hold an object.

    The encoding is UTF-8, UTF-16 or UTF-32, with a byte-order mark or without.

    Raises:
      AuditError: It cannot be read, is no regular file, is over 128 MiB, has more than
        4 million values, names a key twice, or holds no object.
    """
    try:
        with regular.opened(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > LARGEST_JSON:
                raise ValueError(
                    f"{size} bytes, at most {LARGEST_JSON >> 20} MiB are read: fetch "
                    "it again"
                )
            content = file.read(LARGEST_JSON)
        value = parsed(content)
    except (OSError, ValueError) as error:
        raise AuditError([f"{path}: not readable as JSON ({error})"]) from error
    if not isinstance(value, dict):
        raise AuditError([f"{path}: expected an object, found {type(value).__name__}"])
    return value


def parsed(content: bytes) -> Any:
    """Parses JSON.

    Raises:
      ValueError: It is no JSON, has more than 4 million values, is nested too deeply,
        or names a key twice.
    """
    if wrong := _no_content(content):
        raise ValueError(wrong)
    values = sum(map(content.count, (b",", b"[", b"{")))
    if values > MOST_VALUES:
        raise ValueError(
            f"about {values} values, at most {MOST_VALUES} are read: fetch it again"
        )
    try:
        return json.loads(content, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object; refuses a repeated key, which readers treat differently."""
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"it names the key {shown(twice)} twice: take one out")
    return out


def is_pointer(path: pathlib.Path) -> bool:
    """Returns whether a file is a pointer of git-lfs, not the content itself."""
    if not path.is_file() or path.stat().st_size > _LARGEST_POINTER:
        return False
    with regular.opened(path) as file:
        return file.read(len(_POINTER)) == _POINTER


def pointer_problem(paths: Sequence[pathlib.Path]) -> str:
    """Returns the problem of files that are pointers of git-lfs."""
    one = len(paths) == 1
    return (
        f"{listed([p.name for p in paths])} "
        f"{'is a git-lfs pointer' if one else 'are git-lfs pointers'}, not the "
        f"content of the {'file' if one else 'files'}: run `git lfs pull` in "
        f"{paths[0].parent}, or fetch the model with `hf download`"
    )


def mark_problem(paths: Iterable[pathlib.Path]) -> str:
    """Returns the problem of files with a byte-order mark, "" if there are none."""
    marked = []
    for path in paths:
        if path.name in _PLAIN and path.is_file():
            with regular.opened(path) as file:
                if file.read(3).startswith(_MARKS):
                    marked.append(path.name)
    if not marked:
        return ""
    begin = "begins" if len(marked) == 1 else "begin"
    return (
        f"{listed(marked)} {begin} with a byte-order mark, which transformers does "
        "not read: save as UTF-8 without one"
    )


def damage(path: pathlib.Path, error: Exception) -> str:
    """Returns the problem of a weight file that could not be opened.

    Args:
      path: The file.
      error: Raised by its reader.
    """
    if not path.is_file():
        return f"{path.name}: no such file; fetch it again"
    with regular.opened(path) as file:
        begin = file.read(64)
    if path.suffix == ".safetensors" and begin.startswith(b"PK"):
        return f"{path.name}: pickled by torch, not safetensors: rename it to .bin"
    if path.suffix == ".bin" and begin[8:9] == b"{":
        return f"{path.name}: safetensors, not pickled: rename it to .safetensors"
    cause = _no_content(begin) or f"{error}"
    return f"{path.name}: damaged ({cause}); fetch it again, it may be cut short"


def shown(value: Any) -> str:
    """Returns a value of a file for a message, in at most 203 characters.

    Example:
      >>> shown({"neg": True}), len(shown("x" * 1000)), shown([[[["deep"]]]])
      ("{'neg': True}", 160, '[[[[...]]]]')
    """
    text = printable(_BRIEF.repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def name(text: str) -> str:
    """Returns a name for a message: printable, at most 200 characters."""
    return printable(text, most=_LONGEST)


def listed(names: Sequence[str]) -> str:
    """Returns at most `SHOWN` names in a line, and the number of the others.

    Example:
      >>> listed(["a", "b"])
      'a, b'
      >>> listed([str(k) for k in range(22)])[-17:]
      '18, 19 and 2 more'
    """
    rest = len(names) - SHOWN
    return ", ".join(map(name, names[:SHOWN])) + (
        f" and {rest} more" if rest > 0 else ""
    )


def limited(problems: Sequence[str], kind: str, total: int = 0) -> list[str]:
    """Returns at most `SHOWN` problems of one kind, and a line that counts the rest.

    Args:
      problems: All, or the first ones.
      kind: A plural noun for the last line.
      total: Number of all problems; 0 if all are given.

    Example:
      >>> limited([f"tensor {k}: surplus" for k in range(22)], "surplus tensors")[-1]
      'and 2 more surplus tensors'
    """
    rest = max(len(problems), total) - SHOWN
    more = [f"and {rest} more {kind}"] if rest > 0 else []
    return [*problems[:SHOWN], *more]


def _no_content(begin: bytes) -> str:
    """Returns why the beginning of a file is not a model's, or ""."""
    if not begin:
        return "it is empty"
    if begin.startswith(_POINTER):
        return (
            "it is a git-lfs pointer, not the content of the file: run `git lfs pull` "
            "there, or fetch the model with `hf download`"
        )
    if begin.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "it is a web page"
    return ""
