"""Reads lists of any common format, entry by entry, in bounded memory.

JSON (a list; an object of lists, or of entries by id; concatenated values), JSON lines,
CSV, TSV, Parquet, and text with an entry per line; also compressed with gzip. Values of
an entry other than text, such as numbers, are left out.
"""

import csv
import io
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vidsme_jax.base import AuditError
from vidsme_jax.data import names
from vidsme_jax.store import regular
from vidsme_jax.wording import printable

FORMS = "JSON, JSON lines, CSV, TSV, Parquet, or text with an entry per line"
_FORMS = {
    ".json": "JSON",
    **dict.fromkeys((".jsonl", ".ndjson"), "JSON lines"),
    ".csv": "CSV",
    ".tsv": "TSV",
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
    **dict.fromkeys((".txt", ".list", ".lst", ".ids"), "text"),
    **dict.fromkeys((".md5", ".sha1", ".sha256"), "text"),
}
_ROWS = 20_000  # Entries read at a time.
FIRST = 1000  # Entries that are all yielded, to detect the columns of a list.
_CHUNK = 1 << 20  # Characters read at a time.
_LARGE = 1 << 20  # Characters above which a JSON object is not one entry.
_MOST = 1 << 24  # Characters of one value.
_DEPTH, _ITEMS = 3, 1000  # Limits of nesting in an entry: levels, members.
_MANY = 8  # More members than this make a nested list one of entries.

# A line of `md5sum` and similar tools.
_CHECKSUM = re.compile(r"\\?([0-9a-fA-F]{32,64}) [ *](.+)")
# Names of columns, without "_", "-" and spaces, that identify a header line.
_HEADERS = frozenset(
    "id ids key video videos videoid videopath videofile videoname vid clip clipid "
    "youtube youtubeid ytid yid url urls link path file files filename filepath name "
    "title caption captions text question answer label source date start end duration "
    "split category hash md5 sha1 sha256 phash dhash framephash framedhash".split()
)
_SHORTEST = 11  # Characters of a JSON key that may be an id.
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=\{)")

_DAMAGED = (OSError, EOFError, ValueError, LookupError, RecursionError, MemoryError)

Cells = dict[str, str]
Choose = Callable[[Sequence[str]], Sequence[int]]


class Entry(NamedTuple):
    """One entry of a list.

    Attributes:
      row: Its number, from 1, without header lines.
      cells: Its texts, by name of the column.
    """

    row: int
    cells: Cells


class _Raw(NamedTuple):
    """An entry that is not parsed yet."""

    text: str
    parse: Callable[[Any], Cells]  # Parses `value`.
    value: Any


def read(path: pathlib.Path, choose: Choose) -> Iterator[Entry | int]:
    """Yields the first 1000 entries of a list, and the chosen ones of the others.

    Args:
      path: Of the list.
      choose: Takes raw texts of entries, and returns the indices of those to parse; all
        cells of an entry are substrings of its text.

    Yields:
      Entries, and finally their total number.

    Raises:
      AuditError: The list is missing, of an unknown format, or damaged.
    """
    form = form_of(path)
    count = 0
    try:
        raw = _of_parquet(path) if form == "Parquet" else _of_text(path, form)
        while some := list(itertools.islice(raw, FIRST if not count else _ROWS)):
            texts = [each.text for each in some]
            if not count and any("\0" in text for text in texts):
                raise ValueError("it has NUL bytes; is it UTF-16? convert it to UTF-8")
            for place in choose(texts) if count else range(len(some)):
                yield Entry(count + place + 1, some[place].parse(some[place].value))
            count += len(some)
    except (*_DAMAGED, csv.Error, pa.ArrowException) as error:
        cause = printable(f"{error}" or type(error).__name__, 200)
        problem = f"{printable(str(path))}: cannot be read as {form} ({cause})"
        raise AuditError([problem]) from error
    yield count


def form_of(path: pathlib.Path) -> str:
    """Returns the format of a list, by its file name.

    Raises:
      AuditError: It is missing, or of an unknown format.
    """
    name = printable(str(path))
    if path.exists() and not path.is_file():
        raise AuditError([f"{name}: not a file; lists are {FORMS}"])
    if not path.exists():
        raise AuditError([f"{name}: no such file{printable(names.near(path))}"])
    suffixes = [x.lower() for x in path.suffixes[-2:] if x.lower() != ".gz"]
    form = _FORMS.get(suffixes[-1] if suffixes else "", "")
    if path.name.upper().endswith("SUMS"):
        form = "text"
    if not form:
        forms = f"{FORMS}, by their suffixes, such as .jsonl (.gz may follow)"
        raise AuditError([f"{name}: a list of an unknown format; lists are {forms}"])
    return form


