"""Signals on disk: whole or not there, and never mixed."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import children
from vidsme_jax.base import (
    Asked,
    AuditError,
    Fingerprint,
    MotionStatistics,
    ScoredClip,
    ScoredText,
    TokenSignals,
    Traits,
)
from vidsme_jax.data import appearance, similar
from vidsme_jax.store import files, lock, signals, traits
from vidsme_jax.store.answers import Answer, Answers
from vidsme_jax.store.lock import locked
from vidsme_jax.store.signals import BLANK, SECOND, Signals
from vidsme_jax.store.writers import Writer


def _clip(key, rows=6, second=True):
    rng = np.random.default_rng(abs(hash(key)) % 1000)

    def array(*shape):
        return rng.normal(size=shape).astype(np.float32)

    signals = TokenSignals(
        array(2, rows, 15), array(2, rows), array(2, rows), array(2, rows)
    )
    if second:
        signals = signals._replace(
            modified=array(2, rows, 3),
            renyi_half_clamped=array(2, rows),
            mean_renyi=array(2, 2, 15),
        )
    return ScoredClip(
        key=key,
        content_hash="ab" * 32,
        signals=signals,
        frame=np.arange(rows, dtype=np.int16) // 2,
        frame_indices=(0, 5, 9),
        motion=MotionStatistics(1.25, 0.5),
        warnings=("cut short",),
        traits=_traits(rng),
    )


def _traits(rng):
    shape = 3, similar.WINDOWS
    prints = Fingerprint(
        rng.integers(2**64, size=(*shape, 2), dtype=np.uint64), rng.random(shape) < 0.5
    )
    pixels = rng.normal(size=len(appearance.COLUMNS)).astype(np.float32)
    return Traits(pixels, {"codec": "h264", "fps": 12.5}, prints)


def _assert_same_traits(found, expected):
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.container == expected.container
        for a, b in zip(
            (found.pixels, *found.prints),
            (expected.pixels, *expected.prints),
            strict=True,
        ):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("second", [True, False])
def test_what_is_written_is_read(tmp_path, second):
    clips = [_clip("a", 6, second), _clip("b", 4, second), _clip("c", 6, second)]
    store = Signals(tmp_path, {"model": "x"})
    store.write(clips[:2])
    store.write(clips[2:])
    again = Signals(tmp_path, {"model": "x"})
    motion = {key: known.motion for key, known in again.finished.items()}
    assert motion == {c.key: c.motion for c in clips}
    for expected, found in zip(clips, again.read({"a", "b", "c"}), strict=True):
        for name, value in zip(TokenSignals._fields, found.signals, strict=True):
            np.testing.assert_array_equal(value, getattr(expected.signals, name))
        np.testing.assert_array_equal(found.frame, expected.frame)
        assert found.num_rows == expected.num_rows and found.num_frames == 3
        assert found.frame_indices == (0, 5, 9) and found.warnings == ("cut short",)
        _assert_same_traits(found.traits, expected.traits)
    assert [c.key for c in again.read({"b"})] == ["b"]


def test_traits_are_of_the_clip_whatever_rows_are_left(tmp_path):
    first, second = _clip("a"), _clip("b").traits
    texts = _text("1"), _text("2")
    store = Signals(tmp_path, {})
    store.write([_asked(first, *texts, video=False)])
    store.forget("a", texts=["1"])
    (found,) = store.read("a")
    assert len(found.texts) == 1
    _assert_same_traits(found.traits, first.traits)
    changed = dataclasses.replace(first, content_hash="cd" * 32, traits=second)
    store.write([changed])
    _assert_same_traits(next(iter(store.read("a"))).traits, second)
    unknown = dataclasses.replace(first, content_hash="ef" * 32, traits=None)
    store.write([unknown])
    assert next(iter(store.read("a"))).traits is None
    rows = [row for x in sorted(tmp_path.glob("part-*")) for row in _rows(x)]
    assert [row["container"] is None for row in rows] == [False, True, False, True]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("pixels", [0.0] * 31),
        ("pixels", [float("nan")] * 32),
        ("pixels", [None] * 32),
        ("pixels", None),
        ("hashes", [1]),
        ("valid", [True] * 20),
        ("valid", [None] * 21),
        ("container", "{"),
        ("container", '{"fps": NaN}'),
        ("container", None),
    ],
)
def test_traits_that_no_run_has_written_are_damage(tmp_path, column, value):
    store = Signals(tmp_path, {})
    store.write([_clip("a")])
    (part,) = tmp_path.glob("part-*")
    table = pq.read_table(part)
    place = table.schema.get_field_index(column)
    kind = table.schema.field(place).type
    table = table.set_column(place, column, pa.array([value], kind))
    pq.write_table(table, part)
    with pytest.raises(AuditError, match=r"part-000000\.parquet: damaged"):
        list(Signals(tmp_path, {}).read("a"))


def test_the_numbers_of_traits_are_those_of_their_modules():
    assert traits.PIXELS == len(appearance.COLUMNS)
    assert traits.WINDOWS == similar.WINDOWS


def test_of_a_clip_that_was_scored_again_the_latest_signals_count(tmp_path):
    store = Signals(tmp_path, {})
    store.write([_clip("a", 6), _clip("b", 6)])
    store.write([_clip("a", 4)])
    for opened in (store, Signals(tmp_path, {})):
        found = {clip.key: clip.num_rows for clip in opened.read({"a", "b", "c"})}
        assert found == {"a": 4, "b": 6}


def _text(key, rows=4, blank=True):
    rng = np.random.default_rng(abs(hash(key)) % 1000)
    signals = _clip(key, rows).signals
    assert signals is not None
    return ScoredText(
        asked=Asked(
            key=key,
            question="what is seen",
            candidates=("a dog", "rain"),
            answer="a dog",
            ended="length",
            ids=(5, 6),
        ),
        tokens=rng.integers(0, 99, rows).astype(np.int32),
        slice=np.array([1] * (rows - 2) + [2] * 2, np.int8),
        signals=signals._replace(rank=rng.random((2, rows)).astype(np.float32)),
        blank=rng.random(rows).astype(np.float32) if blank else None,
    )


def _asked(clip, *texts, video=True):
    signals = clip.signals if video else None
    frame = clip.frame if video else clip.frame[:0]
    return dataclasses.replace(clip, signals=signals, frame=frame, texts=texts)


def _assert_same_text(found, expected):
    assert found.asked == expected.asked
    for name in ("tokens", "slice", "blank"):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    for a, b in zip(found.signals, expected.signals, strict=True):
        np.testing.assert_array_equal(a, b)


def test_texts_are_read_with_their_clip_wherever_they_are(tmp_path):
    """Each clip comes once, though its rows are in several parts."""
    one, two, three = _text("1"), _text("2", 7, blank=False), _text("3")
    a, b = _clip("a"), _clip("b")
    store = Signals(tmp_path, {})
    store.write([_asked(a, one), _asked(b, one, two, video=False)])
    store.write([_asked(a, two, three, video=False)])
    store.write([b])
    for opened in (store, Signals(tmp_path, {})):
        found = {clip.key: clip for clip in opened.read("ab")}
        assert len(list(opened.read("ab"))) == 2
        for key, texts in (("a", (one, two, three)), ("b", (one, two))):
            clip = found[key]
            np.testing.assert_array_equal(
                clip.signals.renyi, {"a": a, "b": b}[key].signals.renyi
            )
            assert clip.num_rows == 6 and len(clip.texts) == len(texts)
            for text, expected in zip(clip.texts, texts, strict=True):
                _assert_same_text(text, expected)
        known = opened.finished["a"]
        assert known.video is not None and known.video.part == 0
        assert {k: x.part for k, x in known.texts.items()} == {"1": 0, "2": 1, "3": 1}
        slices = {"instruction", "response"}
        assert known.texts["1"].holds == slices | {SECOND, BLANK}
        assert known.texts["2"].holds == slices | {SECOND}
        assert opened.holds(video=True) == {SECOND}
    rows = [row for x in sorted(tmp_path.glob("part-*")) for row in _rows(x)]
    assert rows[0]["slice"] == [0] * 6 and rows[0]["question"] is None
    assert rows[0]["text"] == "" and rows[1]["frame"] is None


def _rows(part):
    return pq.read_table(part).to_pylist()


def test_of_a_text_that_was_scored_again_the_latest_rows_count(tmp_path):
    store = Signals(tmp_path, {})
    store.write([_asked(_clip("a"), _text("1"), _text("2", blank=False))])
    store.write([_asked(_clip("a"), _text("2", 9), video=False)])
    for opened in (store, Signals(tmp_path, {})):
        (clip,) = opened.read("a")
        assert {x.asked.key: len(x.tokens) for x in clip.texts} == {"1": 4, "2": 9}
        assert BLANK in opened.finished["a"].texts["2"].holds


def test_texts_of_a_file_as_it_was_are_forgotten(tmp_path):
    store = Signals(tmp_path, {})
    store.write([_asked(_clip("a"), _text("1"), _text("2"))])
    changed = dataclasses.replace(_clip("a", 4), content_hash="cd" * 32)
    store.write([_asked(changed, _text("2", 5), video=False)])
    for opened in (store, Signals(tmp_path, {})):
        (clip,) = opened.read("a")
        assert clip.content_hash == "cd" * 32 and clip.signals is None
        (text,) = clip.texts
        assert text.asked.key == "2" and len(text.tokens) == 5
        assert opened.finished["a"].video is None


def test_what_scores_lack_is_forgotten_for_them(tmp_path):
    store = Signals(tmp_path, {})
    clip = _asked(_clip("a", second=False), _text("1"), _text("2", blank=False))
    store.write([clip], ("video", "response"))
    store.keep(set(), {"response", BLANK})
    (clip,) = store.read("a")
    assert [text.asked.key for text in clip.texts] == ["1"] and clip.signals is not None
    store.keep({SECOND}, {"instruction"})
    assert "a" not in store.finished
    assert not list(store.read("a"))


def test_all_rows_of_a_sample_are_in_one_part(tmp_path):
    store = Signals(tmp_path, {})
    clips = [_asked(_clip(k), *map(_text, "123")) for k in "ab"]
    store.write(clips)
    (part,) = tmp_path.glob("part-*")
    assert [row["key"] for row in _rows(part)] == ["a"] * 4 + ["b"] * 4


def test_other_settings_are_refused_by_name(tmp_path):
    Signals(tmp_path, {"model": "x", "frames": 16})
    with pytest.raises(AuditError) as caught:
        Signals(tmp_path, {"model": "y", "frames": 16})
    assert "model = 'x', this run has 'y'" in str(caught.value)
    assert "frames" not in str(caught.value)


@pytest.mark.parametrize("before", [None, 0, signals.FORMAT + 1])
def test_another_format_is_refused_in_one_sentence(tmp_path, before):
    store = Signals(tmp_path, {"model": "x"})
    store.write([_clip("a")])
    store.write([_clip("b")])
    record = json.loads((tmp_path / "run.json").read_text())
    assert record.pop("format") == signals.FORMAT
    record |= {} if before is None else {"format": before}
    (tmp_path / "run.json").write_text(json.dumps(record))
    doors = [lambda x=x: Signals(tmp_path, {"model": x}) for x in "xy"]
    for door in (*doors, lambda: signals.recorded(tmp_path)):
        with pytest.raises(AuditError) as caught:
            door()
        (problem,) = caught.value.problems
        assert f"format {before or 0}, this version reads format 3" in problem
        assert "another --workdir, or --config.overwrite=true" in problem
        assert "the version that wrote them" in problem


def test_a_part_knows_its_settings_and_its_format(tmp_path, monkeypatch):
    Signals(tmp_path / "a", {"model": "x"}).write([_clip("a")])
    with monkeypatch.context() as patch:
        patch.setattr(signals, "_KIND", dataclasses.replace(signals._KIND, format=0))
        Signals(tmp_path / "b", {"model": "x"}).write([_clip("a")])
    (tmp_path / "b" / "run.json").unlink()
    with pytest.raises(AuditError, match=r"part-000000.parquet: .* have format 0"):
        Signals(tmp_path / "b", {"model": "x"})
    assert not (tmp_path / "b" / "run.json").exists()
    foreign = tmp_path / "c" / "part-000007.parquet"
    Signals(tmp_path / "c", {"model": "y"})
    shutil.copy(tmp_path / "a" / "part-000000.parquet", foreign)
    with pytest.raises(AuditError, match=f"{foreign}: its signals were computed with"):
        Signals(tmp_path / "c", {"model": "y"})


def test_a_damaged_part_is_named(tmp_path):
    store = Signals(tmp_path, {})
    store.write([_clip("a")])
    (part,) = tmp_path.glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(AuditError, match=rf"{part.name}: damaged .* scored again"):
        Signals(tmp_path, {})
    with pytest.raises(AuditError, match=rf"{part.name}: damaged .* scored again"):
        list(store.read({"a"}))
    pq.write_table(pa.table({"x": [1]}), part)
    with pytest.raises(AuditError, match="format 0"):
        Signals(tmp_path, {})


def test_a_bit_flipped_in_the_numbers_is_damage(tmp_path):
    store = Signals(tmp_path, {})
    store.write([_clip("a", rows=200)])
    (part,) = tmp_path.glob("part-*.parquet")
    data, (whole,) = part.read_bytes(), store.read({"a"})
    found = []
    for place in range(len(data) // 4, 3 * len(data) // 4, len(data) // 20):
        flipped = bytearray(data)
        flipped[place] ^= 16
        part.write_bytes(flipped)
        try:
            (clip,) = store.read({"a"})
        except AuditError as error:
            found.append("damaged" in str(error))
        else:  # A page's header has statistics that nothing reads.
            np.testing.assert_array_equal(clip.signals.renyi, whole.signals.renyi)
            np.testing.assert_array_equal(clip.signals.gap, whole.signals.gap)
    assert all(found) and len(found) >= 8


def test_columns_of_something_else_are_damage(tmp_path):
    Signals(tmp_path, {}).write([_clip("a")])
    (part,) = tmp_path.glob("part-*.parquet")
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["frame"]), part)
    with pytest.raises(AuditError, match="its columns are not those of signals"):
        Signals(tmp_path, {})


def test_a_damaged_record_is_named(tmp_path):
    Signals(tmp_path, {})
    for text in ("{", "3", '"x"'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(AuditError, match=r"run\.json: damaged .*; delete it"):
            signals.recorded(tmp_path)
        with pytest.raises(AuditError, match=r"run\.json: damaged .*; delete it"):
            Signals(tmp_path, {})


def test_what_a_killed_run_left_half_written_is_swept(tmp_path):
    Signals(tmp_path, {}).write([_clip("a")])
    half = tmp_path / "part-000001.parquet.vidsme-0123abcd.tmp"
    half.write_bytes(b"half")
    (tmp_path / "mine.tmp").write_bytes(b"a user's")
    store = Signals(tmp_path, {})
    assert not half.exists() and (tmp_path / "mine.tmp").exists()
    assert set(store.finished) == {"a"}


@pytest.mark.parametrize("call", ["link", "fsync"])
def test_a_write_that_fails_leaves_all_as_it_was(tmp_path, monkeypatch, call):
    store = Signals(tmp_path, {})
    store.write([_clip("a")])

    def failing(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(OSError, match="No space left"):
            store.write([_clip("b")])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["part-000000.parquet", "run.json"]
    assert set(store.finished) == set(Signals(tmp_path, {}).finished) == {"a"}


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_there_is_not_written_again(tmp_path, monkeypatch, links):
    """With hard links, and on a file system that has none."""
    if not links:

        def failing(*_):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", failing)
    files.create(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError, match="it is there already") as caught:
        files.create(tmp_path / "a", b"second")
    assert caught.value.filename == str(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "link", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]


def test_parts_count_in_the_order_of_their_times(tmp_path, monkeypatch):
    """Also where a clock goes back, and whatever the names of shares are."""
    times = iter([300, 100, 200])
    monkeypatch.setattr("vidsme_jax.store.parts._now", lambda: next(times))
    Signals(tmp_path, {}, Writer(share="2-of-2")).write(
        [dataclasses.replace(_clip("a"), content_hash="old")]
    )
    Signals(tmp_path, {}, Writer(share="1-of-2")).write(
        [dataclasses.replace(_clip("a"), content_hash="new")]
    )
    names = sorted(path.name for path in tmp_path.glob("part-*"))
    assert names == ["part-000000-1-of-2.parquet", "part-000000-2-of-2.parquet"]
    found = Signals(tmp_path, {})
    assert found.finished["a"].content_hash == "new"
    found.write([dataclasses.replace(_clip("a"), content_hash="newest")])
    assert Signals(tmp_path, {}).finished["a"].content_hash == "newest"


def test_processes_write_parts_of_their_own(tmp_path):
    Signals(tmp_path, {}).write([_clip("a")])
    stores = [Signals(tmp_path, {}, Writer(process, 2)) for process in range(2)]
    for keys in ("bc", "de"):
        for store, key in zip(stores, keys, strict=True):
            store.write([_clip(key)])
    assert [sorted(store.finished) for store in stores] == [list("abd"), list("ace")]
    assert sorted(stores[0].reopened().finished) == list("abcde")
    assert len(list(tmp_path.glob("part-*.parquet"))) == 5


# ------------------------------------------------------------- texts that are no text

ODD = ("/v/\udcff\udcfe.mp4", "\ud800", "a\udfffb", "\ufdd0", "\ufdd0d800")
PLAIN = ("", "/v/ü 😀.mp4", "a\0b", "\ufdd1", "\\ud800")


@pytest.mark.parametrize("odd", ODD)
def test_signals_of_any_name_and_text_come_back_equal(tmp_path, odd):
    about = Asked(key="1", question=odd, candidates=("a", odd), answer=odd)
    text = dataclasses.replace(_text("1"), asked=about)
    clip = dataclasses.replace(_asked(_clip(odd), text), warnings=("cut", odd))
    store = Signals(tmp_path, {"source": odd})
    store.write([clip, _clip("beside")])
    for opened in (store, Signals(tmp_path, {"source": odd})):
        assert set(opened.finished) == {odd, "beside"}
        (found,) = opened.read({odd})
        assert (found.key, found.warnings) == (odd, ("cut", odd))
        _assert_same_text(found.texts[0], text)


def test_texts_without_surrogates_are_stored_as_they_are(tmp_path):
    Signals(tmp_path, {}).write([_clip(key) for key in PLAIN])
    (part,) = tmp_path.glob("part-*.parquet")
    assert pq.read_table(part).column("key").to_pylist() == list(PLAIN)


@pytest.mark.parametrize("odd", ODD)
def test_answers_of_any_name_and_text_come_back_equal(tmp_path, odd):
    answer = Answer(odd, odd, "ab", (1, 2), "end", odd)
    Answers(tmp_path, {}).write([answer])
    opened = Answers(tmp_path, {})
    assert len(opened) == 1 and opened.find(odd, odd, "ab") == answer


# ------------------------------------------------------------------------------- files


def test_a_link_at_a_name_is_replaced_and_not_followed(tmp_path):
    other, path = tmp_path / "other", tmp_path / "report.html"
    other.write_text("a user's")
    path.symlink_to(other)
    files.write_atomically(path, b"new")
    assert other.read_text() == "a user's"
    assert not path.is_symlink() and path.read_bytes() == b"new"


def test_what_was_planted_at_a_temporary_name_is_not_followed(tmp_path, monkeypatch):
    """Nobody can know the name; with it, the write fails and nothing else happens."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "0123abcd")
    other = tmp_path / "other"
    other.write_text("a user's")
    planted = tmp_path / "report.html.vidsme-0123abcd.tmp"
    planted.symlink_to(other)
    (tmp_path / "report.html.tmp").symlink_to(other)
    with pytest.raises(FileExistsError, match=r"report\.html'"):
        files.write_atomically(tmp_path / "report.html", b"new")
    assert other.read_text() == "a user's" and planted.is_symlink()
    files.sweep(tmp_path)
    assert not planted.is_symlink() and other.read_text() == "a user's"
    files.write_atomically(tmp_path / "report.html", b"new")
    assert other.read_text() == "a user's"


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_have_the_mode_that_umask_asks_for(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_block_that_raises_leaves_all_as_it_was(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), files.replacing(path) as file:
            file.write(b"half")
            raise error
    assert [x.name for x in tmp_path.iterdir()] == ["a"] and path.read_text() == "old"


def test_a_lock_sweeps_what_is_half_written_and_nothing_else(tmp_path):
    """Files of users stay, whatever they end in; so do those of runs further down."""
    figures, other = tmp_path / "figures", tmp_path / "another run"
    ours = [tmp_path / "report.html.vidsme-0123abcd.tmp"]
    ours.append(figures / "roc-9-gone.png.vidsme-89abcdef.tmp")
    theirs = [other / "scores.csv.vidsme-0123abcd.tmp", tmp_path / "notes.tmp"]
    theirs += [tmp_path / "a.vidsme-0123.tmp", figures / "mine.tmp"]
    for path in (*ours, *theirs):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    folder = tmp_path / "folder.vidsme-0123abcd.tmp"
    folder.mkdir()
    with locked(tmp_path):
        pass
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in (*theirs, folder))


