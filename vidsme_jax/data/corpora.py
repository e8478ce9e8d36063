"""The corpus: the rows of manifests, folders and globs, each under its role.

No video is decoded here: a missing or broken file is found when its clip is decoded,
and fails that clip only. Checked first: that a manifest has any of its videos, and that
no two roles share files.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from absl import logging

from vidsme_jax.base import ROLES, AuditError, Clip, Item
from vidsme_jax.data import (
    conflicts,
    identity,
    names,
    presence,
    segments,
    sources,
    urls,
    waiting,
)
from vidsme_jax.data.left_out import LeftOut
from vidsme_jax.data.manifest_rows import Row, columns_of, label_column, option
from vidsme_jax.data.sources import Found, some
from vidsme_jax.data.waiting import Wait
from vidsme_jax.settings import views
from vidsme_jax.wording import nearest, printable

_LINES = 20  # Problems of one kind, at most.


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The rows to audit.

    Attributes:
      items: The rows in the order of `ROLES`, then of the sources. The id of a row
        without one is the video's name in the manifest, with #2, #3 appended where it
        is repeated, as to an id shared by several questions about one video. The group
        of a row without one is its source's name if a role has several sources.
      left_out: Rows and files of the sources that are not used.
      notes: Notes for the report, such as that parts of a video are in two roles.
    """

    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def load(
    corpus: views.Corpus,
    stored: Callable[[], list[Item]] | None = None,
    *,
    looks: bool = True,
    paired: bool = True,
) -> Corpus:
    """Reads the corpus.

    Args:
      corpus: The settings.
      stored: Returns the rows of a prepared corpus, used if no role has a source.
      looks: Whether the videos must exist; not for a prepared corpus or a report that
        is written again.
      paired: Whether the roles must allow a comparison.

    Raises:
      AuditError: Lists all problems, at most 20 of each kind: sources that are missing,
        unreadable or without rows, invalid rows, videos outside of their folder,
        repeated ids, manifests without any of their videos, videos in two roles, roles
        that cannot be audited together.
    """
    with waiting.collecting_later(), waiting.announced("reading the corpus") as wait:
        return _load(corpus, stored, wait, looks=looks, paired=paired)


def _load(
    corpus: views.Corpus,
    stored: Callable[[], list[Item]] | None,
    wait: Wait,
    *,
    looks: bool,
    paired: bool,
) -> Corpus:
    """Implements `load`."""
    problems = _Problems()
    root = names.configured(corpus.video_root) if corpus.video_root else None
    given = {role: getattr(corpus, role) for role in ROLES}
    if root is not None and not root.is_dir() and stored is None:
        near = names.why_missing(root.absolute()) or names.near(root)
        problems.add("", [f"corpus.video_root: no such folder: {root}{near}"])
    files = None
    if corpus.urls:
        try:
            files = urls.Files(corpus.urls, root)
        except AuditError as error:
            problems.add("", error.problems)
    named = dict.fromkeys(source for role in ROLES for source in given[role])
    found: dict[str, Found] = {}
    for source in named:
        wait.stage = f"reading {source}"
        try:
            one = sources.read(source, root, corpus.fields, files)
        except AuditError as error:
            problems.add("sources", error.problems)
        else:
            problems.add(f"rows of {source}", one.problems)
            found[source] = one
    if found:
        problems.add("", _unknown_columns(corpus.fields, found.values()))
    taken, left = _take(given, found, problems, corpus.fields)
    taken = [(role, x) for role, row in taken for x in row.windows(corpus.windows)]
    sound = {source for source, one in found.items() if not one.problems}
    if stored is not None and len(sound) < len(named):
        problems.add(
            "",
            [
                "corpus.prepared has rows of its own; to take them, leave every role "
                "without a source, such as corpus.members = ()"
            ],
        )
    asked = [role for role in ROLES if given[role]]
    wait.stage = f"resolving the links of {len(taken)} videos"
    items, repeated = identity.items_of(taken)
    # The role of a row is uncertain if other rows of its source are invalid.
    pairs = zip(taken, items, strict=True)
    certain = tuple(item for (_, row), item in pairs if row.source in sound)
    if not corpus.allow_outside:
        problems.add("outside", identity.outside([row for _, row in taken], items))
    if stored is not None and not asked:
        items = certain = tuple(stored())
        asked = list(dict.fromkeys(item.role for item in items))
        where = f"{corpus.prepared}: "
        repeated = identity.repeated((i.id, where + i.video) for i in items)
    problems.add("ids", repeated)
    looks = looks and stored is None
    if looks:
        problems.add("absent", _absent(taken, items))
    wait.stage = f"looking for videos in two roles among {len(items)} rows"
    kept = _subsample(items, corpus.max_clips, corpus.seed)
    digests = conflicts.digests_of(kept) if stored is None else {}
    known = digests if looks else {}  # A report can always be written again.
    allowed = corpus.allow_duplicates
    shared, notes = conflicts.find(certain, known, allowed=allowed)
    problems.add("", shared)
    problems.add("", _roles(asked) if paired else [])
    problems.close()
    left += _not_sampled(items, kept, corpus.max_clips)
    _log(kept, left)
    if stored is not None:  # The reader of the prepared clips compares their hashes.
        return Corpus(kept, tuple(left))
    if not looks or len(kept) < len(items):
        _, notes = conflicts.find(kept, digests, allowed=allowed)
    return with_notes(Corpus(kept, tuple(left)), notes)


