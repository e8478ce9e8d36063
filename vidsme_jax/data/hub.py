"""`hf:` sources: datasets of Hugging Face on disk, read without its package.

A video is a `Video`, which holds the bytes of a file or its path; bytes; a path; or a
list of images, which have times if the row has a number `fps`. Texts are read first,
the bytes of a video when it is decoded. The address of a clip is `hf:/FOLDER/FILE/ROW`,
where ROW is the row in the file.
"""

import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data import (
    arrow_files,
    clocks,
    field_columns,
    hub_features,
    hub_folders,
    links,
    manifests,
)
from vidsme_jax.data.cells import Address
from vidsme_jax.data.field_columns import RATE
from vidsme_jax.data.hub_folders import SCHEME, Located
from vidsme_jax.data.pictures import Pictures
from vidsme_jax.wording import printable

_ADDRESS = re.compile(rf"{SCHEME}(/.*)/(\d{{1,15}})", re.DOTALL)
# A path that is not a local file: in an archive, on the web.
_ELSEWHERE = re.compile(r"::|^[A-Za-z][A-Za-z0-9+.-]*://")
_LONGEST = 200  # Characters of a path in a message.


def rows(
    source: str, fields: Sequence[str]
) -> tuple[list[str], list[dict[str, Any]], pathlib.Path]:
    """Reads the rows of a source without the bytes of their videos.

    Args:
      source: `hf:PATH` or `hf:PATH/SPLIT`; see `hub_folders`.
      fields: `corpus.fields`.

    Returns:
      Its columns; its rows in the form of a manifest's; and the base folder of relative
      paths.

    Raises:
      AuditError: There is no such dataset, split or column, a file of it is damaged, or
        the rows select segments of pictures without times.
    """
    located = hub_folders.find(source)
    found: list[dict[str, Any]] = []
    columns: list[str] = []
    for path in located.files:
        try:
            file = arrow_files.open_file(path)
            if columns and columns != file.schema.names:
                raise ValueError("its columns differ from those of the files before it")
            columns = file.schema.names
            mapping = _mapping(file, fields)
            _check_times(file, mapping, fields)
            found += _rows(file, path, mapping, located, len(found))
            manifests.check_amount("rows", len(found), manifests.MOST_ROWS)
        except (OSError, ValueError) as error:
            text = printable(" ".join(str(error).split()), 1000)
            raise AuditError([f"{path.name} cannot be read: {text}"]) from error
    field_columns.log_unread_label(source, columns, fields, "column")
    return columns, found, located.folder


def fetch(address: str, fields: Sequence[str]) -> bytes | Pictures:
    """Returns the video of a row, encoded as stored.

    Raises:
      ClipError: It cannot be read.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ClipError("open", "a row of a dataset is hf:/FOLDER/FILE/ROW")
    path, row = pathlib.Path(found[1]), int(found[2])
    try:
        file = arrow_files.open_file(path)
        name = _mapping(file, fields)["video"]
        value = file.value(name, row)
        if isinstance(value, bytes):
            return value
        if value is None or isinstance(value, str):
            raise ClipError("open", _no_bytes(file, name, row))
        if not all(isinstance(picture, bytes) for picture in value):
            cause = f"a picture of row {row} has no bytes; embed them in the dataset"
            raise ClipError("open", cause)
        rate = file.value(RATE, row) if _has_rate(file) else None
        return Pictures(value, clocks.rate_of(rate))
    except AuditError as error:
        raise ClipError("open", "; ".join(error.problems)) from error
    except (OSError, ValueError, KeyError) as error:
        text = printable(" ".join(str(error).split()), 1000)
        cause = f"row {row} of {path} cannot be read ({text})"
        raise ClipError("open", cause) from error


def _mapping(file: arrow_files.File, fields: Sequence[str]) -> dict[str, str]:
    kinds = hub_features.kinds_of(file.schema)
    return field_columns.of_fields(
        fields,
        hub_features.words(file.schema),
        hub_features.could_be_video(file.schema),
        [name for name, kind in kinds.items() if kind is not None],
        allowed=hub_features.ALLOWED,
    )


def _check_times(
    file: arrow_files.File, mapping: dict[str, str], fields: Sequence[str]
) -> None:
    kind = hub_features.kinds_of(file.schema)[mapping["video"]]
    timed = kind != hub_features.FRAMES or _has_rate(file)
    if not timed and {"start", "end"} & set(mapping):
        raise field_columns.untimed(mapping["video"], fields, "column", "rows")


def _rows(
    file: arrow_files.File,
    path: pathlib.Path,
    mapping: dict[str, str],
    located: Located,
    before: int,
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file.

    `mapping` holds the column of each field, `before` counts the rows of earlier files.
    """
    video, place = mapping["video"], links.real(str(path.absolute()))
    texts = {field: name for field, name in mapping.items() if field != "video"}
    names = list(dict.fromkeys(texts.values()))
    about = hub_features.described(file.schema)
    classes = {name: hub_features.class_names(about.get(name)) for name in names}
    read = file.rows(names, manifests.check_amount) if names else None
    for number, path_of in enumerate(_paths(file, video)):
        shown = f"{located.name}/{before + number}"
        row: dict[str, Any] = {
            "video": Address(f"{SCHEME}{place}/{number}", f"{SCHEME}{shown}")
            if path_of is None
            else path_of
        }
        given = {} if read is None else next(read, None)
        if given is None:
            raise ValueError("its columns have different lengths")
        for field, name in texts.items():
            row[field] = _plain(given[name], classes[name])
        yield row


def _paths(file: arrow_files.File, video: str) -> Iterator[str | None]:
    """Yields the path of each row's video if it is a local file, else None."""
    kind, check = hub_features.kinds_of(file.schema)[video], manifests.check_amount
    if kind == hub_features.FRAMES:
        yield from [None] * file.count()
    elif kind == hub_features.PATH:
        for row in file.rows([video], check):
            yield row[video] if _may_be_file(row[video]) else None
    else:
        for there, path in file.media(video, check):
            yield path if not there and _may_be_file(path) else None


def _may_be_file(path: str | None) -> bool:
    """Returns whether a path may be that of a file; `fetch` reports why not."""
    return bool(path) and _ELSEWHERE.search(path or "") is None


def _no_bytes(file: arrow_files.File, name: str, row: int) -> str:
    """Returns why a row has no video that can be read."""
    if hub_features.kinds_of(file.schema)[name] == hub_features.PATH:
        path = file.value(name, row)
    else:
        media = file.media(name, manifests.check_amount)
        _, path = next(itertools.islice(media, row, None))
    if not path:
        return f"row {row} has neither the bytes of a video nor its path"
    shown = printable(path, _LONGEST)
    return (
        f"row {row} has no bytes of its video, and its path {shown!r} is not a file of "
        "this machine: unpack or fetch it, or embed the videos in the dataset"
    )


def _has_rate(file: arrow_files.File) -> bool:
    known = RATE in file.schema.names
    return known and hub_features.is_number(file.schema.field(RATE).type)


def _plain(value: Any, classes: list[str] | None) -> Any:
    """Returns a value with JSON types; the name of a class."""
    if classes is not None and isinstance(value, int):
        return classes[value] if 0 <= value < len(classes) else None
    return value.decode(errors="replace") if isinstance(value, bytes) else value