def test_without_locks_nothing_is_swept(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    half = tmp_path / "report.html.vidsme-0123abcd.tmp"
    half.write_text("perhaps another's")
    with locked(tmp_path):
        assert half.exists()


def test_a_file_that_is_held_is_not_free_until_it_is_closed(tmp_path):
    file = tmp_path / "info"
    with lock.unread(file) as free:
        assert free  # It is gone.
    file.write_text("")
    with lock.held(file), lock.held(file), lock.unread(file) as free:
        assert not free
    with lock.unread(file) as free:
        assert free
        with pytest.raises(BlockingIOError):
            lock.held(file)
    lock.held(file).close()


def test_what_is_restarted_is_not_deleted_beyond_a_link(tmp_path):
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    Signals(elsewhere, {}).write([_clip("a")])
    (run / "answers").mkdir(parents=True)
    (run / "signals").symlink_to(elsewhere)
    signals.clear(run)
    assert not list(run.iterdir()) and len(list(elsewhere.iterdir())) == 2


# ------------------------------------------------------------------------------- lock


HOLD = """
import pathlib, sys
from vidsme_jax.store.lock import locked
from vidsme_jax.store.writers import Writer
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_others_out_until_its_process_dies(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with children.started(command, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(AuditError, match="another run is writing to it"):
            with locked(folder):
                pass
        with pytest.raises(AuditError, match=f"{folder}: taken"):
            with locked(folder, "taken"):
                pass
    with locked(folder):
        pass


def test_a_lock_within_one_process(tmp_path):
    with locked(tmp_path):
        with pytest.raises(AuditError, match="take another --workdir"):
            with locked(tmp_path):
                pass
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_stops_nothing(tmp_path, monkeypatch, number):
    def unsupported(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", unsupported)
    reached = []
    with locked(tmp_path):
        with locked(tmp_path):
            reached.append(1)
    assert reached


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), locked(tmp_path / "file"):
        pass


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_a_lock_that_is_no_file_is_named(tmp_path, kind):
    file, other = tmp_path / "run" / ".lock", tmp_path / "other"
    file.parent.mkdir()
    other.write_text("a user's")
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(other if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(AuditError, match=rf"{file}: not a regular file"):
        with locked(file.parent):
            pass
    assert other.read_text() == "a user's" and not (tmp_path / "nowhere").exists()
