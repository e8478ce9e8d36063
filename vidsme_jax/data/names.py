"""Names of files as people and systems write them, and why one is not found.

A name may differ from the one on disk in its Unicode form, character set, separators or
suffix. Such a file is never used silently: the message names the cause and the remedy.
"""

import bisect
import difflib
import functools
import itertools
import os
import pathlib
import re
import sys
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator

from vidsme_jax.wording import nearest

VIDEO_SUFFIXES = tuple(
    ".mp4 .m4v .mov .mkv .webm .avi .flv .wmv .asf .mpg .mpeg .m2v .vob .ts .m2ts .mts"
    " .3gp .3g2 .ogv .ogg .gif .webp .y4m .h264 .hevc".split()
)
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_DRIVE = re.compile(r"[A-Za-z]:\\")
# Character sets as which UTF-8 is misread, and older ones in which names were written.
_LATIN = ("latin-1", "cp1252", "cp437", "cp850")
_OTHERS = (*_LATIN, "shift_jis", "gbk", "euc_kr", "big5")
_COMPARED = 2000  # Names of a folder compared with a missing one.
_CLOSE = 0.75  # Least similarity of the stems for a suggestion.
_AROUND = 100  # Alphabetical neighbours compared with a missing video, on either side.
_LOOKED_FOR = 1000  # Missing names per folder for which similar ones are searched.

_RENAME = "rename the file, or write its name in the manifest as it is on disk"
_WINDOWS = "the name has the separators of Windows", "write / in place of \\"


def some(listed: Iterable[str], most: int = 5) -> str:
    """Returns the first distinct names, and the number of the others.

    Example:
      >>> some("abcdefg")
      'a, b, c, d, e and 2 more'
    """
    distinct = list(dict.fromkeys(listed))
    rest = len(distinct) - most
    return ", ".join(distinct[:most]) + (f" and {rest} more" if rest > 0 else "")


def configured(name: str) -> pathlib.Path:
    """Returns a path of the configuration, with `~` and `~user` expanded."""
    try:
        return pathlib.Path(name).expanduser()
    except RuntimeError:  # No such user: it can only be a name.
        return pathlib.Path(name)


def unencodable(name: str) -> str:
    """Returns why no file can have a name, or ""."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        if encoding == "utf-8":
            return "it has a lone surrogate, which no file name can have"
        return (
            f"the locale's character set, {encoding}, does not have its characters; "
            "set PYTHONUTF8=1 or LC_ALL=C.UTF-8"
        )
    return ""


def is_text(name: str) -> bool:
    """Returns whether a text can be encoded as UTF-8: it has no lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def near(path: pathlib.Path) -> str:
    """Returns the nearest name in the same folder, as '; did you mean ...?', or "".

    Names that differ in the suffix come before similar ones.
    """
    if not os.path.isdir(path.parent):
        return f" (there is no folder {path.parent} either)"
    try:
        there = sorted(os.listdir(path.parent))
    except OSError as error:
        return f" (the folder {path.parent} cannot be read: {error.strerror})"
    longer = (name for name in there if name.startswith(f"{path.name}."))
    same = (name for name in there if _are_alike(path, pathlib.PurePath(name)))
    if found := next(itertools.chain(longer, same), None):
        return f"; did you mean {found!r}?"
    there.sort(key=lambda name: abs(len(name) - len(path.name)))
    return nearest(path.name, there[:_COMPARED])


def hint_for_missing(path: pathlib.Path) -> str:
    """Returns a suggestion for the name of a missing video of a manifest, or "".

    Cheap, since thousands may be missing: a folder is listed once, and only the
    alphabetical neighbours are compared. Names with other numbers are not suggested.
    """
    if found := why_missing(path):
        return found
    homes = (folder for folder in path.parents if folder.name.startswith("~"))
    if not all(map(os.path.exists, homes)):
        return "; ~ is not expanded in a manifest"
    try:
        there = _listed(str(path.parent), os.stat(path.parent).st_mtime_ns)
    except OSError:
        return ""
    if next(_looked_for(str(path.parent))) >= _LOOKED_FOR:
        return ""
    at = bisect.bisect(there, path.name)
    near_by = there[max(0, at - _AROUND) : at + _AROUND]
    stems = {
        pathlib.PurePath(name).stem: name
        for name in near_by
        if pathlib.PurePath(name).suffix.lower() in VIDEO_SUFFIXES
        and _numbers(name) == _numbers(path.name)
    }
    close = difflib.get_close_matches(path.stem, list(stems), n=1, cutoff=_CLOSE)
    return f"; did you mean {stems[close[0]]!r}?" if close else ""


