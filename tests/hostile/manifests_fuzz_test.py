"""Manifests damaged and hostile by the hundred: each is read, or told to be faulty."""

import json
import os
import pathlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from vidsme_jax import settings
from vidsme_jax.base import AuditError, Item
from vidsme_jax.data import corpora
from vidsme_jax.settings import views

ROWS = [
    {
        "video": f"{n}.mp4",
        "question": "What is it?",
        "candidates": ["a", "größer"],
        "answer": "a",
        "id": f"row {n}",
        "group": "street",
        "label": "suspect",
    }
    for n in range(4)
]
# What a text field may hold instead of what one would expect.
STRANGE = (
    *(None, True, -1, 10**300, float("nan"), float("inf"), "", " ", "\t", "\n"),
    *("\0", "a\0b", "\ud800", "\udcff.mp4", "\u202egpj", "\x1b[2J", "x" * 100_000),
    *("a/" * 3000, "../" * 50, "/", ".", "..", "~", "/dev/zero", "file:///etc/passwd"),
    *("http://[::1/a.mp4", "a" * 300 + ".mp4", "[" * 100_000, '["a', '[{"a": [1]}]'),
    *([], [[]], [None, {}], {}, {"a": {"b": []}}, [1e400], ["\ud800"]),
)


def _files(rows, rng):
    """The same rows in every format that can hold them."""
    yield "json", json.dumps(rows).encode()
    yield "jsonl", "\n".join(map(json.dumps, rows)).encode()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[str(row.get(name, "")) for name in columns] for row in rows]
    quoted = [[cell.replace('"', '""') for cell in line] for line in cells]
    lines = [columns, *quoted]
    text = "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines)
    yield "csv", text.encode("utf-8", "surrogatepass")
    table = {name: [_plain(row.get(name)) for row in rows] for name in columns}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(table), sink)
    yield "parquet", sink.getvalue().to_pybytes()


def _plain(value):
    return str(value).encode("utf-8", "replace").decode()


def _corpus(path) -> views.Corpus:
    config = settings.default()
    config.corpus.suspects = (str(path),)
    return views.view(views.Corpus, config)


def _load(path) -> tuple[Item, ...] | None:
    try:
        items = corpora.load(_corpus(path), looks=False).items
    except AuditError as error:
        assert error.problems and all(isinstance(p, str) for p in error.problems)
        assert sum(map(len, error.problems)) < 200_000
        return None
    folder = path.parent.resolve()
    for item in items:
        assert pathlib.Path(item.clip).is_relative_to(folder)
        os.fsencode(item.clip)
    return items


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_strange_values(tmp_path, rng):
    read = 0
    for _case in range(150):
        rows = [dict(row) for row in ROWS]
        for _ in range(rng.integers(1, 4)):
            row = rows[rng.integers(len(rows))]
            name = list(ROWS[0])[rng.integers(len(ROWS[0]))]
            row[name] = STRANGE[rng.integers(len(STRANGE))]
        for suffix, data in _files(rows, rng):
            path = tmp_path / f"m.{suffix}"
            path.write_bytes(data)
            read += _load(path) is not None
    assert 60 < read < 540


def test_damaged_bytes(tmp_path, rng):
    read, files = 0, list(_files(ROWS, rng))
    for number in range(600):
        suffix, data = files[number % len(files)]
        data = bytearray(data)
        for _ in range(rng.integers(1, 3)):
            at = rng.integers(len(data))
            if rng.integers(3):
                data[at] = rng.integers(256)
            else:
                del data[at : at + rng.integers(1, 20)]
        path = tmp_path / f"m.{suffix}"
        path.write_bytes(data)
        read += _load(path) is not None
    assert 30 < read < 570


def test_a_manifest_of_nothing_but_faults_is_told_in_short(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"video": "x" * 10_000 + "\0"}] * 3000))
    with pytest.raises(AuditError) as caught:
        corpora.load(_corpus(path))
    assert "and 2981 more problems" in caught.value.problems[19]
    assert sum(map(len, caught.value.problems)) < 20_000
