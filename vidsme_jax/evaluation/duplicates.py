"""Finds videos listed both as members and as non-members, whole or in parts."""

import math
import re
from typing import Any

import numpy as np
from jaxtyping import Int

from vidsme_jax.base import ScoreTable

_MAX_LISTED = 20  # Videos, in the order of their hashes.
# The seconds at the end of the name of a part, as in `data.segments`.
_PART = re.compile(r"#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)?$")


def duplicates(
    table: ScoreTable,
    members: Int[np.ndarray, " members"],
    nonmembers: Int[np.ndarray, " nonmembers"],
) -> dict[str, Any]:
    """Lists videos, by content hash, that are both member and non-member.

    Returns:
      `count`, the number of such videos; `sources`, how many further sources have rows
      in both roles, by the column `source` or as near-duplicates; `statement`;
      `videos`, the first 20 with their rows; and `reason`, why the roles cannot be
      compared, "" if they can: a video, or overlapping parts of one, are in both.
    """
    shared = np.intersect1d(table.cluster[members], table.cluster[nonmembers])
    same = np.isin(table.cluster, shared)
    of_both = np.intersect1d(table.units[members], table.units[nonmembers])
    sources = len(np.setdiff1d(of_both, table.units[same]))
    related = ""
    if sources:
        have = "source has" if sources == 1 else "sources have"
        related = (
            f"{sources} {have} rows among the members and among the non-members, by "
            "the column source or as near-duplicates: they are not independent, and "
            "where they are one video one of its labels is wrong."
        )
    if not len(shared):
        found = {"count": 0, "sources": sources, "statement": related}
        return found | {"reason": "", "videos": []}

    spans: dict[Any, list[tuple[float, float, int]]] = {each: [] for each in shared}
    ids: dict[Any, tuple[list[str], list[str]]] = {each: ([], []) for each in shared}
    for role, rows in enumerate((members, nonmembers)):
        for row in rows[np.isin(table.cluster[rows], shared)]:
            cluster = table.cluster[row]
            spans[cluster].append((*_part(str(table.video[row])), role))
            ids[cluster][role].append(str(table.id[row]))
    wrong = sum(map(_overlap, spans.values()))
    divided = len(shared) - wrong
    statements: list[str] = []
    are = "video is" if wrong == 1 else "videos are"
    if wrong:
        statements.append(
            f"{wrong} {are} listed both as member and as non-member: the labels are "
            "wrong."
        )
    if divided:
        have = "video has" if divided == 1 else "videos have"
        statements.append(
            f"{divided} {have} some parts among the members and others among the "
            "non-members: parts of one video are not independent."
        )
    statements += [related] if related else []
    return {
        "count": len(shared),
        "sources": sources,
        "statement": " ".join(statements),
        "reason": f"{wrong} {are} member and non-member at once" if wrong else "",
        "videos": [
            {
                "hash": str(cluster),
                "members": ids[cluster][0],
                "nonmembers": ids[cluster][1],
            }
            for cluster in shared[:_MAX_LISTED]
        ],
    }


def _overlap(spans: list[tuple[float, float, int]]) -> bool:
    """Returns whether parts of two roles overlap; parts are (begin, end, role)."""
    ends = [-math.inf, -math.inf]  # The latest of each role so far.
    for begin, end, role in sorted(spans):
        if begin < min(end, ends[1 - role]):
            return True
        ends[role] = max(ends[role], end)
    return False


def _part(name: str) -> tuple[float, float]:
    """Returns the seconds at which the part that a name denotes begins and ends."""
    found = _PART.search(name)
    if found is None:
        return 0.0, math.inf
    return float(found[1]), math.inf if found[2] is None else float(found[2])
