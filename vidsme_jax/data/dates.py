"""Dates of rows: when a clip was published, in ISO 8601."""

import datetime
import re
from typing import Any

from vidsme_jax.data import cells

_ALLOWED = "it must be YYYY, YYYY-MM, YYYY-MM-DD or a time such as 2024-05-01T12:30:00Z"
_YEAR = re.compile(r"([0-9]{4})(?:\.0)?")  # A column with gaps holds floats.
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def iso(value: Any) -> str:
    """Returns the date of a cell in ISO 8601; "" for an empty cell.

    Args:
      value: A text, a year as a number, or a date or time of Parquet.

    Raises:
      ValueError: It is not a date; the message lists what is allowed.

    Example:
      >>> iso(2024), iso(" 2024-05-01 12:30"), iso(None)
      ('2024', '2024-05-01T12:30:00', '')
    """
    value = cells.without_nan(value)
    if isinstance(value, datetime.date):  # Includes datetime.
        text = value.isoformat()
    elif isinstance(value, str):
        text = value.strip()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value)
    elif value is None:
        return ""
    else:
        raise ValueError(f"is {cells.quoted(value)}; {_ALLOWED}")
    if not text:
        return ""
    try:
        return _normal(text)
    except ValueError as error:
        raise ValueError(f"is {cells.quoted(value)}; {_ALLOWED}") from error


def _normal(text: str) -> str:
    if year := _YEAR.fullmatch(text):
        datetime.date(int(year[1]), 1, 1)
        return year[1]
    if _MONTH.fullmatch(text):
        datetime.date.fromisoformat(f"{text}-01")
        return text
    if _DAY.fullmatch(text):
        return datetime.date.fromisoformat(text).isoformat()
    if not _DAY.match(text):
        raise ValueError(text)
    return datetime.datetime.fromisoformat(text).isoformat(timespec="seconds")


def days(date: str) -> float:
    """Returns the days from 1970 to a date; NaN for "" and invalid dates.

    A year or a month is represented by its middle.

    Args:
      date: A result of `iso`.

    Example:
      >>> days("1970-01-03"), days("1970"), days("")
      (2.0, 182.5, nan)
    """
    if _YEAR.fullmatch(date):
        date = f"{date}-07-02T12:00:00"
    elif _MONTH.fullmatch(date):
        date = f"{date}-16"
    try:
        when = datetime.datetime.fromisoformat(date)
    except ValueError:
        return float("nan")
    when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return (when - _EPOCH).total_seconds() / 86_400
