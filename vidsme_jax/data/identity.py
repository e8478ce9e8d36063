"""Names of rows and clips: the ids of rows, the keys of clips.

Also checks which files a manifest may name: its author may not be trusted.
"""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from absl import logging

from vidsme_jax.base import Item
from vidsme_jax.data import links, segments
from vidsme_jax.data.cells import Address, Named
from vidsme_jax.data.manifest_rows import Row
from vidsme_jax.data.sources import is_address, some
from vidsme_jax.wording import counted


def items_of(rows: Sequence[tuple[str, Row]]) -> tuple[tuple[Item, ...], list[str]]:
    """Returns the items of rows, with their ids and the keys of their clips.

    Args:
      rows: Each with its role.

    Returns:
      The items, and the problems of ids that several videos share.
    """
    paths, folder, base = [], None, ""
    for _, row in rows:
        video = row.video
        if row.folder is not folder:
            folder, base = row.folder, os.path.join(row.folder, "")
        if isinstance(video, Address):
            paths.append("")
        else:
            paths.append(video if video.startswith(os.sep) else base + video)
    distinct = list(dict.fromkeys(filter(None, paths)))
    real = dict(zip(distinct, links.resolved(distinct), strict=True))
    keys, videos = [], []
    for (_, row), path in zip(rows, paths, strict=True):
        video, part = row.video, row.segment
        keys.append(segments.joined(real[path] if path else str(video), part))
        video = video.shown if isinstance(video, Named) else str(video)
        videos.append(video if part is None else f"{video}{part}")
    names, problems = _names([row for _, row in rows], keys, videos)
    items = []
    for (role, row), name, key, video in zip(rows, names, keys, videos, strict=True):
        asked = row.question, row.answer, row.candidates
        about = row.origin, row.date
        items.append(Item(name, video, key, role, row.group, *asked, *about))
    return tuple(items), problems


def repeated(ids: Iterable[tuple[str, str]]) -> list[str]:
    """Returns the problems of repeated ids; empty ids are skipped.

    Args:
      ids: Each with its place.
    """
    places = collections.defaultdict(list)
    for name, where in ids:
        places[name].append(where)
    return [
        f"id {name!r} is given {len(where)} times, at {some(where)}; ids must be "
        "unique in the corpus"
        for name, where in places.items()
        if name and len(where) > 1
    ]


def outside(rows: Sequence[Row], items: Sequence[Item]) -> list[str]:
    """Returns the problems of videos that a manifest names outside of its folder.

    Links are followed, except from a snapshot of the Hugging Face hub to the blobs of
    its repository. Folders, globs and manifests in the configuration are trusted; the
    content of a manifest is not.
    """
    found = collections.defaultdict(list)
    folder, root, may_be_in = None, pathlib.Path(), ()
    for row, item in zip(rows, items, strict=True):
        if not row.confined:
            continue
        if row.folder is not folder:
            folder, (root, may_be_in) = row.folder, links.inside(row.folder)
        if not item.clip.startswith(may_be_in) and not is_address(item.clip):
            found[root].append(f"{row.where}: {item.video!r}")
    return [
        f"{counted(len(names), 'row')} of manifests "
        f"{'names' if len(names) == 1 else 'name'} videos outside of {root}: "
        f"{some(names)}; set corpus.video_root to a folder that holds them all or, if "
        "you trust the manifests, corpus.allow_outside=true"
        for root, names in found.items()
    ]


def _names(
    rows: Sequence[Row], keys: Sequence[str], videos: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Returns the id of each row, and the problems of explicit ids."""
    real = set(videos)  # A made-up name such as "a#2" may be that of a file.
    if len(real) == len(videos) and not any(row.id for row in rows):
        return list(videos), []
    by_id: dict[str, list[int]] = collections.defaultdict(list)
    for place, row in enumerate(rows):
        if row.id:
            by_id[row.id].append(place)
    faulty: list[list[int]] = []
    several: list[list[int]] = []
    for places in by_id.values():
        if len(places) > 1:
            files = {segments.divided(keys[place])[0] for place in places}
            asked = {(keys[place], *_asks(rows[place])) for place in places}
            same = len(files) > 1 or len(asked) < len(places)
            (faulty if same else several).append(places)
    problems = repeated((rows[k].id, rows[k].where) for same in faulty for k in same)

    def distinct(name: str) -> Iterator[str]:
        yield name
        number = 1
        while True:
            number += 1
            if f"{name}#{number}" not in by_id:
                yield f"{name}#{number}"

    names = [row.id for row in rows]
    for places in several:
        made = distinct(names[places[0]])
        for place in places:
            names[place] = next(made)
    if several:
        first = [names[place] for place in several[0]]
        logging.info(
            "%d ids are shared by several questions about one video; they are made "
            "distinct, such as %s",
            len(several),
            some(first),
        )
    made_up: dict[str, Iterator[str]] = {}
    taken = set(names)
    for place, video in enumerate(videos):
        if names[place]:
            continue
        if video in taken:
            if video not in made_up:
                made_up[video] = distinct(video)
            free = (x for x in made_up[video] if x not in real)
            names[place] = next(x for x in free if x not in taken)
        else:
            names[place] = video
        taken.add(names[place])
    return names, problems


def _asks(row: Row) -> tuple[object, ...]:
    return row.question, row.candidates, row.answer
