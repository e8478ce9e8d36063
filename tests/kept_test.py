"""Scores that are kept beside the signals: taken only where they are the same."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scores_tables_test import ANSWERS, MOTION, NAMES, _clip, _items
from vidsme_jax.base import Fingerprint, MotionStatistics, Traits
from vidsme_jax.scores import kept, tables
from vidsme_jax.scores.kept import FOLDER, Kept
from vidsme_jax.store import chunks, hashes, received
from vidsme_jax.store.signals import Signals

ABOUT = {"code": "this", "scales": [1.0, 0.1]}
SLICES = ("video", "instruction", "response")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Files of tests are new, and count as settled all the same."""
    monkeypatch.setattr(hashes, "_SETTLED", -(10**15))


@pytest.fixture
def read(monkeypatch):
    """Returns the keys of the clips whose signals are read, in a list."""
    found, whole = [], received.read

    def reading(store, keys):
        for clip in whole(store, keys):
            found.append(f"{store.folder.name}/{clip.key}")
            yield clip

    monkeypatch.setattr(received, "read", reading)
    return found


def _traits(key):
    rng = np.random.default_rng(ord(key))
    hashed = rng.integers(0, 2**64, (6, 7, 2), np.uint64)
    pixels = rng.normal(0, 1, 32).astype(np.float32)
    return Traits(
        pixels,
        {"width": 9.5, "codec": "é\n"},
        Fingerprint(hashed, hashed[..., 0] % 2 > 0),
    )


def _written(workdir, seed=0, keys="abc", reference=None):
    clips = [
        dataclasses.replace(
            _clip(key, seed), traits=_traits(key), warnings=(f"<{key}>\ud800",)
        )
        for key in keys
    ]
    clips[-1] = dataclasses.replace(clips[-1], traits=None, warnings=())
    store = Signals(workdir / "signals", {})
    for clip in clips:
        store.write([clip])
    if reference is None:
        return store, None
    other = Signals(workdir / "signals-reference", {})
    other.write([_clip(key, reference) for key in keys[:-1]])
    return store, other


def _opened(workdir):
    return tuple(
        Signals(workdir / name, {}) if (workdir / name).exists() else None
        for name in ("signals", "signals-reference")
    )


def _table(
    workdir, *, names=NAMES[:3], items=None, motion=MOTION, about=ABOUT, usable=True
):
    store, reference = _opened(workdir)
    its = Kept(workdir, about, usable=usable)
    table = tables.score_table(
        *(_items() if items is None else items, store, names, "exact", motion),
        slices=SLICES,
        reference=reference,
        allow_duplicates=True,
        kept=its,
    )
    its.write()
    return table


def _alone(workdir, **more):
    """Returns the same without anything that is kept."""
    kept_before = workdir / FOLDER
    aside = workdir / "aside"
    if kept_before.exists():
        kept_before.rename(aside)
    found = _table(workdir, **more)
    shutil.rmtree(kept_before)
    if aside.exists():
        aside.rename(kept_before)
    return found


def _same(one, other):
    assert one[1] == other[1]
    for field in dataclasses.fields(one[0]):
        its, theirs = (getattr(x[0], field.name) for x in (one, other))
        if isinstance(its, dict):
            assert its.keys() == theirs.keys()
            for key, value in its.items():
                if isinstance(value, dict):
                    assert value.keys() == theirs[key].keys()
                    for name, column in value.items():
                        np.testing.assert_array_equal(column, theirs[key][name])
                else:
                    np.testing.assert_array_equal(value, theirs[key])
        else:
            np.testing.assert_array_equal(its, theirs)


@pytest.mark.parametrize("with_reference", [False, True])
def test_what_is_kept_is_equal_and_no_signal_is_read(tmp_path, read, with_reference):
    _written(tmp_path, reference=1 if with_reference else None)
    names = NAMES if with_reference else NAMES[:3]
    first = _table(tmp_path, names=names)
    assert first[0].traits["container"]["codec"].tolist()[0] == "é\n"
    assert first[1]["a"] == ["<a>\ud800"]
    assert with_reference == bool(first[0].reference)
    if with_reference:
        assert np.isnan(first[0].scores["vid_sme_ref"]).tolist() == [0, 0, 0, 1, 0]
    assert len(read) == (5 if with_reference else 3)
    read.clear()
    _same(_table(tmp_path, names=names), first)
    fewer = _table(tmp_path, names=names[1:3])
    assert list(fewer[0].scores) == list(names[1:3])
    assert read == ["signals-reference/" + k for k in "ab"] * 0
    np.testing.assert_array_equal(fewer[0].scores[names[1]], first[0].scores[names[1]])


