"""What files say of themselves, as JSON; what is read again is not trusted."""

import json
import math
from collections.abc import Mapping

_MOST, _LONGEST = 64, 1000  # Of facts, and of characters of one.


def text_of(container: Mapping[str, str | float]) -> str:
    """Returns JSON of what `Frames.container` holds."""
    return json.dumps(dict(container), sort_keys=True)


def container_of(text: str) -> dict[str, str | float]:
    """Returns the facts of a text; inverts `text_of`.

    Raises:
      ValueError: It is nothing that `text_of` returns.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("facts of a file are nested too deeply") from error
    if not isinstance(found, dict) or len(found) > _MOST:
        raise ValueError("facts of a file are no object, or too many")
    for name, value in found.items():
        is_number = type(value) in (int, float) and math.isfinite(value)
        is_text = isinstance(value, str) and len(value) <= _LONGEST
        if len(name) > _LONGEST or not (is_number or is_text):
            raise ValueError("a fact of a file is neither a text nor a finite number")
    return found
