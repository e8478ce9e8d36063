"""A fast filter for texts that may contain a key, by a few bytes of each key.

Lists have millions of entries, few of which name the user's videos: the others are
dropped before they are parsed. There are false positives but no false negatives.
"""

import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt64

_BITS = 22  # Log2 of the size of the hash table.
_WIDTH = 8  # Characters of a key that are hashed; fewer of short keys.
_SHORTEST = 4
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_ESCAPE = "\\u00"
_RUN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Sieve:
    """Finds the texts that may contain keys.

    Example:
      >>> Sieve(["dQw4w9WgXcQ"])(["a", "watch?v=dQw4w9WgXcQ", "dQw4w9"])
      [1]
    """

    def __init__(self, keys: Iterable[str]):
        """Takes the keys; the end of each one's longest plain run is hashed."""
        runs = [max(_RUN.findall(key), key=len, default="") for key in set(keys)]
        width = min((*map(len, runs), _WIDTH))
        # Keys without ASCII disable the filter: JSON may escape them.
        self._width = width if width >= _SHORTEST else 0
        self._marks = np.zeros(1 << _BITS, bool)
        if runs and self._width:
            needles = {run[-width:].lower() for run in runs}
            self._marks[self._places("".join(sorted(needles)))[::width]] = True

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Returns the indices of the texts that may contain a key, ascending."""
        if not self._width:
            return list(range(len(texts)))
        small = [text.lower() for text in texts]
        at = np.flatnonzero(self._marks[self._places("\n".join(small))])
        ends = np.fromiter(itertools.accumulate(len(x) + 1 for x in small), np.int64)
        found = set(np.searchsorted(ends, at, side="right").tolist())
        # JSON may escape any character.
        found.update(k for k, text in enumerate(texts) if _ESCAPE in text)
        return sorted(found)

    def _places(self, text: str) -> UInt64[np.ndarray, " windows"]:
        """Returns the hash of each window of a text, an index of the table."""
        data = text.encode("latin-1", "replace") + b"\0" * (_WIDTH - 1)
        count = max(0, len(text) - self._width + 1)
        windows = np.ndarray((count,), "<u8", data, strides=(1,))
        if self._width < _WIDTH:
            windows = windows & np.uint64((1 << 8 * self._width) - 1)
        return (windows * _FACTOR) >> np.uint64(64 - _BITS)
