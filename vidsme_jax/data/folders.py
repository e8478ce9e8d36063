"""Folders and patterns: the videos they hold, and the files that are left out.

A folder of numbered pictures is a video only if the searched folder holds no video
file: next to videos, pictures are usually thumbnails.

Linked folders are entered, each folder once, so that link loops end.
"""

import collections
import fnmatch
import glob
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from vidsme_jax.data import frame_folders
from vidsme_jax.data.names import VIDEO_SUFFIXES

PARTIAL = "left over from interrupted downloads"
DANGLING = "broken links"
UNREADABLE = "folders that cannot be read"
BESIDE = (
    "folders of numbered pictures next to videos; give them as a source of their own"
)
_UNFINISHED = re.compile(
    r"\.(part(-frag\d+)?|partial|crdownload|download|opdownload|incomplete|aria2|ytdl"
    r"|filepart|!ut|!qb)$",
    re.IGNORECASE,
)
_WEBP = ".webp"


class Search:
    """Searches for videos in folders and by patterns.

    Attributes:
      left_out: By reason, the paths (as keys) of partial downloads, broken links and
        unreadable folders.
    """

    def __init__(self):
        """Starts without results."""
        self.left_out: dict[str, dict[str, None]] = collections.defaultdict(dict)
        self._names: dict[str, frozenset[str]] = {}  # By folder.

    def videos(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Returns the videos of a folder and its subfolders, sorted.

        These are folders of numbered pictures if there is no video file.
        """
        files, clips = [], []
        for at, entries in self._walk(str(folder)):
            names = [e.path for e in entries if not _is_folder(e)]
            files += names
            hidden = "/." in at.removeprefix(str(folder))
            if not hidden and frame_folders.is_clip(map(os.path.basename, names)):
                clips.append(at)
        found = self._or_folders(filter(self.is_video, files), clips)
        return sorted(map(pathlib.Path, found))

    def among(self, names: Iterable[str]) -> list[str]:
        """Returns the videos among paths, by the rules of `videos`."""
        found = list(filter(self.is_video, names))
        clips = list(filter(os.path.isdir, found))
        return self._or_folders([n for n in found if not os.path.isdir(n)], clips)

    def _or_folders(self, files: Iterable[str], clips: list[str]) -> list[str]:
        """Returns the files or, if there are none, folders of numbered pictures."""
        found = list(files)
        for at in clips if found else ():
            self._leave_out(BESIDE, at)
        return found or clips

    def matches(self, pattern: str) -> list[str]:
        """Returns the paths that match a pattern, sorted; they need not be videos.

        Args:
          pattern: A path in which `*`, `?` and `[...]` match parts of a name without a
            leading dot, and `**` matches any folders; `[[]`, `[*]` and `[?]` match the
            characters themselves. A part that exists literally is taken as a name.
        """
        path = pathlib.PurePath(pattern)
        parts = path.parts[1:] if path.anchor else path.parts
        found = [path.anchor]
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            found = [name for base in found for name in self._step(base, part, last)]
        return sorted(dict.fromkeys(name for name in found if os.path.lexists(name)))

    def is_video(self, name: str) -> bool:
        """Returns whether a path is that of a video.

        Hidden files are skipped: most are metadata of other systems (`._clip.mp4`).
        """
        folder, base = os.path.split(name)
        stem, suffix = os.path.splitext(base)
        if _UNFINISHED.search(base) or (suffix.lower() == ".tmp" and _is_named(stem)):
            self._leave_out(PARTIAL, name)
        elif os.path.isdir(name):
            return not base.startswith(".") and frame_folders.is_clip(
                self._listed(name)
            )
        if base.startswith(".") or not _is_named(base):
            return False
        if not os.path.isfile(name):
            if os.path.islink(name) and not os.path.exists(name):
                self._leave_out(DANGLING, name)
            return False
        if base.lower().endswith(_WEBP) and not _is_animated(name):
            return False  # A picture.
        # aria2 allocates the whole file first; Firefox creates an empty one.
        siblings = self._listed(folder or ".")
        begun = f"{base}.part" in siblings and not os.path.getsize(name)
        if begun or f"{base}.aria2" in siblings:
            self._leave_out(PARTIAL, name)
            return False
        return True

    def _leave_out(self, why: str, name: str) -> None:
        self.left_out[why][name] = None

    def _listed(self, folder: str) -> frozenset[str]:
        """Returns the names in a folder, read once; none if it cannot be read."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._names[folder] = frozenset()
        return self._names[folder]

    def _walk(
        self, top: str, *, hidden: bool = True
    ) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        """Yields a folder and all its subfolders, each with its sorted entries.

        Each is entered once, by its real path if possible: links come last.

        Args:
          top: The folder.
          hidden: Whether hidden folders are entered.
        """
        own, linked, seen = [top], collections.deque(), set()
        while own or linked:
            at = own.pop() if own else linked.popleft()
            try:
                about = os.stat(at)
                if (about.st_dev, about.st_ino) in seen:
                    continue
                seen.add((about.st_dev, about.st_ino))
                with os.scandir(at) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                self._leave_out(UNREADABLE, f"{at}: {error.strerror}")
                continue
            yield at, entries
            for entry in filter(_is_folder, entries):
                if entry.name.startswith(".") and not hidden:
                    continue
                if entry.name.lower().endswith(".download"):  # Safari's.
                    self._leave_out(PARTIAL, entry.path)
                else:
                    (linked if entry.is_symlink() else own).append(entry.path)

    def _step(self, base: str, part: str, last: bool) -> Iterator[str]:
        """Yields the matches of one part of a pattern in a folder."""
        if part == "**":
            for at, entries in self._walk(base or ".", hidden=False):
                at = at if base else os.path.relpath(at)
                yield at
                if last:
                    shown = (e.name for e in entries if not e.name.startswith("."))
                    yield from (_joined(at, name) for name in shown)
        elif not glob.has_magic(part) or os.path.lexists(_joined(base, part)):
            yield _joined(base, part)
        elif os.path.isdir(base or "."):
            try:
                names = os.listdir(base or ".")
            except OSError as error:
                self._leave_out(UNREADABLE, f"{base}: {error.strerror}")
                return
            for name in fnmatch.filter(names, part):
                if not name.startswith(".") or part.startswith("."):
                    yield _joined(base, name)


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else os.path.join(folder, name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _is_animated(name: str) -> bool:
    """Returns whether a WebP is animated; True if it cannot be read."""
    try:
        with open(name, "rb") as file:
            head = file.read(21)
    except OSError:
        return True
    return len(head) < 21 or bool(head[8:16] == b"WEBPVP8X" and head[20] & 2)


def _is_named(name: str) -> bool:
    """Returns whether a name has the suffix of a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES
