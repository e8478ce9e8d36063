"""Looks up videos in published training lists."""

import collections
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from vidsme_jax.base import AuditError
from vidsme_jax.data.folders import Search
from vidsme_jax.published import entries, hashes, keys
from vidsme_jax.published.entries import FIRST, Cells, Entry
from vidsme_jax.published.hashes import Pictures
from vidsme_jax.published.sieve import Sieve
from vidsme_jax.store import regular
from vidsme_jax.wording import counted, printable

_NAMES = ("video", "path", "file", "filename", "video_path", "name", "url", "id")
_NAMES += ("video_id", "videoID", "youtube_id", "line", "entry")
_NEAR = 8  # Largest Hamming distance of 64-bit hashes of similar pictures.
_MOST = 1000  # Most hits of one strong key.
_SHARE = 0.05  # Least share of the entries of a kind of key that is noted.
_COMMON = 20  # A weak key in more entries than this is ignored.


class Video(NamedTuple):
    """A video to look up.

    Attributes:
      id: The id in the manifest, else the name of the video.
      video: Its name in the manifest.
      file: Its file, if it exists.
      keys: Its keys by kind, each with its column.
    """

    id: str
    video: str
    file: pathlib.Path | None
    keys: dict[str, dict[str, str]]


class Hit(NamedTuple):
    """An entry of a list that names a video.

    Attributes:
      id: The id of the video.
      video: The name of the video.
      list: The name of the list.
      row: The number of the entry.
      how: The kind of the shared key; see `keys`.
      identity: Whether the key identifies the video; else a match is only possible.
      entry: The shared text.
    """

    id: str
    video: str
    list: str
    row: int
    how: str
    identity: bool
    entry: str


class ListInfo(TypedDict):
    """A list: its path, SHA-256, number of entries, and notes."""

    name: str
    sha256: str
    rows: int
    notes: list[str]


def videos(manifest: str, *, root: str = "") -> list[Video]:
    """Returns the videos of a manifest or a folder, with their keys.

    Args:
      manifest: A list that `entries.read` reads, or a folder of videos.
      root: The base of relative names of videos; "": the manifest's folder.

    Raises:
      AuditError: It cannot be read, is empty, or an entry names two videos.
    """
    path = pathlib.Path(manifest).expanduser()
    rows: list[tuple[int, Cells]] = []
    if of_folder := path.is_dir():
        # Named as an audit of the folder names them.
        found = (os.path.relpath(file, path) for file in Search().videos(path))
        rows = [(k, {"video": name}) for k, name in enumerate(found, 1)]
    else:
        for entry in entries.read(path, lambda texts: range(len(texts))):
            if isinstance(entry, Entry):
                rows.append(entry)
    base = pathlib.Path(root).expanduser() if root else path.parent
    base = path if of_folder else base
    made, problems = list[Video](), list[str]()
    for number, cells in rows:
        row_keys = keys.of_row(cells)
        two = row_keys.get(keys.YOUTUBE, {})
        if len(set(two.values())) > 1:
            listed = ", ".join(f"{key} ({column})" for key, column in two.items())
            problems.append(
                f"{printable(manifest)}: row {number} names several YouTube videos: "
                f"{printable(listed, 200)}; leave all but one of them out"
            )
        video = next((cells[x] for x in _NAMES if cells.get(x)), "")
        video = video or next(iter(cells.values()), "")
        name = cells.get("id") or video
        made.append(Video(name, video, _file(base, video), row_keys))
    if problems:
        raise AuditError(problems)
    if not made:
        raise AuditError([f"{printable(manifest)}: it has no videos to look up"])
    if not any(video.keys or video.file for video in made):
        raise AuditError(
            [
                f"{printable(manifest)}: none of {counted(len(made), 'row')} names a "
                "video; name each by an id, a URL, a hash, or a file name of at least "
                "five characters that are not only digits"
            ]
        )
    return made


