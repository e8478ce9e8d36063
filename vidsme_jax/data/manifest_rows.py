"""Rows of manifests and datasets: which column is which field, and what a field holds.

Every row is checked on its own, and all that is wrong with any is listed at once.
"""

import dataclasses
import json
import math
import os
import pathlib
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vidsme_jax.base import AuditError, nearest, printable
from vidsme_jax.data import names, segments
from vidsme_jax.data.segments import Segment
from vidsme_jax.settings.rules import FIELDS

LABELS = {
    "": "",
    **{1: "members", "1": "members", "member": "members", "members": "members"},
    **{0: "nonmembers", "0": "nonmembers", "nonmember": "nonmembers"},
    **{
        "1.0": "members",
        "0.0": "nonmembers",
    },  # Of a column with gaps, as pandas writes.
    **{"non-member": "nonmembers", "nonmembers": "nonmembers"},
    **{"suspect": "suspects", "suspects": "suspects", "calibration": "calibration"},
}
_TEXTS = ("question", "answer", "group", "date", "id")
_LONGEST = 200  # Characters of a faulty value that are shown.
_SHORT = 40  # Of a value that is no label.


@dataclasses.dataclass(frozen=True)
class Row:
    """One row, checked.

    Attributes:
      where: Names it in errors.
      folder: What its video is relative to.
      label: A role, or "".
      id: "" if it has none.
      fields: The remaining fields of an `Item`.
      confined: Whether a manifest gave it, whose author need not be who runs the audit.
      segment: Of the video; None for all of it.
    """

    where: str
    folder: pathlib.Path
    label: str
    id: str
    fields: dict[str, Any]
    confined: bool = False
    segment: Segment | None = None

    def grouped(self, group: str) -> "Row":
        """Returns the row with a group, if it has none."""
        fields = self.fields | {"group": self.fields.get("group") or group}
        return dataclasses.replace(self, fields=fields)


def columns_of(fields: Iterable[str]) -> dict[str, str]:
    """Returns the column of each field that `corpus.fields` names; "" for none.

    Example:
      >>> columns_of(("video=path", "label="))
      {'video': 'path', 'label': ''}
    """
    return dict(entry.split("=", 1) for entry in fields)


def option(fields: Iterable[str], *entries: str) -> str:
    """Returns the option that sets `corpus.fields`, with more or other entries.

    Example:
      >>> print(option(("video=path", "label=split"), "label="))
      --config.corpus.fields="('video=path', 'label=')"
    """
    kept = {entry.partition("=")[0]: entry for entry in (*fields, *entries)}
    value = repr(tuple(kept.values()))
    quoted = shlex.quote(value) if set(value) & set('"$`\\!') else f'"{value}"'
    return f"--config.corpus.fields={quoted}"


def label_column(fields: Iterable[str], columns: Iterable[str]) -> str:
    """Returns which column of a source is its label; "" for none."""
    name = columns_of(fields).get("label", "label")
    return name if not name or name in columns else "label"


def misspelt(
    source: str,
    columns: Collection[Any],
    mapping: Mapping[str, str],
    fields: tuple[str, ...],
) -> list[str]:
    """Returns the problem that columns are fields but for case and spaces, if any are.

    A column whose field has one of its own name, or is none that is read, is let be.

    Args:
      source: As configured.
      columns: Of the manifest.
      mapping: Columns of fields that `corpus.fields` names and this manifest has.
      fields: `corpus.fields`, which the remedy adds to.
    """
    found = [
        (column, field)
        for column in columns
        if isinstance(column, str) and column not in mapping.values()
        for field in (column.strip().casefold(),)
        if field in FIELDS and field != "date" and field not in (*mapping, *columns)
    ]
    if not found:
        return []
    named = ", ".join(f"{column!r} (like {field!r})" for column, field in found)
    read = option(fields, *(f"{field}={column}" for column, field in found))
    left = option(fields, *(f"{field}=" for _, field in found))
    return [
        f"{source}: not read are columns that are fields but for case or spaces: "
        f"{printable(named, 1000)}. Name them as the fields, or read them by {read}; "
        f"{left} says that there are no such fields"
    ]


def not_labels(
    source: str, raw: Iterable[tuple[str, Any]], column: str, fields: Iterable[str]
) -> list[str]:
    """Returns the problem that values of a column are no labels, if any are not.

    Args:
      source: As configured.
      raw: Each row with its place in the source.
      column: Of `label_column`.
      fields: `corpus.fields`.
    """
    count, faulty = 0, []
    for place, row in raw:
        count += 1
        value = row.get(column) if column and isinstance(row, Mapping) else None
        if not _is_nan(value) and _role(value) is None:
            faulty.append((place, value))
    if not faulty:
        return []
    shown = [printable(repr(v), most=_SHORT) for _, v in faulty]
    shown = list(dict.fromkeys(shown))
    values = ", ".join(shown) if len(shown) < 3 else f"{shown[0]} ... {shown[-1]}"
    known = [name for name in LABELS if isinstance(name, str)]
    hint = nearest(str(faulty[0][1])[:_LONGEST], known)
    return [
        f"{source}: the column {column!r} has {values} in {len(faulty)} of {count} "
        f"rows (first: {faulty[0][0]}{hint}). It is read as the role: 1 or member, 0 "
        "or nonmember, suspect, calibration. If it holds something else, leave it out: "
        f"{option(fields, 'label=')}"
    ]


