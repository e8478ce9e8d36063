"""Values given on the command line: `--config.motion.q_scale=0.5`.

The flags of ml_collections refuse one wrong value at a time, in their own words, and
know no None. Here a text that is no value of its key stays a text, and a key that does
not exist is made, so that `settings.problems` names all of them in one message.
"""

import ast
import contextlib
import glob
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vidsme_jax.settings.keys import Keys, plain
from vidsme_jax.settings.rules import SOURCES, Rule

_FLAG = re.compile(r"--?(no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)
_MOST_PARTS = 100  # Of a text in which names with commas are looked for.
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


class Given(NamedTuple):
    """A key and the text of its value on the command line."""

    key: str
    text: str


def split(
    argv: Iterable[str], rules: Mapping[str, Rule]
) -> tuple[list[str], list[Given]]:
    """Separates what sets a key of the configuration from all other arguments.

    Example:
      >>> from vidsme_jax import settings
      >>> split(["vidsme", "--config=a.py", "--config.workers=2"], settings.RULES)
      (['vidsme', '--config=a.py'], [Given(key='workers', text='2')])
    """
    rest, found, left = [], [], list(argv)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*rest, argument, *left], found
        if (flag := _FLAG.fullmatch(argument)) is None:
            rest.append(argument)
            continue
        negated, key, text = flag.groups()
        switch = key in rules and isinstance(rules[key].default, bool)
        if text is None and (negated or switch):
            text = "false" if negated else "true"
        elif text is None:
            text = left.pop(0) if left and not left[0].startswith("--") else ""
        found.append(Given(key, text))
    return rest, found


def apply(
    config: ConfigDict, given: Iterable[Given], rules: Mapping[str, Rule]
) -> None:
    """Sets keys of a configuration; of a key given twice the last counts.

    Tuples that are given several times are joined.
    """
    texts: dict[str, list[str]] = {}
    for key, text in given:
        texts.setdefault(key, []).append(text)
    with config.unlocked(), config.ignore_type():
        for key, several in texts.items():
            *groups, name = key.split(".")
            node = config
            for group in groups:
                if not isinstance(node.get(group), ConfigDict):
                    node[group] = Keys()
                node = node[group]
            node[name] = read(several, rules.get(key))


def read(texts: list[str], rule: Rule | None) -> Any:
    """Returns the value that a key is given by one text or several.

    What is no value of the key stays as it is, for `settings.problems` to judge. A
    tuple is read from a list with commas, from a literal of Python, or of its names
    without quotes.

    Args:
      texts: In the order in which they are given.
      rule: Of the key; None: there is no such key.

    Example:
      >>> from vidsme_jax.settings import RULES
      >>> read(["a.json,b.json"], RULES["corpus.members"])
      ('a.json', 'b.json')
      >>> read(["('a.json',)", "b.json"], RULES["corpus.members"])
      ('a.json', 'b.json')
      >>> read(["0.01,0.05"], RULES["report.fprs"])
      (0.01, 0.05)
    """
    if rule is None:
        return texts[-1]
    kind = rule.optional or type(rule.default)
    if rule.optional and texts[-1] == "None":
        return None
    if kind is tuple:
        several = [_tuple(text, rule) for text in texts]
        if len(several) == 1 or not all(isinstance(one, tuple) for one in several):
            return several[-1]
        return sum(several, ())
    if kind is str and texts[-1].lstrip()[:1] in ("(", "["):
        listed = _tuple(texts[-1], rule)  # Where a key takes names in both forms.
        return listed if rule.allowed.test(listed) else texts[-1]
    return _READERS[kind](texts[-1])


def _tuple(text: str, rule: Rule) -> Any:
    """Reads a tuple, a list, or one value in place of a tuple of one."""
    if not text.strip():
        return ()
    readings: list[Any] = [(text,)]
    try:
        literal = plain(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        # Names without quotes, which a shell may have taken away.
        whole = rule.allowed is SOURCES and _is_there(text)
        bare = text.strip(" ()[]") if _is_enclosed(text) else text
        names = (part.strip(" \t\"'") for part in _parts(bare, rule))
        listed = tuple(name for name in names if name)
        readings.insert(0 if "," in text and not whole else 1, listed)
        otherwise = text
    else:
        otherwise = literal if isinstance(literal, tuple) else (literal,)
        readings = [otherwise, (literal,), *readings]
    return next((one for one in readings if rule.allowed.test(one)), otherwise)


def _is_enclosed(text: str) -> bool:
    """Returns whether a text begins and ends as a tuple or a list does."""
    return text.strip()[:1] in ("(", "[") and text.strip()[-1:] in (")", "]")


def _parts(text: str, rule: Rule) -> list[str]:
    """Divides a text at its commas, except those in the names of files.

    A name with commas that is that of a file or folder, or a pattern that matches some,
    stays one; the longest such counts.
    """
    parts = text.split(",")
    if rule.allowed is not SOURCES or len(parts) > _MOST_PARTS:
        return parts
    found, begin = [], 0
    while begin < len(parts):
        names = (
            (end, ",".join(parts[begin:end]))
            for end in range(len(parts), begin + 1, -1)
        )
        whole = ((end, name) for end, name in names if _is_there(name.strip()))
        begin, name = next(whole, (begin + 1, parts[begin]))
        found.append(name)
    return found


def _is_there(name: str) -> bool:
    with contextlib.suppress(OSError, ValueError, re.error):
        path = os.path.expanduser(name)
        return os.path.exists(path) or next(glob.iglob(path), None) is not None
    return False


def _integer(text: str) -> Any:
    for base in (10, 0):  # Zeros in front; 0x and its like.
        with contextlib.suppress(ValueError):
            return int(text, base)
    return text


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _bool(text: str) -> Any:
    lowered = text.lower()
    return lowered in _TRUE if lowered in (*_TRUE, *_FALSE) else text


_READERS = {int: _integer, float: _float, bool: _bool, str: str}
