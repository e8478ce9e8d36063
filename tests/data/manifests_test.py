"""Manifests in every format, and everything that can be wrong with them."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from corpus_files import (
    WRITERS,
    as_csv,
    as_json,
    corpus_of,
    load,
    problem_of,
    problems_of,
)

from vidsme_jax.data import cells, manifests


@pytest.fixture
def good(tmp_path) -> str:
    """A manifest with nothing wrong, for the other role."""
    return as_json(tmp_path / "good.json", [{"video": "good.mp4"}])


ROWS = [
    {
        "video": "a.mp4",
        "question": 'What, or "who", is it?',
        "candidates": ["a red ball", "a | bar", "größer"],
        "answer": "a red ball",
        "id": "first",
        "group": "street",
        "source": "A film, 1999",
        "date": "2024-05-01",
    },
    {"video": "b.mp4", "question": "Why?", "answer": "", "group": "home"},
    {"video": "b.mp4", "question": "When?"},
    {"video": "sub/c.mp4"},
]


@pytest.mark.parametrize("suffix", WRITERS)
def test_all_formats_give_the_same_items(tmp_path, suffix):
    # Parquet takes its columns from the first row.
    rows = [{**dict.fromkeys(ROWS[0]), **row} for row in ROWS]
    source = WRITERS[suffix](tmp_path / f"m{suffix}", rows)
    items = load(corpus_of(suspects=(source,)))
    assert [item.id for item in items] == ["first", "b.mp4", "b.mp4#2", "sub/c.mp4"]
    first = items[0]
    assert first.video == "a.mp4" and first.clip == str(tmp_path / "a.mp4")
    assert first.question == 'What, or "who", is it?' and first.answer == "a red ball"
    assert first.candidates == ("a red ball", "a | bar", "größer")
    assert items[1].candidates == ()
    assert (first.group, first.role) == ("street", "suspects")
    assert [item.source for item in items] == ["A film, 1999", "", "", ""]
    assert [item.date for item in items] == ["2024-05-01", "", "", ""]
    assert items[1].group == "home" and items[2].question == "When?"
    assert items[3].clip == str(tmp_path / "sub/c.mp4")
    assert (items[3].question, items[3].answer) == ("", "")


def test_options_in_a_cell(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "video,candidates\n"
        "a.mp4,yes | no |maybe\n"
        'b.mp4,"[""yes"", ""no""]"\n'
        "c.mp4,\n"
        "d.mp4,only\n"
    )
    items = load(corpus_of(suspects=(str(path),)))
    assert [item.id for item in items] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    found = [item.candidates for item in items]
    assert found == [("yes", "no", "maybe"), ("yes", "no"), (), ("only",)]


def test_numbers_become_text(tmp_path):
    row = {"video": "a.mp4", "id": 7, "answer": 2, "candidates": [1, 2]}
    (item,) = load(corpus_of(suspects=(as_json(tmp_path / "m.json", [row]),)))
    assert (item.id, item.answer, item.candidates) == ("7", "2", ("1", "2"))


def test_a_manifest_that_is_nested_without_end(tmp_path):
    path = tmp_path / "m.json"
    path.write_text("[" * 100_000)
    assert problem_of(suspects=(str(path),)).endswith("nested too deeply")


def test_a_manifest_that_is_not_there(tmp_path, good):
    source = str(tmp_path / "god.json")
    problem = problem_of(suspects=(source,))
    assert problem == f"{source}: no such manifest; did you mean 'good.json'?"
    source = str(tmp_path / "none/good.json")
    assert f"there is no folder {tmp_path / 'none'} either" in problem_of(
        suspects=(source,)
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.json", b'[{"video": "a.mp4"},\n{"video" "b"}]', "line 2 column 10"),
        (
            "m.json",
            b'{"video": "a.mp4"}',
            "it must be a list of objects, one per row; ",
        ),
        ("m.json", b"[]", "the manifest has no rows"),
        (
            "m.json",
            b'{"video": "a"}\n{"video": "b"}',
            "per line, name it .jsonl",
        ),
        ("m.csv", b"video;id\na.mp4;1\n", "separated by ';'; separate by commas"),
        ("m.json", b'[{"video": {"path": "a"}}]', "it must be a path, not an object"),
        ("m.json", b'["\xff"]', "can't decode byte 0xff"),
        ("m.jsonl", b'{"video": "a.mp4"}\n{"vid\n\n{\n', "line 2: "),
        ("m.jsonl", b'{"video": "a.mp4"}\n{"vid\n\n{\n', "; line 4: "),
        ("m.csv", b"", "the manifest has no rows"),
        ("m.csv", b"video\n", "the manifest has no rows"),
        ("m.csv", b'video\n"a.mp4\n', "cannot be read: unexpected end of data"),
        ("m.parquet", b"PAR1 or not", "cannot be read: "),
        ("m.json", b'[{"vidoe": "a.mp4", "x": 1}]', "no column 'video'; its columns: "),
        ("m.json", b'[{"vidoe": "a.mp4", "x": 1}]', "vidoe, x; did you mean 'vidoe'?"),
        ("m.csv", b"id,path\n1,a.mp4\n", "no column 'video'; its columns: id, path"),
        (
            "m.json",
            b'[{"video": "a"}, "b"]',
            "row 2: a row must be an object; it is a ",
        ),
        (
            "m.json",
            b'["a.mp4", "b.mp4"]',
            "row 1: a row must be an object; it is a str",
        ),
        (
            "m.json",
            b'[{"video": "a"}, {}]',
            "row 2: 'video' is None; it must be a path",
        ),
        ("m.jsonl", b'\n{"video": ""}', "line 2: 'video' is ''; it must be a path"),
        ("m.json", b'[{"video": 3}]', "row 1: 'video' is 3; it must be a path"),
        ("m.json", b'[{"video": "a\\u0000"}]', "it must be a path"),
        ("m.csv", b"video,id\na.mp4,1\n ,2\n", "line 3: 'video' is ' '; it must be"),
        ("m.csv", b"video\na.mp4,b\n", "line 2: more fields than the header has"),
        ("m.json", b'[{"video": "a", "answer": {}}]', "'answer' is a dict; it must be"),
        ("m.json", b'[{"video": "a", "candidates": 3}]', "'candidates' is 3; it must"),
        ("m.csv", b"video,candidates\na,[b\n", "'candidates' begins like a JSON list"),
        ("m.csv", b"video,candidates\na,b| |c\n", "'candidates' has the option ''; it"),
        (
            "m.json",
            b'[{"video": "a", "candidates": ["b", []]}]',
            "has the option []; it",
        ),
        (
            "m.json",
            b'[{"video": "a", "candidates": [null]}]',
            "has the option None; it",
        ),
    ],
)
def test_broken_manifests(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    problems = problems_of(suspects=(str(path),))
    assert all(problem.startswith(f"{path}: ") for problem in problems)
    assert any(expected in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "video\ncafé.mp4\n".encode("cp1252"),
            "save it as UTF-8, such as by iconv -f C",
        ),
        ("video\na.mp4\n".encode("utf-16"), "it is UTF-16; save it as UTF-8, such as"),
    ],
)
def test_another_character_set_is_named_with_the_remedy(tmp_path, content, expected):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    assert expected in problem_of(suspects=(str(path),))


def test_lines_that_are_no_json_are_20_at_most(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("{\n" * 100)
    problem = problem_of(suspects=(str(path),))
    assert problem.count("line ") == 20 and problem.endswith("; and 80 more lines")


# ------------------------------------------------------------ which column is which


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_by_other_names(tmp_path, suffix):
    rows = [
        {"path": "a.mp4", "q": "What?", "answer": "x", "t0": 1.0, "id": "v", "label": 7}
    ]
    source = WRITERS[suffix](tmp_path / f"m{suffix}", rows)
    fields = ("video=path", "question=q", "answer=", "start=t0", "label=")
    (item,) = load(corpus_of(suspects=(source,), fields=fields))
    assert item.video == "a.mp4#t=1," and item.id == "v"
    assert (item.question, item.answer, item.role) == ("What?", "", "suspects")
    swapped = ("video=path", "question=answer", "answer=q", "label=")
    (item,) = load(corpus_of(suspects=(source,), fields=swapped))
    assert (item.question, item.answer) == ("x", "What?")


def test_sources_may_have_different_columns(tmp_path):
    one = as_json(tmp_path / "one.json", [{"path": "a.mp4"}])
    other = as_json(tmp_path / "other.json", [{"video": "b.mp4", "path": "c.mp4"}])
    third = as_json(tmp_path / "third.json", [{"video": "d.mp4"}])
    corpus = corpus_of(suspects=(one, other, third), fields=("video=path",))
    assert [item.video for item in load(corpus)] == ["a.mp4", "c.mp4", "d.mp4"]


def test_a_column_that_no_source_has(tmp_path):
    source = as_json(tmp_path / "m.json", [{"video": "a.mp4", "quest": "What?"}])
    problem = problem_of(suspects=(source,), fields=("question=qest",))
    assert problem == (
        "corpus.fields: no source has a column 'qest' for 'question'; they have video, "
        "quest; did you mean 'quest'?"
    )


def test_a_manifest_without_a_column_of_videos(tmp_path):
    source = as_json(tmp_path / "m.json", [{"file_name": "a.mp4", "x": 1}])
    remedy = (
        "; --config.corpus.fields=\"('video=file_name',)\" names the column of the "
        "videos"
    )
    assert problem_of(suspects=(source,)).endswith(remedy)
    problem = problems_of(suspects=(source,), fields=("video=filename",))[0]
    assert (
        "no column 'filename'; its columns: file_name, x; did you mean 'file_name'"
        in (problem)
    )


def test_a_column_of_videos_and_labels_are_reported_at_once(tmp_path):
    rows = [{"file_name": "a.mp4", "x": "why", "label": k % 3} for k in range(6)]
    source = as_json(tmp_path / "m.json", rows)
    first, second = problems_of(suspects=(source,), fields=("question=x",))
    option = "--config.corpus.fields=\"('question=x', 'video=file_name'"
    assert f'; {option})" names' in first
    assert second == (
        f"{source}: the column 'label' has 2 in 2 of 6 rows (first: row 3). It is read "
        "as the role: 1 or member, 0 or nonmember, suspect, calibration. If it holds "
        f"something else, leave it out: {option}, 'label=')\""
    )


def test_nan_is_no_value(tmp_path):
    row = {"video": "a.mp4", "question": float("nan"), "end": float("nan")}
    path = tmp_path / "m.json"
    path.write_text(json.dumps([row]))
    (item,) = load(corpus_of(suspects=(str(path),)))
    assert (item.question, item.video) == ("", "a.mp4")


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_that_are_fields_but_for_case_or_spaces(tmp_path, suffix):
    rows = [{"video": "a.mp4", "Label": 1, " start": 3, "QUESTION": "Who?", "x": ""}]
    source = WRITERS[suffix](tmp_path / f"m{suffix}", rows)
    assert problem_of(suspects=(source,)) == (
        f"{source}: columns are not read that match fields up to case or spaces: "
        "'Label' (like 'label'), ' start' (like 'start'), 'QUESTION' (like "
        "'question'). Name them as the fields, or read them by --config.corpus.fields="
        "\"('label=Label', 'start= start', 'question=QUESTION')\"; "
        "--config.corpus.fields=\"('label=', 'start=', 'question=')\" leaves them "
        "out"
    )
    fields = ("label=", "start= start", "question=QUESTION")
    (item,) = load(corpus_of(suspects=(source,), fields=fields))
    assert (item.video, item.question) == ("a.mp4#t=3,", "Who?")


def test_columns_with_the_field_that_they_are_like(tmp_path):
    """The field's own column is read, and the other one is none."""
    row = {"video": "a.mp4", "start": 3, "Start": "x", "label": "suspect", "Label": "y"}
    source = as_csv(tmp_path / "m.csv", [row | {"Other": "2024"}])
    (item,) = load(corpus_of(suspects=(source,)))
    assert item.video == "a.mp4#t=3,"


