"""Prepared corpora: round trip, damage, order, matching, without any video."""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from made_clips import PNG
from made_clips import clock as _clock
from made_clips import frames as _frames
from made_clips import item as _item
from made_clips import motion as _motion
from made_clips import write as _write
from vidsme_jax.base import AuditError, Clip, ClipError, Item
from vidsme_jax.prepared import clips, dataset, layout, writing
from vidsme_jax.prepared.layout import Variant

JPEG = Variant(sampling="fps", num_frames=3, fps=2.5, jpeg_quality=90)
COUNT = 20


@pytest.fixture
def items(tmp_path) -> list[Item]:
    return [_item(number, tmp_path) for number in range(COUNT)]


def _open(root: pathlib.Path, items: list[Item], variant: Variant = PNG):
    found = clips.PreparedClips(root, variant)
    found.match([Clip(item.clip, (item,)) for item in items])
    return found


def _problems(
    root: pathlib.Path, items: list[Item], variant: Variant = PNG
) -> list[str]:
    with pytest.raises(AuditError) as caught:
        _open(root, items, variant)
    return caught.value.problems


def test_what_goes_in_comes_out(items, tmp_path):
    _write(tmp_path, items)
    found = _open(tmp_path, items)
    for number, item in enumerate(items):
        frames, motion = found.read(item.clip)
        expected = _frames(number)
        np.testing.assert_array_equal(frames.pixels, expected.pixels)
        assert motion == _motion(number)
        for name in ("indices", "content_hash", "clock", "warnings", "container"):
            assert getattr(frames, name) == getattr(expected, name), name
    assert found.items() == items


def test_jpeg_is_said_and_near(items, tmp_path):
    folder = _write(tmp_path, items[:2], JPEG)
    assert folder.parent.name == "fps2.5_3_jpeg90"
    settings = json.loads((folder.parent / "settings.json").read_text())
    assert settings["jpeg_quality"] == 90 and settings["fps"] == 2.5
    info = json.loads((folder / "dataset_info.json").read_text())
    assert "JPEG of quality 90" in info["description"]
    frames, motion = _open(tmp_path, items[:2], JPEG).read(items[1].clip)
    difference = np.abs(frames.pixels.astype(int) - _frames(1).pixels)
    assert 0 < difference.mean() < 16
    assert motion == _motion(1)
    assert "it has fps2.5_3_jpeg90" in _problems(tmp_path, items[:2], PNG)[0]


def test_tfds_opens_it_in_the_order_of_the_hashes(items, tmp_path):
    folder = _write(tmp_path, items)
    data_dir = tmp_path
    for source in (
        tfds.builder_from_directory(folder).as_data_source("clips"),
        tfds.data_source("prepared/uniform_3_png", split="clips", data_dir=data_dir),
    ):
        hashes = [record["content_hash"].decode() for record in source]
        assert hashes == sorted(hashes) and len(hashes) == COUNT
        rows = json.loads(source[3]["rows"])
        assert rows[0]["id"] == "é3" and rows[0]["answer"] == "a"
    lengths = tfds.builder_from_directory(folder).info.splits["clips"].shard_lengths
    assert len(lengths) == 4 and min(lengths) > 1


def test_however_it_was_built_the_shards_are_the_same(items, tmp_path):
    whole = _write(tmp_path / "a", items)
    _write(tmp_path / "b", items[::-2])
    parts = _write(tmp_path / "b", items)
    names = sorted(path.name for path in whole.glob("*.array_record*"))
    assert len(names) == 4
    for name in names:
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_failures_are_kept_with_their_cause(items, tmp_path):
    _write(tmp_path, items, failed=(3, 5))
    found = _open(tmp_path, items)
    with pytest.raises(ClipError, match="decode: no frame"):
        found.read(items[3].clip)
    assert found.read(items[4].clip)[1] == _motion(4)
    assert len(found.source) == COUNT - 2 and len(found.items()) == COUNT