def test_other_scales_are_computed_and_both_are_kept(tmp_path, read):
    _written(tmp_path)
    first = _table(tmp_path)
    other = ABOUT | {"scales": [2.0, 0.1]}
    motion = dataclasses.replace(MOTION, q_scale=0.5)
    second = _table(tmp_path, motion=motion, about=other)
    assert not np.array_equal(second[0].scores["vid_sme"], first[0].scores["vid_sme"])
    assert len(read) == 6
    read.clear()
    _same(_table(tmp_path), first)
    _same(_table(tmp_path, motion=motion, about=other), second)
    assert not read
    # Where the name of the file does not tell, q and r do.
    _same(_table(tmp_path, motion=motion), second)
    assert len(read) == 3


def test_only_new_clips_are_read_while_bounds_hold(tmp_path, read):
    _written(tmp_path, keys="abc")
    few = [item for item in _items() if item.clip != "c"]
    _table(tmp_path, items=few)
    assert read == ["signals/a", "signals/b"]
    read.clear()
    grown = _table(tmp_path)
    assert read == ["signals/c"]
    _same(grown, _alone(tmp_path))
    # Bounds of the corpus move with it, and with them q and r of every clip.
    free = dataclasses.replace(MOTION, bounds=None)
    about = ABOUT | {"scales": "free"}
    _table(tmp_path, items=few, motion=free, about=about)
    read.clear()
    moved = _table(tmp_path, motion=free, about=about)
    assert {"signals/b", "signals/c"} <= set(read)
    _same(moved, _alone(tmp_path, motion=free, about=about))


def test_signals_of_other_content_are_read(tmp_path, read):
    """A part that was replaced, and a clip that was scored again, in a later part."""
    _written(tmp_path)
    before = _table(tmp_path)
    read.clear()
    other = tmp_path / "other"
    _written(other, seed=5)
    part = "signals/part-000001.parquet"
    old = (tmp_path / part).stat()
    shutil.copy(other / part, tmp_path / part)
    os.utime(tmp_path / part, ns=(old.st_atime_ns, old.st_mtime_ns))
    after = _table(tmp_path)
    assert read == ["signals/b"]
    changed = after[0].scores["vid_sme"] != before[0].scores["vid_sme"]
    assert changed.tolist() == [False, False, True, False, False]
    store, _ = _opened(tmp_path)
    store.write([_clip("a", 7)])
    read.clear()
    _same(_table(tmp_path), _alone(tmp_path))
    assert read[0] == "signals/a" and len(read) == 4


def test_signals_of_the_reference_of_other_content_are_read(tmp_path, read):
    _written(tmp_path, reference=1)
    before = _table(tmp_path, names=NAMES)
    shutil.rmtree(tmp_path / "signals-reference")
    Signals(tmp_path / "signals-reference", {}).write([_clip("a", 1), _clip("b", 2)])
    read.clear()
    after = _table(tmp_path, names=NAMES)
    _same(after, _alone(tmp_path, names=NAMES))
    name = "vid_sme_ref"
    assert before[0].scores[name][2] != after[0].scores[name][2]
    shutil.rmtree(tmp_path / "signals-reference")
    plain = _table(tmp_path, names=NAMES[:3])
    assert not plain[0].reference


def test_another_version_of_the_program_computes(tmp_path, read):
    _written(tmp_path)
    first = _table(tmp_path)
    _same(_table(tmp_path, about=ABOUT | {"code": "that"}), first)
    assert len(read) == 6


def test_a_copy_of_a_folder_is_as_good(tmp_path, read):
    _written(tmp_path / "one")
    first = _table(tmp_path / "one")
    read.clear()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    _same(_table(tmp_path / "two"), first)
    assert not read
    assert (tmp_path / "two" / FOLDER / "parts.json").read_bytes() != (
        tmp_path / "one" / FOLDER / "parts.json"
    ).read_bytes()


def _flipped(path):
    data = bytearray(path.read_bytes())
    own = sorted(pq.read_table(path).column("id").to_pylist())[1]  # No page has it as
    data[data.index(own)] ^= 1  # its least or largest value: this is in its content.
    path.write_bytes(data)


def _retyped(path):
    table = pq.read_table(path)
    place = table.column_names.index("length")
    pq.write_table(table.set_column(place, "length", [["x"] * len(table)]), path)