def test_a_column_of_another_source_hides_none(tmp_path):
    one = as_csv(tmp_path / "x.csv", [{"video": "a.mp4", "from": 1}])
    other = as_csv(tmp_path / "y.csv", [{"video": "b.mp4", " start": 4}])
    said = problem_of(suspects=(one, other), fields=("start=from",))
    assert (
        f"{other}: columns are not read" in said and "' start' (like 'start')" in said
    )


def test_labels_of_a_column_with_gaps(tmp_path):
    """As pandas writes integers beside missing values."""
    rows = [{"video": f"{k}.mp4", "label": x} for k, x in enumerate(("1.0", "0.0"))]
    source = as_csv(tmp_path / "m.csv", rows)
    found = load(corpus_of(members=(source,), nonmembers=(source,)))
    assert [item.role for item in found] == ["members", "nonmembers"]


def test_a_column_of_videos_that_is_written_otherwise(tmp_path):
    source = as_json(tmp_path / "m.json", [{"Video ": "a.mp4", "End": 3}])
    first, second = problems_of(suspects=(source,))
    assert "no column 'video'; its columns: Video , End" in first
    assert "fields=\"('video=Video ',)\" names the column" in first
    assert "'End' (like 'end')" in second
    assert "fields=\"('video=Video ', 'end=End')\"" in second


