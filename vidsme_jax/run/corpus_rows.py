"""Describes a corpus before any video is decoded: its digest, roles, comparisons."""

import collections
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from vidsme_jax.base import ROLES, Item
from vidsme_jax.evaluation.groups import MAX_GROUPS
from vidsme_jax.wording import nearest, printable

ALL = "all"  # The comparison of all members with all non-members.


class Listed(NamedTuple):
    """What names a corpus.

    Attributes:
      digest: SHA-256, in hex, over the sorted digests of the rows: of id, role, group,
        source, video, question, candidates and answer, as a list of JSON.
      rows: How many each role has, of those that have any.
    """

    digest: str
    rows: dict[str, int]


def listed(items: Sequence[Item]) -> Listed:
    """Returns what names a corpus; the order of its rows does not matter.

    Example:
      >>> a, b = (Item(x, f"{x}.mp4", f"/{x}.mp4", "members") for x in "ab")
      >>> listed([a, b]) == listed([b, a])
      True
      >>> listed([a, b]).rows
      {'members': 2}
    """
    whole = hashlib.sha256()
    for row in sorted(hashlib.sha256(_row(item)).digest() for item in items):
        whole.update(row)
    counts = collections.Counter(item.role for item in items)
    return Listed(whole.hexdigest(), {x: counts[x] for x in ROLES if counts[x]})


def _row(item: Item) -> bytes:
    named = (item.id, item.role, item.group, item.source, item.video, item.question)
    return json.dumps([*named, item.candidates, item.answer]).encode()


def comparisons(items: Sequence[Item]) -> dict[str, str | None]:
    """Returns the comparisons of a corpus, as `evaluation.groups` names them.

    Returns:
      By name: the group of the non-members, None of all; empty where members or
      non-members are missing.
    """
    of = {role: [x.group for x in items if x.role == role] for role in ROLES[:2]}
    if not all(of.values()):
        return {}
    found: dict[str, str | None] = {ALL: None}
    counts = collections.Counter(filter(None, of["nonmembers"]))
    most = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_GROUPS]
    for group in sorted(most):
        name = group
        while name in found:
            name = f"group {name}"
        found[name] = group
    return found


def problem(comparison: str, items: Sequence[Item]) -> str:
    """Returns what is wrong with a declared comparison, or ""."""
    known = comparisons(items)
    if comparison == ALL or comparison in known:
        return ""
    groups = [name for name in known if name != ALL]
    which = (
        f"known: {', '.join(map(printable, groups[:10]))}"
        if groups
        else ("this corpus has none")
    )
    return (
        f"config.report.comparison is {printable(comparison, 100)!r}; it must be all, "
        f"or the name of a group of non-members; {which}{nearest(comparison, groups)}"
    )
