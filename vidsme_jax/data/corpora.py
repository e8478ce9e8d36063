"""The corpus: the rows of manifests, folders and globs, each under its role.

Nothing here opens a video: a file that is missing or broken is found when its clip is
decoded, and costs that clip only.
"""

import collections
import csv
import dataclasses
import glob
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vidsme_jax.base import ROLES, AuditError, Clip, Item, nearest, printable

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".m2ts", ".mts", ".3gp", ".3g2"),
    *(".ogv", ".ogg", ".gif", ".y4m", ".h264", ".hevc"),
)
MANIFEST_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
COLUMNS = (
    *("video", "question", "candidates", "answer"),
    *("id", "group", "date", "label"),
)
LABELS = {
    **{1: "members", "1": "members", "member": "members", "members": "members"},
    **{0: "nonmembers", "0": "nonmembers", "nonmember": "nonmembers"},
    **{"non-member": "nonmembers", "nonmembers": "nonmembers"},
    **{"suspect": "suspects", "suspects": "suspects", "calibration": "calibration"},
}
_SHOWN = 5  # Of a long list, how many an error names.
_FAULTS = 20  # Of a manifest's, how many are told.
_LONGEST = 200  # Characters of a faulty value that are shown.


@dataclasses.dataclass(frozen=True)
class _Row:
    """One row, checked; `label` is a role or "", `where` names it in errors.

    `confined`: a manifest gave it, whose author need not be who runs the audit.
    """

    where: str
    folder: pathlib.Path
    label: str
    id: str
    fields: dict[str, Any]  # The remaining text fields of an `Item`.
    confined: bool = False


def load(corpus: ConfigDict) -> tuple[Item, ...]:
    """Reads the corpus.

    Args:
      corpus: The `corpus` part of the configuration (see `settings.RULES`).

    Returns:
      The rows in the order of `ROLES`, then of the sources. A row without an id gets
      the video's name as the manifest writes it, with #2, #3 where it is repeated. A
      row without a group gets its source's name where a role has several sources.

    Raises:
      AuditError: With everything that is wrong: sources that are absent, unreadable or
        without rows, rows that are broken or name videos outside of their folder, ids
        that repeat, videos that are members and nonmembers at once, roles that cannot
        be audited together.
    """
    config: Any = corpus  # Its values cannot be typed; `settings.RULES` checks them.
    problems: list[str] = []
    root = pathlib.Path(config.video_root).expanduser() if config.video_root else None
    if root is not None and not root.is_dir():
        problems.append(f"corpus.video_root: no such folder: {root}")
    rows: dict[str, list[_Row]] = {}
    for source in dict.fromkeys(s for role in ROLES for s in config[role]):
        try:
            rows[source] = _read(source, root)
        except AuditError as error:
            problems += error.problems
    taken: list[tuple[str, _Row]] = []
    for role in ROLES:
        for source in config[role]:
            mine = [row for row in rows.get(source, ()) if row.label in ("", role)]
            if len(config[role]) > 1:
                mine = [_grouped(row, pathlib.Path(source).stem) for row in mine]
            taken += ((role, row) for row in mine)
            if source in rows and not mine:
                problems.append(_nothing_for(role, source, rows[source]))
    items = _items(taken)
    if not config.allow_outside:
        problems += _outside([row for _, row in taken], items)
    problems += _repeated_ids(taken) + _contradictions(items) + _roles(corpus)
    if problems:
        raise AuditError(problems)
    return _subsample(items, config.max_clips, config.seed)


def unique_clips(items: Iterable[Item]) -> tuple[Clip, ...]:
    """One clip per file with all rows that name it, in order of first appearance."""
    by_path: dict[pathlib.Path, list[Item]] = {}
    for item in items:
        by_path.setdefault(item.path, []).append(item)
    return tuple(Clip(path, tuple(rows)) for path, rows in by_path.items())


def _grouped(row: _Row, group: str) -> _Row:
    """Labels a row that has no group by the source it comes from."""
    fields = row.fields | {"group": row.fields.get("group") or group}
    return dataclasses.replace(row, fields=fields)


# ------------------------------------------------------------------------- sources


def _read(source: str, root: pathlib.Path | None) -> list[_Row]:
    """Reads a source of any kind, or raises an `AuditError`.

    Args:
      source: As configured.
      root: What the paths in manifests are relative to, if not their own folder.
    """
    if source.startswith("tfds:"):
        raise AuditError(
            [
                f"{source}: tfds: sources are not built yet; give a manifest "
                f"({', '.join(MANIFEST_SUFFIXES)}), a folder or a glob"
            ]
        )
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_video(file))
        named = [(file.relative_to(path).as_posix(), path) for file in found]
        missing = f"{source}: no video in the folder; looked for {_suffixes()}"
    elif path.suffix.lower() in MANIFEST_SUFFIXES and not glob.has_magic(source):
        return _read_manifest(source, path, root or path.parent)
    else:
        matches = sorted(glob.glob(str(path), recursive=True))
        found = [name for name in matches if _is_video(pathlib.Path(name))]
        named = [(name, pathlib.Path()) for name in found]
        if matches:
            missing = f"{source}: {len(matches)} matches, none a video ({_suffixes()})"
        elif glob.has_magic(source):
            missing = f"{source}: the glob matches nothing"
        else:
            missing = f"{source}: no such manifest, folder or video{_near(path)}"
    if not named:
        raise AuditError([missing])
    return [
        _Row(f"{source}: {video}", folder, "", "", {"video": video})
        for video, folder in named
    ]


