r"""Texts as Parquet stores them: all that Python has, also what is no Unicode.

File names that are not UTF-8 and some JSON have lone surrogates, which columns of text
refuse. Each is stored as the mark U+FDD0, which Unicode keeps for such uses, and four
hexadecimal digits; so is the mark itself. All other text is stored as it is.
"""

import re

_MARK = "\ufdd0"
_ODD = re.compile(f"[\ud800-\udfff{_MARK}]")
_ESCAPE = re.compile(f"{_MARK}([0-9a-f]{{4}})")


def storable(text: str) -> str:
    r"""Returns text that is proper Unicode; equal ones come of equal texts only.

    Example:
      >>> restored(storable("\udcff.mp4")) == "\udcff.mp4"
      True
    """
    return _ODD.sub(lambda odd: f"{_MARK}{ord(odd[0]):04x}", text)


def restored(text: str) -> str:
    """Returns the text of stored bytes; inverts `storable`."""
    if _MARK not in text:
        return text
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
