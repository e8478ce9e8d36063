"""Folders of a run that hold what no run has written: named at once, nothing blocks."""

import json
import os
import pathlib
import random
import signal
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidsme_jax.base import AuditError, MotionStatistics, ScoredClip, TokenSignals
from vidsme_jax.store.answers import Answer, Answers
from vidsme_jax.store.signals import Signals

ROWS, SECONDS = 4, 5.0  # Where a second is meant, on a busy machine.
LISTS = ("renyi", "gap", "frame", "mean_renyi", "modified")


def _array(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def _clip(key: str) -> ScoredClip:
    computed = TokenSignals(
        *(_array(2, ROWS, 15), _array(2, ROWS), _array(2, ROWS), _array(2, ROWS)),
        *(_array(2, ROWS, 3), _array(2, ROWS), _array(2, 2, 15)),
    )
    return ScoredClip(
        key=key,
        content_hash="ab" * 32,
        signals=computed,
        frame=np.zeros(ROWS, np.int16),
        frame_indices=(0, 1),
        motion=MotionStatistics(1.0, 1.0),
    )


def _read(folder: pathlib.Path) -> int:
    store = Signals(folder, {"model": "x"})
    return len(list(store.read(store.finished)))


@pytest.fixture
def part(tmp_path) -> pathlib.Path:
    """The one part of a folder of signals."""
    Signals(tmp_path, {"model": "x"}).write([_clip("a")])
    assert _read(tmp_path) == 1
    return tmp_path / "part-000000.parquet"


@pytest.fixture(autouse=True)
def _nothing_blocks():
    def late(*_):
        raise TimeoutError("blocked")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _refused(path: pathlib.Path) -> str:
    """Asserts that one problem names the file, soon; returns it."""
    begin = time.process_time()
    with pytest.raises(AuditError) as caught:
        _read(path.parent)
    assert time.process_time() - begin < SECONDS
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: damaged ("), problem
    return problem


def _put(part: pathlib.Path, table: pa.Table, **more: bytes) -> None:
    about = pq.read_schema(part).metadata
    about |= {f"vidsme_jax.{name}".encode(): value for name, value in more.items()}
    pq.write_table(table.replace_schema_metadata(about), part)


def _huge(path: pathlib.Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


NO_FILES: dict[str, Callable[[pathlib.Path], None]] = {
    "folder": pathlib.Path.mkdir,
    "pipe": os.mkfifo,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["part-000000.parquet", "run.json"])
def test_what_is_no_file_is_named(part, name, kind):
    path = part.with_name(name)
    path.unlink()
    NO_FILES[kind](path)
    assert "not a regular file" in _refused(path)


def test_files_of_ten_gigabytes_are_not_read(part):
    whole = part.read_bytes()
    _huge(part)
    _refused(part)
    part.write_bytes(whole)
    _huge(part.with_name("run.json"))
    assert "more than 16 MiB" in _refused(part.with_name("run.json"))


@pytest.mark.parametrize(
    "text",
    [
        *(b"[]", b'[["a", 1]]', b"5", b"null", b'""', b"", b"{", b"\xff\xfe"),
        *(b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}"),
    ],
)
def test_a_record_that_is_none_is_named(part, text):
    record = part.with_name("run.json")
    record.write_bytes(text)
    assert "delete it" in _refused(record)


def test_settings_that_differ_are_listed_as_far_as_twenty(part):
    record = part.with_name("run.json")
    about = json.loads(record.read_text()) | {f"k{n}": 1 for n in range(5000)}
    record.write_text(json.dumps(about))
    with pytest.raises(AuditError) as caught:
        _read(part.parent)
    assert len(caught.value.problems) == 21
    assert "4980 other settings differ" in caught.value.problems[-1]
    record.write_text(json.dumps({"format": "2"}))
    with pytest.raises(
        AuditError, match="have format '2', this version reads format 3"
    ):
        _read(part.parent)


@pytest.mark.parametrize("settings", [b"[" * 5000, b"[1]", b"\xff", b"5"])
def test_settings_of_a_part_that_are_none_are_named(part, settings):
    _put(part, pq.read_table(part), settings=settings)
    assert "its settings are not readable" in _refused(part)


def test_large_metadata_is_not_read(part):
    _put(part, pq.read_table(part), more=b"y" * 20_000_000)
    assert "its footer claims to have" in _refused(part)
    part.write_bytes(b"PAR1" + (4_000_000_000).to_bytes(4, "little") + b"PAR1")
    assert "its footer claims to have 4000000000 bytes" in _refused(part)


def test_rows_beyond_measure_are_not_read(part):
    """A megabyte can claim millions of rows."""
    schema, count = pq.read_table(part).schema, 2_000_000
    nulls = [pa.nulls(count, field.type) for field in schema]
    _put(part, pa.Table.from_arrays(nulls, schema=schema))
    assert part.stat().st_size < 1 << 20
    assert f"it claims to have {count} rows" in _refused(part)


def test_columns_of_another_kind_are_named(part):
    table = pq.read_table(part)
    for other in (
        table.drop_columns(["gap"]),
        table.append_column("more", pa.array([1])),
        table.rename_columns([*table.column_names[:-1], "kind"]),
        table.set_column(0, "key", table.column("key").dictionary_encode()),
        pa.table({f"c{n}": [1] for n in range(5000)}),
    ):
        _put(part, other)
        assert "its columns are not those of signals" in _refused(part)


def test_rows_without_a_value_are_named(part):
    table, refused = pq.read_table(part), []
    for place, field in enumerate(table.schema):
        _put(part, table.set_column(place, field, pa.nulls(1, field.type)))
        try:
            assert _read(part.parent) == 1
        except AuditError as error:
            assert str(part) in str(error)
            refused.append(field.name)
        _put(part, table)
    assert {"key", "holds", "warnings", "frame", "renyi", "log_prob"} <= set(refused)


@pytest.mark.parametrize("name", LISTS)
def test_arrays_that_do_not_fit_together_are_named(part, name):
    table = pq.read_table(part)
    place, field = table.column_names.index(name), table.schema.field(name)
    for values in ([1] * 7, [1] * 61, [None] * len(table.column(name)[0])):
        _put(part, table.set_column(place, field, pa.array([values], field.type)))
        _refused(part)
        _put(part, table)


def test_names_that_no_part_has_are_left_alone(part):
    for name in ("part-1.parquet", "part-²²²²²².parquet", "part-٣٣٣٣٣٣.parquet"):
        part.with_name(name).write_text("a user's")
    assert _read(part.parent) == 1


def test_answers_without_a_value_are_named(tmp_path):
    Answers(tmp_path, {}).write([Answer("k", "t", "ab", (1,), "end", "yes")])
    (part,) = tmp_path.glob("part-*.parquet")
    table = pq.read_table(part)
    for place, field in enumerate(table.schema):
        _put(part, table.set_column(place, field, pa.nulls(1, field.type)))
        with pytest.raises(AuditError, match=f"a row has no {field.name}"):
            Answers(tmp_path, {})
        _put(part, table)


def test_a_part_with_any_bytes_changed_is_read_or_named(part):
    """Mostly in its footer, whose counts and places may then be any."""
    data, rng = part.read_bytes(), random.Random(0)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    named = 0
    for _ in range(300):
        spoilt = bytearray(data)
        for _ in range(rng.choice((1, 1, 4))):
            spoilt[rng.randrange(footer, len(data))] = rng.randrange(256)
        part.write_bytes(spoilt)
        try:
            _read(part.parent)
        except AuditError as error:
            assert all(str(part) in problem for problem in error.problems)
            named += 1
    assert named > 100
