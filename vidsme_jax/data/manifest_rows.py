"""Rows of manifests and datasets: the column of each field, and checks of its value.

Each row is checked separately, and all problems are listed at once.
"""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vidsme_jax.base import AuditError
from vidsme_jax.data import cells, dates, segments, urls
from vidsme_jax.data.segments import Segment
from vidsme_jax.settings.rules import FIELDS
from vidsme_jax.wording import nearest, printable

_TEXTS = ("question", "answer", "group", "id", "source")
_RARE = ("date", "candidates", "start", "end")
_SHORT = 40  # Characters of an invalid label in a message.
_LISTED = 20  # Problems listed per source; the others are counted.


class Row(NamedTuple):
    """One row, checked.

    Attributes:
      source: As configured.
      place: Of the row in the source.
      folder: The base of the video's path.
      video: As the source names it.
      label: A role, or "".
      id: "" if it has none.
      group: "" if it has none.
      question: Text, "" if absent.
      answer: Text, "" if absent.
      candidates: The options of the question.
      segment: Of the video; None for all of it.
      confined: Whether its video must be in `folder`, as for rows of a manifest, whose
        author may not be trusted.
      origin: The field `source`, "" if it has none.
      date: In ISO 8601, "" if it has none.
    """

    source: str
    place: str
    folder: pathlib.Path
    video: str
    label: str = ""
    id: str = ""
    group: str = ""
    question: str = ""
    answer: str = ""
    candidates: tuple[str, ...] = ()
    segment: Segment | None = None
    confined: bool = False
    origin: str = ""
    date: str = ""

    @property
    def where(self) -> str:
        """Returns its name in errors."""
        return f"{self.source}: {self.place}"

    def grouped(self, group: str) -> "Row":
        """Returns the row with a default group."""
        return self if self.group else self._replace(group=group)

    def windows(self, count: int) -> Iterator["Row"]:
        """Yields the row once for each of `count` windows of its video."""
        if count == 1:
            yield self
            return
        whole = self.segment or segments.WHOLE
        for number in range(1, count + 1):
            part = dataclasses.replace(whole, window=(number, count))
            name = f"{self.id}#{number}" if self.id else ""
            yield self._replace(segment=part, id=name)


class _Columns(NamedTuple):
    """The columns of the fields that a source has.

    Attributes:
      video: The column of videos, always named.
      label: "" if it is missing.
      texts: Each with its index in `_TEXTS`.
      rare: By field, those of `_RARE`.
    """

    video: str
    label: str
    texts: tuple[tuple[int, str], ...]
    rare: dict[str, str]

    @classmethod
    def of(cls, mapping: Mapping[str, str], there: Collection[str]) -> "_Columns":
        """Finds the columns; see `checked` for the arguments."""
        by_field = {field: mapping.get(field, field) for field in FIELDS}
        found = {f: name for f, name in by_field.items() if name and name in there}
        texts = ((k, found[name]) for k, name in enumerate(_TEXTS) if name in found)
        rare = {name: found[name] for name in _RARE if name in found}
        video = by_field["video"] or "video"
        return cls(video, found.get("label", ""), tuple(texts), rare)


def columns_of(fields: Iterable[str]) -> dict[str, str]:
    """Returns the column of each field that `corpus.fields` names; "" for none.

    Example:
      >>> columns_of(("video=path", "label="))
      {'video': 'path', 'label': ''}
    """
    return dict(entry.split("=", 1) for entry in fields)


def option(fields: Iterable[str], *entries: str) -> str:
    """Returns the flag that sets `corpus.fields`, with entries added or replaced.

    Example:
      >>> print(option(("video=path", "label=split"), "label="))
      --config.corpus.fields="('video=path', 'label=')"
    """
    kept = {entry.partition("=")[0]: entry for entry in (*fields, *entries)}
    value = repr(tuple(kept.values()))
    quoted = shlex.quote(value) if set(value) & set('"$`\\!') else f'"{value}"'
    return f"--config.corpus.fields={quoted}"


def label_column(fields: Iterable[str], columns: Iterable[str]) -> str:
    """Returns the label column of a source; "" for none."""
    name = columns_of(fields).get("label", "label")
    return name if not name or name in columns else "label"


def misspelt(
    source: str,
    columns: Collection[Any],
    mapping: Mapping[str, str],
    fields: tuple[str, ...],
) -> list[str]:
    """Returns the problem of columns that match fields up to case and spaces, if any.

    A column is skipped if its field has another column, or if `corpus.fields` names it.

    Args:
      source: As configured.
      columns: Of the manifest.
      mapping: The columns by field of `corpus.fields` that this manifest has.
      fields: `corpus.fields`, which the remedy extends.
    """
    found = [
        (column, field)
        for column in columns
        if isinstance(column, str) and column not in mapping.values()
        for field in (column.strip().casefold(),)
        if field in FIELDS and field not in (*mapping, *columns)
    ]
    if not found:
        return []
    named = ", ".join(f"{column!r} (like {field!r})" for column, field in found)
    read = option(fields, *(f"{field}={column}" for column, field in found))
    left = option(fields, *(f"{field}=" for _, field in found))
    return [
        f"{source}: columns are not read that match fields up to case or spaces: "
        f"{printable(named, 1000)}. Name them as the fields, or read them by {read}; "
        f"{left} leaves them out"
    ]


