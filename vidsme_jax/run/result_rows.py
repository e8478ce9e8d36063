"""Records the rows of a result, in a few bytes each, and compares two records."""

import base64
import collections
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidsme_jax.base import ROLES, ScoreTable
from vidsme_jax.run import sealed

_BYTES = 6  # Of the SHA-256 of a row; 8 characters of base64.
_CHARACTERS = 4 * _BYTES // 3

Rows = Mapping[str, Mapping[str, Any]]  # By role: `count`, `rows`.


def rows(table: ScoreTable, headline: str) -> dict[str, dict[str, Any]]:
    """Returns the rows that have a headline, JSON-ready.

    Returns:
      By role, of those that have any: `count`, and `rows`, base64 of the sorted first 6
      bytes of the SHA-256 of each row's id and content hash, as a list of JSON.
    """
    there = ~np.isnan(table.scores[headline])
    found: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        kept = there & (table.role == role)
        its = zip(table.id[kept].tolist(), table.cluster[kept].tolist(), strict=True)
        texts = (json.dumps(row).encode() for row in its)
        short = sorted(hashlib.sha256(text).digest()[:_BYTES] for text in texts)
        if short:
            text = base64.b64encode(b"".join(short)).decode()
            found[role] = {"count": len(short), "rows": text}
    return found


def are_rows(value: Any) -> bool:
    """Returns whether a value is one that `rows` returns."""
    one = sealed.having(count=sealed.is_count, rows=sealed.is_text)
    if not sealed.values_of(one)(value) or not set(value) <= set(ROLES):
        return False
    return all(len(x["rows"]) == _CHARACTERS * x["count"] for x in value.values())


def lost(before: Rows, now: Rows) -> tuple[dict[str, int], dict[str, int]]:
    """Returns, of the roles that lost rows, how many there were and how many are left.

    Example:
      >>> lost({"members": {"count": 2, "rows": "a" * 8 + "b" * 8}}, {})
      ({'members': 2}, {'members': 0})
    """
    fewer = _fewer(before, now)
    were = {role: before[role]["count"] for role in fewer}
    return were, {role: were[role] - number for role, number in fewer.items()}


def gained(before: Rows, now: Rows) -> dict[str, int]:
    """Returns, of the roles that gained rows, how many.

    Example:
      >>> gained({}, {"members": {"count": 2, "rows": "a" * 8 + "b" * 8}})
      {'members': 2}
    """
    return _fewer(now, before)


def _fewer(rows: Rows, others: Rows) -> dict[str, int]:
    """Returns how many rows of each role are not among others."""
    found: dict[str, int] = {}
    for role in ROLES:
        rest = _short(rows.get(role)) - _short(others.get(role))
        if number := rest.total():
            found[role] = number
    return found


def _short(its: Mapping[str, Any] | None) -> collections.Counter[str]:
    text = its["rows"] if its else ""
    starts = range(0, len(text), _CHARACTERS)
    return collections.Counter(text[k : k + _CHARACTERS] for k in starts)