# ----------------------------------------------------------------------------- damage


def _shards(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.array_record*"))


def test_damaged_and_foreign_shards_are_named_in_one_error(items, tmp_path):
    folder = _write(tmp_path, items)
    other = _write(
        tmp_path / "other", [_item(n, tmp_path, role="members") for n in range(20)]
    )
    cut, foreign, gone, _ = _shards(folder)
    cut.write_bytes(cut.read_bytes()[:-1000])
    assert foreign.stat().st_size == (other / foreign.name).stat().st_size
    shutil.copy(other / foreign.name, foreign)
    gone.unlink()
    next(folder.glob("index-00003*")).write_bytes(b"")
    problems = _problems(tmp_path, items)
    assert len(problems) == 4
    for problem, text in zip(
        problems, ("truncated", "belongs to", "is missing", "damaged"), strict=True
    ):
        assert text in problem and "`vidsme prepare`" in problem
    assert cut.name in problems[0] and foreign.name in problems[1]
    # Only the clips of these shards are prepared again, and all is as it was.
    _write(tmp_path, items)
    assert _open(tmp_path, items).read(items[7].clip)[1] == _motion(7)


def test_only_a_lost_shard_is_prepared_again(items, tmp_path, monkeypatch):
    folder = _write(tmp_path, items)
    _shards(folder)[2].unlink()
    encoded = []
    original = dataset.encode
    monkeypatch.setattr(
        dataset, "encode", lambda *args: encoded.append(1) or original(*args)
    )
    _write(tmp_path, items)
    assert len(encoded) == 5


def test_a_record_that_rots_costs_its_clip_only(items, tmp_path):
    folder = _write(tmp_path, items)
    path = _shards(folder)[1]
    data = bytearray(path.read_bytes())
    found = _open(tmp_path, items)
    place = data.index(_frames(7).content_hash.encode())
    data[place - 40] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    with pytest.raises(ClipError, match=f"open: .*delete .*{path.name}"):
        found.read(items[7].clip)
    assert found.read(items[6].clip)[1] == _motion(6)


def test_the_settings_and_the_count_are_checked(items, tmp_path):
    folder = _write(tmp_path / "corpus", items)
    (problem,) = _problems(tmp_path / "corpsu", items)
    assert problem.endswith("corpsu; did you mean 'corpus'?")
    tmp_path /= "corpus"
    info = folder / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"4"', '"5"', 1).replace('"5"', '"6"', 1))
    for damage, text in (
        (info.read_text(), "dataset_info.json does not match its files"),
        ("{", "dataset_info.json is damaged"),
        (None, "dataset_info.json is missing"),
    ):
        info.unlink() if damage is None else info.write_text(damage)
        assert text in _problems(tmp_path, items)[0]
        folder = _write(tmp_path, items)
        info = folder / "dataset_info.json"
        _open(tmp_path, items)
    (folder.parent / "settings.json").write_text("{")
    assert "settings.json: damaged" in _problems(tmp_path, items)[0]
    layout.write_settings(folder.parent, JPEG, 4)
    problems = _problems(tmp_path, items)
    assert any("jpeg_quality = 90; this run has 0" in problem for problem in problems)


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_features_are_checked_before_tfds_is_asked(items, tmp_path, monkeypatch, name):
    folder = _write(tmp_path, items[:2])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    path = folder / name
    content = json.loads(path.read_text())
    feature = {"pythonClassName": "evil.Feature"}
    if name == "features.json":
        inside = content["featuresDict"]["features"]
        inside["rows"] = feature
    else:
        content["features"] = feature
    path.write_text(json.dumps(content))
    assert f"{name} names evil.Feature" in _problems(tmp_path, items[:2])[0]
    _write(tmp_path, items[:2])  # Which asks what is there, too.


@pytest.mark.parametrize("field", ["FILERMAT", "0", "", "SPLIT.x"])
def test_names_of_files_are_made_of_what_tfds_knows(items, tmp_path, field):
    path = _write(tmp_path, items[:2]) / "dataset_info.json"
    content = json.loads(path.read_text())
    (split,) = content["splits"]
    assert "{FILEFORMAT}" in split["filepathTemplate"]
    split["filepathTemplate"] = "{SPLIT}-{SHARD_X_OF_Y}.{" + field + "}"
    path.write_text(json.dumps(content))
    (problem,) = _problems(tmp_path, items[:2])
    assert "dataset_info.json: filepathTemplate is '{SPLIT}" in problem


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": "other"},
        {"fileFormat": None},
        {"splits": None},
        {"filepathTemplate": "{DATASET}-{SPLIT}.array_record-{SHARD_INDEX}"},
        {"filepathTemplate": "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"},
        {
            "filepathTemplate": "{DATASET}-{SPLIT}.array_record-{SHARD_X_OF_Y}",
            "fileFormat": None,
        },
    ],
    ids=str,
)
def test_a_description_of_other_files_is_a_sentence(items, tmp_path, change):
    path = _write(tmp_path, items[:2]) / "dataset_info.json"
    content = json.loads(path.read_text())
    if template := change.pop("filepathTemplate", None):
        content["splits"][0]["filepathTemplate"] = template
    content |= change
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))
    (problem,) = _problems(tmp_path, items[:2])
    assert "dataset_info.json does not match its files" in problem


