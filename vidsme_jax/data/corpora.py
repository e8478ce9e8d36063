"""The corpus: the rows of manifests, folders and globs, each under its role.

Nothing here opens a video: a file that is missing or broken is found when its clip is
decoded, and costs that clip only.
"""

import collections
import os
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from vidsme_jax.base import ROLES, AuditError, Clip, Item
from vidsme_jax.data.sources import Row, is_address, name_of, read
from vidsme_jax.settings import views

_SHOWN = 5  # Of a long list, how many an error names.


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
    named = dict.fromkeys(source for role in ROLES for source in sources[role])
    rows: dict[str, list[Row]] = {}
    for source in named:
        try:
            rows[source] = read(source, root, corpus.tfds_fields)
        except AuditError as error:
            problems += error.problems
    taken: list[tuple[str, Row]] = []
    for role in ROLES:
        for source in sources[role]:
            mine = [row for row in rows.get(source, ()) if row.label in ("", role)]
            if len(sources[role]) > 1:
                mine = [row.grouped(name_of(source)) for row in mine]
            taken += ((role, row) for row in mine)
            if source in rows and not mine:
                problems.append(_nothing_for(role, source, rows[source]))
    if stored is not None and len(rows) < len(named):
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
        at, folder = f"{corpus.prepared}: ", pathlib.Path()
        taken = [(i.role, Row(at + i.video, folder, "", i.id, {})) for i in items]
    problems += _repeated_ids(taken) + _contradictions(items) + _roles(asked)
    if problems:
        raise AuditError(problems)
    return _subsample(items, corpus.max_clips, corpus.seed)


def unique_clips(items: Iterable[Item]) -> tuple[Clip, ...]:
    """Returns one clip per video with all its rows, in order of first appearance."""
    by_key = collections.defaultdict(list)
    for item in items:
        by_key[item.clip].append(item)
    return tuple(Clip(key, tuple(rows)) for key, rows in by_key.items())


def _items(rows: list[tuple[str, Row]]) -> tuple[Item, ...]:
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


def some(names: Iterable[str]) -> str:
    """Returns the first of a long list of names, and how many more there are."""
    names = list(dict.fromkeys(names))
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _nothing_for(role: str, source: str, rows: list[Row]) -> str:
    found = ", ".join(sorted({row.label for row in rows}))
    return f"corpus.{role}: no row of {source} has this label; its labels: {found}"


def _repeated_ids(rows: list[tuple[str, Row]]) -> list[str]:
    places = collections.defaultdict(list)
    for _, row in rows:
        places[row.id].append(row.where)
    return [
        f"id {id!r} is given {len(where)} times, at {some(where)}; ids must be unique "
        "in the corpus"
        for id, where in places.items()
        if id and len(where) > 1
    ]


def _outside(rows: list[Row], items: tuple[Item, ...]) -> list[str]:
    """Videos that a manifest names outside of its folder; links are followed.

    Folders, globs and manifests in the configuration are the user's own words; what is
    in a manifest may be anybody's.
    """
    roots = {folder: folder.resolve() for folder in {row.folder for row in rows}}
    found = collections.defaultdict(list)
    for row, item in zip(rows, items, strict=True):
        root = roots[row.folder]
        inside = is_address(item.video) or pathlib.Path(item.clip).is_relative_to(root)
        if row.confined and not inside:
            found[root].append(f"{row.where}: {item.video!r}")
    return [
        f"{len(names)} rows of manifests name videos outside of {root}: "
        f"{some(names)}; set corpus.video_root to a folder that holds them all or, if "
        "you trust the manifests, corpus.allow_outside=true"
        for root, names in found.items()
    ]


def _contradictions(items: tuple[Item, ...]) -> list[str]:
    members = {item.clip for item in items if item.role == "members"}
    others = [item for item in items if item.role == "nonmembers"]
    both = [item.video for item in others if item.clip in members]
    if not both:
        return []
    return [
        f"{len(set(both))} videos are listed both as members and as nonmembers: "
        f"{some(both)}; give each one role, such as by a column 'label'"
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
        keys = list(dict.fromkeys(item.clip for item in items if item.role == role))
        order = np.random.default_rng([seed, number]).permutation(len(keys))
        kept |= {(role, keys[index]) for index in order[:max_clips]}
    return tuple(item for item in items if (item.role, item.clip) in kept)
