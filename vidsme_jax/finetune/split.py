"""Divides a pool of clips into members and non-members, by chance and by source.

Five clips of one film are not five observations: a model that was trained on four of
them has seen most of the fifth. So whole units are divided. A unit is all clips of one
`source` (a film, a channel, a recording), else a group of near-duplicates, else a file
with all its segments; units that share a near-duplicate or a file are one.
"""

import collections
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from vidsme_jax.base import AuditError, Item
from vidsme_jax.data import conflicts, links, names, segments, similar
from vidsme_jax.data.sources import is_address, some
from vidsme_jax.finetune.options import MEMBERS, NONMEMBERS
from vidsme_jax.store.files import write_atomically

_LEAST = 2  # Clips of each side, at least.
_PAIRS = 20  # Named in a message.
_BLOCK = 2_000  # Clips that are divided at a time.


def units(items: Iterable[Item], joined: Iterable[Collection[str]]) -> dict[str, int]:
    """Returns the number of each clip's unit, by the clip's key.

    Args:
      items: Of the pool.
      joined: Groups of clips, by their keys, that belong together.
    """
    items = list(items)
    same: list[tuple[str, str]] = []
    for item in items:
        clip = f"clip {item.clip}"
        same.append((clip, f"file {segments.divided(item.clip)[0]}"))
        if item.source:
            same.append((clip, f"source {item.source}"))
    for group in joined:
        first, *others = group
        same += ((f"clip {first}", f"clip {other}") for other in others)
    number = {name: k for k, group in enumerate(similar.groups(same)) for name in group}
    return {item.clip: number[f"clip {item.clip}"] for item in items}