@pytest.mark.parametrize(
    ("suffix", "text", "place"),
    [
        (".csv", "video,label,x,label\na.mp4,1,,0\n", ""),
        (".json", '[{"video": "a"}, {"video": "b", "label": 1, "label": 0}]', "row 2"),
        (".jsonl", '{"video": "a"}\n{"video": "b", "label": 1, "label": 0}', "line 2"),
    ],
)
def test_a_column_that_is_there_twice(tmp_path, suffix, text, place):
    path = tmp_path / f"m{suffix}"
    path.write_text(text)
    why = "it has several columns named 'label'; rename one"
    if place:
        why = f"{place}: the object has 'label' more than once; remove one"
    assert problem_of(suspects=(str(path),)) == f"{path}: cannot be read: {why}"


def test_a_column_that_is_there_twice_in_a_parquet_file(tmp_path):
    path = tmp_path / "m.parquet"
    columns = [pa.array(["a.mp4"]), pa.array([1]), pa.array([0])]
    table = pa.Table.from_arrays(columns, names=["video", "label", "label"])
    pyarrow.parquet.write_table(table, path)
    why = "it has several columns named 'label'; rename one"
    assert problem_of(suspects=(str(path),)) == f"{path}: cannot be read: {why}"


def test_columns_without_a_name_may_be_several(tmp_path):
    path = tmp_path / "m.csv"  # As spreadsheets write them.
    path.write_text("video,label,,\na.mp4,suspect,,\n")
    (item,) = load(corpus_of(suspects=(str(path),)))
    assert item.video == "a.mp4"