@functools.lru_cache(maxsize=64)
def _listed(folder: str, changed: int) -> tuple[str, ...]:
    """Lists a folder; cached until its mtime changes."""
    del changed
    return tuple(sorted(os.listdir(folder)))


@functools.lru_cache(maxsize=64)
def _looked_for(folder: str) -> Iterator[int]:
    """Returns the counter of missing names looked up in a folder."""
    del folder
    return itertools.count()


def _numbers(name: str) -> list[str]:
    found = re.findall(r"[0-9]+", pathlib.PurePath(name).stem)
    return [digits.lstrip("0") for digits in found]


def _are_alike(one: pathlib.PurePath, other: pathlib.PurePath) -> bool:
    """Returns whether two files have the same stem and are both videos or neither."""
    kinds = {path.suffix.lower() in VIDEO_SUFFIXES for path in (one, other)}
    return len(kinds) == 1 and one.stem == other.stem


def why_missing(path: pathlib.Path) -> str:
    """Returns the other name under which a missing file exists, and why, or "".

    Example:
      >>> why_missing(pathlib.Path("/videos/clip"))  # doctest: +SKIP
      "; did you mean 'clip.mp4'? the manifest leaves out the suffix; add .mp4"
    """
    at, causes = pathlib.Path(path.anchor), []
    parts = list(path.parts[1:] if path.anchor else path.parts)
    while parts:
        part = parts.pop(0)
        if os.path.exists(at / part):
            at /= part
            continue
        pieces = [piece for piece in part.split("\\") if piece]
        if len(pieces) > 1:
            parts[:0] = pieces[1:] if _DRIVE.match(part) else pieces
            causes.append(_WINDOWS)
            continue
        form = next((f for f in _forms(part) if os.path.exists(at / f[0])), None)
        if form is None:
            return f"; {'; '.join(_WINDOWS)}" if _WINDOWS in causes else ""
        at /= form[0]
        causes.append(form[1:])
    if not causes:
        return ""
    why, remedies = (dict.fromkeys(each) for each in zip(*causes, strict=True))
    shown = at.name if at.parent == path.parent else str(at)
    return f"; did you mean {shown!r}? {', '.join(why)}; {', or '.join(remedies)}"


def _forms(name: str) -> Iterator[tuple[str, str, str]]:
    """Yields alternative names of a file, each with the cause and the remedy."""
    decomposed = unicodedata.normalize("NFD", name)
    composed = unicodedata.normalize("NFC", name)
    for form, which, other in (
        ("NFD", "decomposed", decomposed),
        ("NFC", "composed", composed),
    ):
        if other != name:
            cause = f"its name has the {which} unicode form ({form})"
            yield other, f"{cause}, the manifest another", _RENAME
    if not name.isascii():
        yield from _in_other_characters(name)
    if name != name.strip():
        yield name.strip(), "the manifest has spaces around the name", "remove them"
    if "%" in name and (other := urllib.parse.unquote(name)) != name:
        yield other, "the manifest has the name as in a URL", "write it as it is"
    suffix = pathlib.PurePath(name).suffix
    for change in (str.lower, str.upper):
        other = name[: len(name) - len(suffix)] + change(suffix)
        yield other, "the suffix differs in upper and lower case", _RENAME
    for other in VIDEO_SUFFIXES:
        yield name + other, "the manifest leaves out the suffix", f"add {other}"


@functools.cache
def _in_other_characters(name: str) -> tuple[tuple[str, str, str], ...]:
    found = []
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        found.append(
            (
                os.fsdecode(name.encode("utf-8", "surrogateescape")),
                f"its name is UTF-8, the locale's character set is {encoding}",
                "set PYTHONUTF8=1 or LC_ALL=C.UTF-8",
            )
        )
    for read, written, why, remedy in (
        *((c, "utf-8", *_garbled_manifest(c)) for c in _LATIN),
        *(("utf-8", c, *_garbled_file(c)) for c in _LATIN),
    ):
        try:
            other = name.encode(read).decode(written)
        except UnicodeError:
            continue
        found.append((other, why, remedy))
    for codec in _OTHERS:
        try:
            other = os.fsdecode(name.encode(codec))
        except UnicodeError:
            continue
        why = f"its name on disk is in the character set {codec}, not in UTF-8"
        found.append((other, why, _RENAME))
    return tuple(found)


def _garbled_manifest(codec: str) -> tuple[str, str]:
    why = f"the manifest's UTF-8 was read as {codec} and written again"
    return why, f"write it again as UTF-8, or undo it: recode its names to {codec}"


def _garbled_file(codec: str) -> tuple[str, str]:
    why = f"the UTF-8 of its name was read as {codec}, as by an unpacker"
    return why, _RENAME
