"""The corpus: the rows of manifests, folders and globs, each under its role.

Nothing here opens a video: a file that is missing or broken is found when its clip is
decoded, and costs that clip only.
"""

import collections
import dataclasses
import glob
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vidsme_jax.base import ROLES, AuditError, Clip, Item, nearest, printable
from vidsme_jax.data import manifests
from vidsme_jax.settings import views

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".m2ts", ".mts", ".3gp", ".3g2"),
    *(".ogv", ".ogg", ".gif", ".y4m", ".h264", ".hevc"),
)
MANIFEST_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
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


def load(
    corpus: views.Corpus, stored: Callable[[], list[Item]] | None = None
) -> tuple[Item, ...]:
    """Reads the corpus.

    Args:
      corpus: The settings.
      stored: The rows of a prepared corpus, taken where no role has a source.

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
    problems: list[str] = []
    root = pathlib.Path(corpus.video_root).expanduser() if corpus.video_root else None
    sources = {role: getattr(corpus, role) for role in ROLES}
    if root is not None and not root.is_dir() and stored is None:
        problems.append(f"corpus.video_root: no such folder: {root}")
    rows: dict[str, list[_Row]] = {}
    for source in dict.fromkeys(s for role in ROLES for s in sources[role]):
        try:
            rows[source] = _read(source, root, corpus.tfds_fields)
        except AuditError as error:
            problems += error.problems
    taken: list[tuple[str, _Row]] = []
    for role in ROLES:
        for source in sources[role]:
            mine = [row for row in rows.get(source, ()) if row.label in ("", role)]
            if len(sources[role]) > 1:
                mine = [_grouped(row, _name(source)) for row in mine]
            taken += ((role, row) for row in mine)
            if source in rows and not mine:
                problems.append(_nothing_for(role, source, rows[source]))
    if stored is not None and len(rows) < len({s for r in ROLES for s in sources[r]}):
        problems.append(
            "corpus.prepared has rows of its own; to take them, leave every role "
            "without a source, such as corpus.members = ()"
        )
    asked = [role for role in ROLES if sources[role]]
    items = _items(taken)
    if not corpus.allow_outside:
        problems += _outside([row for _, row in taken], items)
    if stored is not None and not asked:
        items = tuple(stored())
        asked = list(dict.fromkeys(item.role for item in items))
        place = f"{corpus.prepared}: "
        taken = [
            (i.role, _Row(place + i.video, pathlib.Path(), "", i.id, {})) for i in items
        ]
    problems += _repeated_ids(taken) + _contradictions(items) + _roles(asked)
    if problems:
        raise AuditError(problems)
    return _subsample(items, corpus.max_clips, corpus.seed)


def unique_clips(items: Iterable[Item]) -> tuple[Clip, ...]:
    """Returns one clip per video with all its rows, in order of first appearance."""
    by_key: dict[str, list[Item]] = {}
    for item in items:
        by_key.setdefault(item.clip, []).append(item)
    return tuple(Clip(key, tuple(rows)) for key, rows in by_key.items())


def _grouped(row: _Row, group: str) -> _Row:
    """Labels a row that has no group by the source it comes from."""
    fields = row.fields | {"group": row.fields.get("group") or group}
    return dataclasses.replace(row, fields=fields)


def _name(source: str) -> str:
    if is_address(source):
        return source.removeprefix("tfds:")
    return pathlib.Path(source).stem


# ------------------------------------------------------------------------- sources


def _read(
    source: str, root: pathlib.Path | None, fields: tuple[str, ...]
) -> list[_Row]:
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
        missing = f"{source}: no video in the folder; looked for {_suffixes()}"
    elif path.suffix.lower() in MANIFEST_SUFFIXES and not glob.has_magic(source):
        rows = manifests.read(source, path)
        return _rows(source, root or path.parent, rows)
    else:
        matches = sorted(glob.glob(str(path), recursive=True))
        found = [name for name in matches if _is_video(pathlib.Path(name))]
        named = [(name, pathlib.Path()) for name in found]
        if matches:
            missing = f"{source}: {len(matches)} matches, none a video ({_suffixes()})"
        elif glob.has_magic(source):
            missing = f"{source}: the glob matches nothing"
        else:
            near = manifests.near(path)
            missing = f"{source}: no such manifest, folder or video{near}"
    if not named:
        raise AuditError([missing])
    return [
        _Row(f"{source}: {video}", folder, "", "", {"video": video})
        for video, folder in named
    ]


def is_address(name: str) -> bool:
    """Whether a source or a video is in a TFDS dataset (see `datasets`)."""
    return name.startswith("tfds:")


def _read_tfds(
    source: str, root: pathlib.Path | None, fields: tuple[str, ...]
) -> list[_Row]:
    from vidsme_jax.data import datasets

    try:
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


def _suffixes() -> str:
    return ", ".join(VIDEO_SUFFIXES)


# ---------------------------------------------------------------------------- rows


def _rows(
    source: str, folder: pathlib.Path, raw: Iterable[tuple[str, Any]]
) -> list[_Row]:
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
        problems[_FAULTS:] = [f"{source}: and {len(problems) - _FAULTS} problems more"]
    if problems:
        raise AuditError(problems)
    return rows


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
        elif name != "date":
            fields[name] = "" if value is None else str(value)
    if found := _wrong_candidates(values.get("candidates")):
        problems.append(f"{where}: {found}")
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


def _wrong_candidates(value: Any) -> str:
    """What is wrong with the options of a question, which nothing reads yet.

    They are a list, or text: a JSON list, or separated by bars.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            return (
                f"'candidates' begins like a JSON list but is none ({error.msg}): "
                f"{_cut(value.strip())}"
            )
    if value is None or isinstance(value, str | list):
        return ""
    return f"'candidates' is {_cut(value)}; it must be a list, or text separated by |"


def _items(rows: list[tuple[str, _Row]]) -> tuple[Item, ...]:
    """Gives every row its id and the key of its clip."""
    given = {row.id for _, row in rows}
    uses = collections.Counter()
    items = []
    for role, row in rows:
        video, name = row.fields["video"], row.id
        while not name:
            uses[video] += 1
            candidate = f"{video}#{uses[video]}" if uses[video] > 1 else video
            name = "" if candidate in given else candidate
        key = video
        if not is_address(video):
            # `Path.resolve` would stumble over a link that leads to itself.
            key = os.path.realpath(row.folder / pathlib.Path(video).expanduser())
        items.append(Item(id=name, clip=key, role=role, **row.fields))
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
        if row.confined and not is_address(item.video):
            if row.folder not in roots:
                roots[row.folder] = row.folder.resolve()
            if not pathlib.Path(item.clip).is_relative_to(roots[row.folder]):
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
    members = {item.clip for item in items if item.role == "members"}
    both = [
        item.video
        for item in items
        if item.role == "nonmembers" and item.clip in members
    ]
    if not both:
        return []
    return [
        f"{len(set(both))} videos are listed both as members and as nonmembers: "
        f"{_some(both)}; give each one role (a column 'label' can tell them apart)"
    ]


def _roles(asked: list[str]) -> list[str]:
    """Which roles were asked for together, whether or not their sources had rows."""
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
        keys = list(dict.fromkeys(item.clip for item in items if item.role == role))
        order = np.random.default_rng([seed, number]).permutation(len(keys))
        kept |= {(role, keys[index]) for index in order[:max_clips]}
    return tuple(item for item in items if (item.role, item.clip) in kept)
