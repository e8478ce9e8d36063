"""Matches the regular expressions of an adapter, with a limit on steps.

Python's `re` tries every way to match: for `(a+)+b` their number doubles with each
letter. Here a set of positions in the name is carried through the expression, as bits
of one integer, so that each part is evaluated once for all ways that lead to it.
Constructs that need more than positions (backreferences, atomic groups, flags) are
refused; names of modules need none of them.
"""

import re
from collections.abc import Callable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from vidsme_jax.base import AuditError

LONGEST = 2000  # Characters of a pattern: the longest that trainers write have 600.
MOST = 4096  # Patterns, or names, of one key: a model has some hundreds of modules.
# Of all matches of an adapter: one takes some hundreds; a million take half a second.
MOST_STEPS = 10_000_000
_WORD = re.compile(r"\w")
_CLASSES = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_WORD: lambda c: bool(_WORD.match(c)),
}
_OPPOSITES = {
    sre.CATEGORY_NOT_DIGIT: sre.CATEGORY_DIGIT,
    sre.CATEGORY_NOT_SPACE: sre.CATEGORY_SPACE,
    sre.CATEGORY_NOT_WORD: sre.CATEGORY_WORD,
}
_PLAIN = re.compile(r"[^*+?{}|()\[\]]*")  # Can match in one way only: `re` is fast.


class Steps:
    """Counts the steps of all matches of an adapter."""

    def __init__(self) -> None:
        self._left = MOST_STEPS

    def take(self, count: int = 1) -> None:
        """Counts steps.

        Raises:
          AuditError: There are more than `MOST_STEPS`.
        """
        self._left -= count
        if self._left < 0:
            raise AuditError(
                [
                    "adapter_config.json: its patterns (target_modules, rank_pattern "
                    f"and others) take over {MOST_STEPS} steps to match: name the "
                    "modules in full, without repeats inside repeats"
                ]
            )


class Pattern:
    """A regular expression.

    Example:
      >>> pattern = Pattern(r".*\\.(q|v)_proj", Steps())
      >>> pattern.matches("layers.0.q_proj"), pattern.matches("layers.0.k_proj")
      (True, False)
    """

    def __init__(self, text: str, steps: Steps):
        """Parses an expression.

        Args:
          text: The expression.
          steps: Counts the steps of its matches.

        Raises:
          ValueError: It is no expression, too long, or has a construct that is not
            built.
        """
        if len(text) > LONGEST:
            raise ValueError(
                f"it has {len(text)} characters, at most {LONGEST} are read"
            )
        try:
            self._plain = re.compile(text)
            parsed = _parser.parse(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if parsed.state.flags & ~sre.SRE_FLAG_UNICODE:
            raise ValueError("it has flags, which are not built")
        _check(parsed)
        self._steps = steps
        self._parsed = None if _PLAIN.fullmatch(text) else parsed

    def matches(self, name: str) -> bool:
        """Returns whether the whole name matches."""
        return len(name) in self.ends(name, [0])

    def matches_end(self, name: str) -> bool:
        """Returns whether the whole name, or all after one of its dots, matches."""
        return len(name) in self.ends(name, starts(name))

    def ends(self, name: str, places: list[int]) -> list[int]:
        """Returns the positions at which a match can end.

        Args:
          name: To be matched.
          places: Positions at which it may begin.

        Raises:
          AuditError: As of `Steps.take`.
        """
        self._steps.take()
        if self._parsed is None:
            found = (self._plain.match(name, place) for place in places)
            return sorted({match.end() for match in found if match})
        bits = _Match(name, self._steps).run(self._parsed, sum(1 << k for k in places))
        return [k for k in range(len(name) + 1) if bits >> k & 1]


def starts(name: str) -> list[int]:
    """Returns the positions at which the parts of a dotted name begin."""
    return [0, *(k + 1 for k, letter in enumerate(name) if letter == ".")]


def _check(parsed: Any) -> None:
    """Raises a `ValueError` for a construct that `_Match` does not know."""
    for op, value in parsed:
        if op is sre.BRANCH:
            for branch in value[1]:
                _check(branch)
        elif op is sre.SUBPATTERN:
            if value[1] or value[2]:
                raise ValueError("it has flags, which are not built")
            _check(value[3])
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _check(value[2])
        elif op in (sre.ASSERT, sre.ASSERT_NOT):
            if value[0] < 0:
                raise ValueError("it has a lookbehind, which is not built")
            _check(value[1])
        elif op not in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN, sre.AT):
            raise ValueError(f"it has {op}, which is not built")


