"""Sources of a corpus: reads manifests, folders, patterns and datasets to checked rows.

A source in the configuration is taken as a path if it exists, else as a pattern; `~` is
expanded.
"""

import glob
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from absl import logging

from vidsme_jax.addresses import no_folder
from vidsme_jax.base import AuditError
from vidsme_jax.data import (
    cells,
    dataset_folders,
    hub_folders,
    manifest_rows,
    manifests,
    names,
    urls,
)
from vidsme_jax.data.folders import Search
from vidsme_jax.data.left_out import LeftOut
from vidsme_jax.data.manifest_rows import Row
from vidsme_jax.data.names import some
from vidsme_jax.settings.rules import FIELDS
from vidsme_jax.wording import nearest, printable

_SUFFIXES = ", ".join(names.VIDEO_SUFFIXES)
_KINDS = "a manifest, a folder, a glob or a video"  # Sources other than datasets.
NO_COLUMNS = (
    "a folder, a glob or a video has no columns: its files are identified by name"
)
_DATASETS = ("tfds:", hub_folders.SCHEME)
_SHOWN = 5  # Names of a long list in a message.
# Usual names of the column of videos.
_LIKE_VIDEO = ("video_path", "path", "file_name", "filename", "file", "video_id", "vid")


class Found(NamedTuple):
    """The content of a source.

    Attributes:
      rows: The valid rows.
      columns: Of a manifest, or the features of a dataset.
      left_out: Files left out.
      problems: Of invalid rows.
    """

    rows: list[Row]
    columns: list[str]
    left_out: list[LeftOut]
    problems: list[str]


def read(
    source: str,
    root: pathlib.Path | None,
    fields: tuple[str, ...],
    files: urls.Files | None = None,
) -> Found:
    """Reads a source of any kind.

    Args:
      source: As configured.
      root: The base of paths in manifests; None: their own folder.
      fields: `corpus.fields`; missing columns are taken to be of other sources.
      files: The files of URLs in manifests; None: URLs are not allowed.

    Raises:
      AuditError: It cannot be read, or is empty.
    """
    if elsewhere := no_folder(source, "a source", _KINDS):
        raise AuditError(elsewhere)
    if source.startswith(_DATASETS):
        return _read_dataset(source, root, fields, files)
    path = names.configured(source)
    is_pattern = glob.has_magic(source)
    if path.suffix.lower() in manifests.READERS and not os.path.isdir(path):
        if os.path.isfile(path) or not is_pattern:
            return _read_manifest(source, path, root, fields, files)
    search = Search()
    if os.path.isdir(path):
        found = search.videos(path)
        bases = [path.parent if file == path else path for file in found]
        pairs = zip(found, bases, strict=True)
        named = [(file.relative_to(base).as_posix(), base) for file, base in pairs]
        missing = (
            f"{source}: no video in the folder; looked for {_SUFFIXES}, and for "
            "folders of numbered pictures"
        )
    else:
        matches = [str(path)] if os.path.exists(path) else search.matches(str(path))
        named = [(name, pathlib.Path()) for name in search.among(matches)]
        if matches:
            missing = f"{source}: {_no_videos(matches)}"
        elif "*" in source or "?" in source:
            missing = f"{source}: the glob matches nothing"
        elif is_pattern:
            missing = (
                f"{source}: no file of this name; read as a pattern it matches nothing"
                f"{names.why_missing(path.absolute()) or names.near(path)}"
            )
        else:
            why = names.why_missing(path.absolute()) or names.near(path)
            missing = f"{source}: no such manifest, folder or video{why}"
    if is_pattern and os.path.exists(path):
        logging.info("%s: a path of this name exists, so it is not a pattern", source)
    left = [
        LeftOut(source=source, role="", count=len(paths), what="files", why=why)
        for why, paths in (
            (f"{reason}: {some(paths)}", paths)
            for reason, paths in search.left_out.items()
        )
    ]
    if not named:
        more = [f"; {one.count} files are left out, {one.why}" for one in left]
        raise AuditError([missing + "".join(more)])
    if any(manifest_rows.columns_of(fields).values()):
        logging.info("%s: %s: corpus.fields is not used", source, NO_COLUMNS)
    rows = [Row(source, v, folder, v) for v, folder in named]
    return Found(rows, [], left, [])


def _no_videos(matches: list[str]) -> str:
    """Returns why the matches of a pattern are not a source."""
    suffixes = (pathlib.PurePath(name).suffix.lower() for name in matches)
    found = zip(matches, suffixes, strict=True)
    tables = [name for name, suffix in found if suffix in manifests.READERS]
    if not tables:
        return (
            f"{len(matches)} matches, none a video ({_SUFFIXES}) or a manifest "
            f"({', '.join(manifests.READERS)})"
        )
    shown = ", ".join(map(repr, tables[:_SHOWN]))
    shown += ", ..." if len(tables) > _SHOWN else "," if len(tables) == 1 else ""
    return f"a pattern selects videos, not manifests; name each: ({shown})"


