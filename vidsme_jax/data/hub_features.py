"""The columns of an `hf:` source: their types, and which can be a video.

`datasets` describes columns in the schema of every file that it writes; Arrow's types
are used for a file without a description.
"""

import json
from typing import Any

import pyarrow as pa

BYTES, PATH, FRAMES = "bytes", "a path", "pictures"
ALLOWED = (
    " (a Video, a struct of bytes and path; bytes; the path of a file; a list of Image)"
)
_KEY = b"huggingface"  # In the schema's metadata.
_PATHS = ("video", "video_path", "path", "filepath", "file_path", "filename", "file")
_LONGEST = 60  # Characters of a type in a message.
_LISTS = ("List", "LargeList", "Sequence")


def described(schema: pa.Schema) -> dict[str, Any]:
    """Returns the description by `datasets` of each column; empty without one."""
    try:
        about = json.loads((schema.metadata or {})[_KEY])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def kind_of(field: pa.Field, about: Any) -> str | None:
    """Returns the form in which a column can hold a video; None if it cannot.

    `about` is its description by `datasets`, if any.
    """
    named, kind = _name(about), field.type
    if _is_list(kind):
        inner = _name(_inner(about))
        of_images = is_media(kind.value_type) and inner in ("", "Image")
        return FRAMES if of_images and named in ("", *_LISTS) else None
    if named not in ("", "Video", "Value"):
        return None
    if is_media(kind) or _is_bytes(kind):
        return BYTES
    return PATH if _is_text(kind) else None


def could_be_video(schema: pa.Schema) -> list[str]:
    """Returns the columns that are likely to be the video: by type or else by name."""
    about, kinds = described(schema), kinds_of(schema)
    typed = [n for n in kinds if _name(about.get(n)) == "Video"]
    if typed:
        return typed
    if kinds.get("video") is not None:
        return ["video"]
    could = [name for name, kind in kinds.items() if kind not in (None, PATH)]
    return could or [n for n, kind in kinds.items() if kind == PATH and n in _PATHS]


def kinds_of(schema: pa.Schema) -> dict[str, str | None]:
    """Returns the form in which each column can hold a video; see `kind_of`."""
    about = described(schema)
    return {f.name: kind_of(f, about.get(f.name)) for f in schema}


def words(schema: pa.Schema) -> dict[str, str]:
    """Returns the type of each column for a message."""
    about, found = described(schema), {}
    for field in schema:
        description = about.get(field.name)
        name = _name(description)
        if name in _LISTS and (inner := _name(_inner(description))):
            name = f"{name}({inner})"
        shown = name if name not in ("", "Value") else str(field.type)
        found[field.name] = shown[:_LONGEST]
    return found


def may_be_large(kind: pa.DataType) -> bool:
    """Returns whether a value of a type may be a whole video."""
    return pa.types.is_nested(kind) or _is_bytes(kind)


def is_number(kind: pa.DataType) -> bool:
    """Returns whether a type is an integer or floating-point type."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def class_names(about: Any) -> list[str] | None:
    """Returns the class names of a column of classes; None for any other."""
    names = about.get("names") if _name(about) == "ClassLabel" else None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    return None


def _name(about: Any) -> str:
    if isinstance(about, list):  # The form of lists before `Sequence`.
        return "Sequence"
    name = about.get("_type") if isinstance(about, dict) else None
    return name if isinstance(name, str) else ""


def _inner(about: Any) -> Any:
    if isinstance(about, list):
        return about[0] if about else None
    return about.get("feature") if isinstance(about, dict) else None


def _is_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return is_list or pa.types.is_fixed_size_list(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_media(kind: pa.DataType) -> bool:
    """Returns whether a type is a struct of bytes and path."""
    if not pa.types.is_struct(kind):
        return False
    inside = {kind.field(k).name: kind.field(k).type for k in range(kind.num_fields)}
    if set(inside) != {"bytes", "path"}:
        return False
    return _is_bytes(inside["bytes"]) and _is_text(inside["path"])
