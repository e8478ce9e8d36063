"""What names a video in a list: an id of YouTube, an address, a hash, a file name.

An id of YouTube is known by its address, or by its form: 11 characters, small letters
and capitals among them, as a whole, at the beginning of a file's name (`v_ID.mp4`,
`ID_10_20.mp4`, `ID-Scene-001.mp4`), or in brackets at its end (`Title [ID].mkv`).
"""

import re
from collections.abc import Iterator, Mapping

YOUTUBE, URL, FILE, TEXT = "YouTube id", "address", "file name", "id"
HASHES = {32: "MD5", 40: "SHA-1", 64: "SHA-256"}  # By the number of digits.
PICTURES = {"phash": "pHash", "dhash": "dHash"}  # By what a column's name has.
# What two videos may have in common and not be the same.
WEAK = (FILE, TEXT, *PICTURES.values())

_ID = r"([A-Za-z0-9_-]{11})"
_ADDRESS = re.compile(
    r"(?:youtube(?:-nocookie)?\.com/(?:watch\?(?:[^ ]*&)?v=|embed/|shorts/|live/|v/|e/)"
    rf"|youtu\.be/){_ID}(?![A-Za-z0-9_-])"
)
_NAME = re.compile(r"([^/\\]+?)(?:\.[A-Za-z0-9]{2,5})?$")
_BEGINS = re.compile(rf"(?:v_|ytb_|yt_|youtube_)?{_ID}(?:$|[^A-Za-z0-9])")
_DIVIDED = re.compile(rf"(?:v_|ytb_|yt_|youtube_)?{_ID}[_-]")
_BRACKETS = re.compile(rf"\[{_ID}\]$")
_HEX = re.compile(r"[0-9a-fA-F]{32,64}$")
_SMALL, _CAPITAL = re.compile("[a-z]"), re.compile("[A-Z]")
# A name that says something: five characters, and not digits alone.
_TELLING = re.compile(r"(?=.{5}).*[^0-9_. -]", re.DOTALL)
_VIDEO = re.compile(
    r"\.(mp4|mkv|webm|avi|mov|m4v|mpe?g|wmv|flv|gif|ts|3gp|ogv)$", re.IGNORECASE
)
_ON_DISK = re.compile(r"[/\\]|\.[A-Za-z0-9]{2,5}$")
_LONGEST = 500  # Characters of a cell that names a video.
_TRACKING = re.compile(r"(utm_.*|si|feature|t|ab_channel|pp|fbclid|gclid)=")
_OF_IDS = re.compile(
    r"(key\d?|entry|line|.*id|id.*|vid|video.*|clip.*|name|source|.*url.*|.*path.*|"
    r"file.*|.*_?key)(\.\d)?$",
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


def picture_hash(column: str) -> str:
    """Returns which hash of pictures a column has, by its name, or "".

    Example:
      >>> picture_hash("frame_phash")
      'pHash'
    """
    plain = column.lower().replace("_", "").replace("-", "")
    return next((kind for key, kind in PICTURES.items() if key in plain), "")


def _of_cell(name: str, cell: str) -> Iterator[tuple[str, str]]:
    if not 0 < len(cell) <= _LONGEST or picture_hash(name):
        return
    if match := _ADDRESS.search(cell):
        yield YOUTUBE, match[1]
        return
    if cell.startswith(("http://", "https://")):
        if "youtu" not in cell.partition("?")[0]:
            yield URL, _address(cell)
        if not _VIDEO.search(cell.partition("?")[0]):
            return
        cell = cell.partition("?")[0]
    elif _HEX.match(cell) and len(cell) in HASHES:
        yield HASHES[len(cell)], cell.lower()
        return
    match = _NAME.search(cell)
    stem = match[1] if match else ""
    for pattern in (_BEGINS.match, _DIVIDED.match, _BRACKETS.search):
        if (match := pattern(stem)) and _is_mixed(match[1]):
            yield YOUTUBE, match[1]
    if _OF_IDS.match(name):
        on_disk = _ON_DISK.search(cell)
        text = stem if on_disk else cell
        if _TELLING.match(text):
            yield (FILE if on_disk else TEXT), text


def _is_mixed(text: str) -> bool:
    """Whether an id has small letters and capitals, as 994 in 1000 of YouTube's."""
    return bool(_SMALL.search(text) and _CAPITAL.search(text))


def _address(text: str) -> str:
    """Returns an address without what does not say which video it is."""
    host, _, rest = text.partition("://")[2].partition("#")[0].partition("/")
    path, _, query = rest.partition("?")
    kept = sorted(x for x in query.split("&") if x and not _TRACKING.match(x))
    host = host.lower().removeprefix("www.").removeprefix("m.")
    return f"{host}/{path.rstrip('/')}{'?' * bool(kept)}{'&'.join(kept)}"