def name_of(source: str) -> str:
    """Returns the short name of a source, the default group of its rows."""
    if source.startswith(hub_folders.SCHEME):
        return hub_folders.short_name(source)
    if is_address(source):
        return source.removeprefix("tfds:")
    return pathlib.Path(source).stem


def is_address(name: str) -> bool:
    """Returns whether a source or the key of a clip is in a dataset or a URL.

    The key of a file is an absolute path; rows of manifests never have an address.

    Example:
      >>> is_address("tfds:a/1.0.0/train/0"), is_address("/videos/a.mp4")
      (True, False)
    """
    return name.startswith((*_DATASETS, urls.SCHEME))


def _read_manifest(
    source: str,
    path: pathlib.Path,
    root: pathlib.Path | None,
    fields: tuple[str, ...],
    files: urls.Files | None,
) -> Found:
    mapping = manifest_rows.columns_of(fields)
    columns, raw = manifests.read(source, path, {*FIELDS, *mapping.values()})
    found = {name: col for name, col in mapping.items() if not col or col in columns}
    if columns and found.get("video", "video") not in columns:
        label = manifest_rows.label_column(fields, columns)
        like = tuple(f"video={name}" for name in _like_videos(columns))
        found, fields = found | manifest_rows.columns_of(like), (*fields, *like)
        problems = manifest_rows.not_labels(source, raw, label, fields)
        problems += manifest_rows.misspelt(source, columns, found, fields)
        raise AuditError([_without_videos(source, columns, mapping, fields), *problems])
    folder = root or path.parent
    given = (found, columns, fields, files)
    rows, problems = manifest_rows.checked(source, folder, raw, *given)
    problems += _without_files(source, rows)
    problems = manifest_rows.misspelt(source, columns, found, fields) + problems
    return Found(rows, columns, [], problems)


def _like_videos(columns: list[str]) -> list[str]:
    """Returns the column that is probably that of the videos, if any."""
    same = [name for name in columns if str(name).strip().casefold() == "video"]
    return (same or [name for name in _LIKE_VIDEO if name in columns])[:1]


def _without_videos(
    source: str, columns: list[str], mapping: Mapping[str, str], fields: tuple[str, ...]
) -> str:
    name = mapping.get("video") or "video"
    hint = nearest(name, columns)
    like = [] if _like_videos(columns) else ["video=COLUMN"]
    option = manifest_rows.option(fields, *like)
    remedy = f"{option} names the column of the videos"
    listed = printable(", ".join(map(str, columns)), 1000)
    return f"{source}: no column {name!r}; its columns: {listed}{hint}; {remedy}"


def _without_files(source: str, rows: list[Row]) -> list[str]:
    """Warns of URLs without a file; returns the problem if no row has one."""
    lacking = [row.video for row in rows if row.video.startswith(urls.SCHEME)]
    lacking = [video for video in lacking if isinstance(video, cells.Address)]
    if not lacking:
        return []
    shown = printable(lacking[0].shown, 200)
    counted = f"{len(lacking)} of {len(rows)} rows name URLs without a file in "
    counted += f"corpus.urls, such as {shown!r}"
    if len(lacking) == len(rows):
        return [f"{source}: {counted}; nothing is fetched from the network"]
    logging.warning("%s: %s: their clips fail", source, counted)
    return []


def _read_dataset(
    source: str,
    root: pathlib.Path | None,
    fields: tuple[str, ...],
    files: urls.Files | None,
) -> Found:
    """Reads an address: a dataset of TFDS, or one of Hugging Face."""
    of_hub = source.startswith(hub_folders.SCHEME)
    try:
        if of_hub:
            hub_folders.find(source)
            from vidsme_jax.data import hub  # Imports Arrow.

            columns, found, folder = hub.rows(source, fields)
        else:
            folder = dataset_folders.find(source)
            from vidsme_jax.data import datasets  # Imports TFDS.

            columns, found = datasets.rows(source, fields)
    except AuditError as error:
        raise AuditError([f"{source}: {p}" for p in error.problems]) from error
    what = "row" if of_hub else "example"
    if not found:
        raise AuditError([f"{source}: the split has no {what}"])
    raw = [(f"{what} {n}", row) for n, row in enumerate(found)]
    given = ({}, FIELDS, fields, files)
    rows, problems = manifest_rows.checked(source, root or folder, raw, *given)
    return Found(rows, columns, [], problems + _without_files(source, rows))