def is_header(row: Sequence[str]) -> bool:
    """Returns whether a row of a table is its header.

    Example:
      >>> is_header(["video_id", "n"]), is_header(["dQw4w9WgXcQ", "3"])
      (True, False)
    """
    plain = (re.sub("[_ -]", "", cell.lower()) for cell in row)
    return any(cell in _HEADERS for cell in plain)


def flatten(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yields the texts of an entry by name, `a.b` if they are nested.

    Example:
      >>> dict(flatten({"id": "a", "meta": {"url": "b", "size": 3}}))
      {'id': 'a', 'meta.url': 'b'}
    """
    if isinstance(value, str):
        yield name or "entry", value
    elif isinstance(value, dict) and depth < _DEPTH:
        for k, (key, part) in enumerate(value.items()):
            if len(key) >= _SHORTEST or "." in key or "/" in key:
                yield f"key{k}", key  # It may be an id.
            yield from flatten(part, f"{name}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list) and depth < _DEPTH:
        for k, part in enumerate(value[:_ITEMS]):
            yield from flatten(part, f"{name}.{k}".lstrip("."), depth + 1)


def _of_parquet(path: pathlib.Path) -> Iterator[_Raw]:
    regular.opened(path).close()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS):
            columns = {
                f"{field.name}.{k}"
                if field.name in batch.schema.names[:k]
                else field.name: ([_decoded(x) for x in batch.column(k).to_pylist()])
                for k, field in enumerate(batch.schema)
                if not pa.types.is_primitive(field.type)
            }

            def named(row: Any, header: Sequence[str] = tuple(columns)) -> Cells:
                return dict(flatten(dict(zip(header, row, strict=True))))

            for row in zip(*columns.values(), strict=True):
                text = "\t".join([x if type(x) is str else str(x) for x in row])
                yield _Raw(text, named, row)


def _decoded(value: Any) -> Any:
    if value is None:
        return ""  # Keeps the name of the column.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    """Yields lines; raises a `ValueError` for a line that is too long."""
    while line := file.readline(_MOST + 1):
        if len(line) > _MOST:
            raise ValueError(f"a line has more than {_MOST} characters")
        yield line


def _of_text(path: pathlib.Path, form: str) -> Iterator[_Raw]:
    regular.opened(path).close()
    with pa.input_stream(str(path), compression="detect") as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        if form == "text":
            yield from _of_lines(text)
        elif form == "JSON lines":
            yield from _of_json_lines(text)
        elif form == "JSON":
            yield from _of_json(text)
        else:
            yield from _of_table(text, "\t" if form == "TSV" else ",")


def _of_lines(file: io.TextIOWrapper) -> Iterator[_Raw]:
    for line in _lines(file):
        if not (text := line.strip()):
            continue
        if match := _CHECKSUM.fullmatch(text):
            cells = {"hash": match[1], "file": match[2]}
        else:
            cells = {"line": text}
        yield _Raw(text, dict, cells)


def _of_json_lines(file: io.TextIOWrapper) -> Iterator[_Raw]:
    """Yields lines; JSON is parsed later, and only of chosen lines."""
    for number, line in enumerate(_lines(file), 1):
        text = line.strip()
        if not text:
            continue
        if text[0] + text[-1] not in ("{}", '""', "[]"):
            raise ValueError(f"line {number} is not JSON: {printable(text, 40)}")
        yield _Raw(text, _of_json_line, (number, text))


def _of_json_line(line: tuple[int, str]) -> Cells:
    number, text = line
    try:
        return _cells(text)
    except ValueError as error:
        raise ValueError(f"line {number} is not JSON: {error}") from error


def _of_table(file: io.TextIOWrapper, delimiter: str) -> Iterator[_Raw]:
    """Yields rows of CSV; the first is skipped if it is a header."""
    csv.field_size_limit(min(_MOST, sys.maxsize))
    header: list[str] = []
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL

    def named(row: list[str]) -> Cells:
        more = [f"column {k}" for k in range(len(header), len(row))]
        return dict(zip(header + more if more else header, row, strict=False))

    for row in csv.reader(file, delimiter=delimiter, quoting=quoting):
        first = not header
        header = header or [
            x if row.index(x) == k else f"{x}.{k}" for k, x in enumerate(row)
        ]
        if first and is_header(row):
            continue
        yield _Raw("\t".join(row), named, row)


def _of_json(file: io.TextIOWrapper) -> Iterator[_Raw]:
    read = _Json(file)
    while read.more():
        yield from read.entries({})


class _Json:
    """Reads JSON of any size entry by entry."""

    def __init__(self, file: io.TextIOWrapper):
        """Starts at the current position of a file."""
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def more(self) -> bool:
        """Skips white space; returns whether anything follows."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return True
            if not self._fill():
                return False

    def entries(self, outer: Cells, depth: int = 0) -> Iterator[_Raw]:
        """Yields the entries of the next value.

        Args:
          outer: Cells of all of them, such as the key of their object.
          depth: The nesting depth of the value.
        """
        opens = self._next()
        if opens == "[" and depth < _DEPTH:
            yield from self._members(outer, depth, "]")
            return
        if opens == "{" and depth < _DEPTH:
            while len(self._text) - self._at < _LARGE and self._fill():
                pass
            whole = self._value(required=False)
            if whole is None or _holds_entries(whole[0]):
                yield from self._members(outer, depth, "}")
                return
        else:
            whole = self._value()
        assert whole is not None
        value, end = whole
        text = self._text[self._at : end]
        self._at = end
        if outer:
            text = "\t".join([*outer.values(), text])
        yield _Raw(text, lambda entry: outer | dict(flatten(entry)), value)

    def _members(self, outer: Cells, depth: int, closes: str) -> Iterator[_Raw]:
        """Yields the entries of the members of a list or object."""
        self._at += 1
        while self._next() != closes:
            if closes == "]" and not outer:
                yield from self._objects()
            cells = outer
            if closes == "}":
                whole = self._value()
                assert whole is not None
                name, self._at = whole
                if not isinstance(name, str) or self._next() != ":":
                    raise ValueError("a member of an object has no name")
                self._at += 1
                cells = outer | {f"key{depth or ''}": name}
            yield from self.entries(cells, depth + 1)
            if self._next() == ",":
                self._at += 1
            elif self._next() != closes:
                here = printable(self._text[self._at :][:20])
                raise ValueError(f"a comma is missing at {here}")
        self._at += 1

    def _objects(self) -> Iterator[_Raw]:
        """Yields consecutive objects of a list but the last: a fast, single scan."""
        while True:
            while len(self._text) - self._at < _LARGE and self._fill():
                pass
            text, at, last = self._text, self._at, len(self._text) - _LARGE
            while at <= last or self._ended:
                try:
                    value, end = self._decode(text, at)
                except ValueError:
                    break
                after = _COMMA.match(text, end)
                if after is None or _holds_entries(value):
                    break
                entry = text[at:end]
                yield _Raw(entry, _cells, entry)
                at = after.end()
            moved, self._at = at > self._at, at
            if not moved or self._ended:
                return

    def _next(self) -> str:
        if not self.more():
            raise ValueError("it is truncated")
        return self._text[self._at]

    def _value(self, *, required: bool = True) -> tuple[Any, int] | None:
        """Returns the next value and its end, without consuming it.

        Args:
          required: Whether to read on until it is complete; else None is returned for a
            value that is not completely in memory.
        """
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                if not required:
                    return None
                wanted = 2 * max(_CHUNK, len(self._text) - self._at)
                if len(self._text) - self._at > _MOST or not self._fill(wanted):
                    raise
                continue
            if end == len(self._text) and self._fill():
                continue  # A number may continue.
            return value, end

    def _fill(self, size: int = _CHUNK) -> bool:
        """Reads more text; returns whether there was any."""
        if self._ended:
            return False
        more = self._file.read(size)
        self._ended = not more
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _cells(text: str) -> Cells:
    return dict(flatten(json.loads(text)))


def _holds_entries(value: Any) -> bool:
    """Returns whether an object holds lists or objects of entries."""
    if not isinstance(value, dict) or not value:
        return False
    inside = [x for x in value.values() if type(x) in (dict, list)]
    if not inside:
        return False
    return len(inside) == len(value) or any(len(x) > _MANY for x in inside)