def not_labels(
    source: str, raw: Iterable[tuple[str, Any]], column: str, fields: Iterable[str]
) -> list[str]:
    """Returns the problem of invalid values in the label column, if any.

    `raw` holds each row with its place; `column` is the result of `label_column`.
    """
    if not column:
        return []
    count, faulty = 0, 0
    first: tuple[str, Any] = ("", None)
    last: Any = None
    for place, row in raw:
        count += 1
        value = row.get(column) if isinstance(row, dict) else None
        if value is not None and cells.role(value) is None:
            first, last = first if faulty else (place, value), value
            faulty += 1
    if not faulty:
        return []
    shown = [cells.quoted(value, _SHORT) for value in (first[1], last)]
    values = shown[0] if shown[0] == shown[1] else " ... ".join(shown)
    known = [name for name in cells.LABELS if isinstance(name, str)]
    hint = nearest(shown[0].strip("'"), known)
    return [
        f"{source}: the column {column!r} has {values} in {faulty} of {count} "
        f"rows (first: {first[0]}{hint}). It is read as the role: 1 or member, 0 "
        "or nonmember, suspect, calibration. If it holds something else, leave it out: "
        f"{option(fields, 'label=')}"
    ]


def checked(
    source: str,
    folder: pathlib.Path,
    raw: Sequence[tuple[str, Any]],
    mapping: Mapping[str, str],
    there: Collection[str],
    fields: tuple[str, ...] = (),
    files: urls.Files | None = None,
) -> tuple[list[Row], list[str]]:
    """Checks rows.

    Args:
      source: As configured.
      folder: The base of the videos' paths.
      raw: Each row with its place in the source.
      mapping: The part of `columns_of` whose columns exist.
      there: The columns of the source.
      fields: `corpus.fields`, for the remedy of invalid labels.
      files: The files of URLs; None: a URL is not a video.

    Returns:
      The valid rows; and the first 20 problems of others, with the count of the rest.
    """
    rows = []
    columns = _Columns.of(mapping, there)
    labels = not_labels(source, raw, columns.label, fields)
    problems: list[str] = []
    more = 0
    for place, given in raw:
        try:
            rows.append(_row(source, place, folder, given, columns, files))
            continue
        except AuditError as error:
            found = [f"{source}: {place}: {problem}" for problem in error.problems]
        except RecursionError:
            found = [f"{source}: {place}: nested too deeply"]
        problems += found[: max(0, _LISTED - len(problems))]
        more += len(found)
    if more > _LISTED:
        problems[-1] = f"{source}: and {more - _LISTED + 1} more problems of its rows"
    return rows, labels + problems


def _row(
    source: str,
    place: str,
    folder: pathlib.Path,
    given: Any,
    columns: _Columns,
    files: urls.Files | None,
) -> Row:
    """Checks one row; see `checked` for the arguments.

    Raises:
      AuditError: Lists all problems of the row.
    """
    if not isinstance(given, dict):
        kind = type(given).__name__
        raise AuditError([f"a row must be an object; it is a {kind}"])
    problems: list[str] = []
    if None in given:
        problems.append("more fields than the header has columns")
    get = given.get
    video: Any = get(columns.video)
    url = video if files is not None and urls.is_url(video) else ""
    if files is not None and url:
        video, folder = files.video(url), files.folder
    if type(video) is str and video.isascii() and cells.is_plain_path(video):
        pass  # The common case.
    elif problem := cells.not_a_path(video):
        problems.append(f"{columns.video!r} is {cells.quoted(video)}; {problem}")
    elif not isinstance(video, cells.Address):
        # Normalises lone surrogates that encode valid UTF-8.
        video = os.fsdecode(os.fsencode(video))
    if url and not isinstance(video, cells.Address):
        video = cells.Named(video, url)
    texts = [""] * len(_TEXTS)
    for at, column in columns.texts:
        value = get(column)
        if type(value) is str and value.isascii():
            texts[at] = value
        elif value is None or cells.is_nan(value):
            continue
        elif problem := cells.not_a_text(value):
            problems.append(f"{column!r} {problem}")
        else:
            texts[at] = str(value)
    candidates, segment, date = (), None, ""
    if columns.rare:
        rare = {field: get(column) for field, column in columns.rare.items()}
        candidates, segment, date = _rare(rare, columns.rare, problems)
    if problems:
        raise AuditError(problems)
    role: str | None = ""
    if columns.label:  # `not_labels` reports invalid ones.
        role = cells.role(get(columns.label)) or ""
    question, answer, group, name, origin = texts
    group, origin = cells.name(group), cells.name(origin)
    found = name, group, question, answer, candidates, segment, True, origin, date
    return Row(source, place, folder, video, role, *found)


def _rare(
    values: Mapping[str, Any], columns: Mapping[str, str], problems: list[str]
) -> tuple[tuple[str, ...], Segment | None, str]:
    """Returns a row's options, segment and date.

    Args:
      values: By field.
      columns: By field.
      problems: The row's problems are appended to it.
    """
    candidates, segment, date = (), None, ""
    try:
        date = dates.iso(values.get("date"))
    except ValueError as error:
        problems.append(f"{columns['date']!r} {error}")
    try:
        candidates = cells.candidates(values.get("candidates"))
    except ValueError as error:
        problems.append(f"{columns['candidates']!r} {error}")
    start, end = values.get("start"), values.get("end")
    if start is not None or end is not None:
        try:
            segment = segments.of_row(*map(cells.without_nan, (start, end)))
        except ValueError as error:
            problems.append(str(error))
    return candidates, segment, date
