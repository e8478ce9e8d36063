"""Cells of any kind and manifests of any size: read, or refused in a sentence."""

import decimal
import json

import pyarrow
import pyarrow.parquet
import pytest
from corpus_files import as_json, corpus_of, load, problem_of, problems_of

from vidsme_jax.base import AuditError
from vidsme_jax.data import parquet
from vidsme_jax.settings.rules import FIELDS


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        ("tfds:a/1.0.0/train/0", "a row names a file, not an example of a dataset"),
        ("hf:a/b", "a row names a file, not an example of a dataset; give the data"),
        ("https://a.org/b.mp4", "videos must be files of this machine: fetch it first"),
        ("S3://a/b.mp4", "videos must be files of this machine: fetch it first"),
        ("file:///a/b.mp4", "videos must be files of this machine: write its path"),
    ],
)
@pytest.mark.parametrize("outside", [False, True])
def test_a_video_is_a_file_of_this_machine(tmp_path, video, expected, outside):
    source = as_json(tmp_path / "m.json", [{"video": video, "start": 1}])
    problem = problem_of(suspects=(source,), allow_outside=outside)
    assert problem.startswith(f"{source}: row 1: 'video' is {video!r}; {expected}")


def test_a_name_with_a_colon_is_a_name(tmp_path):
    source = as_json(tmp_path / "m.json", [{"video": "Part 1: home.mp4"}])
    assert load(corpus_of(suspects=(source,)))[0].video == "Part 1: home.mp4"


_FIELDS = ["id", "group", "source", "question", "answer", "candidates"]


@pytest.mark.parametrize("field", _FIELDS)
def test_half_of_a_surrogate_pair_is_no_text(tmp_path, field):
    value = ["\ud800"] if field == "candidates" else "a\ud800"
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"video": "a.mp4", field: value}]))
    assert f"row 1: {field!r} " in problem_of(suspects=(str(path),))


_STRANGE = {
    "duration": pyarrow.array([2**62, 5], pyarrow.duration("s")),
    "date": pyarrow.array([10**7, 1], pyarrow.int32()).cast(pyarrow.date32()),
    "early": pyarrow.array([-(10**6), 1], pyarrow.int32()).cast(pyarrow.date32()),
    "stamp": pyarrow.array([2**60, 1], pyarrow.timestamp("ms")),
    "zone": pyarrow.array([1, 2], pyarrow.timestamp("s", "Mars/Phobos")),
    "time": pyarrow.array([1, 2], pyarrow.time64("ns")),
    "binary": pyarrow.array([b"\xff", b""]),
    "map": pyarrow.array([[("a", 1)], None], pyarrow.map_(pyarrow.string(), "int64")),
    "object": pyarrow.array([{"path": "a.mp4"}, None]),
    "lists": pyarrow.array([[["a"]], None]),
    "decimal": pyarrow.array([decimal.Decimal("1e30"), None]),
    "nulls": pyarrow.nulls(2),
    "dictionary": pyarrow.array(["a", "b"]).dictionary_encode(),
    "infinite": pyarrow.array([float("nan"), float("inf")]),
}


@pytest.mark.parametrize("kind", _STRANGE)
@pytest.mark.parametrize("field", [*FIELDS])
def test_columns_of_any_type(tmp_path, kind, field):
    """Each is read, or refused in a sentence that names its column or cell."""
    columns = {"video": pyarrow.array(["a.mp4", "b.mp4"])} | {field: _STRANGE[kind]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    source = str(tmp_path / "m.parquet")
    try:
        assert len(load(corpus_of(suspects=(source,)))) == 2
    except AuditError as error:
        for problem in error.problems:
            named = (repr(field), "their label is", "corpus.suspects: no row")
            assert any(name in problem for name in named), problem
    if kind == "date" and field == "id":
        assert "type date32[day] that cannot be read" in problem_of(suspects=(source,))


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_a_manifest_has_a_limit(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    problem = problem_of(suspects=(str(path),))
    assert "it has 1073741825 bytes, at most " in problem and "split it into" in problem


def test_a_small_file_does_not_stand_for_many_rows(tmp_path):
    path = tmp_path / "m.parquet"
    column = pyarrow.nulls(5_000_001, pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"video": column}), path)
    assert path.stat().st_size < 20_000
    problem = problem_of(suspects=(str(path),))
    assert "it has 5000001 rows, at most 5000000 are read" in problem


def test_a_text_of_many_rows_is_one_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "m.parquet"
    one = "x" * 100_000
    texts = pyarrow.DictionaryArray.from_arrays([0] * 3000, [one])
    table = {"video": ["a.mp4"] * 3000, "question": texts}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    items = load(corpus_of(suspects=(str(path),)))
    assert len({id(item.question) for item in items}) == 1
    monkeypatch.setattr(parquet, "_MOST_BYTES", 10**7)
    lists = pyarrow.array([[one] * 4] * 30)
    table = {"video": ["a.mp4"] * 30, "candidates": lists}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    problem = problem_of(suspects=(str(path),))
    assert "it has 12000000 bytes of texts in lists, at most 10000000" in problem


def test_columns_are_not_thousands(tmp_path):
    (tmp_path / "m.csv").write_text("video" + "," * 10_000 + "\na.mp4\n")
    problem = problem_of(suspects=(str(tmp_path / "m.csv"),))
    assert "it has 10001 columns, at most 10000 are read" in problem


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ["9" * 5000, "[" * 950 + "]" * 950, "1e999", "-0.0"])
def test_numbers_of_many_digits_and_values_nested_deeply(
    tmp_path, suffix, field, value
):
    row = f'{{"video": "a.mp4", "{field}": {value}}}'
    row = row.replace('"video": "a.mp4", ', "") if field == "video" else row
    path = tmp_path / f"m{suffix}"
    path.write_text(row if suffix == ".jsonl" else f"[{row}]")
    try:
        assert len(load(corpus_of(suspects=(str(path),)))) == 1
    except AuditError as error:
        assert sum(map(len, error.problems)) < 2000


def test_problems_are_20_of_each_source(tmp_path):
    faulty = [{"video": "a.mp4", "answer": {}}] * 1000
    sources = tuple(as_json(tmp_path / f"{k}.json", faulty) for k in "ab")
    problems = problems_of(suspects=sources)
    assert len(problems) == 40
    assert problems[19] == f"{sources[0]}: and 981 more problems of its rows"
    assert problems[39] == f"{sources[1]}: and 981 more problems of its rows"