def with_notes(corpus: Corpus, notes: Iterable[str]) -> Corpus:
    """Logs notes on a corpus and returns it with them appended."""
    for note in notes:
        logging.warning("%s", printable(note))
    return dataclasses.replace(corpus, notes=(*corpus.notes, *notes))


def unique_clips(items: Iterable[Item]) -> tuple[Clip, ...]:
    """Returns one clip per video with all its rows, in order of first appearance."""
    by_key = collections.defaultdict(list)
    for item in items:
        by_key[item.clip].append(item)
    return tuple(Clip(key, tuple(rows)) for key, rows in by_key.items())


class _Problems:
    """Collects problems by kind, in the order of the first of each kind."""

    def __init__(self):
        self._found: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, kind: str, problems: Iterable[str]) -> None:
        """Adds problems of a kind; "" makes them a kind of their own."""
        self._found[kind or f"{len(self._found)}"] += problems

    def close(self) -> None:
        """Raises an `AuditError` with all problems, if there are any."""
        listed = []
        for problems in self._found.values():
            rest = len(problems) - _LINES
            if rest > 0:
                problems[_LINES - 1 :] = [f"and {rest + 1} more problems of this kind"]
            listed += problems
        if listed:
            raise AuditError(listed)


def _take(
    given: Mapping[str, tuple[str, ...]],
    found: Mapping[str, Found],
    problems: _Problems,
    fields: tuple[str, ...],
) -> tuple[list[tuple[str, Row]], list[LeftOut]]:
    """Returns the rows of each role, and what is left out."""
    taken: list[tuple[str, Row]] = []
    left: list[LeftOut] = [out for one in found.values() for out in one.left_out]
    for role in ROLES:
        for source in given[role]:
            rows = found[source].rows if source in found else []
            used = [row for row in rows if row.label in ("", role)]
            if len(given[role]) > 1:
                used = [row.grouped(sources.name_of(source)) for row in used]
            taken += ((role, row) for row in used)
    for source, one in found.items():
        if one.problems:  # Labels of invalid rows are not known.
            continue
        roles = [role for role in ROLES if source in given[role]]
        labels = collections.Counter(row.label for row in one.rows if row.label)
        others = {label: n for label, n in labels.items() if label not in roles}
        if others and len(roles) == 1:
            out = _other_roles(source, roles[0], one, others, fields)
            problems.add("labels", [out])
            continue
        unlabelled = len(one.rows) > labels.total()
        empty = [role for role in roles if not (unlabelled or labels[role])]
        problems.add("labels", [_nothing_for(x, source, labels) for x in empty])
        left += (
            LeftOut(
                source=source,
                role=role,
                count=labels[other],
                what="rows",
                why=f"their label is {other}, and they are used in that role",
            )
            for role in roles
            for other in roles
            if other != role and labels[other]
        )
        left += (
            LeftOut(
                source=source,
                role="",
                count=count,
                what="rows",
                why=f"their label is {label}, and no corpus.{label} has this source",
            )
            for label, count in others.items()
        )
    return taken, left


