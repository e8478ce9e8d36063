"""Cells of manifests: checks and conversions of paths, texts, labels and options.

A cell may hold any value that JSON, CSV and Parquet can represent.
"""

import json
import math
import re
from typing import Any

from vidsme_jax.data import names
from vidsme_jax.wording import printable

# The role of each label; "" for none. pandas writes 1.0 in a column with gaps.
LABELS = {
    "": "",
    **{1: "members", "1": "members", "member": "members", "members": "members"},
    **{0: "nonmembers", "0": "nonmembers", "nonmember": "nonmembers"},
    **{"1.0": "members", "0.0": "nonmembers"},
    **{"non-member": "nonmembers", "nonmembers": "nonmembers"},
    **{"suspect": "suspects", "suspects": "suspects", "calibration": "calibration"},
}
_LONGEST = 200  # Characters of a faulty value in a message.
# Videos that are not local files: in datasets, on the web, in an object store.
_SCHEME = re.compile(
    r"[a-z][a-z0-9+.-]+://|(tfds|hf):|file:/|data:[a-z]+/", re.IGNORECASE
)

# An integer in a column with gaps, which was read as floats.
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,15}))\.0")


class Named(str):
    """The path of a video with another name in results, such as its URL.

    Attributes:
      shown: The name in results, independent of where the file is.
    """

    shown: str

    def __new__(cls, place: str, shown: str = "") -> "Named":
        """Creates one; `shown` defaults to the path."""
        made = super().__new__(cls, place)
        made.shown = shown or place
        return made


class Address(Named):
    """The address of an example in a dataset, created by the reader of its source.

    A text in a manifest or an example is never an address; see `datasets` and `hub`.
    """


def is_nan(value: Any) -> bool:
    """Returns whether a value is NaN, which tables write for a missing value."""
    return isinstance(value, float) and math.isnan(value)


def without_nan(value: Any) -> Any:
    """Returns a value; None for NaN."""
    return None if is_nan(value) else value


def role(label: Any) -> str | None:
    """Returns the role of a label, "" for no label; None if it is not a known label.

    Example:
      >>> role("Member"), role(0), role(None), role("train")
      ('members', 'nonmembers', '', None)
    """
    if isinstance(label, str):
        return LABELS.get(label.strip().lower())
    if label is None or is_nan(label):
        return ""
    return LABELS.get(label) if isinstance(label, int | float) else None


def name(value: Any) -> str:
    """Returns the normalised name of a source or a group: 7 and 7.0 are equal.

    Example:
      >>> name(7), name(7.0), name("7.0"), name(" 7 "), name(7.5)
      ('7', '7', '7', '7', '7.5')
    """
    text = str(value).strip()
    found = _WHOLE.fullmatch(text)
    return str(int(found[1])) if found else text


def is_plain_path(video: str) -> bool:
    """Returns whether a text is certainly a path; `not_a_path` checks the others."""
    return ":" not in video and "\0" not in video and bool(video.strip())


def not_a_path(video: Any) -> str:
    """Returns why a row's video cannot be the path of a local file, or ""."""
    if isinstance(video, Address):
        return ""
    if isinstance(video, dict):
        return "it must be a path, not an object: put its path into the column"
    if not isinstance(video, str) or not video.strip() or "\0" in video:
        return "it must be a path"
    if found := _SCHEME.match(video):
        return _not_local(found[0].lower())
    problem = names.unencodable(video)
    return f"it must be a path: {problem}" if problem else ""


def _not_local(scheme: str) -> str:
    """Returns why an address with a scheme cannot be the video of a row."""
    if scheme in ("tfds:", "hf:"):
        place = "tfds:NAME/SPLIT" if scheme == "tfds:" else "hf:PATH/SPLIT"
        return (
            "a row names a file, not an example of a dataset; give the dataset as a "
            f"source, such as corpus.suspects = ({place!r},), or write a file of this "
            "name as ./NAME"
        )
    remedy = "write its path" if scheme.startswith("file:") else "fetch it first"
    if scheme in ("http://", "https://"):
        remedy += ", and name its file by corpus.urls"
    return f"videos must be files of this machine: {remedy}"


def not_a_text(value: Any) -> str:
    """Returns why a value cannot be read as text, or ""."""
    if isinstance(value, str):
        if value.isascii() or names.is_text(value):
            return ""
        return f"is {quoted(value)}; it must be text without lone surrogates"
    if isinstance(value, dict | list | bytes):
        return f"is a {type(value).__name__}; it must be text"
    return ""


def quoted(value: Any, most: int = _LONGEST) -> str:
    """Returns a value as quoted in a message, cut to `most` characters."""
    try:
        return printable(repr(value), most=most)
    except (RecursionError, ValueError):  # Nested too deeply, or of many digits.
        return f"a {type(value).__name__}"


def candidates(value: Any) -> tuple[str, ...]:
    """Returns the options of a question.

    Args:
      value: A list, or text: a JSON list, or options separated by bars; None or "" for
        none.

    Raises:
      ValueError: It is not one of these; the message describes the problem.

    Example:
      >>> candidates("yes | no"), candidates('["a", "b"]'), candidates(None)
      (('yes', 'no'), ('a', 'b'), ())
    """
    if value is None or value == "" or is_nan(value):
        return ()
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise ValueError(
                f"begins like a JSON list but is none ({why}): {quoted(value.strip())}"
            ) from error
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|")] if value.strip() else []
    if not isinstance(value, list):
        raise ValueError(
            f"is {quoted(value)}; it must be a list, or text separated by |"
        )
    for option in value:
        is_text = isinstance(option, str | int | float) and not not_a_text(option)
        if not is_text or not str(option).strip():
            raise ValueError(f"has the option {quoted(option)}; it must be text")
    return tuple(map(str, value))
