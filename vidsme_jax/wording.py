"""Words for people: text of others made printable, counts, the nearest known name."""

import collections
import difflib
import re

# Control characters, lone surrogates, marks of the text's direction, breaks of lines.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

# Of suggestions: the least similarity, what is looked at, and how many names closely.
_NEAR, _LONGEST_NAME, _MOST_KNOWN, _COMPARED = 0.5, 100, 4096, 64


def printable(text: str, most: int | None = None) -> str:
    """Returns text of unknown origin as it may be shown on a terminal or a page.

    Control characters, lone surrogates and marks of direction become escapes such as
    `\\x1b`; a text of more than `most` characters is cut, and its length is given.
    """
    if most is not None and len(text) > most:
        return f"{printable(text[:most])}... ({len(text)} characters)"
    return _UNSEEN.sub(lambda c: c[0].encode("unicode_escape").decode(), text)


def counted(number: int, what: str) -> str:
    """Returns such as '1 row' or '2 rows'."""
    return f"{number} {what}{'s' * (number != 1)}"


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Returns '; did you mean X?', or '' where no known name is near.

    Names of more than 100 characters have no suggestion, and only the first 4,096 known
    names are compared, so that the time is bounded.
    """
    if not 0 < len(name) <= _LONGEST_NAME:
        return ""
    letters, likely = collections.Counter(name), []
    for other in known[:_MOST_KNOWN]:
        total, shorter = len(name) + len(other), min(len(name), len(other))
        if len(other) <= _LONGEST_NAME and 2 * shorter >= _NEAR * total:
            common = (letters & collections.Counter(other)).total()
            likely.append((2 * common / total, other))
    matcher = difflib.SequenceMatcher(None, "", name)
    best = (0.0, "")
    for bound, other in sorted(likely, reverse=True)[:_COMPARED]:
        if bound < max(_NEAR, best[0]):
            break
        matcher.set_seq1(other)
        best = max(best, (matcher.ratio(), other))
    return f"; did you mean {best[1]!r}?" if best[0] >= _NEAR else ""