def look_up(wanted: Sequence[Video], lists: Iterable[str]) -> dict[str, Any]:
    """Looks up videos in lists.

    Args:
      wanted: The videos.
      lists: Paths of lists.

    Returns:
      JSON-ready: `lists`, each with `name`, `sha256`, `rows` and `notes`; `looked_up`,
      the number of videos; `files`, how many of their files are here; `hits`, with the
      fields of `Hit`, those with `identity` first; and `statement`.

    Raises:
      AuditError: Lists cannot be read; names all of them.
    """
    problems: list[str] = []
    infos, hits = list[ListInfo](), list[Hit]()
    for name in dict.fromkeys(lists):
        try:
            info, found = _in_list(wanted, pathlib.Path(name).expanduser())
            infos.append(info)
            hits += found
        except AuditError as error:
            problems += error.problems
    if problems:
        raise AuditError(problems)
    hits.sort(key=lambda hit: not hit.identity)
    found = {
        "lists": infos,
        "looked_up": len(wanted),
        "files": sum(video.file is not None for video in wanted),
        "hits": [hit._asdict() for hit in hits],
    }
    return found | {"statement": statement(found)}


def statement(found: dict[str, Any]) -> str:
    """Returns the result of `look_up` and its meaning, in words."""
    total = counted(found["looked_up"], "video")
    lists = ", ".join(map(_list_in_words, found["lists"]))
    sure = {x["video"] for x in found["hits"] if x["identity"]}
    maybe = {x["video"] for x in found["hits"]} - sure
    of = "Of another" if sure else "Of"
    other = (
        f" {of} {counted(len(maybe), 'video')} an entry "
        "has the same name or a similar picture, which need not be the same video: "
        "compare them."
    ) * bool(maybe)
    if lacking := found["looked_up"] - found["files"]:
        other += (
            f" The files of {lacking} of {total} are not here: only names, ids and "
            "addresses of these were compared, no content."
        )
    if sure:
        kinds = sorted({x["how"] for x in found["hits"] if x["identity"]})
        return (
            f"{len(sure)} of {total} {'is' if len(sure) == 1 else 'are'} named in a "
            f"list, by {' or '.join(kinds)}: {lists}.{other} If the list is the "
            "published one of a model's training data, which was not checked here, its "
            "publisher states that these were used; that outweighs any score. Whether "
            "this model was trained on that list must be shown from its documentation."
        )
    return (
        f"None of {total} is named for certain in {lists}.{other} This says nothing "
        "about lists that were not published or not searched."
    )


def _list_in_words(info: ListInfo) -> str:
    entries_ = "entry" if info["rows"] == 1 else "entries"
    return f"{printable(info['name'], 100)} ({info['rows']:,} {entries_})"


def _in_list(wanted: Sequence[Video], path: pathlib.Path) -> tuple[ListInfo, list[Hit]]:
    """Returns the description of a list, and the hits in it."""
    index = _index(wanted)
    name, rows, unspecific, left_out = str(path), 0, 0, 0
    sieve, hashed, passed = Sieve(key for _, key in index), False, FIRST
    pictured = False  # Once True, all entries are parsed for their picture hashes.
    likely: set[int] = set()  # Rows of the current block that may have a key.
    seen: dict[str, None] = {}
    pictures: dict[str, Pictures] = collections.defaultdict(Pictures)
    kinds: collections.Counter[str] = collections.Counter()
    common: collections.Counter[tuple[str, str, str]] = collections.Counter()
    hits: list[Hit] = []

    def hash_files() -> None:
        """Hashes the video files and adds the hashes to the index."""
        nonlocal hashed, sieve
        hashed = True
        for video in wanted:
            for kind, key in hashes.of_file(video.file).items():
                index[kind, key].append((video, True))
        sieve = Sieve(key for _, key in index)

    def choose(texts: Sequence[str]) -> Sequence[int]:
        """Returns the indices of the texts to parse; see `entries.read`."""
        nonlocal passed, pictured, likely
        joined = "\n".join(texts)
        if not hashed and keys.has_hash(joined):
            hash_files()
        pictured = pictured or bool(pictures) or keys.names_pictures(joined)
        places = sieve(texts)
        likely = {passed + place + 1 for place in places}
        passed += len(texts)
        return range(len(texts)) if pictured else places

    for entry in entries.read(path, choose):
        if isinstance(entry, int):
            rows = entry
            continue
        for column, cell in entry.cells.items():
            if entry.row <= FIRST:
                seen[column] = None
            if kind := keys.picture_hash(column):
                pictures[kind].add(entry.row, cell)
        if FIRST < entry.row and entry.row not in likely:
            continue
        found = keys.of_row(entry.cells)
        if entry.row <= FIRST:
            kinds.update(list(found)[:1])
            unspecific += not found and keys.has_unspecific_name(entry.cells)
        if not hashed and set(found) & set(keys.HASHES.values()):
            hash_files()
        for kind, of_kind in found.items():
            for key in of_kind:
                for video, sure in index.get((kind, key), ()):
                    common[video.video, kind, key] += 1
                    if common[video.video, kind, key] <= (_MOST if sure else _COMMON):
                        hits.append(Hit(*video[:2], name, entry.row, kind, sure, key))
                    else:
                        left_out += 1
    before = len(hits)
    hits = [
        hit
        for hit in hits
        if hit.identity or common[hit.video, hit.how, hit.entry] <= _COMMON
    ]
    left_out += before - len(hits)
    hits += _similar(wanted, pictures, name)
    if not rows:
        raise AuditError([f"{printable(name)}: the list is empty"])
    if not kinds and not pictures and not unspecific:
        shown = ", ".join(printable(x, 40) for x in list(seen)[:5]) or "none"
        raise AuditError(
            [
                f"{printable(name)}: none of its first entries names a video by an id, "
                f"a URL, a file or a hash (its columns: {shown}); is it a list of "
                "videos?"
            ]
        )
    notes = _notes(kinds, unspecific, left_out)
    info = ListInfo(name=name, sha256=regular.sha256(path), rows=rows, notes=notes)
    return info, _distinct(hits)


