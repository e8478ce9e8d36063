"""Local files of videos that a manifest names by URL.

Nothing is fetched. `corpus.urls` maps URLs to files: a table with the columns `url` and
`file`, a folder, or a path with `{id}` in place of the video's id in the URL, such as
`videos/{id}.mp4`, as yt-dlp may name files.
"""

import os
import pathlib
import re
import urllib.parse
from typing import Any

from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data import cells, manifests, names
from vidsme_jax.data.cells import Address
from vidsme_jax.wording import nearest, printable

SCHEME = "url:"  # Prefix of the key of a clip without a file.
_ID = "{id}"
_URL = re.compile(r"https?://\S", re.IGNORECASE)
_NAME = re.compile(r"[\w.~-]{1,200}", re.ASCII)  # An id that may be a file name.
_IN_BRACKETS = re.compile(r"\[([^\[\]]+)\]$")  # As yt-dlp ends names: "A film [ID]".
_YOUTUBE = re.compile(r"(www\.|m\.|music\.)?youtube(-nocookie)?\.com")
_PAGES = ("shorts", "embed", "live", "v", "e")  # Precede an id in YouTube's paths.
_LONGEST = 200  # Characters of a URL in a message.
_LISTED = 20  # Problems.


def is_url(video: Any) -> bool:
    """Returns whether a cell is an http or https URL."""
    return isinstance(video, str) and _URL.match(video) is not None


def id_of(url: str) -> str:
    """Returns the id of a URL's video; "" if it cannot be a file name.

    This is YouTube's id or, elsewhere, the last part of the path without its suffix.

    Example:
      >>> id_of("https://youtu.be/dQw4w9WgXcQ?t=3"), id_of("http://a.org/films/b.mp4")
      ('dQw4w9WgXcQ', 'b')
    """
    found = _youtube(url) or pathlib.PurePosixPath(_parts(url).path).stem
    return found if _NAME.fullmatch(found) and found.strip(".") else ""


class Files:
    """The local files of URLs.

    Attributes:
      folder: The base of the files' paths.
    """

    def __init__(self, given: str, root: pathlib.Path | None = None):
        """Reads the table, or the names in the folder.

        Args:
          given: `corpus.urls`.
          root: `corpus.video_root`, the base of paths in a table; None: the table's
            folder.

        Raises:
          AuditError: There is no such table or folder, or two files of one URL; lists
            at most 20 problems.
        """
        path = names.configured(given)
        self._given = given
        # By the normalised URL; see `_same`.
        self._files: dict[tuple[str, ...], str] = {}
        self._stems: dict[str, str] = {}
        self._template = ""
        problems: list[str] = []
        if _ID in given:
            before = given.partition(_ID)[0]
            self.folder = names.configured(os.path.dirname(before) or os.curdir)
            self._template = os.path.relpath(path, self.folder)
            if not self.folder.is_dir():
                problems.append(
                    f"no such folder: {self.folder}{names.near(self.folder)}"
                )
        elif os.path.isdir(path):
            self.folder = path
            problems += self._list(path)
        elif path.suffix.lower() in manifests.READERS:
            self.folder = root or path.parent
            problems += self._read(given, path)
        else:
            problems.append(
                f"{given!r} is not a table ({', '.join(manifests.READERS)}), a folder, "
                f"or a path with {_ID}{names.near(path.absolute())}"
            )
        if len(problems) > _LISTED:
            rest = len(problems) - _LISTED + 1
            problems[_LISTED - 1 :] = [f"and {rest} more problems of its rows"]
        if problems:
            raise AuditError([f"corpus.urls: {problem}" for problem in problems])

    def video(self, url: str) -> str:
        """Returns the file of a URL, relative to `folder`, or an `Address` without one.

        The file need not exist: this is checked when its clip is decoded.
        """
        found = self._files.get(_same(url), "")
        name = "" if self._files else id_of(url)
        if not found and name:
            found = (
                self._template.replace(_ID, name)
                if self._template
                else self._stems.get(name, "")
            )
        return found or Address(f"{SCHEME}{url}", url)

    def _list(self, folder: pathlib.Path) -> list[str]:
        """Indexes the videos in a folder by stem or bracketed id; returns problems."""
        problems = []
        try:
            listed = sorted(os.listdir(folder))
        except OSError as error:
            return [f"the folder {folder} cannot be read ({error.strerror})"]
        for name in listed:
            stem, suffix = os.path.splitext(name)
            if name.startswith(".") or suffix.lower() not in names.VIDEO_SUFFIXES:
                continue
            found = _IN_BRACKETS.search(stem)
            key = found[1] if found else stem
            if (other := self._stems.setdefault(key, name)) != name:
                both = printable(f"{other!r} and {name!r}", 2 * _LONGEST)
                problems.append(f"two files of {key!r} in {folder}: {both}; remove one")
        if not self._stems and not problems:
            problems.append(f"no video in the folder {folder}")
        return problems

    def _read(self, given: str, path: pathlib.Path) -> list[str]:
        """Indexes the rows of a table by URL; returns problems."""
        columns, raw = manifests.read(given, path, {"url", "file"})
        if lacking := [name for name in ("url", "file") if name not in columns]:
            listed = printable(", ".join(map(str, columns)), 1000)
            near = nearest(lacking[0], [str(name) for name in columns])
            return [f"{given}: no column {lacking[0]!r}; its columns: {listed}{near}"]
        problems = []
        for place, row in raw:
            row = row if isinstance(row, dict) else {}
            url, file = row.get("url"), row.get("file")
            if not is_url(url):
                problems.append(
                    f"{given}: {place}: 'url' is {cells.quoted(url)}; it must "
                    "begin with http:// or https://"
                )
            elif problem := cells.not_a_path(file):
                problems.append(
                    f"{given}: {place}: 'file' is {cells.quoted(file)}; {problem}"
                )
            elif (other := self._files.setdefault(_same(str(url)), str(file))) != file:
                problems.append(
                    f"{given}: {place}: another file of {_shown(str(url))} is "
                    f"{other!r}; leave one"
                )
        return problems


def no_file_error(url: str) -> ClipError:
    """Returns the error of a URL without a file."""
    return ClipError(
        "open",
        f"corpus.urls gives no file of this machine for {_shown(url)}; nothing is "
        "fetched from the network",
    )


def _same(url: str) -> tuple[str, ...]:
    """Returns a normalised URL: equal for equivalent spellings."""
    if name := _youtube(url):
        return "youtube", name
    parts = _parts(url)
    if not parts.scheme:  # It cannot be parsed, and equals only itself.
        return (url,)
    path = urllib.parse.unquote(parts.path).rstrip("/")
    return parts.netloc.lower(), path, parts.query


def _youtube(url: str) -> str:
    """Returns the id of a video of YouTube, or ""."""
    parts = _parts(url)
    host, path = parts.netloc.lower(), [x for x in parts.path.split("/") if x]
    if host == "youtu.be":
        return path[0] if path else ""
    if not _YOUTUBE.fullmatch(host):
        return ""
    if len(path) > 1 and path[0] in _PAGES:
        return path[1]
    return urllib.parse.parse_qs(parts.query).get("v", [""])[0]


def _parts(url: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(url)
    except ValueError:  # Invalid brackets in the host.
        return urllib.parse.SplitResult("", "", "", "", "")


def _shown(url: str) -> str:
    return printable(repr(url), _LONGEST)
