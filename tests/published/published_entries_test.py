"""Lists of every form, read entry by entry."""

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidsme_jax.base import AuditError
from vidsme_jax.published import entries
from vidsme_jax.published.sieve import Sieve


def _all(path):
    *found, count = entries.read(path, lambda texts: range(len(texts)))
    assert len(found) == count
    return [(entry.row, entry.cells) for entry in found]


ROWS = [{"id": "a", "video": "x/y.mp4"}, {"id": "b", "video": "z.mp4"}]


def _table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerows([["id", "video"], *[list(row.values()) for row in rows]])


def _parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


FORMS = {
    "a.json": lambda p, rows: p.write_text(json.dumps(rows)),
    "b.json": lambda p, rows: p.write_text(json.dumps(rows, indent=2)),
    "c.json": lambda p, rows: p.write_text("\n".join(map(json.dumps, rows))),
    "a.jsonl": lambda p, rows: p.write_text("\n".join(map(json.dumps, rows)) + "\n\n"),
    "a.parquet": _parquet,
    "z.jsonl.gz": lambda p, rows: p.write_bytes(
        gzip.compress("\n".join(map(json.dumps, rows)).encode())
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("times", [1, 2600])
def test_every_form_gives_the_same_entries(tmp_path, name, times):
    rows = [row | {"id": f"{row['id']}{k}"} for k in range(times) for row in ROWS]
    FORMS[name](tmp_path / name, rows)
    assert _all(tmp_path / name) == list(enumerate(rows, 1))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_names_of_a_table_are_no_entry(tmp_path, name):
    _table(tmp_path / name, ROWS)
    assert _all(tmp_path / name) == list(enumerate(ROWS, 1))


def test_a_table_without_names_and_with_rows_of_other_lengths(tmp_path):
    (tmp_path / "a.csv").write_text('dQw4w9WgXcQ,3\n"a,b",4,5\nc\n')
    assert [cells for _, cells in _all(tmp_path / "a.csv")] == [
        {"dQw4w9WgXcQ": "dQw4w9WgXcQ", "3": "3"},
        {"dQw4w9WgXcQ": "a,b", "3": "4", "column 2": "5"},
        {"dQw4w9WgXcQ": "c"},
    ]


def test_checksums(tmp_path):
    (tmp_path / "SHA256SUMS").write_text(f"{'a' * 64}  x/y z.mp4\n{'b' * 64} *b.mp4\n")
    assert [cells for _, cells in _all(tmp_path / "SHA256SUMS")] == [
        {"hash": "a" * 64, "file": "x/y z.mp4"},
        {"hash": "b" * 64, "file": "b.mp4"},
    ]


def test_text_has_an_entry_a_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\n b \n")
    assert _all(tmp_path / "a.txt") == [(1, {"line": "a"}), (2, {"line": "b"})]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (
            {"train": ["a", "b"], "val": ["c"]},
            [("train", "a"), ("train", "b"), ("val", "c")],
        ),
        ({"x": {"url": "u"}, "y": {"url": "v"}}, [("x", "u"), ("y", "v")]),
        ({"database": {"x": {"url": "u"}}}, [("database", "x", "u")]),
        ({"version": "1", "videos": ["a"]}, [("1", "a")]),
        ({"id": "a", "meta": {"url": "u"}}, [("a", "u")]),
        (["a", "b"], [("a",), ("b",)]),
        ("a", [("a",)]),
        ([], []),
        ([[{"id": "a"}], [{"id": "b"}, {"id": "c"}]], [("a",), ("b",), ("c",)]),
    ],
)
def test_json_of_any_shape(tmp_path, value, found):
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert [tuple(cells.values()) for _, cells in _all(tmp_path / "a.json")] == found


def test_a_large_object_of_entries_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(entries, "_LARGE", 64)
    monkeypatch.setattr(entries, "_CHUNK", 16)
    many = {f"video{k}": {"url": f"u{k}", "n": k} for k in range(50)}
    (tmp_path / "a.json").write_text(json.dumps(many))
    wanted = [(f"video{k}", f"u{k}") for k in range(50)]
    assert [tuple(cells.values()) for _, cells in _all(tmp_path / "a.json")] == wanted
    rows = [{"id": f"a{k}", "text": "x" * 100} for k in range(50)]
    (tmp_path / "b.json").write_text(json.dumps(rows))
    assert [cells for _, cells in _all(tmp_path / "b.json")] == rows


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'["a", "b"', "cannot be read as JSON (it is truncated)"),
        ("a.json", b'[{"a": "b"} {"c": "d"}]', "a comma is missing at"),
        ("a.json", b'{"a" 1}', "cannot be read as JSON"),
        ("a.json", b"\xff\xfe\x00", "cannot be read as JSON"),
        ("a.json", b"<html>", "cannot be read as JSON"),
        ("a.json", b"[" * 100_000, "cannot be read as JSON"),
        ("a.jsonl", b'{"a": "b"}\nno\n', "line 2 is not JSON: no"),
        ("a.jsonl", b'{"a": }\n', "line 1 is not JSON"),
        ("a.parquet", b"PAR1nothing", "cannot be read as Parquet"),
        ("a.csv.gz", b"\x1f\x8b\x08damaged", "cannot be read as CSV"),
        ("a.xml", b"<a/>", "a list of an unknown format; lists are JSON, JSON"),
        ("list", b"a", "a list of an unknown format"),
    ],
)
def test_what_is_no_list_is_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AuditError) as raised:
        _all(tmp_path / name)
    assert len(raised.value.problems) == 1 and said in raised.value.problems[0]
    assert len(raised.value.problems[0]) < 600


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(AuditError, match="no such file"):
        _all(tmp_path / "a.json")
    with pytest.raises(AuditError, match="not a file"):
        _all(tmp_path)


KEYS = ["dQw4w9WgXcQ", "my holiday-2.x", "AB_c-", "d41d8cd98f00b204e9800998ecf8427e"]


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS, ["été_à_Paris"], ["视频的名字"], []])
def test_a_sieve_lets_every_key_through(keys):
    rng = np.random.default_rng(0)
    alphabet = list("abcXYZ019-_ ./é视")
    texts = ["".join(rng.choice(alphabet, int(n))) for n in rng.integers(0, 40, 500)]
    wanted = {}
    for key in keys:
        for form in (key, key.lower(), key.upper()):
            place = int(rng.integers(len(texts)))
            cut = int(rng.integers(len(texts[place]) + 1))
            texts[place] = f"{texts[place][:cut]}{form}{texts[place][cut:]}"
            wanted.setdefault(place, form)
    sieve = Sieve(keys)
    assert {p for p, form in wanted.items() if form in texts[p]} <= set(sieve(texts))
    if keys[:1] == KEYS[:1]:
        assert len(sieve(texts)) < 60
    assert sieve([]) == []


def test_only_the_chosen_are_taken_apart(tmp_path):
    rows = [{"id": f"row{k}", "video": "a"} for k in range(3000)]
    rows[2500]["video"] = "dQw4w9WgXcQ"
    for name, write in FORMS.items():
        write(tmp_path / name, rows)
        *found, count = entries.read(tmp_path / name, Sieve(["dQw4w9WgXcQ"]))
        assert count == 3000
        assert [entry.row for entry in found] == [*range(1, 1001), 2501]
        assert found[-1].cells == rows[2500]
