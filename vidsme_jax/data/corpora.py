"""The corpus: the rows of manifests, folders and globs, each under its role.

Nothing here opens a video: a file that is missing or broken is found when its clip is
decoded, and costs that clip only. Whether the videos of a manifest are there at all,
and whether two roles share files, is looked at first.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from absl import logging

from vidsme_jax.base import ROLES, AuditError, Clip, Item, LeftOut
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
from vidsme_jax.data.manifest_rows import Row, columns_of, label_column, option
from vidsme_jax.data.sources import Found, some
from vidsme_jax.data.waiting import Wait
from vidsme_jax.settings import views
from vidsme_jax.wording import nearest, printable

_LINES = 20  # Of one kind, at most.


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What is audited.

    Attributes:
      items: The rows in the order of `ROLES`, then of the sources. A row without an id
        has the video's name as the manifest writes it, with #2, #3 where it is
        repeated, as has an id that the questions about one video share. A row without a
        group has its source's name where a role has several sources.
      left_out: What the sources hold besides.
      notes: What a reader of the results should know of all of them, such as that parts
        of a video are in two roles.
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
      stored: The rows of a prepared corpus, taken where no role has a source.
      looks: Whether the videos are looked for; those of a prepared corpus, or of a
        report that is made again, need not be there.
      paired: Whether the roles must be such that an audit can compare them.

    Raises:
      AuditError: With everything that is wrong: sources that are absent, unreadable or
        without rows, rows that are broken or name videos outside of their folder, ids
        that repeat, manifests without any of their videos, videos in two roles, roles
        that cannot be audited together. Of each kind at most 20 are listed.
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
    """See `load`."""
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
            its = sources.read(source, root, corpus.fields, files)
        except AuditError as error:
            problems.add("sources", error.problems)
        else:
            problems.add(f"rows of {source}", its.problems)
            found[source] = its
    if found:
        problems.add("", _unknown_columns(corpus.fields, found.values()))
    taken, left = _take(given, found, problems, corpus.fields)
    taken = [(role, x) for role, row in taken for x in row.windows(corpus.windows)]
    sound = {source for source, its in found.items() if not its.problems}
    if stored is not None and len(sound) < len(named):
        problems.add(
            "",
            [
                "corpus.prepared has rows of its own; to take them, leave every role "
                "without a source, such as corpus.members = ()"
            ],
        )
    asked = [role for role in ROLES if given[role]]
    wait.stage = f"following the links of {len(taken)} videos"
    items, repeated = identity.items_of(taken)
    # Which role a row has is not known where others of its source are faulty.
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
    known = digests if looks else {}  # A report that is made again is not refused.
    allowed = corpus.allow_duplicates
    shared, notes = conflicts.find(certain, known, allowed=allowed)
    problems.add("", shared)
    problems.add("", _roles(asked) if paired else [])
    problems.close()
    left += _beyond(items, kept, corpus.max_clips)
    _log(kept, left)
    if stored is not None:  # Who reads the prepared clips knows which are equal.
        return Corpus(kept, tuple(left))
    if not looks or len(kept) < len(items):
        _, notes = conflicts.find(kept, digests, allowed=allowed)
    return with_notes(Corpus(kept, tuple(left)), notes)


def with_notes(corpus: Corpus, notes: Iterable[str]) -> Corpus:
    """Logs notes on a corpus; returns it with them."""
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
    """What is wrong, in the order in which it is found, by its kind."""

    def __init__(self):
        self._found: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, kind: str, problems: Iterable[str]) -> None:
        """Adds problems of a kind; "" if they are few."""
        self._found[kind or f"{len(self._found)}"] += problems

    def close(self) -> None:
        """Raises what was found."""
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
    """Returns the rows that each role takes, with it, and those that are left out."""
    taken: list[tuple[str, Row]] = []
    left: list[LeftOut] = [one for its in found.values() for one in its.left_out]
    for role in ROLES:
        for source in given[role]:
            rows = found[source].rows if source in found else []
            mine = [row for row in rows if row.label in ("", role)]
            if len(given[role]) > 1:
                mine = [row.grouped(sources.name_of(source)) for row in mine]
            taken += ((role, row) for row in mine)
    for source, its in found.items():
        if its.problems:  # Labels of faulty rows are not known.
            continue
        roles = [role for role in ROLES if source in given[role]]
        labels = collections.Counter(row.label for row in its.rows if row.label)
        others = {label: n for label, n in labels.items() if label not in roles}
        if others and len(roles) == 1:
            out = _other_roles(source, roles[0], its, others, fields)
            problems.add("labels", [out])
            continue
        unlabelled = len(its.rows) > labels.total()
        empty = [role for role in roles if not (unlabelled or labels[role])]
        problems.add("labels", [_nothing_for(x, source, labels) for x in empty])
        left += (
            LeftOut(
                source=source,
                role=role,
                count=labels[other],
                what="rows",
                why=f"their label is {other}, as which they are taken",
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
    found = ", ".join(sorted(labels))
    return f"corpus.{role}: no row of {source} has this label; its labels: {found}"


def _unknown_columns(fields: tuple[str, ...], found: Iterable[Found]) -> list[str]:
    """Returns the problems of columns that no source has."""
    known = list(dict.fromkeys(str(c) for its in found for c in its.columns))
    have = f"they have {printable(some(known), 1000)}" if known else sources.NO_COLUMNS
    return [
        f"corpus.fields: no source has a column {column!r} for {field!r}; "
        f"{have}{nearest(column, known)}"
        for field, column in columns_of(fields).items()
        if column and column not in known
    ]


def _absent(taken: list[tuple[str, Row]], items: tuple[Item, ...]) -> list[str]:
    """Returns the problems of manifests none of whose videos is there."""
    by_source = collections.defaultdict(list)
    for (_, row), item in zip(taken, items, strict=True):
        if row.confined:
            by_source[row.source, row.folder].append(item)
    return [
        problem
        for (source, folder), its in by_source.items()
        for problem in presence.absent(source, folder, its)
    ]


def _roles(asked: list[str]) -> list[str]:
    """Which roles were asked for together, whether or not their sources had rows."""
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
    """Keeps at most `max_clips` videos of each role, with all their rows, in order.

    Each role is drawn on its own, so that one's size does not alter another's sample.
    """
    if max_clips is None:
        return items
    kept = set()
    for number, role in enumerate(ROLES):
        its = (segments.without_window(i.clip) for i in items if i.role == role)
        keys = list(dict.fromkeys(its))
        order = np.random.default_rng([seed, number]).permutation(len(keys))
        kept |= {(role, keys[index]) for index in order[:max_clips]}
    return tuple(
        item
        for item in items
        if (item.role, segments.without_window(item.clip)) in kept
    )


def _beyond(
    items: tuple[Item, ...], kept: tuple[Item, ...], max_clips: int | None
) -> list[LeftOut]:
    """Returns what the subsample leaves out."""
    if len(kept) == len(items):
        return []
    before, after = (collections.Counter(i.role for i in x) for x in (items, kept))
    why = f"corpus.max_clips is {max_clips} videos a role"
    return [
        LeftOut(source="", role=role, count=count, what="rows", why=why)
        for role, count in (before - after).items()
    ]


def _log(kept: tuple[Item, ...], left: list[LeftOut]) -> None:
    for one in left[:_LINES]:
        logging.info("%s", printable(str(one)))
    if len(left) > _LINES:
        logging.info("and %d more lines of what is left out", len(left) - _LINES)
    parts = sum("#" in i.clip and segments.divided(i.clip)[1] is not None for i in kept)
    if parts:
        logging.info("%d rows score a part of their video", parts)
