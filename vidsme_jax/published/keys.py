"""Keys of videos in a list: a YouTube id, a URL, a hash, a file name.

A YouTube id is detected by its URL, or by its form: 11 characters that look random, as
a whole name, at either end of a file name (`v_ID.mp4`, `ID_10_20.mp4`,
`ID-Scene-001.mp4`, `Title-ID.mp4`), in brackets in it (`Title [ID].mkv`), or as the
name of a folder.
"""

import functools
import hashlib
import itertools
import re
import string
from collections.abc import Iterator, Mapping

YOUTUBE, URL, FILE, TEXT = "YouTube id", "address", "file name", "id"
HASHES = {32: "MD5", 40: "SHA-1", 64: "SHA-256"}  # By the number of digits.
PICTURES = {"phash": "pHash", "dhash": "dHash"}  # By a part of the column's name.
# Kinds that different videos may share.
WEAK = (FILE, TEXT, *PICTURES.values())

_ID = r"([A-Za-z0-9_-]{11})"
_ADDRESS = re.compile(
    r"(?:youtube(?:-nocookie)?\.com/(?:watch/?\?|\?|watch\?)(?:[^ ]*[&;])?v=|"
    r"youtube(?:-nocookie)?\.com/(?:embed|shorts|live|v|e)/|youtu\.be/|"
    rf"ytimg\.com/vi/|youtube:){_ID}(?![A-Za-z0-9_-])",
    re.IGNORECASE,
)
_NAME = re.compile(r"([^/\\]+?)(?:\.[A-Za-z0-9]{2,5})?$")
_INSIDE = (
    re.compile(rf"(?:v_|ytb_|yt_|youtube_)?{_ID}(?:$|[^A-Za-z0-9])").match,
    re.compile(rf"(?:v_|ytb_|yt_|youtube_)?{_ID}[_-]").match,
    re.compile(rf"\[{_ID}\]").search,
    re.compile(rf"[_-]{_ID}$").search,
)
_HASH = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{64}|[0-9a-fA-F]{40}|[0-9a-fA-F]{32})(?![0-9A-Za-z])"
)
_HEX = bytes(ord("h" if chr(x) in string.hexdigits else " ") for x in range(256))
_OF_NOTHING = frozenset(  # Hashes of an empty file.
    hashlib.new(name).hexdigest() for name in ("md5", "sha1", "sha256")
)
# A specific name: at least five characters, not only digits.
_SPECIFIC = re.compile(r"(?=.{5}).*[^0-9_. -]", re.DOTALL)
_VIDEO = re.compile(
    r"\.(mp4|mkv|webm|avi|mov|m4v|mpe?g|wmv|flv|gif|ts|3gp|ogv)$", re.IGNORECASE
)
_ON_DISK = re.compile(r"[/\\]|\.[A-Za-z0-9]{2,5}$")
_LONGEST = 500  # Characters of a cell that names a video.
_CHANGES = 4  # Least changes between cases and digits in a YouTube id.
_TRACKING = re.compile(r"(utm_.*|fbclid|gclid)=")
_OF_IDS = re.compile(
    r"(key\d*|entry|line|.*id|id.*|vid|video.*|clip.*|name|source|.*url.*|.*path.*|"
    r"file.*|.*_?key)(\.\d+)?$",
    re.IGNORECASE,
)
# Columns whose texts may mention other videos than the entry's.
_OTHERS = re.compile(
    r"licen[cs]e|thumb|channel|author|user|playlist|caption|question|answer|title|"
    r"conversation|description|comment|prompt|text|transcript|subtitle|candidate",
    re.IGNORECASE,
)


