"""The values of a configuration: kept as they are given, for `problems` to judge."""

import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict


class Keys(ConfigDict):
    """A `ConfigDict` whose keys take any value.

    A plain one raises where a type differs, one key at a time, and turns True into 1.0
    without a word. Here only what means the same is converted: an integer to the float
    that a key holds, lists and arrays to tuples, scalars of NumPy and paths to Python's
    own.

    Example:
      >>> keys = Keys({"rate": 0.1, "sources": ()})
      >>> keys.rate, keys.sources = True, ["a.json"]
      >>> keys.rate, keys.sources
      (True, ('a.json',))
    """

    def __init__(self, initial: Any = None, type_safe: bool = False, **more: Any):
        """Takes the arguments of `ConfigDict`."""
        super().__init__(initial, type_safe=type_safe, **more)

    def __setitem__(self, key: str, value: Any):
        value = plain(value)
        if isinstance(value, bool) and key in self:
            super().__setitem__(key, None)  # Has no type to convert to.
        super().__setitem__(key, value)


def plain(value: Any) -> Any:
    """Returns a value as JSON or the command line would give it, lists as tuples."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value