@pytest.mark.parametrize("count", [10**12, 0, -1, True, "4", None, 4.0])
def test_the_number_of_shards_is_checked(items, tmp_path, count):
    folder = _write(tmp_path, items[:2]).parent
    path = folder / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_shards": count}))
    (problem,) = _problems(tmp_path, items[:2])
    assert f"num_shards is {count}; it must be a number from 1 to 4096" in problem


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rows", "[" * 100_000),
        ("rows", "[]]"),
        ("rows", '[[0, [1, 2], {"id": "a"}]]'),
        ("rows", "[[0, [1], {}]]"),
        ("rows", '[["0", [1, 2], {}]]'),
        ("digest", "xyz"),
        ("rows", None),
    ],
)
def test_an_index_of_something_else_is_named(items, tmp_path, column, value):
    folder = _write(tmp_path, items[:2])
    path = next(folder.glob("index-*.parquet"))
    table = pq.read_table(path)
    rows = [row | {column: value} for row in table.to_pylist()] or [
        {name: "" for name in table.column_names} | {column: value}
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    assert f"{path.name} is damaged" in _problems(tmp_path, items[:2])[0]


@pytest.mark.parametrize(
    "times",
    [
        {"times": np.array([0.0, 1.0])},
        {"shown": np.array([])},
        {"times": np.array([])},
        {"times": np.array([0.0, 1.0, np.nan])},
        {"shown": np.array([0.0, np.inf, 1.0])},
        {"duration": -np.inf},
    ],
)
def test_times_that_are_none_cost_their_clip(tmp_path, items, monkeypatch, times):
    encode = dataset.encode

    def broken(frames, motion, variant):
        wrong = times if frames.content_hash == _frames(1).content_hash else {}
        return encode(frames, motion, variant) | wrong

    monkeypatch.setattr(dataset, "encode", broken)
    _write(tmp_path, items[:3])
    found = _open(tmp_path, items[:3])
    with pytest.raises(ClipError, match="open: the record of the clip is damaged"):
        found.read(items[1].clip)
    assert found.read(items[2].clip)[0].clock == _clock(2)


def test_clips_without_a_clock_are_of_an_older_format(items, tmp_path):
    path = _write(tmp_path, items[:2]).parent / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 4}))
    (problem,) = _problems(tmp_path, items[:2])
    expected = (
        "its clips have format 4, this version reads format 5; prepare them again"
    )
    assert expected in problem
    with pytest.raises(AuditError, match="format 4, this version reads format 5"):
        _write(tmp_path, items[:2])