def _valued(value):
    def change(path):
        table = pq.read_table(path)
        values = pa.array([value] * len(table), pa.float64())
        place = table.column_names.index("vid_sme")
        pq.write_table(table.set_column(place, "vid_sme", values), path)

    return change


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("clips-000.parquet", _flipped),
        ("scores-*.parquet", _flipped),
        ("clips-000.parquet", _fifo),
        ("scores-*.parquet", lambda path: path.write_bytes(b"")),
        ("clips-000.parquet", lambda path: path.write_bytes(path.read_bytes()[:-9])),
        ("scores-*.parquet", _retyped),
        ("scores-*.parquet", _valued(np.inf)),
        ("scores-*.parquet", _valued(None)),
    ],
    ids=["clips", "scores", "fifo", "empty", "short", "retyped", "infinite", "null"],
)
def test_what_is_damaged_is_computed_and_replaced(tmp_path, read, caplog, damage, name):
    _written(tmp_path)
    first = _table(tmp_path)
    (path,) = (tmp_path / FOLDER).glob(name)
    damage(path)
    read.clear()
    _same(_table(tmp_path), first)
    assert len(read) == 3 and "ignored" in caplog.text
    read.clear()
    _same(_table(tmp_path), first)
    assert not read


@pytest.mark.parametrize(
    "text",
    [
        b"[",
        b"[" * 100_000,
        b"[]",
        b'{"signals/part-000000.parquet": 3}',
        b'{"x": [1, 2, 3, 4, "ab"]}',
    ],
)
def test_damaged_hashes_are_made_again(tmp_path, read, caplog, text):
    _written(tmp_path)
    first = _table(tmp_path)
    path = tmp_path / FOLDER / "parts.json"
    path.write_bytes(text)
    _same(_table(tmp_path), first)
    assert "ignored" in caplog.text
    assert len(json.loads(path.read_text())) == 3


def test_what_may_not_be_taken_is_not(tmp_path, read):
    _written(tmp_path)
    first = _table(tmp_path)
    _valued(1e9)(next((tmp_path / FOLDER).glob("scores-*")))
    read.clear()
    _same(_table(tmp_path, usable=False), first)
    assert len(read) == 3


def test_a_disk_that_is_full_costs_time_alone(tmp_path, read, caplog, monkeypatch):
    _written(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chunks, "write", full)
    first = _table(tmp_path)
    assert "not kept" in caplog.text
    _same(_table(tmp_path), first)
    assert len(read) == 6


def test_many_rows_are_in_several_files(tmp_path, read, monkeypatch):
    monkeypatch.setattr(chunks, "_ROWS", 2)
    _written(tmp_path)
    first = _table(tmp_path)
    names = sorted(path.name for path in (tmp_path / FOLDER).iterdir())
    assert [name.split("-")[-1] for name in names] == [
        *("000.parquet", "001.parquet", "parts.json", "000.parquet", "001.parquet")
    ]
    read.clear()
    _same(_table(tmp_path), first)
    assert not read
    monkeypatch.setattr(chunks, "_ROWS", 9)
    _table(tmp_path, usable=False)
    assert len(list((tmp_path / FOLDER).iterdir())) == 3


def test_scores_of_few_settings_are_kept(tmp_path):
    _written(tmp_path)
    stems = []
    for scale in range(kept._MOST + 2):
        _table(tmp_path, about=ABOUT | {"scales": scale})
        new = {path.name for path in (tmp_path / FOLDER).glob("scores-*")}
        stems += [name for name in sorted(new) if name not in stems]
        for place, name in enumerate(stems):  # In the order of their writing.
            if name in new:
                os.utime(tmp_path / FOLDER / name, ns=(place, place))
    there = sorted(path.name for path in (tmp_path / FOLDER).glob("scores-*"))
    assert there == sorted(stems[-kept._MOST :]) and len(stems) == kept._MOST + 2


def test_hashes_of_files_that_change(tmp_path, monkeypatch):
    monkeypatch.undo()
    path, counted = tmp_path / "a", []
    whole = hashes.regular.sha256
    monkeypatch.setattr(
        hashes.regular, "sha256", lambda path: counted.append(path) or whole(path)
    )
    path.write_bytes(b"one")
    found = hashes.Hashes(tmp_path)
    one = found.of(path)
    # It was written a moment ago, and may be again within the same tick.
    assert found.of(path) == one and len(counted) == 2 and not found.changed
    monkeypatch.setattr(hashes, "_SETTLED", -(10**15))
    assert found.of(path) == found.of(path) == one
    assert len(counted) == 3 and found.changed
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found.of(path) != one
    record = tmp_path / "known.json"
    found.write(record)
    again = hashes.Hashes(tmp_path)
    again.read(record)
    counted.clear()
    assert again.of(path) == found.of(path) and not counted
    path.unlink()
    again.write(record)
    assert json.loads(record.read_text()) == {}


def test_clips_of_equal_motion_and_texts_are_distinguished(tmp_path):
    """By their keys: two clips of one part have the same hash of it."""
    motion = MotionStatistics(100.0, 200.0)
    store = Signals(tmp_path / "signals", {})
    store.write([dataclasses.replace(_clip(key, 0), motion=motion) for key in ANSWERS])
    first = _table(tmp_path)
    assert len(set(first[0].scores["vid_sme"].tolist())) == 3
    _same(_table(tmp_path), first)