def of_row(row: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Returns the keys of one entry: by kind, each with the column that has it.

    Args:
      row: Its texts, by the name of the column.

    Example:
      >>> of_row({"video": "a/v_dQw4w9WgXcQ.mp4"})["YouTube id"]
      {'dQw4w9WgXcQ': 'video'}
    """
    found: dict[str, dict[str, str]] = {}
    for name, cell in row.items():
        for kind, key in _of_cell(name, cell.strip()):
            found.setdefault(kind, {}).setdefault(key, name)
    return found


def has_unspecific_name(row: Mapping[str, str]) -> bool:
    """Returns whether an entry has a name, even if it is too short to be a key.

    Example:
      >>> has_unspecific_name({"video": "0001.mp4"})
      True
    """
    return any(_OF_IDS.match(name) and cell.strip() for name, cell in row.items())


def has_hash(text: str) -> bool:
    """Returns whether a text contains a file hash as a separate word.

    Example:
      >>> has_hash("its md5: d3b07384d113edec49eaa6238ad5ff00")
      True
    """
    # Fast path: few lists have 32 hex digits in a row.
    plain = text.encode("latin-1", "replace").translate(_HEX)
    return b"h" * 32 in plain and bool(_HASH.search(text))


@functools.lru_cache(maxsize=4096)
def picture_hash(column: str) -> str:
    """Returns the kind of picture hash in a column, by its name, or "".

    Example:
      >>> picture_hash("frame_phash")
      'pHash'
    """
    return next((kind for key, kind in PICTURES.items() if key in _plain(column)), "")


def names_pictures(text: str) -> bool:
    """Returns whether a text contains the name of a column of picture hashes.

    Example:
      >>> names_pictures('{"id": "x", "p_hash": "d3b07384d113edec"}')
      True
    """
    plain = _plain(text)
    return any(key in plain for key in PICTURES)


def _plain(text: str) -> str:
    return text.lower().replace("_", "").replace("-", "")


def _of_cell(name: str, cell: str) -> Iterator[tuple[str, str]]:
    if not 0 < len(cell) <= _LONGEST or picture_hash(name) or _OTHERS.search(name):
        return
    if found := _ADDRESS.findall(cell):
        yield from ((YOUTUBE, key) for key in found)
        return
    if cell.lower().startswith(("http://", "https://")):
        if "youtu" not in cell.partition("?")[0] and _OF_IDS.match(name):
            yield URL, _address(cell)
        cell = cell.partition("?")[0]
        if not _VIDEO.search(cell):
            return
    elif _HASH.fullmatch(cell):
        if cell.lower() not in _OF_NOTHING:
            yield HASHES[len(cell)], cell.lower()
        return
    words = cell.split()[:4] if name == "line" else [cell]
    for text in {cell, *(word.strip("\"'()[]<>,;") for word in words)}:
        yield from _of_name(name, text)


def _of_name(column: str, text: str) -> Iterator[tuple[str, str]]:
    """Yields the keys of a file name or another name."""
    match = _NAME.search(text)
    stem = match[1] if match else ""
    for part in {stem, *re.split(r"[/\\]", text)[:-1]}:
        for found in (pattern(part) for pattern in _INSIDE):
            if found and _is_random(found[1]):
                yield YOUTUBE, found[1]
            elif found and _OF_IDS.match(column):
                yield TEXT, found[1]
    if _OF_IDS.match(column):
        on_disk = _ON_DISK.search(text)
        plain = stem if on_disk else text
        if _SPECIFIC.match(plain):
            yield (FILE if on_disk else TEXT), plain


def _is_random(text: str) -> bool:
    """Returns whether characters look random, as in 93 % of YouTube ids.

    A word such as `Holiday2019` rarely changes between kinds of characters.
    """
    plain = text.replace("_", "").replace("-", "")
    kinds = ["s" if c.islower() else "C" if c.isupper() else "0" for c in plain]
    changes = sum(kind != after for kind, after in itertools.pairwise(kinds))
    return changes >= _CHANGES and {"s", "C"} <= set(kinds)


def _address(text: str) -> str:
    """Returns a normalised URL, without the parts that do not identify the video."""
    whole, _, inside = text.partition("://")[2].partition("#")
    host, _, rest = whole.partition("/")
    path, _, query = rest.partition("?")
    fields = sorted(x for x in query.split("&") if x and not _TRACKING.match(x))
    host = host.lower().removeprefix("www.").removeprefix("m.")
    where = f"#{inside}" if inside.startswith(("/", "!")) else ""
    return f"{host}/{path.rstrip('/')}{'?' * bool(fields)}{'&'.join(fields)}{where}"