def _is_video(path: pathlib.Path) -> bool:
    # Hidden files are often the shadows that other systems leave ("._clip.mp4").
    hidden = path.name.startswith(".")
    return not hidden and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _suffixes() -> str:
    return ", ".join(VIDEO_SUFFIXES)


def _near(path: pathlib.Path) -> str:
    """The file with the nearest name in the same folder, as '; did you mean ...?'."""
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent} either)"
    return nearest(path.name, [entry.name for entry in path.parent.iterdir()])


def _read_manifest(source: str, path: pathlib.Path, root: pathlib.Path) -> list[_Row]:
    if not path.is_file():
        raise AuditError([f"{source}: no such manifest{_near(path)}"])
    reader = {
        ".json": _read_json,
        ".jsonl": _read_jsonl,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }[path.suffix.lower()]
    try:
        columns, raw = reader(path)
    except (OSError, ValueError, csv.Error) as error:
        text = " ".join(str(error).split())
        raise AuditError([f"{source}: cannot be read: {text}"]) from error
    except RecursionError as error:
        raise AuditError([f"{source}: cannot be read: nested too deeply"]) from error
    if not raw:
        raise AuditError([f"{source}: the manifest has no rows"])
    if columns and "video" not in columns:
        hint = nearest("video", columns)
        raise AuditError(
            [f"{source}: no column 'video'; its columns: {', '.join(columns)}{hint}"]
        )
    rows, problems = [], []
    for place, values in raw:
        try:
            rows.append(_row(f"{source}: {place}", root, values))
        except AuditError as error:
            problems += error.problems
        except RecursionError:
            problems.append(f"{source}: {place}: nested too deeply")
    if len(problems) > _FAULTS:
        problems[_FAULTS:] = [f"{source}: and {len(problems) - _FAULTS} problems more"]
    if problems:
        raise AuditError(problems)
    return rows


# --------------------------------------------------------------- formats of manifests

# The columns ([] where there is no object), and each row with its place in the file.
_Raw = tuple[list[str], list[tuple[str, Any]]]


def _columns(rows: list[tuple[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for _, v in rows if isinstance(v, dict) for k in v))


def _read_json(path: pathlib.Path) -> _Raw:
    data = json.loads(path.read_text("utf-8-sig"))
    if not isinstance(data, list):
        kind = type(data).__name__
        raise ValueError(f"it must be a list of objects, one a row; it is a {kind}")
    rows = [(f"row {n}", row) for n, row in enumerate(data, 1)]
    return _columns(rows), rows


def _read_jsonl(path: pathlib.Path) -> _Raw:
    rows, problems = [], []
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line)))
            except json.JSONDecodeError as error:
                problems.append(f"line {number}: {error.msg} (column {error.colno})")
    if problems:
        raise ValueError("; ".join(problems))
    return _columns(rows), rows


def _read_csv(path: pathlib.Path) -> _Raw:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows = [(f"line {reader.line_num}", row) for row in reader]
        return list(reader.fieldnames or ()), rows


def _read_parquet(path: pathlib.Path) -> _Raw:
    import pyarrow.parquet

    # Not a data set: "a=1" in a folder's name is no column of the manifest.
    table = pyarrow.parquet.ParquetFile(path).read()
    rows = [(f"row {n}", row) for n, row in enumerate(table.to_pylist(), 1)]
    return table.column_names, rows


# ---------------------------------------------------------------------------- rows


def _row(where: str, folder: pathlib.Path, values: Any) -> _Row:
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
        fields[name] = "" if value is None else str(value)
    try:
        fields["candidates"] = _candidates(values.get("candidates"))
    except ValueError as error:
        problems.append(f"{where}: {error}")
    label = values.get("label")
    label = label.strip().lower() if isinstance(label, str) else label
    role = "" if label is None or label == "" else _role(label)
    if role is None:
        problems.append(
            f"{where}: 'label' is {_cut(values['label'])}; it must be one of 1 or "
            "member, 0 or nonmember, suspect, calibration"
            f"{nearest(str(label)[:_LONGEST], _LABEL_NAMES)}"
        )
    if problems:
        raise AuditError(problems)
    return _Row(where, folder, role or "", fields.pop("id"), fields, confined=True)


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


_LABEL_NAMES = [name for name in LABELS if isinstance(name, str)]


