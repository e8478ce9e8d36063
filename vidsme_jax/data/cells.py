"""Cells of manifests: what a path, a text, a label or options may be.

What is found in a cell may be anything that JSON, CSV and Parquet can hold.
"""

import json
import math
import re
from typing import Any

from vidsme_jax.data import names
from vidsme_jax.wording import printable

# The role that a label stands for; "" where there is none.
LABELS = {
    "": "",
    **{1: "members", "1": "members", "member": "members", "members": "members"},
    **{0: "nonmembers", "0": "nonmembers", "nonmember": "nonmembers"},
    **{
        "1.0": "members",
        "0.0": "nonmembers",
    },  # Of a column with gaps, as pandas writes.
    **{"non-member": "nonmembers", "nonmembers": "nonmembers"},
    **{"suspect": "suspects", "suspects": "suspects", "calibration": "calibration"},
}
_LONGEST = 200  # Characters of a faulty value that are shown.
# Places of videos that are no files here: of datasets, in the web, in a store.
_SCHEME = re.compile(
    r"[a-z][a-z0-9+.-]+://|(tfds|hf):|file:/|data:[a-z]+/", re.IGNORECASE
)

# A whole number as a column with gaps has it, where the rows were read as floats.
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,15}))\.0")


class Named(str):
    """The path of a video that is called otherwise in results, such as by its URL.

    Attributes:
      shown: What it is called, the same wherever the file lies.
    """

    shown: str

    def __new__(cls, place: str, shown: str = "") -> "Named":
        """Makes one; it is called as it is unless `shown` says how."""
        made = super().__new__(cls, place)
        made.shown = shown or place
        return made


class Address(Named):
    """The place of an example in a dataset, as its own source made it.

    A text of a manifest or of an example never is one; see `datasets` and `hub`.
    """


def is_nan(value: Any) -> bool:
    """Whether it is how tables write that there is no value."""
    return isinstance(value, float) and math.isnan(value)


def known(value: Any) -> Any:
    """Returns a value; None for what tables write where there is none."""
    return None if is_nan(value) else value


def role(label: Any) -> str | None:
    """Returns the role of a label, "" for none; None if it is no membership label."""
    if isinstance(label, str):
        return LABELS.get(label.strip().lower())
    if label is None or is_nan(label):
        return ""
    return LABELS.get(label) if isinstance(label, int | float) else None


def name(value: Any) -> str:
    """Returns the name of a source or a group, which formats write in several ways.

    Example:
      >>> name(7), name(7.0), name("7.0"), name(" 7 "), name(7.5)
      ('7', '7', '7', '7', '7.5')
    """
    text = str(value).strip()
    found = _WHOLE.fullmatch(text)
    return str(int(found[1])) if found else text


def is_plain_path(video: str) -> bool:
    """Whether a text surely is a path; of others `not_a_path` says what they are."""
    return ":" not in video and "\0" not in video and bool(video.strip())


def not_a_path(video: Any) -> str:
    """Returns why a row's video cannot be the name of a file here, or ""."""
    if isinstance(video, Address):
        return ""
    if isinstance(video, dict):
        return "it must be a path, not an object: put its path into the column"
    if not isinstance(video, str) or not video.strip() or "\0" in video:
        return "it must be a path"
    if found := _SCHEME.match(video):
        return _not_here(found[0].lower())
    problem = names.unencodable(video)
    return f"it must be a path: {problem}" if problem else ""


def _not_here(scheme: str) -> str:
    """Returns why a place of another kind than a file is no video of a row."""
    if scheme in ("tfds:", "hf:"):
        place = "tfds:NAME/SPLIT" if scheme == "tfds:" else "hf:PATH/SPLIT"
        return (
            "a row names a file, not an example of a dataset; give the dataset as a "
            f"source, such as corpus.suspects = ({place!r},), or write a file of this "
            "name as ./NAME"
        )
    remedy = "write its path" if scheme.startswith("file:") else "fetch it first"
    if scheme in ("http://", "https://"):
        remedy += ", and say by corpus.urls which file it is"
    return f"videos must be files of this machine: {remedy}"


def not_a_text(value: Any) -> str:
    """Returns why a value cannot be read as text, or ""."""
    if isinstance(value, str):
        if value.isascii() or names.is_text(value):
            return ""
        return f"is {cut(value)}; it has half of a surrogate pair, which is no text"
    if isinstance(value, dict | list | bytes):
        return f"is a {type(value).__name__}; it must be text"
    return ""


def cut(value: Any, most: int = _LONGEST) -> str:
    """Returns a value for a message."""
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
      ValueError: Says what is wrong with it.
    """
    if value is None or value == "" or is_nan(value):
        return ()
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise ValueError(
                f"begins like a JSON list but is none ({why}): {cut(value.strip())}"
            ) from error
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|")] if value.strip() else []
    if not isinstance(value, list):
        raise ValueError(f"is {cut(value)}; it must be a list, or text separated by |")
    for option in value:
        is_text = isinstance(option, str | int | float) and not not_a_text(option)
        if not is_text or not str(option).strip():
            raise ValueError(f"has the option {cut(option)}; it must be text")
    return tuple(map(str, value))