def checked(
    source: str,
    folder: pathlib.Path,
    raw: Iterable[tuple[str, Any]],
    mapping: Mapping[str, str],
    fields: tuple[str, ...] = (),
) -> tuple[list[Row], list[str]]:
    """Checks rows; returns those that are right, and all that is wrong with others.

    Args:
      source: As configured.
      folder: What videos are relative to.
      raw: Each row with its place in the source.
      mapping: Of `columns_of`, of columns that are there.
      fields: `corpus.fields`, for the remedy where values are no labels.
    """
    raw, rows = list(raw), []
    problems = not_labels(source, raw, mapping.get("label", "label"), fields)
    for place, values in raw:
        try:
            rows.append(_row(f"{source}: {place}", folder, values, mapping))
        except AuditError as error:
            problems += error.problems
        except RecursionError:
            problems.append(f"{source}: {place}: nested too deeply")
    return rows, problems


def _row(
    where: str, folder: pathlib.Path, given: Any, mapping: Mapping[str, str]
) -> Row:
    """Checks one row, or raises an `AuditError` with all that is wrong with it."""
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise AuditError([f"{where}: a row must be an object; it is a {kind}"])
    values = {name: None if _is_nan(value) else value for name, value in given.items()}
    mapped = {field: values.get(column) for field, column in mapping.items() if column}
    values |= dict.fromkeys(mapping) | mapped
    problems: list[str] = []
    fields: dict[str, Any] = {"video": values.get("video")}

    def noted(name: str, problem: str) -> None:
        problems.append(f"{where}: {mapping.get(name, name)!r} {problem}")

    if None in given:
        problems.append(f"{where}: more fields than the header has columns")
    if problem := _not_a_path(fields["video"]):
        noted("video", f"is {_cut(fields['video'])}; {problem}")
    else:  # One name, one text: lone surrogates may stand for what is proper UTF-8.
        fields["video"] = os.fsdecode(os.fsencode(fields["video"]))
    for name in _TEXTS:
        value = values.get(name)
        if isinstance(value, Mapping | list):
            noted(name, f"is a {type(value).__name__}; it must be text")
        elif name != "date":
            fields[name] = "" if value is None else str(value)
    try:
        fields["candidates"] = _candidates(values.get("candidates"))
    except ValueError as error:
        noted("candidates", str(error))
    segment = None
    try:
        segment = segments.of_row(values.get("start"), values.get("end"))
    except ValueError as error:
        problems.append(f"{where}: {error}")
    if problems:
        raise AuditError(problems)
    role = _role(values.get("label")) or ""  # `not_labels` reports others.
    return Row(where, folder, role, fields.pop("id"), fields, True, segment)


def _is_nan(value: Any) -> bool:
    """Whether it is how tables write that there is no value."""
    return isinstance(value, float) and math.isnan(value)


def _role(label: Any) -> str | None:
    """Returns the role of a label, "" for none; None if it is no membership label."""
    label = "" if label is None else label
    label = label.strip().lower() if isinstance(label, str) else label
    return LABELS.get(label) if isinstance(label, int | float | str) else None


def _not_a_path(video: Any) -> str:
    """Returns why a row's video cannot be the name of a file here, or ""."""
    if isinstance(video, Mapping):
        return "it must be a path, not an object: put its path into the column"
    if not isinstance(video, str) or not video.strip() or "\0" in video:
        return "it must be a path"
    problem = names.unencodable(video)
    return f"it must be a path: {problem}" if problem else ""


def _cut(value: Any) -> str:
    return printable(repr(value), most=_LONGEST)


def _candidates(value: Any) -> tuple[str, ...]:
    """Returns the options of a question.

    Args:
      value: A list, or text: a JSON list, or options separated by bars; None or "" for
        none.

    Raises:
      ValueError: Says what is wrong with it.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"begins like a JSON list but is none ({error.msg}): "
                f"{_cut(value.strip())}"
            ) from error
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|")] if value.strip() else []
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"is {_cut(value)}; it must be a list, or text separated by |")
    for option in value:
        if not isinstance(option, str | int | float) or not str(option).strip():
            raise ValueError(f"has the option {_cut(option)}; it must be text")
    return tuple(map(str, value))