def _role(label: Any) -> str | None:
    return LABELS.get(label) if isinstance(label, int | float | str) else None


def _candidates(value: Any) -> tuple[str, ...]:
    """Options as a list, or as text: a JSON list, or separated by bars."""
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            return tuple(part.strip() for part in text.split("|")) if text else ()
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"'candidates' begins like a JSON list but is none ({error.msg}): "
                f"{_cut(value)}"
            ) from error
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(
            f"'candidates' is {_cut(value)}; it must be a list, or text separated by |"
        )
    return tuple(str(option) for option in value)


def _items(rows: list[tuple[str, _Row]]) -> tuple[Item, ...]:
    """Gives every row its id and the real path of its video."""
    given = {row.id for _, row in rows}
    uses = collections.Counter()
    items = []
    for role, row in rows:
        video, name = row.fields["video"], row.id
        while not name:
            uses[video] += 1
            candidate = f"{video}#{uses[video]}" if uses[video] > 1 else video
            name = "" if candidate in given else candidate
        # `Path.resolve` would stumble over a link that leads to itself.
        path = os.path.realpath(row.folder / pathlib.Path(video).expanduser())
        items.append(Item(id=name, path=pathlib.Path(path), role=role, **row.fields))
    return tuple(items)


# ------------------------------------------------------------------- whole corpora


def _some(names: Iterable[str]) -> str:
    names = list(dict.fromkeys(names))
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _nothing_for(role: str, source: str, rows: list[_Row]) -> str:
    found = ", ".join(sorted({row.label for row in rows}))
    return f"corpus.{role}: no row of {source} has this label; its labels: {found}"


def _repeated_ids(rows: list[tuple[str, _Row]]) -> list[str]:
    places: dict[str, list[str]] = {}
    for _, row in rows:
        if row.id:
            places.setdefault(row.id, []).append(row.where)
    return [
        f"id {id!r} is given {len(where)} times, at {_some(where)}; ids must be unique "
        "in the corpus"
        for id, where in places.items()
        if len(where) > 1
    ]


def _outside(rows: list[_Row], items: tuple[Item, ...]) -> list[str]:
    """Videos that a manifest names outside of its folder; links are followed.

    Folders, globs and manifests in the configuration are the user's own words; what is
    in a manifest may be anybody's.
    """
    roots: dict[pathlib.Path, pathlib.Path] = {}
    found: dict[pathlib.Path, list[str]] = {}
    for row, item in zip(rows, items, strict=True):
        if row.confined:
            if row.folder not in roots:
                roots[row.folder] = row.folder.resolve()
            if not item.path.is_relative_to(roots[row.folder]):
                found.setdefault(roots[row.folder], []).append(
                    f"{row.where}: {item.video!r}"
                )
    return [
        f"{len(names)} rows of manifests name videos outside of {root}: "
        f"{_some(names)}; set corpus.video_root to a folder that holds them all or, if "
        "you trust the manifests, corpus.allow_outside=true"
        for root, names in found.items()
    ]


def _contradictions(items: tuple[Item, ...]) -> list[str]:
    members = {item.path for item in items if item.role == "members"}
    both = [
        item.video
        for item in items
        if item.role == "nonmembers" and item.path in members
    ]
    if not both:
        return []
    return [
        f"{len(set(both))} videos are listed both as members and as nonmembers: "
        f"{_some(both)}; give each one role (a column 'label' can tell them apart)"
    ]


def _roles(corpus: ConfigDict) -> list[str]:
    """Which roles were asked for together, whether or not their sources had rows."""
    asked = [role for role in ROLES if corpus[role]]
    if not asked:
        return [
            "nothing to audit: give corpus.members and corpus.nonmembers, or "
            "corpus.suspects"
        ]
    labelled = [role for role in ("members", "nonmembers") if role in asked]
    if len(labelled) == 1:
        there = labelled[0]
        absent = "nonmembers" if there == "members" else "members"
        return [
            f"corpus.{there} without corpus.{absent}: how well the scores tell them "
            f"apart needs both; give corpus.{absent}, or name the videos in question "
            "as corpus.suspects"
        ]
    if asked == ["calibration"]:
        return [
            "corpus.calibration alone: calibration only serves to judge others; give "
            "corpus.suspects, or corpus.members and corpus.nonmembers"
        ]
    return []


def _subsample(
    items: tuple[Item, ...], max_clips: int | None, seed: int
) -> tuple[Item, ...]:
    """Keeps at most `max_clips` videos of each role, with all their rows, in order.

    Each role is drawn on its own, so that one's size does not alter another's sample.
    """
    if max_clips is None:
        return items
    kept = set()
    for number, role in enumerate(ROLES):
        paths = list(dict.fromkeys(item.path for item in items if item.role == role))
        order = np.random.default_rng([seed, number]).permutation(len(paths))
        kept |= {(role, paths[index]) for index in order[:max_clips]}
    return tuple(item for item in items if (item.role, item.path) in kept)
