"""Dates of rows: what is read, what is refused in a sentence, and their days."""

import datetime
import math

import pyarrow
import pyarrow.parquet
import pytest
from corpus_files import as_csv, corpus_of, load, problem_of

from vidsme_jax.data import dates

READ = {
    "2024": "2024",
    " 2024-05 ": "2024-05",
    "2024-05-01": "2024-05-01",
    "2024-05-01 12:30": "2024-05-01T12:30:00",
    "2024-05-01T12:30:00.25Z": "2024-05-01T12:30:00+00:00",
    "2024.0": "2024",
    "": "",
    " ": "",
}


@pytest.mark.parametrize("text", READ)
def test_texts_become_iso(text):
    assert dates.iso(text) == READ[text]
    assert dates.iso(dates.iso(text)) == READ[text]


def test_other_values_become_iso():
    assert dates.iso(2024) == dates.iso(2024.0) == "2024"
    assert dates.iso(None) == dates.iso(float("nan")) == ""
    assert dates.iso(datetime.date(2024, 5, 1)) == "2024-05-01"
    when = datetime.datetime(2024, 5, 1, 12, 30, 1, 7)
    assert dates.iso(when) == "2024-05-01T12:30:01"


@pytest.mark.parametrize(
    "value",
    [
        *("May 2024", "2024-13", "2024-02-30", "24", "20240501", "2024-05-01T25:00"),
        *("0000", True, 12, 1e30, float("inf"), [2024], {"y": 2024}, b"2024"),
        "2" * 5000,
    ],
)
def test_what_is_no_date_is_refused(value):
    with pytest.raises(ValueError, match="it must be YYYY, YYYY-MM, YYYY-MM-DD or a"):
        dates.iso(value)


def test_days():
    assert dates.days("1970-01-01") == 0 and dates.days("1969-12-31") == -1
    assert dates.days("2000-03-01T12:00:00") == 11017.5
    assert dates.days("2000-03-01T12:00:00+12:00") == 11017
    assert 11017 < dates.days("2000-03") < 11017 + 31
    assert 10957 < dates.days("2000") < 10957 + 366
    assert math.isnan(dates.days("")) and math.isnan(dates.days("soon"))


def test_rows_have_dates(tmp_path):
    rows = [{"video": "a.mp4", "when": "2024-5"}, {"video": "b.mp4", "when": "2024"}]
    source = as_csv(tmp_path / "m.csv", rows)
    fields = ("date=when",)
    expected = "m.csv: line 2: 'when' is '2024-5'; it must be YYYY, YYYY-MM"
    assert expected in problem_of(suspects=(source,), fields=fields)
    source = as_csv(tmp_path / "m.csv", rows[1:])
    (item,) = load(corpus_of(suspects=(source,), fields=fields))
    assert item.date == "2024"


def test_parquet_has_dates_and_times(tmp_path):
    day = datetime.datetime(2024, 5, 1, 12, 30)
    for kind, expected in (
        (pyarrow.date32(), "2024-05-01"),
        (pyarrow.timestamp("ms"), "2024-05-01T12:30:00"),
        (pyarrow.timestamp("us", "UTC"), "2024-05-01T12:30:00+00:00"),
    ):
        columns = {"video": ["a.mp4", "b.mp4"]}
        columns["date"] = pyarrow.array([day, None]).cast(pyarrow.timestamp("ms"))
        columns["date"] = columns["date"].cast(kind)
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
        items = load(corpus_of(suspects=(str(tmp_path / "m.parquet"),)))
        assert [item.date for item in items] == [expected, ""]