def test_one_writer_at_a_time(items, tmp_path):
    _write(tmp_path, items)
    with writing.opened(tmp_path, PNG, 1):
        with pytest.raises(AuditError, match="another run is preparing it"):
            with writing.opened(tmp_path, PNG, 1):
                pass
    with writing.opened(tmp_path, PNG, 1):
        pass


# --------------------------------------------------------------------- what has changed


def test_rows_that_change_are_stored_without_preparing(items, tmp_path, monkeypatch):
    first = _write(tmp_path, items)
    inodes = [path.stat().st_ino for path in _shards(first)]
    changed = [_item(0, tmp_path, question="Why?"), *items[1:]]
    monkeypatch.setattr(dataset, "encode", None)
    second = _write(tmp_path, changed)
    assert second.name == "1.1.0" and not first.exists()
    now = [path.stat().st_ino for path in _shards(second)]
    assert now[0] != inodes[0] and now[1:] == inodes[1:]
    assert clips.PreparedClips(tmp_path, PNG).items()[0].question == "Why?"
    assert _write(tmp_path, changed) == second
    # Another corpus in the same folder leaves these rows alone.
    _write(tmp_path, items[:2])
    assert len(clips.PreparedClips(tmp_path, PNG).items()) == COUNT


def test_rows_of_before_there_were_sources_are_read(items, tmp_path):
    for path in _write(tmp_path, items).glob("index-*.parquet"):
        table = pq.read_table(path)
        rows = [json.loads(text) for text in table["rows"].to_pylist()]
        for *_, item in itertools.chain.from_iterable(rows):
            del item["source"]
        place = table.schema.get_field_index("rows")
        column = pa.array(list(map(json.dumps, rows)))
        pq.write_table(table.set_column(place, "rows", column), path)
    found = clips.PreparedClips(tmp_path, PNG).items()
    assert found == [item._replace(source="") for item in items]


def test_the_order_is_that_of_the_corpus(items, tmp_path):
    _write(tmp_path, items[::-1])
    assert clips.PreparedClips(tmp_path, PNG).items() == items[::-1]


def test_a_path_with_other_content_replaces_the_clip(tmp_path):
    path = tmp_path / "0.mp4"
    path.write_bytes(b"one")
    old = _item(0, tmp_path, clip=str(path))
    _write(tmp_path, [old])
    path.write_bytes(b"another")
    assert "have changed since: v/0.mp4" in _problems(tmp_path, [old])[0]
    new = _item(1, tmp_path, clip=str(path))
    _write(tmp_path, [new])
    found = _open(tmp_path, [new])
    assert found.read(str(path))[1] == _motion(1) and len(found.source) == 1


def test_a_file_that_is_only_touched_stays_prepared(tmp_path):
    path = tmp_path / "0.mp4"
    path.write_bytes(b"one")
    item = _item(0, tmp_path, clip=str(path))
    digest = hashlib.sha256(b"one").hexdigest()
    frames = dataclasses.replace(_frames(0), content_hash=digest)
    with writing.opened(tmp_path, PNG, 1) as writer:
        assert writer.digest_of(item.clip) is None
        example = dataset.encode(frames, _motion(0), PNG)
        writer.finish([item], {item.clip: writer.add(item.clip, example)}, 1)
    os.utime(path, (1, 1))
    assert _open(tmp_path, [item]).read(str(path))[1] == _motion(0)
    path.write_bytes(b"two")  # Of the same size.
    assert "have changed since" in _problems(tmp_path, [item])[0]


def test_clips_are_known_by_name_where_they_have_moved(items, tmp_path):
    _write(tmp_path, items)
    moved = [_item(n, pathlib.Path("/elsewhere")) for n in range(COUNT)]
    assert _open(tmp_path, moved).read(moved[4].clip)[1] == _motion(4)
    gone = [*moved, _item(77, pathlib.Path("/elsewhere"))]
    found = _problems(tmp_path, gone)
    assert len(found) == 1 and "1 of 21 clips" in found[0] and "v/77.mp4" in found[0]
    assert "`vidsme prepare`" in found[0]