class _Match:
    """The matches of one name; sets of positions are bits of an integer."""

    def __init__(self, name: str, steps: Steps):
        self._name, self._steps = name, steps
        self._all = (1 << len(name)) - 1  # Positions before a letter.

    def run(self, parsed: Any, places: int) -> int:
        """Returns the positions after a part that begins at one of `places`."""
        for op, value in parsed:
            self._steps.take()
            if not places:
                return 0
            places = self._one(op, value, places)
        return places

    def _one(self, op: Any, value: Any, places: int) -> int:
        if op is sre.LITERAL:
            return self._over(places, lambda c: ord(c) == value)
        if op is sre.NOT_LITERAL:
            return self._over(places, lambda c: ord(c) != value)
        if op is sre.ANY:
            return self._over(places, lambda c: c != "\n")
        if op is sre.IN:
            return self._over(places, lambda c: _is_in(c, value))
        if op is sre.AT:
            return places & self._at(value)
        if op is sre.BRANCH:
            out = 0
            for branch in value[1]:
                out |= self.run(branch, places)
            return out
        if op is sre.SUBPATTERN:
            return self.run(value[3], places)
        if op in (sre.ASSERT, sre.ASSERT_NOT):
            wanted = op is sre.ASSERT
            each = (1 << k for k in range(len(self._name) + 1) if places >> k & 1)
            return sum(bit for bit in each if bool(self.run(value[1], bit)) == wanted)
        least, most, inner = value
        return self._repeated(int(least), most, inner, places)

    def _over(self, places: int, test: Callable[[str], bool]) -> int:
        """Returns the positions after letters at `places` that pass a test."""
        out, left = 0, places & self._all
        self._steps.take(left.bit_count())
        while left:
            bit = left & -left
            left ^= bit
            if test(self._name[bit.bit_length() - 1]):
                out |= bit << 1
        return out

    def _repeated(self, least: int, most: Any, inner: Any, places: int) -> int:
        for _ in range(least):
            before, places = places, self.run(inner, places)
            if places == before:
                break
        out, new, done = places, places, least
        while new and (most is sre.MAXREPEAT or done < int(most)):
            new = self.run(inner, new) & ~out
            out, done = out | new, done + 1
        return out

    def _at(self, where: Any) -> int:
        """Returns the positions of an anchor: the beginning, the end, word edges."""
        size = len(self._name)
        if where in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            return 1
        if where in (sre.AT_END, sre.AT_END_STRING):
            return 1 << size
        words = [bool(_WORD.match(letter)) for letter in self._name]
        sides = zip([False, *words], [*words, False], strict=True)
        edges = sum(1 << k for k, (one, two) in enumerate(sides) if one != two)
        whole = (1 << size + 1) - 1 if size else 0  # \B never matches an empty name.
        return edges if where is sre.AT_BOUNDARY else whole & ~edges


def _is_in(letter: str, items: Any) -> bool:
    """Returns whether a letter is in a class in brackets."""
    negated = bool(items) and items[0][0] is sre.NEGATE
    for op, value in items[1:] if negated else items:
        if op is sre.LITERAL:
            found = ord(letter) == value
        elif op is sre.RANGE:
            found = value[0] <= ord(letter) <= value[1]
        elif value in _OPPOSITES:
            found = not _CLASSES[_OPPOSITES[value]](letter)
        else:
            found = _CLASSES[value](letter)
        if found:
            return not negated
    return negated
