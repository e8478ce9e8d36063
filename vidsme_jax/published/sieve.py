"""Tells which of many texts may hold one of some keys, by a few bytes of each key.

Lists have millions of entries, and few name one's videos: the others are put aside
before they are taken apart. A text that holds a key is never put aside.
"""

import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np

_BITS = 22  # Of the table of marks.
_WIDTH = 8  # Characters of a key that are looked for; of short keys fewer.
_SHORTEST = 4
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_ESCAPE = "\\u00"
_RUN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Sieve:
    """Looks for keys in texts.

    Example:
      >>> Sieve(["dQw4w9WgXcQ"])(["a", "watch?v=dQw4w9WgXcQ", "dQw4w9"])
      [1]
    """

    def __init__(self, keys: Iterable[str]):
        """Takes the keys; of each the end of its longest plain run is looked for."""
        runs = [max(_RUN.findall(key), key=len, default="") for key in set(keys)]
        width = min((*map(len, runs), _WIDTH))
        # With keys of other scripts alone nothing is put aside: JSON may escape them.
        self._width = width if width >= _SHORTEST else 0
        self._marks = np.zeros(1 << _BITS, bool)
        if runs and self._width:
            needles = {run[-width:].lower() for run in runs}
            self._marks[self._places("".join(sorted(needles)))[::width]] = True

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Returns the places of the texts that may hold a key."""
        if not self._width:
            return list(range(len(texts)))
        small = [text.lower() for text in texts]
        at = np.flatnonzero(self._marks[self._places("\n".join(small))])
        ends = np.fromiter(itertools.accumulate(len(x) + 1 for x in small), np.int64)
        found = set(np.searchsorted(ends, at, side="right").tolist())
        # JSON may write any character as an escape.
        found.update(k for k, text in enumerate(texts) if _ESCAPE in text)
        return sorted(found)

    def _places(self, text: str) -> np.ndarray:
        """Returns the place in the table of each stretch of a text."""
        data = text.encode("latin-1", "replace") + b"\0" * (_WIDTH - 1)
        count = max(0, len(text) - self._width + 1)
        windows = np.ndarray((count,), "<u8", data, strides=(1,))
        if self._width < _WIDTH:
            windows = windows & np.uint64((1 << 8 * self._width) - 1)
        return (windows * _FACTOR) >> np.uint64(64 - _BITS)