def _other_roles(
    source: str,
    role: str,
    found: Found,
    others: Mapping[str, int],
    fields: tuple[str, ...],
) -> str:
    """Returns the problem that a source of one role has labels of other roles."""
    rows = found.rows
    counted = ", ".join(f"{n} are {label}" for label, n in others.items())
    first = next(row for row in rows if row.label in others)
    also = " and ".join(f"corpus.{label}" for label in others)
    return (
        f"{source} is given as corpus.{role} alone, but by its column "
        f"{label_column(fields, found.columns)!r} {counted}, of {len(rows)} rows (the "
        f"first: {first.where}); give it as {also} too, which takes them there, or, if "
        "the column holds something else, leave it out: "
        f"{option(fields, 'label=')}"
    )


def _nothing_for(role: str, source: str, labels: Iterable[str]) -> str:
    """Returns the problem that a source has no row of a role."""
    found = ", ".join(sorted(labels))
    return f"corpus.{role}: no row of {source} has this label; its labels: {found}"


def _unknown_columns(fields: tuple[str, ...], found: Iterable[Found]) -> list[str]:
    """Returns the problems of columns that no source has."""
    known = list(dict.fromkeys(str(name) for one in found for name in one.columns))
    have = f"they have {printable(some(known), 1000)}" if known else sources.NO_COLUMNS
    return [
        f"corpus.fields: no source has a column {column!r} for {field!r}; "
        f"{have}{nearest(column, known)}"
        for field, column in columns_of(fields).items()
        if column and column not in known
    ]


def _absent(taken: list[tuple[str, Row]], items: tuple[Item, ...]) -> list[str]:
    """Returns the problems of manifests without any of their videos."""
    by_source = collections.defaultdict(list)
    for (_, row), item in zip(taken, items, strict=True):
        if row.confined:
            by_source[row.source, row.folder].append(item)
    return [
        problem
        for (source, folder), rows in by_source.items()
        for problem in presence.absent(source, folder, rows)
    ]


def _roles(asked: list[str]) -> list[str]:
    """Returns the problem of a set of configured roles that cannot be audited."""
    both = "corpus.members and corpus.nonmembers"
    if not asked:
        return [f"nothing to audit: give {both}, or corpus.suspects"]
    labelled = [role for role in ("members", "nonmembers") if role in asked]
    if len(labelled) == 1:
        there = labelled[0]
        absent = "nonmembers" if there == "members" else "members"
        return [
            f"corpus.{there} without corpus.{absent}: a comparison needs both; "
            f"give corpus.{absent}, or name the videos in question "
            "as corpus.suspects"
        ]
    if asked == ["calibration"]:
        return [
            "corpus.calibration alone: calibration only serves to judge others; give "
            f"corpus.suspects, or {both}"
        ]
    return []


def _subsample(
    items: tuple[Item, ...], max_clips: int | None, seed: int
) -> tuple[Item, ...]:
    """Samples at most `max_clips` videos of each role, with all their rows, in order.

    Each role has its own generator, so that its size does not change other samples.
    """
    if max_clips is None:
        return items
    kept = set()
    for number, role in enumerate(ROLES):
        clips = (segments.without_window(i.clip) for i in items if i.role == role)
        keys = list(dict.fromkeys(clips))
        order = np.random.default_rng([seed, number]).permutation(len(keys))
        kept |= {(role, keys[index]) for index in order[:max_clips]}
    return tuple(
        item
        for item in items
        if (item.role, segments.without_window(item.clip)) in kept
    )


def _not_sampled(
    items: tuple[Item, ...], kept: tuple[Item, ...], max_clips: int | None
) -> list[LeftOut]:
    """Returns what the subsample leaves out."""
    if len(kept) == len(items):
        return []
    before, after = (collections.Counter(i.role for i in x) for x in (items, kept))
    why = f"corpus.max_clips is {max_clips} videos per role"
    return [
        LeftOut(source="", role=role, count=count, what="rows", why=why)
        for role, count in (before - after).items()
    ]


def _log(kept: tuple[Item, ...], left: list[LeftOut]) -> None:
    for one in left[:_LINES]:
        logging.info("%s", printable(str(one)))
    if len(left) > _LINES:
        logging.info(
            "and %d more lines about rows and files left out", len(left) - _LINES
        )
    parts = sum("#" in i.clip and segments.divided(i.clip)[1] is not None for i in kept)
    if parts:
        logging.info("%d rows score a part of their video", parts)
