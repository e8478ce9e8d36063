"""What an item is an observation of: its source, its near-duplicates, or its file.

Clips of one film are not independent of one another, nor are copies of one clip, and
statistics count units. Items are of one unit where they name one `source` in the
manifest, are of one file or of equal ones, or where their clips are near-duplicates
(see `data.similar`), directly or through others.
"""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vidsme_jax.base import AuditError, Item, ScoreTable, Traits
from vidsme_jax.data import segments, similar

# What two clips show (see `shown`), and the share of their frames that are alike.
Near = tuple[str, str, float]

_SOURCE, _FILE = "source ", "file "  # How units are named.
_NAMED = 20  # Pairs in a message.


class Made(NamedTuple):
    """How the units of a table were made.

    Attributes:
      sources: Units that the manifests' column `source` names.
      joined: Units of several files without a source, which are near-duplicates.
      files: Units of one file.
    """

    sources: int
    joined: int
    files: int

    def __str__(self) -> str:
        """Returns it in a line.

        Example:
          >>> str(Made(12, 0, 3))
          '15 units: 12 by the column source, 3 single files'
        """
        parts = (
            (self.sources, "by the column source"),
            (self.joined, "joined as near-duplicates"),
            (self.files, "single files"),
        )
        named = ", ".join(f"{count} {what}" for count, what in parts if count)
        return f"{sum(self)} units: {named}"


def of_items(
    items: Sequence[Item],
    content: Mapping[str, str],
    traits: Mapping[str, Traits | None],
    allow_duplicates: bool | None = None,
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Returns the unit of each item, and what should be known of clips, by key.

    Args:
      items: Of the table.
      content: The content hash of each clip, by key.
      traits: Of each clip, by key; None of one that near-duplicates are not known of.
      allow_duplicates: Whether near-duplicates may be in two roles, which is noticed
        then; None: not looked for.

    Raises:
      AuditError: They may not, and are.
    """
    prints = {  # Once of equal files, of which there may be many.
        shown(key, content): its.prints
        for key, its in traits.items()
        if its is not None
    }
    pairs = similar.pairs(prints)
    notes: dict[str, list[str]] = {}
    found = [] if allow_duplicates is None else across_roles(items, content, pairs)
    if found and not allow_duplicates:
        raise AuditError([refusal(found)], scored=True)
    for one, other, _ in found:
        for item, its in ((one, other), (other, one)):
            note = f"is a near-duplicate of one of {its.role}"
            if note not in notes.setdefault(item.clip, []):
                notes[item.clip].append(note)
    return labels(items, content, pairs), notes


def shown(clip: str, content: Mapping[str, str]) -> str:
    """Returns what is equal for clips that show the same part of equal files.

    Args:
      clip: Its key.
      content: The content hash of each clip, by key.
    """
    return f"{content[clip]}{segments.divided(clip)[1] or ''}"


def labels(
    items: Sequence[Item], content: Mapping[str, str], pairs: Iterable[Near]
) -> np.ndarray:
    """Returns the name of each item's unit, equal for items of one unit.

    Args:
      items: Of the table.
      content: The content hash of each clip, by key.
      pairs: Near-duplicates among the clips.

    Returns:
      Texts, as objects: `source NAME` of the first source that a unit has or, without
      any, `file HASH` of the first file.
    """
    same = [(f"clip {one}", f"clip {other}") for one, other, _ in pairs]
    clips = [f"clip {shown(item.clip, content)}" for item in items]
    names: dict[str, set[str]] = collections.defaultdict(set)  # By clip.
    for item, clip in zip(items, clips, strict=True):
        names[clip].add(_FILE + content[item.clip])
        same.append((clip, _FILE + content[item.clip]))
        same.append((clip, f"path {segments.divided(item.clip)[0]}"))
        if item.source:
            names[clip].add(_SOURCE + item.source)
            same.append((clip, _SOURCE + item.source))
    called: dict[str, str] = {}
    for group in similar.groups(same):
        known = {name for x in group if x in names for name in names[x]}
        sources = [name for name in known if name.startswith(_SOURCE)]
        called |= dict.fromkeys(group, min(sources or known, default=""))
    return np.array([called[clip] for clip in clips], object)


def made(table: ScoreTable) -> Made:
    """Returns how the units of a table were made."""
    files: dict[str, set[str]] = collections.defaultdict(set)
    for unit, file in zip(table.units.tolist(), table.cluster.tolist(), strict=True):
        files[unit].add(file)
    sources = sum(unit.startswith(_SOURCE) for unit in files)
    joined = sum(
        len(its) > 1 and not unit.startswith(_SOURCE) for unit, its in files.items()
    )
    return Made(sources, joined, len(files) - sources - joined)


def across_roles(
    items: Iterable[Item], content: Mapping[str, str], pairs: Iterable[Near]
) -> list[tuple[Item, Item, str]]:
    """Returns near-duplicates in two roles, one pair for each two clips and roles.

    Equal files are none: see `data.conflicts`.

    Args:
      items: Of the table.
      content: The content hash of each clip, by key.
      pairs: Near-duplicates among the clips.

    Returns:
      An item of each, and both in words.
    """
    by_clip: dict[str, dict[str, Item]] = collections.defaultdict(dict)
    for item in items:
        by_clip[shown(item.clip, content)].setdefault(item.role, item)
    return [
        (a, b, f"{_named(a)} and {_named(b)}: {math.floor(100 * share)} % of frames")
        for one, other, share in pairs
        for a in by_clip[one].values()
        for b in by_clip[other].values()
        if a.role != b.role and content[a.clip] != content[b.clip]
    ]


def refusal(found: Sequence[tuple[Item, Item, str]]) -> str:
    """Returns the problem that near-duplicates are in two roles."""
    count = f"{len(found)} pairs" if len(found) > 1 else "1 pair"
    rest = len(found) - _NAMED
    listed = "; ".join(text for _, _, text in found[:_NAMED])
    more = f"; and {rest} more" if rest > 0 else ""
    return (
        f"{count} of clips in two roles are near-duplicates, which share so much of "
        f"their frames: {listed}{more}. A model that was trained on one has seen the "
        "other: remove one of each, or set corpus.allow_duplicates=true; the signals "
        "are kept, and the next run scores no clip again"
    )


def _named(item: Item) -> str:
    return f"{item.video} ({item.role})"
