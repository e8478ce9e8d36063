"""Sources of a corpus: manifests, folders, globs and TFDS datasets, to checked rows."""

import dataclasses
import glob
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from vidsme_jax.base import AuditError, nearest, printable
from vidsme_jax.data import dataset_folders, manifests

VIDEO_SUFFIXES = tuple(
    ".mp4 .m4v .mov .mkv .webm .avi .flv .wmv .asf .mpg .mpeg .m2v .vob .ts .m2ts .mts"
    " .3gp .3g2 .ogv .ogg .gif .y4m .h264 .hevc".split()
)
_SUFFIXES = ", ".join(VIDEO_SUFFIXES)
LABELS = {
    "": "",
    **{1: "members", "1": "members", "member": "members", "members": "members"},
    **{0: "nonmembers", "0": "nonmembers", "nonmember": "nonmembers"},
    **{"non-member": "nonmembers", "nonmembers": "nonmembers"},
    **{"suspect": "suspects", "suspects": "suspects", "calibration": "calibration"},
}
_FAULTS = 20  # Of a manifest's, how many are listed.
_LONGEST = 200  # Characters of a faulty value that are shown.


@dataclasses.dataclass(frozen=True)
class Row:
    """One row, checked; `label` is a role or "", `where` names it in errors.

    `confined`: a manifest gave it, whose author need not be who runs the audit.
    """

    where: str
    folder: pathlib.Path
    label: str
    id: str
    fields: dict[str, Any]  # The remaining fields of an `Item`.
    confined: bool = False

    def grouped(self, group: str) -> "Row":
        """Returns the row with a group, if it has none."""
        fields = self.fields | {"group": self.fields.get("group") or group}
        return dataclasses.replace(self, fields=fields)


def read(source: str, root: pathlib.Path | None, fields: tuple[str, ...]) -> list[Row]:
    """Reads a source of any kind, or raises an `AuditError`.

    Args:
      source: As configured.
      root: What the paths in manifests are relative to, if not their own folder.
      fields: `corpus.tfds_fields`.
    """
    if is_address(source):
        return _read_tfds(source, root, fields)
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_video(file))
        named = [(file.relative_to(path).as_posix(), path) for file in found]
        missing = f"{source}: no video in the folder; looked for {_SUFFIXES}"
    elif path.suffix.lower() in manifests.READERS and not glob.has_magic(source):
        return _rows(source, root or path.parent, manifests.read(source, path))
    else:
        matches = sorted(glob.glob(str(path), recursive=True))
        found = [name for name in matches if _is_video(pathlib.Path(name))]
        named = [(name, pathlib.Path()) for name in found]
        if matches:
            missing = f"{source}: {len(matches)} matches, none a video ({_SUFFIXES})"
        elif glob.has_magic(source):
            missing = f"{source}: the glob matches nothing"
        else:
            near = manifests.near(path)
            missing = f"{source}: no such manifest, folder or video{near}"
    if not named:
        raise AuditError([missing])
    return [Row(f"{source}: {v}", folder, "", "", {"video": v}) for v, folder in named]


def name_of(source: str) -> str:
    """Returns the short name of a source: the group of its rows that have none."""
    if is_address(source):
        return source.removeprefix("tfds:")
    return pathlib.Path(source).stem


def is_address(name: str) -> bool:
    """Returns whether a source or a video is in a TFDS dataset (see `datasets`)."""
    return name.startswith("tfds:")


def _read_tfds(
    source: str, root: pathlib.Path | None, fields: tuple[str, ...]
) -> list[Row]:
    try:
        dataset_folders.find(source)
        from vidsme_jax.data import datasets  # Takes TFDS.

        found = datasets.rows(source, fields)
        folder = root or datasets.folder_of(source)
    except AuditError as error:
        raise AuditError([f"{source}: {p}" for p in error.problems]) from error
    if not found:
        raise AuditError([f"{source}: the split has no example"])
    return _rows(source, folder, ((f"example {n}", r) for n, r in enumerate(found)))


def _is_video(path: pathlib.Path) -> bool:
    # Hidden files are often the shadows that other systems leave ("._clip.mp4").
    hidden = path.name.startswith(".")
    return not hidden and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _rows(
    source: str, folder: pathlib.Path, raw: Iterable[tuple[str, Any]]
) -> list[Row]:
    """Checks rows, or raises an `AuditError` with all that is wrong with any."""
    rows, problems = [], []
    for place, values in raw:
        try:
            rows.append(_row(f"{source}: {place}", folder, values))
        except AuditError as error:
            problems += error.problems
        except RecursionError:
            problems.append(f"{source}: {place}: nested too deeply")
    if len(problems) > _FAULTS:
        problems[_FAULTS:] = [f"{source}: and {len(problems) - _FAULTS} more problems"]
    if problems:
        raise AuditError(problems)
    return rows


def _row(where: str, folder: pathlib.Path, values: Any) -> Row:
    """Checks one row, or raises an `AuditError` with all that is wrong with it."""
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        raise AuditError([f"{where}: a row must be an object; it is a {kind}"])
    problems = []
    if None in values:
        problems.append(f"{where}: more fields than the header has columns")
    video = values.get("video")
    if not _is_path(video):
        problems.append(f"{where}: 'video' is {_cut(video)}; it must be a path")
    fields: dict[str, Any] = {"video": video}
    for name in ("question", "answer", "group", "date", "id"):
        value = values.get(name)
        if isinstance(value, Mapping | list):
            kind = type(value).__name__
            problems.append(f"{where}: {name!r} is a {kind}; it must be text")
        elif name != "date":
            fields[name] = "" if value is None else str(value)
    try:
        fields["candidates"] = _candidates(values.get("candidates"))
    except ValueError as error:
        problems.append(f"{where}: 'candidates' {error}")
    label = values.get("label")
    label = "" if label is None else label
    label = label.strip().lower() if isinstance(label, str) else label
    role = LABELS.get(label) if isinstance(label, int | float | str) else None
    if role is None:
        known = [name for name in LABELS if isinstance(name, str)]
        problems.append(
            f"{where}: 'label' is {_cut(values['label'])}; it must be one of 1 or "
            "member, 0 or nonmember, suspect, calibration"
            f"{nearest(str(label)[:_LONGEST], known)}"
        )
    if problems:
        raise AuditError(problems)
    return Row(where, folder, role or "", fields.pop("id"), fields, confined=True)


def _is_path(video: Any) -> bool:
    """Whether a row's video can be the name of a file on this system."""
    if not isinstance(video, str) or not video.strip() or "\0" in video:
        return False
    try:
        os.fsencode(pathlib.Path(video).expanduser())
    except (ValueError, RuntimeError):  # No character set has it; no such user.
        return False
    return True


def _cut(value: Any) -> str:
    return printable(repr(value), most=_LONGEST)


def _candidates(value: Any) -> tuple[str, ...]:
    """Returns the options of a question.

    Args:
      value: A list, or text: a JSON list, or options separated by bars; None or "" for
        none.

    Raises:
      ValueError: Says what is wrong with it.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"begins like a JSON list but is none ({error.msg}): "
                f"{_cut(value.strip())}"
            ) from error
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|")] if value.strip() else []
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"is {_cut(value)}; it must be a list, or text separated by |")
    for option in value:
        if not isinstance(option, str | int | float) or not str(option).strip():
            raise ValueError(f"has the option {_cut(option)}; it must be text")
    return tuple(map(str, value))