def test_clips_of_one_name_are_distinguished_by_their_folders(tmp_path):
    here = [
        _item(n, tmp_path, video="v/1.mp4", clip=f"{tmp_path}/{part}/v/1.mp4", id=part)
        for n, part in enumerate(("a", "b"))
    ]
    with writing.opened(tmp_path, PNG, 2) as writer:
        assert [writer.digest_of(item.clip) for item in here] == [None, None]
        keys = {
            item.clip: writer.add(
                item.clip, dataset.encode(_frames(n), _motion(n), PNG)
            )
            for n, item in enumerate(here)
        }
        writer.finish(here, keys, 1)
    there = _item(1, tmp_path, video="v/1.mp4", clip="/x/b/v/1.mp4")
    assert _open(tmp_path, [there]).read(there.clip)[1] == _motion(1)
    either = _item(1, tmp_path, video="v/1.mp4", clip="/x/c/v/1.mp4")
    assert "1 of 1 clips" in _problems(tmp_path, [either])[0]


# ------------------------------------------------------------------------- killed runs


def _stage(root: pathlib.Path, items: list[Item], count: int) -> None:
    """A run that is killed when so many clips are ready."""
    layout.write_settings(PNG.folder(root), PNG, 4)
    with writing.opened(root, PNG, len(items)) as writer:
        for number, item in enumerate(items[:count]):
            assert writer.digest_of(item.clip) is None
            example = dataset.encode(_frames(number), _motion(number), PNG)
            writer.add(item.clip, example)


def test_what_another_corpus_has_staged_is_kept(items, tmp_path, monkeypatch):
    _stage(tmp_path, items, 8)
    others = items[12:]
    _write(tmp_path, others)
    _open(tmp_path, others)
    encoded = []
    original = dataset.encode
    monkeypatch.setattr(
        dataset, "encode", lambda *args: encoded.append(1) or original(*args)
    )
    _write(tmp_path, items)
    assert len(encoded) == COUNT - 8 - len(others)
    assert _open(tmp_path, items).read(items[7].clip)[1] == _motion(7)
    assert not (PNG.folder(tmp_path) / "staged").exists()


def test_a_clip_outweighs_a_failure_of_the_same_content(items, tmp_path):
    _stage(tmp_path, items, 1)
    twin = _item(99, tmp_path)
    with writing.opened(tmp_path, PNG, 2) as writer:
        assert writer.digest_of(twin.clip) is None
        key = _frames(0).content_hash
        writer.fail(twin.clip, key, ClipError("decode", "it has lost a frame"))
    with writing.opened(tmp_path, PNG, 2) as writer:
        found = [writer.digest_of(key) for key in (items[0].clip, twin.clip)]
        keys = {items[0].clip: key, twin.clip: key}
        assert found == [key, key]
        assert not writer.finish([items[0], twin], keys, 1)
    assert _open(tmp_path, [twin]).read(twin.clip)[1] == _motion(0)


def test_a_video_that_changes_during_the_run_is_noticed(tmp_path):
    path = tmp_path / "0.mp4"
    path.write_bytes(b"one")
    item = _item(0, tmp_path, clip=str(path))
    with writing.opened(tmp_path, PNG, 1) as writer:
        assert writer.digest_of(str(path)) is None
        key = writer.add(str(path), dataset.encode(_frames(0), _motion(0), PNG))
        path.write_bytes(b"another")
        writer.finish([item], {str(path): key}, 1)
    assert "have changed since" in _problems(tmp_path, [item])[0]
    with writing.opened(tmp_path, PNG, 1) as writer:
        assert writer.digest_of(str(path)) is None
