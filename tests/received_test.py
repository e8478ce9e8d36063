"""Work directories that were received: whatever they hold, one message."""

import json
import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store_test import _clip
from vidsme_jax import settings
from vidsme_jax.base import AuditError, Failure
from vidsme_jax.commands import finished
from vidsme_jax.commands.finished import run_config, run_record
from vidsme_jax.report import files
from vidsme_jax.store import received
from vidsme_jax.store.signals import Signals

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def folder(tmp_path):
    Signals(tmp_path, {"model": "x"}).write([_clip("a"), _clip("b")])
    return tmp_path


def _read(folder):
    store = received.opened(folder, {"model": "x"})
    return list(received.read(store, store.finished.keys()))


def _changed(folder, column, value):
    part = folder / "part-000000.parquet"
    table = pq.read_table(part)
    rows = table.to_pylist()
    for row in rows:
        row[column] = value(row[column]) if callable(value) else value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)


def test_what_a_run_has_written_is_whole(folder):
    assert [clip.key for clip in _read(folder)] == ["a", "b"]


@pytest.mark.parametrize(
    "column, value",
    [
        ("key", None),
        ("holds", None),
        ("content_hash", None),
        ("file_size", None),
        ("flow_variance", None),
        ("brightness_std", None),
        ("frame_indices", None),
        ("frame_indices", []),
        ("frame_indices", [None]),
        ("warnings", None),
        ("warnings", [None]),
        ("frame", None),
        ("frame", []),
        ("frame", lambda x: x[:-1]),
        ("frame", lambda x: [30_000] * len(x)),
        ("frame", lambda x: [None] * len(x)),
        ("renyi", None),
        ("renyi", []),
        ("renyi", lambda x: x[:-1]),
        ("renyi", lambda x: x[:30]),
        ("log_prob", lambda x: [float("nan")] * len(x)),
        ("log_prob", lambda x: [None] * len(x)),
        ("gap", lambda x: x[:2]),
        ("varentropy", lambda x: [float("inf")] * len(x)),
        ("mean_renyi", lambda x: [float("nan")] * len(x)),
    ],
)
def test_signals_that_no_run_has_written(folder, column, value):
    _changed(folder, column, value)
    with pytest.raises(AuditError, match="damaged") as caught:
        _read(folder)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("column", ["key", "text", "content_hash"])
def test_columns_that_are_not_utf_8(folder, column):
    part = folder / "part-000000.parquet"
    table = pq.read_table(part)
    raw = pa.array([b"\xff\xfe"] * len(table), pa.binary())
    bad = pa.Array.from_buffers(pa.string(), len(table), raw.buffers())
    pq.write_table(
        table.set_column(table.column_names.index(column), column, bad), part
    )
    with pytest.raises(AuditError, match="UnicodeDecodeError"):
        _read(folder)


def test_a_pipe_in_place_of_a_part(folder):
    os.mkfifo(folder / "part-000009.parquet")
    with pytest.raises(AuditError, match="not a regular file"):
        _read(folder)


@pytest.mark.parametrize(
    "content",
    [DEEP, b"\xff", b'{"config": ' + b"1" * 5000 + b"}", b"null", b'{"config": {}}'],
)
def test_a_record_that_is_none(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(AuditError, match=r"config\.json: cannot be read"):
        run_record(tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {"device": []},
        {"device": "x"},
        {"device": {"kernels": {"a": float("nan")}}},
        {"device": {"kernels": [[1]]}},
        {"device": {"kernels": 1}},
        {"reference": {"causes": 1}},
        {"reference": {"causes": [float("nan")]}},
        {"versions": 3},
    ],
)
def test_a_record_of_other_types(tmp_path, more):
    about = {"config": {}, "fingerprints": {}} | more
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(AuditError, match=r"config\.json: cannot be read"):
        run_record(tmp_path)


def test_records_that_are_no_files_or_too_large(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(AuditError, match="not a regular file"):
        run_record(tmp_path)
    (tmp_path / "config.json").unlink()
    monkeypatch.setattr(finished, "_MOST", 10)
    (tmp_path / "config.json").write_bytes(b" " * 11)
    with pytest.raises(AuditError, match="more than 10 bytes"):
        run_record(tmp_path)


@pytest.mark.parametrize(
    "line, text",
    [
        (b"{", "not JSON"),
        (b"[1]", "it must have cause, id, stage, video"),
        (DEEP, "not JSON"),
        (b"\0" * 99, "not JSON"),
        (b'{"id": "\xff"}', "not JSON"),
        (b'{"id": 1, "video": "", "stage": "", "cause": ""}', "must be text"),
        (b'{"id": "", "video": "", "stage": "", "cause": "", "x": 1}', "nothing else"),
    ],
)
def test_failures_that_are_none(tmp_path, line, text):
    path = tmp_path / "failures.jsonl"
    good = Failure(id="a\u2028\ud800", video="v", stage="open", cause="c")
    files.write_failures(path, [good])
    assert files.read_failures(path) == [good]
    with path.open("ab") as file:
        file.write((line + b"\n") * 1000)
    with pytest.raises(AuditError) as caught:
        files.read_failures(path)
    assert len(caught.value.problems) == 21
    assert "line 2: " in caught.value.problems[0] and text in caught.value.problems[0]


def test_failures_in_one_endless_line_or_a_pipe(tmp_path, monkeypatch):
    path = tmp_path / "failures.jsonl"
    monkeypatch.setattr(files, "_MAX_LINE", 1000)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(AuditError, match="longer than 1000 bytes"):
        files.read_failures(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AuditError, match="not a regular file"):
        files.read_failures(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: (run / "config.json").write_bytes(DEEP),
        lambda run: (run / "signals" / "run.json").write_bytes(DEEP),
        lambda run: (run / "signals" / "run.json").mkdir(),
    ],
)
def test_the_command_ends_with_a_message(tmp_path, capsys, spoil):
    about = {"config": settings.flatten(settings.default()), "fingerprints": {}}
    (tmp_path / "config.json").write_text(json.dumps(about, default=str))
    (tmp_path / "signals").mkdir()
    spoil(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_config(str(tmp_path))
    assert end.value.code == 2
    assert "1 problem:" in capsys.readouterr().err


def test_earlier_utilisation_of_a_damaged_record(tmp_path):
    from vidsme_jax.run import provenance

    path: pathlib.Path = tmp_path / "config.json"
    path.write_bytes(DEEP)
    assert provenance.earlier_utilisation(path) == {}


def test_a_corpus_of_ids_with_surrogates_has_a_fingerprint():
    from score_tables import table
    from vidsme_jax.run import provenance

    plain = table(np.arange(2.0), ["members", "nonmembers"])
    odd = table(np.arange(2.0), ["members", "nonmembers"])
    odd.id[:] = ["\ud800", "\udcff"]
    assert len(provenance.corpus(odd)) == 64
    assert provenance.corpus(odd) != provenance.corpus(plain)
