"""What a key may hold: words for a message, and a test."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from vidsme_jax.addresses import is_url
from vidsme_jax.base import SLICES

FIELDS = ("video", "question", "candidates", "answer", "id", "group", "source")
FIELDS += ("date", "label", "start", "end")
STUDIES = ("frames", "k", "scales", "orders", "against", "natural")
_ORDERS = re.compile(r"reversed|shuffled:\d{1,9}")
_MOST_RATES = 20  # Each is a column of every table.
_SHARE = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)
_NAME = re.compile(r"[^\s,()\[\]'\"]+")


class Allowed(NamedTuple):
    """A kind of value: its words, as in "it must be WORDS", and its test.

    `names`: all texts that are allowed, or that a tuple may hold, where they are few.
    """

    words: str
    test: Callable[[Any], Any]
    names: tuple[str, ...] = ()


class Rule(NamedTuple):
    """The rule of one key.

    Attributes:
      default: Its value unless it is set.
      allowed: What it may hold.
      help: One line.
      optional: The type of a key that may also be None, which is then its default.
    """

    default: Any
    allowed: Allowed
    help: str
    optional: type | None = None


def is_integer(value: Any) -> bool:
    """Returns whether a value is an integer; a bool is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number; a bool is not."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def integer(low: int, high: int | None = None) -> Allowed:
    """Allows integers from `low` on, up to `high` if it is given."""
    words = (
        f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    )
    most = math.inf if high is None else high
    return Allowed(words, lambda value: is_integer(value) and low <= value <= most)


def number(words: str, test: Callable[[Any], bool]) -> Allowed:
    """Allows the finite numbers that pass a test."""
    return Allowed(words, lambda value: is_number(value) and test(value))


def text(words: str, *, empty: bool = False) -> Allowed:
    """Allows text, an empty one where it means something."""
    return Allowed(words, lambda value: isinstance(value, str) and (empty or value))


def path(words: str, *, empty: bool = False) -> Allowed:
    """Allows names of files or folders of this machine, and none of object stores."""
    names = text(words, empty=empty)
    return names._replace(test=lambda value: names.test(value) and not is_url(value))


def one_of(*names: str) -> Allowed:
    """Allows a few names."""
    words = f"one of {', '.join(names)}"
    return Allowed(
        words, lambda value: isinstance(value, str) and value in names, names
    )


def each(
    words: str, test: Callable[[Any], Any], names: tuple[str, ...] = ()
) -> Allowed:
    """Allows tuples that are not empty and hold nothing twice."""

    def all_pass(value: Any) -> bool:
        filled = isinstance(value, tuple) and value and all(map(test, value))
        return bool(filled) and len(set(value)) == len(value)

    return Allowed(words, all_pass, names)


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, str) and v for v in value)


def _are_scores(value: Any) -> bool:
    """Returns whether it is text, or a tuple or list of one name each."""
    if isinstance(value, str):
        return bool(value)
    listed = isinstance(value, tuple | list) and value
    return bool(listed) and all(
        isinstance(name, str) and _NAME.fullmatch(name.strip()) for name in value
    )


def _are_numbers(value: Any, count: int) -> bool:
    is_tuple = isinstance(value, tuple) and len(value) == count
    return is_tuple and all(map(is_number, value))


def _are_bounds(value: Any) -> bool:
    return _are_numbers(value, 4) and value[0] < value[1] and value[2] < value[3]


def _are_q_and_r(value: Any) -> bool:
    return _are_numbers(value, 2) and 1 <= value[0] <= 2 and value[1] >= 1


def _are_fields(value: Any) -> bool:
    """Returns whether each names a field, once, and a column, for the video not ""."""
    if not _are_texts(value):
        return False
    names = [entry.partition("=")[0] for entry in value]
    distinct = len(set(names)) == len(names) and set(names) <= set(FIELDS)
    return distinct and all("=" in entry for entry in value) and "video=" not in value


def _is_share(value: Any) -> bool:
    if value == "":
        return True
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    return match is not None and int(match[1]) <= int(match[2])


def share_of(share: str) -> tuple[int, int]:
    """Returns place, from 1, and number of shares of an allowed one that is not "".

    Example:
      >>> share_of("3/16")
      (3, 16)
    """
    place, _, count = share.partition("/")
    return int(place), int(count)


def _is_order(value: Any) -> bool:
    return isinstance(value, str) and _ORDERS.fullmatch(value) is not None


PROMPT = text(
    "family, mcq, caption, or a text that holds <video> once, and {question} and "
    "{answer} if need be"
)
ADAPTER = Allowed(
    "off, or empty", lambda value: isinstance(value, str) and value in ("", "off")
)
BOOL = Allowed("true or false", lambda value: isinstance(value, bool))
POSITIVE = number("a number > 0", lambda value: value > 0)
NOT_NEGATIVE = number("a number >= 0", lambda value: value >= 0)
PART = number("a number in (0, 1]", lambda value: 0 < value <= 1)
RATE = number("a rate in (0, 1)", lambda value: 0 < value < 1)
LEVEL = number("a level in (0, 0.5)", lambda value: 0 < value < 0.5)
AUC = number("an AUC in (0.5, 1)", lambda value: 0.5 < value < 1)
FOLDER = path("a folder of this machine", empty=True)
JPEG_QUALITY = Allowed(
    "0 (lossless PNG) or 1 to 100",
    lambda value: is_integer(value) and 0 <= value <= 100,
)
SOURCES = Allowed("a tuple of manifests, folders, globs, tfds: or hf:", _are_texts)
FIELDS_CHOSEN = Allowed(
    f"a tuple of FIELD=COLUMN, each FIELD once and one of {', '.join(FIELDS)}; FIELD= "
    "(not for video) ignores that field",
    _are_fields,
)
SCORES = Allowed(
    "score names, a tuple of them or text with commas, or all", _are_scores
)
BOUNDS = Allowed("(phi_min, phi_max, b_min, b_max), increasing", _are_bounds)
ORDER = Allowed("reversed or shuffled:SEED, such as shuffled:0", _is_order)
SHARE = Allowed(
    "I/N with I from 1 to N, such as 3/16, or empty for all; of an index that counts "
    "from 0, I is one more",
    _is_share,
)
RATES = Allowed(
    f"a tuple of 1 to {_MOST_RATES} rates in (0, 1)",
    lambda value: (
        isinstance(value, tuple)
        and 0 < len(value) <= _MOST_RATES
        and all(map(RATE.test, value))
    ),
)
SLICES_CHOSEN = each(
    f"a tuple of different slices: {', '.join(SLICES)}",
    lambda value: isinstance(value, str) and value in SLICES,
    SLICES,
)
STUDY = Allowed(
    f"one of {', '.join(STUDIES)}, or empty for an audit",
    lambda value: isinstance(value, str) and value in ("", *STUDIES),
    STUDIES,
)
COUNTS = each("a tuple of different integers >= 1", integer(1).test)
PERCENTAGES = each(
    "a tuple of different percentages from 0, the single row, to 100",
    lambda value: is_number(value) and 0 <= value <= 100,
)
PARTS = each("a tuple of different numbers in (0, 1]", PART.test)
POSITIVES = each("a tuple of different numbers > 0", POSITIVE.test)
PAIRS = each(
    "a tuple of different pairs (q, r) with q in [1, 2] and r >= 1", _are_q_and_r
)
ORDERS = each("a tuple of different orders, each reversed or shuffled:SEED", _is_order)
