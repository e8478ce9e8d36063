"""Prepared corpora in buckets: whole or absent, resumed, read shard by shard."""

import gc
import json
import pathlib

import numpy as np
import pytest

import made_clips
from made_clips import PNG
from memory_store import MemoryStore
from vidsme_jax.base import AuditError, Clip, ClipError, Item, MotionStatistics
from vidsme_jax.prepared import clips, dataset, layout, writing
from vidsme_jax.store import buckets
from vidsme_jax.store.buckets import Bucket

ROOT = Bucket.__new__(Bucket)  # Replaced by the fixture, which has a driver.
NUMBERS = (0, 1, 6, 7, 11, 12, 16, 17)  # Two in each of four shards.
COUNT = len(NUMBERS)
HERE = "bucket/c/prepared/uniform_3_png"


class _Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(writing, "_CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(Bucket, "_store", MemoryStore())
    monkeypatch.setattr(buckets, "DRIVERS", {"gs": "json"})
    monkeypatch.setitem(globals(), "ROOT", Bucket("gs://bucket/c"))
    return Bucket._store


@pytest.fixture
def items(tmp_path) -> list[Item]:
    return [made_clips.item(number, tmp_path) for number in NUMBERS]


def _motion(place: int) -> MotionStatistics:
    return made_clips.motion(NUMBERS[place])


def _write(items: list[Item], **more) -> None:
    with writing.opened(ROOT, PNG, COUNT) as writer:
        digests = made_clips.stage(writer, items, **more)
        writer.finish(items, digests, workers=1)


def _open(items: list[Item], tmp_path: pathlib.Path) -> clips.PreparedClips:
    found = clips.PreparedClips(ROOT, PNG, cache=tmp_path / "cache")
    found.match([Clip(item.clip, (item,)) for item in items])
    return found


def _problem(items: list[Item], tmp_path: pathlib.Path) -> str:
    with pytest.raises(AuditError) as caught:
        _open(items, tmp_path)
    (problem,) = caught.value.problems
    return problem


def _names(store, start: str = "1.") -> set[str]:
    names = (name.removeprefix(f"{HERE}/") for name in store.objects)
    return {name for name in names if name.startswith(start)}


def _data(store, name: str) -> bytes:
    return store.objects[f"{HERE}/{name}"][1]


def _count(store, call: str, end: str) -> int:
    return sum(c == call and name.endswith(end) for c, name in store.calls)


def _whole(store) -> list[str]:
    """The versions that are whole."""
    last = f"/{layout.INFO}"
    return sorted(
        name.removesuffix(last)
        for name in _names(store)
        if name.endswith(last)
        and "replaced_by" not in json.loads(store.objects[f"{HERE}/{name}"][1])
    )


def _encoded(monkeypatch) -> list[int]:
    done, original = [], dataset.encode
    monkeypatch.setattr(
        dataset, "encode", lambda *args: done.append(1) or original(*args)
    )
    return done


def test_a_version_has_the_files_of_one_in_a_folder(store, items, tmp_path):
    _write(items, failed=(NUMBERS[2],))
    folder = made_clips.write(tmp_path / "local", items, failed=(NUMBERS[2],))
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(expected) == 2 + 2 * 4
    found = {name.partition("/")[2]: name for name in _names(store, "1.0.0/")}
    assert json.loads(_data(store, found.pop("plan.json"))).keys() == {"plan"}
    assert expected == {name: _data(store, path) for name, path in found.items()}
    assert not _names(store, "staged/")


def test_what_goes_in_comes_out(store, items, tmp_path):
    _write(items, failed=(NUMBERS[2],))
    found = _open(items, tmp_path)
    for number, item in enumerate(items):
        if number == 2:
            with pytest.raises(ClipError, match="decode: no frame"):
                found.read(item.clip)
            continue
        frames, motion = found.read(item.clip)
        np.testing.assert_array_equal(
            frames.pixels, made_clips.frames(NUMBERS[number]).pixels
        )
        assert motion == _motion(number)
    assert found.items() == items


def test_a_shard_is_fetched_once_when_its_first_clip_is_read(store, items, tmp_path):
    _write(items)
    store.calls.clear()
    found = _open(items, tmp_path)
    assert not any("array_record" in name for _, name in store.calls)
    for item in items[2:4]:
        found.read(item.clip)
    assert _count(store, "cat_file", "array_record-00001-of-00004") == 1
    assert not _count(store, "cat_file", "array_record-00000-of-00004")
    del found
    store.calls.clear()
    _open(items, tmp_path).read(items[2].clip)  # It is kept for the next run.
    assert not any("array_record" in name for _, name in store.calls)


@pytest.mark.long
def test_copies_of_another_corpus_at_the_url_are_not_read(store, items, tmp_path):
    _write(items)
    _open(items, tmp_path).read(items[0].clip)
    store.objects.clear()
    changed = [item._replace(question="Why?") for item in items]
    _write(changed)
    found = _open(changed, tmp_path)
    assert found.items() == changed
    assert json.loads(found.source[0]["rows"])[0]["id"] == items[0].id
    gc.collect()


# ------------------------------------------------------------------------------- kills


def test_a_run_that_dies_at_any_put_continues(store, items, monkeypatch):
    _write(items)
    expected = {name: data for name, (_, data) in store.objects.items()}
    store.objects.clear()
    encoded, deaths = _encoded(monkeypatch), 0
    puts = [0]

    def dying(name: str) -> None:
        if ".vidsme-" not in name:  # Of the check whether objects can be put.
            puts[0] -= 1
            if puts[0] < 0:
                raise _Killed

    store.at_put = dying
    for survives in range(200):
        puts[0] = survives
        try:
            _write(items)
            break
        except _Killed:
            deaths += 1
            assert not _whole(store)
    kept = {n: x[1] for n, x in store.objects.items() if ".vidsme-" not in n}
    assert deaths > 4 and kept == expected
    assert len(encoded) <= COUNT + deaths


def test_shards_that_a_killed_run_has_put_are_not_put_again(store, items):
    def dying(name: str) -> None:
        if name.endswith(layout.INFO):
            raise _Killed

    store.at_put = dying
    with pytest.raises(_Killed):
        _write(items)
    assert not _whole(store) and len(_names(store, "staged/")) == COUNT
    store.at_put, store.calls = lambda name: None, []
    _write(items)
    assert _whole(store) == ["1.0.0"] and not _names(store, "staged/")
    assert not any("array_record" in name for _, name in store.calls)


def test_a_put_whose_answer_is_lost_counts(store, items, tmp_path):
    def losing(name: str) -> None:
        if name.endswith(".clip") and not lost:
            lost.append(name)
            store.lost = 1

    lost: list[str] = []
    store.at_put = losing
    _write(items)
    assert _open(items, tmp_path).read(items[0].clip)[1] == _motion(0)


# ------------------------------------------------------------------- several at a time


def test_of_two_runs_of_different_clips_the_second_begins_again(
    store, items, tmp_path, monkeypatch
):
    one, other = items[:5], items[3:]
    with writing.opened(ROOT, PNG, COUNT) as writer:
        digests = made_clips.stage(writer, one)
        _write(other)
        assert _whole(store) == ["1.0.0"]
        with pytest.raises(OSError, match="another run has published the next version"):
            writer.finish(one, digests, workers=1)
    encoded = _encoded(monkeypatch)
    _write(one)
    assert _whole(store) == ["1.1.0"] and not encoded
    found = _open(items, tmp_path)
    for number, item in enumerate(items):
        assert found.read(item.clip)[1] == _motion(number)


def test_a_run_that_is_passed_over_is_refused_at_its_last_object(
    store, items, tmp_path
):
    one, other = items[:5], items[3:]
    states = []

    def overtaking(name: str) -> None:
        if name.endswith(f"1.0.0/{layout.INFO}") and not states:
            states.append(_names(store))
            _write(other)
        elif name.endswith(f"1.1.0/{layout.INFO}"):
            states.append(_names(store))

    store.at_put = overtaking
    with pytest.raises(OSError, match="the clips of this run stay staged"):
        _write(one)
    assert "1.0.0/plan.json" in states[0] and _whole(store) == ["1.1.0"]
    assert f"1.0.0/{layout.INFO}" in states[1]  # Before the version is whole.
    _write(one)
    assert _whole(store) == ["1.2.0"]
    assert len(_open(items, tmp_path).items()) == COUNT
    # Of the numbers before, last objects alone are left.
    assert _names(store, "1.0") == {f"1.0.0/{layout.INFO}"}
    assert _names(store, "1.1") == {f"1.1.0/{layout.INFO}"}


def test_two_runs_of_the_same_clips_make_one_version(store, items, tmp_path):
    with writing.opened(ROOT, PNG, COUNT) as writer:
        digests = made_clips.stage(writer, items)
        _write(items)
        store.calls.clear()
        writer.finish(items, digests, workers=1)
    assert _whole(store) == ["1.0.0"]
    assert not any(m == "put" and "array_record" in n for m, n in store.calls)
    assert len(_open(items, tmp_path).items()) == COUNT


def test_a_run_whose_twin_is_done_first_is_done_too(store, items, tmp_path):
    """What was staged for both is deleted by then."""
    met = []

    def overtaking(name: str) -> None:
        if "array_record" in name and not met:
            met.append(name)
            _write(items)
            assert _whole(store) == ["1.0.0"] and not _names(store, "staged/")

    store.at_put = overtaking
    _write(items)
    assert met and _whole(store) == ["1.0.0"]
    assert len(_open(items, tmp_path).items()) == COUNT


def test_a_clip_that_is_staged_twice_is_that_which_came_first(store, items):
    with writing.opened(ROOT, PNG, COUNT) as writer:
        assert writer.digest_of(items[0].clip) is None
        example = dataset.encode(made_clips.frames(0), made_clips.motion(0), PNG)
        writer.add(items[0].clip, example)
        (name,) = _names(store, "staged/")
        before = _data(store, name)
        writer.add(items[0].clip, example | {"warnings": ["of another decoder"]})
    assert _data(store, name) == before


# --------------------------------------------------------------- listings that lag


def test_a_listing_that_lags_loses_nothing(store, items, tmp_path, monkeypatch):
    _write(items[:4])
    store.hidden = set(store.objects)  # The listing shows nothing of it.
    encoded = _encoded(monkeypatch)
    _write(items)
    assert _whole(store)[-1] == "1.1.0" and len(encoded) == 4
    store.hidden = set(store.objects)
    found = _open(items, tmp_path)
    assert found.read(items[7].clip)[1] == _motion(7)


def test_a_staged_clip_that_is_not_listed_is_put_again(store, items, tmp_path):
    with writing.opened(ROOT, PNG, COUNT) as writer:
        made_clips.stage(writer, items)
    store.hidden = {f"{HERE}/{name}" for name in _names(store, "staged/")}
    _write(items)
    assert _open(items, tmp_path).read(items[3].clip)[1] == _motion(3)


# -------------------------------------------------------------------- the next version


def test_shards_that_stay_are_copied_by_the_server(store, items):
    _write(items)
    store.calls.clear()
    changed = [items[0]._replace(question="Why?"), *items[1:]]
    _write(changed)
    assert _whole(store) == ["1.1.0"]
    assert _count(store, "cp_file", "-of-00004") == 3
    records = [n for m, n in store.calls if m == "put" and "array_record" in n]
    assert records == [f"{HERE}/1.1.0/prepared-clips.array_record-00000-of-00004"]
    assert _names(store, "1.0") == {f"1.0.0/{layout.INFO}"}
    store.calls.clear()
    _write(changed[:5])  # Another corpus leaves these rows alone, and nothing is new.
    assert _whole(store) == ["1.1.0"] and not _count(store, "cp_file", "")


@pytest.mark.long
def test_a_version_that_is_replaced_says_so_to_its_readers(store, items, tmp_path):
    _write(items[:5])
    found = _open(items[:5], tmp_path)
    assert found.read(items[0].clip)[1] == _motion(0)
    _write(items)
    assert found.read(items[1].clip)[1] == _motion(1)  # Of the same shard.
    with pytest.raises(
        ClipError, match=r"open: gs://bucket/c/.*array_record-00001.* no longer exists"
    ):
        found.read(items[2].clip)
    with pytest.raises(ClipError, match="run the same command again"):
        found.read(items[3].clip)
    again = _open(items, tmp_path)
    assert again.read(items[2].clip)[1] == _motion(2)
    # What is read stays in the cache.
    assert {p.name for p in (tmp_path / "cache").glob("*/1.*")} == {"1.0.0", "1.1.0"}
    del found, again
    gc.collect()
    _open(items, tmp_path)
    assert {p.name for p in (tmp_path / "cache").glob("*/1.*")} == {"1.1.0"}


# ------------------------------------------------------------------------------ damage


def test_objects_that_are_cut_or_gone_are_prepared_again(
    store, items, tmp_path, monkeypatch
):
    _write(items)
    names = sorted(name for name in store.objects if "array_record" in name)
    store.objects[names[0]] = 2, store.objects[names[0]][1][:-10]
    del store.objects[names[1]]
    found = _open(items, tmp_path)
    for item, text in ((items[0], "it was truncated"), (items[2], "no longer exists")):
        with pytest.raises(ClipError, match=f"open: .*{text}"):
            found.read(item.clip)
    with pytest.raises(ClipError, match=r"delete gs://bucket/c/.*00000-of-00004, and"):
        found.read(items[1].clip)
    encoded = _encoded(monkeypatch)
    _write(items)
    assert len(encoded) == 4
    found = _open(items, tmp_path)
    for number, item in enumerate(items):
        assert found.read(item.clip)[1] == _motion(number)


def test_an_index_that_is_damaged_is_named_by_its_url(store, items, tmp_path):
    _write(items)
    store.objects[f"{HERE}/1.0.0/index-00002-of-00004.parquet"] = 2, b"PAR1"
    problem = _problem(items, tmp_path)
    assert problem.startswith(f"gs://{HERE}/1.0.0: index-00002-of-00004.parquet is dam")
    store.objects[f"{HERE}/settings.json"] = 2, b"{"
    assert f"gs://{HERE}/settings.json: damaged" in _problem(items, tmp_path)


def test_where_nothing_is_prepared_it_is_said_what_is(store, items, tmp_path):
    assert "gs://bucket/c has no clips prepared as uniform_3_png (it has nothing)" in (
        _problem(items, tmp_path)
    )
    store.objects["bucket/c/prepared/fps1_4_png/1.3.0/dataset_info.json"] = 1, b"{}"
    assert "(it has fps1_4_png)" in _problem(items, tmp_path)


@pytest.mark.parametrize("right", ["cat_file", "put", "find", "rm_file"])
def test_a_bucket_without_rights_is_refused_before_any_clip(
    store, items, monkeypatch, right
):
    store.denied = {right}
    encoded = _encoded(monkeypatch)
    with pytest.raises(AuditError, match=f"{HERE}: cannot be used .no right to"):
        _write(items)
    assert not encoded


def test_rights_that_expire_keep_what_is_staged(store, items, monkeypatch):
    def expiring(name: str) -> None:
        if "array_record" in name:
            store.denied = {"put"}
            raise PermissionError("denied")

    store.at_put = expiring
    with pytest.raises(PermissionError, match="no right to write"):
        _write(items)
    assert len(_names(store, "staged/")) == COUNT
    store.denied, store.at_put = set(), lambda name: None
    encoded = _encoded(monkeypatch)
    _write(items)
    assert _whole(store) == ["1.0.0"] and not encoded
