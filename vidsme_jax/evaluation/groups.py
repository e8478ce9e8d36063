"""Chooses the rows of a table that are compared: all, and those of each group.

Axes: `members`, `nonmembers`, rows of the two roles.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from vidsme_jax import arguments
from vidsme_jax.base import ScoreTable

MAX_GROUPS = 50  # That are compared; each takes at least half a second.


class Comparison(NamedTuple):
    """The rows of a table that are compared, and a description for the report."""

    description: str
    members: Int[np.ndarray, " members"]
    nonmembers: Int[np.ndarray, " nonmembers"]


def comparisons(table: ScoreTable) -> dict[str, Comparison]:
    """Returns the rows that are compared, by name: "all", then one entry per group.

    A group is a non-empty `group` among the non-members; it is compared with the
    members of the same group if there are any, else with all members. Of more than
    `MAX_GROUPS` groups those with the most rows of non-members are compared. Empty if
    there are no members or no non-members.
    """
    members = np.flatnonzero(arguments.table(table).role == "members")
    nonmembers = np.flatnonzero(table.role == "nonmembers")
    if not (len(members) and len(nonmembers)):
        return {}
    found = {"all": Comparison("all members and all non-members", members, nonmembers)}
    for group in sorted(_groups(table)[:MAX_GROUPS]):
        peers = members[table.group[members] == group]
        who = f"members of group {group!r}" if len(peers) else "all members"
        key = group
        while key in found:  # A group may be called "all".
            key = f"group {key}"
        found[key] = Comparison(
            f"{who} and non-members of group {group!r}",
            peers if len(peers) else members,
            nonmembers[table.group[nonmembers] == group],
        )
    return found


def summary(table: ScoreTable) -> dict[str, Any]:
    """Returns how many groups `comparisons` compares and leaves out.

    Returns:
      `compared` and `left_out`, numbers of groups; `statement`, "" unless groups are
      left out or there are more groups than sources.
    """
    number = len(_groups(arguments.table(table)))
    left = max(0, number - MAX_GROUPS)
    fewer = (
        f"of {number} groups of non-members the {MAX_GROUPS} with the most rows are "
        f"compared; {left} are compared as part of all only"
    )
    sources = len(np.unique(table.units[table.role == "nonmembers"]))
    dependent = (
        f"{number} groups of non-members are of {sources} sources: groups that share a "
        "source are not independent"
    )
    statements = [fewer] * (left > 0) + [dependent] * (number > sources)
    return {
        "compared": number - left,
        "left_out": left,
        "statement": "; ".join(statements),
    }


def _groups(table: ScoreTable) -> list[str]:
    """Returns the groups of non-members, those with the most rows first."""
    if not (table.role == "members").any():
        return []
    names, rows = np.unique(table.group[table.role == "nonmembers"], return_counts=True)
    order = np.argsort(-rows, kind="stable")
    return [name for name in names[order].tolist() if name != ""]