def test_a_column_without_a_name_is_that_of_no_field(tmp_path):
    (tmp_path / "m.csv").write_text("video,\na.mp4,x\n")
    source = str(tmp_path / "m.csv")
    (item,) = load(corpus_of(suspects=(source,), fields=("question=",)))
    assert item.question == ""


def test_problems_of_a_row_are_in_the_order_of_its_fields(tmp_path):
    row = {"video": 1, "question": [], "id": [], "date": [1], "candidates": 1}
    found = problems_of(suspects=(as_json(tmp_path / "m.json", [row]),))
    fields = ["video", "question", "id", "date", "candidates"]
    assert [problem.split(": row 1: ")[1].split()[0] for problem in found] == [
        repr(field) for field in fields
    ]


def test_a_row_keeps_its_group_where_a_role_has_several_sources(tmp_path):
    rows = [{"video": "a.mp4", "group": "own"}, {"video": "b.mp4"}]
    one = as_json(tmp_path / "one.json", rows)
    other = as_json(tmp_path / "other.json", [{"video": "c.mp4"}])
    items = load(corpus_of(suspects=(one, other)))
    assert [item.group for item in items] == ["own", "one", "other"]


def test_a_row_keeps_its_own_source(tmp_path):
    rows = [{"video": "a.mp4", "film": "one"}, {"video": "b.mp4", "film": None}]
    manifest = as_json(tmp_path / "m.json", rows)
    items = load(corpus_of(suspects=(manifest,), fields=("source=film",)))
    assert [item.source for item in items] == ["one", ""]
    assert [item.group for item in items] == ["", ""]


@pytest.mark.parametrize("field", ["source", "group"])
def test_a_name_is_one_however_a_format_writes_it(tmp_path, field):
    """A number, a number beside gaps, and a text with spaces around it."""
    rows = [{"video": "a.mp4", field: 7}]
    first = as_json(tmp_path / "a.json", rows)
    table = pa.table({"video": ["b.mp4", "c.mp4"], field: [7.0, None]})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    text = [{"video": "d.mp4", field: " 7 "}, {"video": "e.mp4", field: "7.0"}]
    text += [{"video": "f.mp4", field: "Größe\xa0"}]
    third = as_csv(tmp_path / "c.csv", text)
    corpus = corpus_of(suspects=(first, str(tmp_path / "b.parquet"), third))
    found = [getattr(item, field) for item in load(corpus)]
    without = "b" if field == "group" else ""  # The group of a file among several.
    assert found == ["7", "7", without, "7", "7", "Größe"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0, "0"),
        (-0.0, "0"),
        ("-0.0", "0"),
        (-3.0, "-3"),
        (2.5, "2.5"),
        (1e300, "1e+300"),
        (True, "True"),
        (float("inf"), "inf"),
        ("1.10", "1.10"),
        ("v1.0", "v1.0"),
        ("007.0", "007.0"),
        (" \t", ""),
        ("9" * 5000 + ".0", "9" * 5000 + ".0"),
    ],
)
def test_names_of_sources_and_groups(value, name):
    assert cells.name(value) == name


def test_an_id_stays_as_it_is(tmp_path):
    """Stored results have it."""
    rows = [{"video": f"{k}.mp4", "id": x} for k, x in enumerate(("7.0", " 8"))]
    items = load(corpus_of(suspects=(as_csv(tmp_path / "m.csv", rows),)))
    assert [item.id for item in items] == ["7.0", " 8"]


def test_a_line_is_not_endless(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "_LONGEST_LINE", 100)
    (tmp_path / "m.jsonl").write_text(json.dumps({"video": "a" * 100}))
    problem = problem_of(suspects=(str(tmp_path / "m.jsonl"),))
    assert "it has 113 characters of a line, at most 100 are read" in problem