def divide(
    items: Sequence[Item],
    share: float,
    seed: int,
    joined: Iterable[Collection[str]] = (),
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Divides a pool into members and non-members, so that no unit is in both.

    Each unit is a member with the probability `share`, given that the number of member
    clips is the nearest to `share` that whole units can give: small units are members
    as often as large ones. The result is a function of the units' names, `share` and
    `seed`, not of the order of the rows nor, unless two units have one name, of the
    folders of videos. A unit's name is that of its sources or, without any, of its
    videos as the manifest writes them.

    Args:
      items: The rows of the pool, in any role.
      share: Of the clips, in (0, 1). Larger pools are divided in blocks of 2,000 clips,
        each of which corrects the number of members of those before.
      seed: Of the draws.
      joined: Groups of clips, by their keys, that belong together, such as those of
        `similar.groups`.

    Returns:
      The rows of members and those of non-members, in the order of `items`, under their
      new roles.

    Raises:
      AuditError: There are fewer than two units, or a side has fewer than two clips.
    """
    of_clip = units(items, joined)
    clips: dict[int, list[str]] = collections.defaultdict(list)
    for clip, unit in of_clip.items():
        clips[unit].append(clip)
    total = len(of_clip)
    if len(clips) < 2:
        raise AuditError(
            [
                f"the pool cannot be divided: its {total} clips are {len(clips)} "
                "independent units, and members and non-members need at least one "
                "each; a unit is one `source`, or clips that are near-duplicates, or a "
                "file. Give clips of more sources"
            ]
        )
    drawn = {u: _drawn(seed, name) for u, name in _names(items, of_clip).items()}
    order = sorted(drawn, key=lambda unit: (drawn[unit][0], sorted(clips[unit])))
    sizes = [len(clips[unit]) for unit in order]
    places = _chosen(sizes, [drawn[unit][1] for unit in order], share)
    chosen = {order[place] for place in places}
    count = sum(len(clips[unit]) for unit in chosen)
    if min(count, total - count) < _LEAST:
        raise AuditError(
            [
                f"the pool cannot be divided: of its {total} clips in {len(order)} "
                f"independent units (the largest has {max(sizes)}), the share {share} "
                f"gives {count} members and {total - count} non-members, and each side "
                f"needs {_LEAST} clips. Give more clips, of more sources, or a "
                "config.train.member_share nearer to 0.5"
            ]
        )
    sides: tuple[list[Item], list[Item]] = [], []
    for item in items:
        out = of_clip[item.clip] not in chosen
        sides[out].append(item._replace(role="nonmembers" if out else "members"))
    return tuple(sides[0]), tuple(sides[1])


def write_manifests(
    folder: pathlib.Path, members: Sequence[Item], nonmembers: Sequence[Item]
) -> str:
    """Writes `members.jsonl` and `nonmembers.jsonl`, the manifests of an audit.

    Ids, texts, segments, groups, sources and dates are kept. If all videos are in the
    folder, they have relative names, and folder and videos may be moved together.
    Otherwise they have absolute paths, and an audit needs `corpus.allow_outside`.

    Args:
      folder: Made if need be. A run that is killed never leaves two manifests of
        different splits there.
      members: At least one row.
      nonmembers: At least one row.

    Returns:
      The `corpus.video_root` of an audit of the two: the folder that holds all videos,
      or "" if that is `folder`.

    Raises:
      AuditError: Clips are examples of a dataset, which no manifest can name.
      OSError: A file cannot be written; names it.
    """
    items = [*members, *nonmembers]
    if found := [item.video for item in items if is_address(item.clip)]:
        raise AuditError(
            [
                f"{len(found)} clips are examples of a dataset ({some(found)}), which "
                "a manifest cannot name: write them as video files, and divide those"
            ]
        )
    folder.mkdir(parents=True, exist_ok=True)
    home = os.path.join(links.real(str(folder)), "")
    paths = [segments.divided(item.clip)[0] for item in items]
    inside = all(path.startswith(home) for path in paths)
    start = home if inside else ""
    # An audit refuses members without non-members, but not those of another split.
    (folder / MEMBERS).unlink(missing_ok=True)
    for name, rows in ((NONMEMBERS, nonmembers), (MEMBERS, members)):
        lines = (json.dumps(_row(item, start)) + "\n" for item in rows)
        write_atomically(folder / name, "".join(lines).encode())
    if inside:
        return ""
    return os.path.commonpath([os.path.dirname(path) for path in paths])


def overlaps(
    items: Iterable[Item], pairs: Iterable[tuple[str, str, float]]
) -> list[str]:
    """Returns the problems of clips in two roles; [] if the roles are disjoint.

    Args:
      items: In their roles.
      pairs: Near-duplicates by the keys of their clips, as of `similar.pairs`.

    Returns:
      One problem a kind: the same file or bytes in two roles (see `conflicts`), and
      near-duplicates. Each names at most 20 pairs, and the number of the others.
    """
    items = list(items)
    digests = conflicts.digests_of(items)
    problems, _ = conflicts.find(
        items,
        digests,
        allowed=False,
        remedy="Remove one: a video that a model was trained on is no non-member",
    )
    by_clip: dict[str, dict[str, Item]] = collections.defaultdict(dict)
    for item in items:
        by_clip[item.clip].setdefault(item.role, item)
    near: list[str] = []
    for one, other, share in pairs:
        if _content(one, digests) == _content(other, digests):
            continue
        near += (
            f"{a.video} ({a.role}) and {b.video} ({b.role}): "
            f"{math.floor(100 * share)} % of their frames are alike"
            for a in by_clip.get(one, {}).values()
            for b in by_clip.get(other, {}).values()
            if a.role != b.role
        )
    if near:
        rest = f"; and {len(near) - _PAIRS} more" if len(near) > _PAIRS else ""
        count = "1 pair" if len(near) == 1 else f"{len(near)} pairs"
        problems.append(
            f"{count} of clips in two roles are near-duplicates: "
            f"{'; '.join(near[:_PAIRS])}{rest}. A model that was trained on one has "
            "seen the other: remove one of each pair, or give both the same role"
        )
    return problems


def _content(clip: str, digests: Mapping[str, str]) -> tuple[object, ...]:
    """Returns a key that is equal for clips with the same bytes and segment."""
    file, part = segments.divided(clip)
    return digests.get(file, file), part


def _names(items: Iterable[Item], of_clip: Mapping[str, int]) -> dict[int, list[str]]:
    """Returns the name of each unit: its sources or, without any, its videos."""
    sources: dict[int, set[str]] = collections.defaultdict(set)
    videos: dict[int, set[str]] = collections.defaultdict(set)
    for item in items:
        unit = of_clip[item.clip]
        videos[unit].add(item.video)
        if item.source:
            sources[unit].add(item.source)
    return {unit: sorted(sources.get(unit) or videos[unit]) for unit in videos}


def _drawn(seed: int, name: Sequence[str]) -> tuple[int, float]:
    """Returns a unit's key in the random order, and a number in [0, 1)."""
    text = json.dumps([seed, *name])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:14]) / 2**48


