"""Videos in two roles: the same path, the same bytes, or parts of one video.

A video must have one role: a member that is also a suspect, or in the reference for
non-members, makes every comparison of the two wrong. Parts that do not overlap may be
in two roles, which is reported. Only files of equal size are read, and completely only
if their first and last bytes are equal.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from absl import logging

from vidsme_jax.base import ROLES, ClipError, Item
from vidsme_jax.data import decoders, frame_folders, segments
from vidsme_jax.data.limits import Limits
from vidsme_jax.data.segments import Segment
from vidsme_jax.data.sources import is_address

_END = 1 << 16  # Bytes at either end that are compared first.
_PAIRS = 5  # Pairs named in an error.
_EXAMPLES = 3  # Pairs named in a note.


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two rows with the same video in two roles."""

    one: Item
    other: Item

    @property
    def is_contradiction(self) -> bool:
        """Whether both are one file, so that one of its roles is wrong."""
        return _file(self.one) == _file(self.other)

    def __str__(self) -> str:
        first, second = _part(self.one), _part(self.other)
        same = "file" if _file(self.one) == _file(self.other) else "bytes"
        why = f"same {same}" if first == second else f"overlapping parts, same {same}"
        return f"{_described(self.one)} and {_described(self.other)}: {why}"


def find(
    items: Iterable[Item],
    digests: Mapping[str, str],
    *,
    allowed: bool,
    remedy: str = "Remove one, or set corpus.allow_duplicates=true",
) -> tuple[list[str], list[str]]:
    """Finds videos in two roles; parts of one video count if they overlap.

    Args:
      items: The rows of the corpus.
      digests: Content hash by file, where known.
      allowed: `corpus.allow_duplicates`: equal files may be in two roles. One path in
        two roles stays an error: one of the labels is wrong.
      remedy: The remedy in the error where they are not allowed.

    Returns:
      The problems; and notes for the report: allowed videos in two roles, parts of one
      video in two roles, clips of one source in two roles.
    """

    def place(item: Item) -> str:
        file = _file(item)
        return digests.get(file, file)

    items = list(items)
    by_file = _places(items, _file)
    wrong = [pair for rows in by_file for pair in _overlapping(rows)]
    wrong = [pair for pair in wrong if pair.is_contradiction]
    shared, parts = [], []
    for rows in _places(items, place) if digests else by_file:
        pairs = _overlapping(rows)
        if equal := [pair for pair in pairs if not pair.is_contradiction]:
            shared.append(equal)
        if not pairs:
            parts.append(rows)
    problems, notes = [], []
    if wrong:
        count = len({_file(pair.one) for pair in wrong})
        problems.append(
            f"{_counted(count, 'video is', 'videos are')} in two roles as one file: "
            f"{_listed(wrong, _PAIRS)}. Remove one, as one of the two labels is wrong; "
            "corpus.allow_duplicates=true does not allow the same file in two roles"
        )
    if shared:
        text = f"{_counted(len(shared), 'video is', 'videos are')} in two roles"
        pairs = list(itertools.chain.from_iterable(shared))
        if allowed:
            listed = _listed(pairs, _EXAMPLES)
            notes = [f"{text} (corpus.allow_duplicates=true): {listed}"]
        else:
            problems.append(f"{text}: {_listed(pairs, _PAIRS)}. {remedy}")
    if parts:
        notes.append(
            f"{_counted(len(parts), 'file has', 'files have')} parts in two roles "
            f"({_listed(map(_parts, parts), _EXAMPLES)}); parts of one video are not "
            "independent"
        )
    by_source = _places(items, lambda item: item.source)
    if sources := [rows[0].source for rows in by_source if rows[0].source]:
        notes.append(
            f"{_counted(len(sources), 'source is', 'sources are')} in two roles "
            f"({_listed(map(repr, sources), _EXAMPLES)}); clips of one source are not "
            "independent"
        )
    return problems, notes


def digests_of(items: Iterable[Item]) -> dict[str, str]:
    """Returns the content hash of each file that may be equal to one in another role.

    Files that cannot be read are left out: their clips fail when they are decoded.
    """
    items = list(items)
    if len({item.role for item in items}) < 2:
        return {}
    roles: dict[str, frozenset[str]] = {}
    alone = {role: frozenset({role}) for role in ROLES}
    for item in items:
        name, role = _file(item), alone[item.role]
        roles[name] = roles[name] | role if name in roles else role
    by_size = collections.defaultdict(list)
    for name in roles:
        if size := _size(name):
            by_size[size].append(name)

    def split(groups: Iterable[list[str]], by: Callable[[str], str]) -> list[list[str]]:
        """Splits groups by a key; drops groups of a single role."""
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

    near = split(split(by_size.values(), lambda name: ""), _ends_hash)
    if near:
        count = sum(map(len, near))
        logging.info("hashing %d files of two roles that may be equal", count)
    hashes: dict[str, str] = {}
    for name in itertools.chain.from_iterable(near):
        with contextlib.suppress(ClipError):  # Decoding it will report why.
            found, _ = decoders.ask("content_hash", pathlib.Path(name), Limits())
            hashes[name] = found["content_hash"]
    return hashes