def _index(
    wanted: Sequence[Video],
) -> dict[tuple[str, str], list[tuple[Video, bool]]]:
    """Returns the videos of each key, and whether the key identifies the video.

    A YouTube id is also compared with other ids as a weak key, and the reverse.
    """
    index = collections.defaultdict[tuple[str, str], list[tuple[Video, bool]]](list)
    for video in wanted:
        for kind, of_kind in video.keys.items():
            for key in of_kind:
                index[kind, key].append((video, kind not in keys.WEAK))
                other = {keys.YOUTUBE: keys.TEXT, keys.TEXT: keys.YOUTUBE}.get(kind)
                if other and key not in video.keys.get(other, {}):
                    index[other, key].append((video, False))
    return index


def _similar(
    wanted: Sequence[Video], pictures: Mapping[str, Pictures], name: str
) -> list[Hit]:
    """Returns the entries with a picture hash near that of a frame of a video."""
    found: list[Hit] = []
    for kind, theirs in pictures.items():
        for video in wanted:
            if video.file is not None:
                ours = hashes.of_pictures(video.file, kind)
                for row, bits in theirs.near(ours, _NEAR):
                    text = f"{bits} of 64 bits differ"
                    found.append(Hit(*video[:2], name, row, kind, False, text))
    return found


def _distinct(hits: list[Hit]) -> list[Hit]:
    """Returns one hit per video and entry, preferring those with identity."""
    best: dict[tuple[str, str, int], Hit] = {}
    for hit in sorted(hits, key=lambda hit: not hit.identity):
        best.setdefault((hit.id, hit.video, hit.row), hit)
    return sorted(best.values(), key=lambda hit: hit.row)


def _notes(
    kinds: collections.Counter[str], unspecific: int, left_out: int
) -> list[str]:
    """Returns notes on the kinds of keys in a list, and on entries left out."""
    notes: list[str] = []
    if unspecific:
        notes.append(
            f"{unspecific} of its first entries have names of digits alone or of fewer "
            "than five characters, which many videos have: they were not compared"
        )
    if left_out:
        notes.append(
            f"{left_out} entries with a name that more than {_COMMON} entries have, or "
            f"with a key that more than {_MOST} have, were left out"
        )
    rare = _SHARE * kinds.total()
    common = [(kind, count) for kind, count in kinds.most_common() if count >= rare]
    if len(common) > 1:
        listed = ", ".join(f"{kind} {count}" for kind, count in common)
        notes.append(f"its first entries name videos in several ways: {listed}")
    return notes


def _file(base: pathlib.Path, video: str) -> pathlib.Path | None:
    """Returns the file of a video; None if it does not exist."""
    try:
        path = base / video
        return path if video and path.is_file() else None
    except (OSError, ValueError):
        return None