def _chosen(sizes: Sequence[int], draws: Sequence[float], share: float) -> list[int]:
    """Returns the units that are members; see `divide`.

    Args:
      sizes: Of the units, in the random order.
      draws: One for each, in [0, 1).
      share: Of the clips.
    """
    taken: list[int] = []
    total = count = 0
    for block in _blocks(sizes):
        counts = [sizes[unit] for unit in block]
        total += sum(counts)
        chances = _chances(counts, share, math.floor(2 * (share * total - count)))
        sums = np.flatnonzero(chances[0])
        left = int(sums[np.argmin(np.abs(sums + count - share * total))])
        count += left
        for k, (unit, size) in enumerate(zip(block, counts, strict=True)):
            other = chances[k + 1, left - size] if size <= left else 0.0
            if draws[unit] * chances[k, left] < share * other:
                taken.append(unit)
                left -= size
    return taken


def _blocks(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yields units that are divided together; units above 2,000 clips come first.

    The last block is full, so that it can correct the number of members.
    """
    found: list[list[int]] = [[]]
    room = _BLOCK
    for unit in reversed(range(len(sizes))):
        if sizes[unit] > _BLOCK:
            continue
        if sizes[unit] > room:
            found.append([])
            room = _BLOCK
        found[-1].append(unit)
        room -= sizes[unit]
    yield from ([unit] for unit, size in enumerate(sizes) if size > _BLOCK)
    yield from filter(None, reversed(found))


def _chances(
    sizes: Sequence[int], share: float, most: int
) -> Float64[np.ndarray, "units_and_one sums"]:
    """Returns, from each unit on, the probability of each sum of sizes up to `most`.

    Each unit is taken with the probability `share`.
    """
    most = max(0, min(most, sum(sizes)))
    found = np.zeros((len(sizes) + 1, most + 1))
    found[-1, 0] = 1.0
    for k in reversed(range(len(sizes))):
        found[k] = (1 - share) * found[k + 1]
        if sizes[k] <= most:
            found[k, sizes[k] :] += share * found[k + 1, : most + 1 - sizes[k]]
    return found


def _row(item: Item, start: str) -> dict[str, object]:
    """Returns a row of a manifest.

    Args:
      item: Of a video file.
      start: Removed from the front of its path.
    """
    path, part = segments.divided(item.clip)
    name = path.removeprefix(start)
    if not os.path.isabs(name) and (":" in name or name != name.strip()):
        name = os.path.join(os.curdir, name)  # It is a path and no address.
    row: dict[str, object] = {"video": name}
    if part is not None:
        row["start"] = part.start
        row |= {} if part.end is None else {"end": part.end}
    for field in ("id", "question", "answer", "group", "source", "date"):
        text = getattr(item, field)
        if text and names.is_text(text):  # A name that is not UTF-8 is no id.
            row[field] = text
    if item.candidates:
        row["candidates"] = list(item.candidates)
    return row