def _places(items: Sequence[Item], place: Callable[[Item], str]) -> list[list[Item]]:
    """Returns the rows of each place with several roles, one per role and clip."""
    role: dict[str, str] = {}  # Of the first row of each place.
    several = set()
    for item in items:
        at = place(item)
        if role.setdefault(at, item.role) != item.role:
            several.add(at)
    by_place: dict[str, dict[tuple[str, str], Item]] = {}
    for item in items if several else ():
        if (at := place(item)) in several:
            by_place.setdefault(at, {}).setdefault((item.role, item.clip), item)
    return [list(rows.values()) for rows in by_place.values()]


def _overlapping(items: Iterable[Item]) -> list[_Pair]:
    """Returns overlapping pairs of rows in two roles, one per row and other role.

    Rows are swept by start time: each is paired, for every other role, with the earlier
    row that ends last, if they overlap.
    """
    found: list[_Pair] = []
    latest: dict[str, tuple[float, Item]] = {}  # By role: the row that ends last.
    for start, end, item in sorted(
        ((*_span(x), x) for x in items), key=lambda each: each[:2]
    ):
        for role, (until, other) in latest.items():
            if role != item.role and start < min(until, end):
                pair = sorted((other, item), key=lambda x: ROLES.index(x.role))
                found.append(_Pair(*pair))
        if item.role not in latest or end > latest[item.role][0]:
            latest[item.role] = end, item
    return found


def _span(item: Item) -> tuple[float, float]:
    """Returns the start of a row's part and its exclusive end, in seconds."""
    segment = _part(item) or segments.WHOLE
    return segment.start, math.inf if segment.end is None else segment.end


def _file(item: Item) -> str:
    return segments.divided(item.clip)[0] if "#" in item.clip else item.clip


def _part(item: Item) -> Segment | None:
    """Returns the segment of a row, without its window; None for the whole video."""
    if "#" not in item.clip:
        return None
    return segments.divided(segments.without_window(item.clip))[1]


def _described(item: Item) -> str:
    """Returns the path of a row's file, its part and its role, for a message."""
    part = _part(item)
    return f"{_path(item)}{f' {_seconds(part)}' if part else ''} ({item.role})"


def _path(item: Item) -> str:
    """Returns the path of a row's file, relative if it is in the current folder."""
    file, part = segments.divided(item.clip)
    name = item.video.removesuffix(str(part or ""))
    here = os.path.join(os.getcwd(), "")
    shown = file.removeprefix(here)
    if os.path.basename(name) == os.path.basename(file):
        return shown
    return f"{name} -> {shown}"  # A link.


def _parts(items: list[Item]) -> str:
    """Returns the file and its first part in each of two roles, for a message."""
    one = items[0]
    other = next(item for item in items if item.role != one.role)
    names = (_path(one), _path(other))
    parts = (_part(item) for item in (one, other))
    times = [_seconds(part or segments.WHOLE) for part in parts]
    texts = f"{times[0]} {one.role}", f"{times[1]} {other.role}"
    if names[0] == names[1]:
        return f"{names[0]}: {texts[0]}, {texts[1]}"
    return f"{names[0]}: {texts[0]}, {names[1]}: {texts[1]}"


def _seconds(part: Segment) -> str:
    end = "end" if part.end is None else f"{part.end:.10g}"
    return f"{part.start:.10g}-{end} s"


def _size(name: str) -> int | None:
    if is_address(name):
        return None
    try:
        if os.path.isdir(name):
            return frame_folders.stamp(pathlib.Path(name))[0]
        return os.stat(name).st_size
    except OSError:
        return None


def _ends_hash(name: str) -> str:
    """Returns a hash of the first and last bytes; for a folder its sorted names."""
    digest = hashlib.sha256()
    try:
        if os.path.isdir(name):
            return "\0".join(sorted(os.listdir(name)))
        with open(name, "rb") as file:
            digest.update(file.read(_END))
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            digest.update(file.read(_END))
    except OSError:
        return name
    return digest.hexdigest()


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _listed(named: Iterable[object], most: int) -> str:
    distinct = list(dict.fromkeys(map(str, named)))
    rest = len(distinct) - most
    return "; ".join(distinct[:most]) + (f"; and {rest} more" if rest > 0 else "")
