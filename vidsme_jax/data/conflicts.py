"""Videos in two roles: by their paths, and byte for byte.

A video has one role: a member that is also a suspect, or that non-members are judged
by, makes every comparison of the two wrong. Only files of equal size are read, and of
those the whole only where first and last bytes are equal.
"""

import collections
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping

from absl import logging

from vidsme_jax.base import Item
from vidsme_jax.data import segments
from vidsme_jax.data.sources import is_address

_END = 1 << 16  # Bytes at either end that are compared first.
_PAIRS = 20  # Named in a message.
_WAY_OUT = "give each one role, such as by a column 'label', or leave it out of one"
_ASKED = "corpus.allow_duplicates=true audits them all the same"


def contradictions(items: Iterable[Item]) -> list[str]:
    """Returns the problem that a path is given as member and as nonmember, if any is.

    It stays one where duplicates are allowed: one of the labels is wrong.
    """
    found = _pairs(items, lambda item: segments.divided(item.clip)[0])
    both = {"members", "nonmembers"}
    videos = [one.video for one, other in found if {one.role, other.role} == both]
    if not videos:
        return []
    return [
        f"{len(set(videos))} videos are listed both as members and as nonmembers: "
        f"{_listed(videos)}; {_WAY_OUT}"
    ]


def in_two_roles(items: Iterable[Item], digests: Mapping[str, str]) -> list[str]:
    """Returns the problem that videos are in two roles, if any are.

    Parts of a video are in two roles where they overlap.

    Args:
      items: Of the corpus.
      digests: By file, what is equal for files of the same bytes, where it is known.
    """
    items = tuple(items)

    def place(item: Item) -> str:
        name = segments.divided(item.clip)[0]
        return digests.get(name, name)

    found = _pairs(items, place)
    both = {"members", "nonmembers"}
    # Of equal paths `contradictions` tells.
    listed = [
        f"{one.video} ({one.role}) and {other.video} ({other.role})"
        for one, other in found
        if {one.role, other.role} != both or _file(one) != _file(other)
    ]
    if not listed:
        return []
    return [
        f"{len(listed)} videos are in two roles, by their paths or byte for byte: "
        f"{_listed(listed)}; {_WAY_OUT}; {_ASKED}"
    ]


def digests_of(items: Iterable[Item]) -> dict[str, str]:
    """Returns the content hash of each file that may be another role's as well."""
    roles = collections.defaultdict(set)
    for item in items:
        roles[_file(item)].add(item.role)
    by_size = collections.defaultdict(list)
    for name in roles:
        size = None if is_address(name) else _size(name)
        if size:
            by_size[size].append(name)

    def split(groups: Iterable[list[str]], by: Callable[[str], str]) -> list[list[str]]:
        """Divides groups further; those of one role alone are of no interest."""
        found = []
        for group in groups:
            parts = collections.defaultdict(list)
            for name in group:
                parts[by(name)].append(name)
            found += parts.values()
        return [
            group
            for group in found
            if len(group) > 1 and len(set().union(*(roles[x] for x in group))) > 1
        ]

    near = split(split(by_size.values(), lambda name: ""), _ends)
    if near:
        count = sum(map(len, near))
        logging.info("comparing %d files of two roles that may be equal", count)
    hashes: dict[str, str] = {}
    for name in itertools.chain.from_iterable(near):
        try:
            with open(name, "rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:  # Decoding it will say why it cannot be read.
            continue
    return hashes


def _pairs(
    items: Iterable[Item], place: Callable[[Item], str]
) -> list[tuple[Item, Item]]:
    """Returns pairs of rows in two roles that show the same, one a pair of clips."""
    by_place = collections.defaultdict(dict)
    for item in items:
        by_place[place(item)].setdefault((item.role, item.clip), item)
    found = []
    for its in by_place.values():
        if len({item.role for item in its.values()}) < 2:
            continue
        first: dict[str, list[Item]] = collections.defaultdict(list)
        for item in its.values():
            for role, others in first.items():
                same = (x for x in others if role != item.role and _overlap(x, item))
                found += ((x, item) for x in itertools.islice(same, 1))
            first[item.role].append(item)
    return found


def _overlap(one: Item, other: Item) -> bool:
    its = (segments.divided(item.clip)[1] for item in (one, other))
    first, second = (segment or segments.WHOLE for segment in its)
    return first.overlaps(second)


def _file(item: Item) -> str:
    return segments.divided(item.clip)[0]


def _size(name: str) -> int | None:
    try:
        return os.path.getsize(name)
    except OSError:
        return None


def _ends(name: str) -> str:
    """Returns a hash of the first and last bytes."""
    digest = hashlib.sha256()
    try:
        with open(name, "rb") as file:
            digest.update(file.read(_END))
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            digest.update(file.read(_END))
    except OSError:
        return name
    return digest.hexdigest()


def _listed(pairs: list[str]) -> str:
    distinct = list(dict.fromkeys(pairs))
    rest = len(distinct) - _PAIRS
    return ", ".join(distinct[:_PAIRS]) + (f" and {rest} more" if rest > 0 else "")
