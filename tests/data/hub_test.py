"""hf: sources: saved datasets and Parquet, lazily; splits, fields, what is refused."""

import hashlib
import json
import os
import pathlib
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import as_json, corpus_of, load, problems_of

import hub_files
from decoding import decode
from vidsme_jax import settings
from vidsme_jax.base import ClipError
from vidsme_jax.data import arrow_files, reading
from vidsme_jax.settings import views

CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:5]
BYTES = [clip.read_bytes() for clip in CLIPS]
HASHES = [hashlib.sha256(content).hexdigest() for content in BYTES]
NAMES = [clip.name for clip in CLIPS]
WHAT = [f"what {k}" for k in range(5)]
PIXELS = [
    np.random.default_rng(k).integers(0, 256, (5, 8, 12, 3), np.uint8) for k in range(2)
]


def _table(first: int = 0, end: int = 5) -> pa.Table:
    place = slice(first, end)
    return hub_files.videos(BYTES[place], NAMES[place], question=WHAT[place])


def _videos(*fields: str, **how) -> reading.Videos:
    given = settings.default()
    given.video.num_frames = 3
    given.video.update(how)
    return reading.Videos(views.view(views.Video, given), fields)


def _items(source, *fields: str, **keys):
    return load(corpus_of(suspects=(f"hf:{source}",), fields=fields, **keys), True)


def _refused(source, *fields: str, **keys) -> str:
    problems = problems_of(True, suspects=(f"hf:{source}",), fields=fields, **keys)
    return "\n".join(problems)


def _read(item, *fields: str, **how):
    return _videos(*fields, **how).read(item.clip, {3})(3)[0]


def _made(kind: str, folder: pathlib.Path) -> pathlib.Path:
    if kind == "saved":
        return hub_files.saved(folder / "ds", _table(0, 3), _table(3, 5))
    if kind == "cached":
        for number, its in enumerate((_table(0, 3), _table(3, 5))):
            name = f"films-train-{number:05}-of-00002.arrow"
            hub_files.as_arrow(folder / "ds" / name, its)
        hub_files.as_arrow(folder / "ds" / "cache-0123456789abcdef.arrow", _table())
        return folder / "ds"
    for number, its in enumerate((_table(0, 3), _table(3, 5))):
        name = f"train-{number:05}-of-00002.parquet"
        hub_files.as_parquet(folder / "ds" / "data" / name, its, 2)
    return folder / "ds"


@pytest.mark.parametrize("kind", ["saved", "cached", "parquet"])
def test_videos_of_a_dataset(kind, tmp_path):
    folder = _made(kind, tmp_path)
    items = _items(folder)
    assert [item.question for item in items] == WHAT
    split = "" if kind == "saved" else "train/"
    assert [i.video for i in items] == [f"hf:ds/{split}{k}" for k in range(5)]
    assert [item.id for item in items] == [item.video for item in items]
    files = sorted(folder.rglob("*-of-*"))
    places = [f"hf:{files[0]}/{k}" for k in range(3)]
    assert [i.clip for i in items] == [*places, f"hf:{files[1]}/0", f"hf:{files[1]}/1"]
    for place in (4, 0, 2, 1, 3):  # In any order.
        frames, expected = _read(items[place]), decode(CLIPS[place], num_frames=3)
        np.testing.assert_array_equal(frames.pixels, expected.pixels)
        assert frames.content_hash == expected.content_hash == HASHES[place]
        assert frames.clock == expected.clock and frames.warnings == expected.warnings
    small = _videos().thumbnails(items[0].clip, [0, 1], 16)
    assert small.shape[:2] == (2, 16)


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_no_video_is_read_with_the_texts(kind, tmp_path, monkeypatch):
    folder = _made(kind, tmp_path)
    read = []
    for each in (arrow_files.ArrowFile, arrow_files.ParquetFile):
        value = each.value

        def counted(self, column, row, value=value):
            read.append(row)
            return value(self, column, row)

        monkeypatch.setattr(each, "value", counted)
    items = _items(folder)
    assert not read
    _read(items[1])
    assert read == [1]


def test_a_group_of_rows_is_read_once_in_order(tmp_path, monkeypatch):
    path = hub_files.as_parquet(tmp_path / "a.parquet", _table(), 5)
    opened = []
    values = arrow_files.ParquetFile._values

    def counted(self, leaf, group):
        opened.append((leaf, group))
        return values(self, leaf, group)

    monkeypatch.setattr(arrow_files.ParquetFile, "_values", counted)
    items = _items(path)
    for item in items:
        _read(item)
    assert opened == [("video.bytes", 0)]
    _read(items[2])
    assert len(opened) == 2 and len(arrow_files._LAST) == 1


def test_splits(tmp_path):
    given = hub_files.saved_splits(tmp_path / "d", train=_table(), test=_table(0, 2))
    hub_files.as_parquet(tmp_path / "p" / "train-00000-of-00001.parquet", _table())
    hub_files.as_parquet(tmp_path / "p" / "test.parquet", _table(0, 2))
    hub_files.as_parquet(tmp_path / "c" / "en" / "train" / "0000.parquet", _table())
    hub_files.as_parquet(tmp_path / "c" / "en" / "test" / "0000.parquet", _table(0, 2))
    for folder in (given, tmp_path / "p", tmp_path / "c" / "en"):
        assert f"hf:{folder}: it has several splits: t" in (said := _refused(folder))
        assert f"; name one: hf:{folder}/t" in said
        assert len(_items(folder / "test")) == 2 and len(_items(folder / "train")) == 5
        said = _refused(folder / "tran")
        assert f"no split 'tran' in {folder}; it has t" in said
        assert "did you mean 'train'?" in said
    assert _items(given / "test")[1].video == "hf:d/test/1"
    keys = {"members": (f"hf:{given}/train",), "nonmembers": (f"hf:{given}/test",)}
    groups = {item.group for item in load(corpus_of(**keys), True)}
    assert groups == {""}
    two = (f"hf:{given}/train", f"hf:{given}/test")
    groups = {item.group for item in load(corpus_of(suspects=two), True)}
    assert groups == {"d/train", "d/test"}


def test_one_file_and_patterns(tmp_path):
    for number in range(3):
        path = tmp_path / f"part {number}.parquet"
        hub_files.as_parquet(path, _table(number, number + 1))
    assert [i.question for i in _items(tmp_path / "part 1.parquet")] == ["what 1"]
    assert [i.question for i in _items(f"{tmp_path}/part [02].parquet")] == [
        "what 0",
        "what 2",
    ]
    assert len(_items(tmp_path)) == 3
    assert "the pattern matches no Parquet" in _refused(f"{tmp_path}/[x]*.parquet")
    (tmp_path / "a.json").write_text("[]")
    assert "no Parquet or Arrow file" in _refused(tmp_path / "a.json")


def test_a_downloaded_snapshot(tmp_path):
    """Its files are links into another folder, which the hub has made."""
    repository = tmp_path / "datasets--a--films"
    blob = hub_files.as_parquet(repository / "blobs" / "0.parquet", _table())
    blob = blob.rename(blob.with_suffix(""))
    folder = repository / "snapshots" / "abc"
    (folder / "data").mkdir(parents=True)
    link = folder / "data" / "train-00000-of-00001-0123456789abcdef.parquet"
    link.symlink_to(os.path.relpath(blob, link.parent))
    items = _items(folder)
    assert items[3].clip == f"hf:{blob}/3"  # Whatever leads there.
    assert _read(items[3]).content_hash == HASHES[3]


def test_paths_relative_to_the_dataset(tmp_path):
    shutil.copytree(CLIPS[0].parent, tmp_path / "v")
    paths = [f"v/{NAMES[0]}", "zip://a.mp4::films.zip", None, "https://a.b/c.mp4", ""]
    given = hub_files.videos([None] * 4 + [BYTES[4]], paths)
    hub_files.saved(tmp_path / "ds", given)
    (tmp_path / "ds" / "v").symlink_to(tmp_path / "v")
    hub_files.as_parquet(tmp_path / "a.parquet", given)
    texts = hub_files.table({"path": (pa.string(), paths)})
    hub_files.as_parquet(tmp_path / "b.parquet", texts)
    for source in ("ds", "a.parquet", "b.parquet"):
        how = {"allow_outside": True} if source == "ds" else {}
        items = _items(tmp_path / source, **how)
        assert items[0].clip == str((tmp_path / "v" / NAMES[0]).resolve())
        assert _read(items[0]).content_hash == HASHES[0]
        cause = "row 1 has no bytes of its video, and its path 'zip://a.mp4::films.zip'"
        with pytest.raises(
            ClipError, match=f"open: {cause} is not a file of this machine"
        ):
            _read(items[1])
        with pytest.raises(ClipError, match="row 2 has neither the bytes of a video"):
            _read(items[2])
        with pytest.raises(ClipError, match=r"'https://a.b/c\.mp4' is not a file of"):
            _read(items[3])
        if source != "b.parquet":
            assert _read(items[4]).content_hash == HASHES[4]
    # A dataset is somebody's manifest.
    assert "names videos outside of" in _refused(tmp_path / "ds")
    outside = hub_files.videos([None], ["../x.mp4"])
    hub_files.saved(tmp_path / "out", outside)
    assert "names videos outside of" in _refused(tmp_path / "out")


def test_columns_by_name_and_by_field(tmp_path):
    kinds = {
        "clip": (pa.binary(), BYTES),
        "text": (pa.string(), WHAT),
        "label": (pa.int64(), [0, 1, 0, 1, 1]),
        "kind": (pa.int64(), [0, 1, 0, 1, -1]),
        "id": (pa.int32(), range(5)),
        "candidates": (pa.list_(pa.string()), [["yes", "no"]] * 5),
        "start": (pa.float64(), [None, 0.5, None, None, None]),
    }
    classes = {"_type": "ClassLabel", "names": ["nonmember", "member"]}
    made = hub_files.table(kinds, {"label": classes, "kind": classes})
    hub_files.saved(tmp_path / "ds", made)
    hub_files.as_parquet(tmp_path / "a.parquet", made)
    for source in ("ds", "a.parquet"):
        items = _items(tmp_path / source, "question=text", "group=kind")
        assert [item.question for item in items] == WHAT
        groups = ["nonmember", "member", "nonmember", "member", ""]
        assert [item.group for item in items] == groups
        assert [item.id for item in items] == list("01234")
        assert {item.candidates for item in items} == {("yes", "no")}
        assert items[1].clip.endswith("/1#t=0.5,")
        assert _read(items[1]).content_hash == HASHES[1]
        assert _read(items[1]).indices[0] > 0
        keys = {"fields": ("label=label",), "members": (f"hf:{tmp_path / source}",)}
        keys |= {"nonmembers": keys["members"], "suspects": keys["members"]}
        roles = [i.role for i in load(corpus_of(**keys | {"suspects": ()}), True)]
        assert roles.count("nonmembers") == 2 and roles.count("members") == 3


def test_a_label_is_not_read_unless_it_is_named(tmp_path, caplog):
    made = hub_files.videos(BYTES, NAMES, label=["member"] * 5)
    hub_files.saved(tmp_path / "ds", made)
    with caplog.at_level("INFO", logger="absl"):
        assert len(_items(tmp_path / "ds")) == 5
    assert "its column 'label' is not read as membership; --config.c" in caplog.text


def _png(frame: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()


def _pictures(rates=None) -> pa.Table:
    kind = pa.list_(hub_files.VIDEO)
    values = [[{"bytes": _png(f), "path": None} for f in film] for film in PIXELS]
    columns = {"frames": (kind, values)}
    if rates is not None:
        columns["fps"] = (pa.float32(), rates)
    features = {"frames": {"_type": "List", "feature": {"_type": "Image"}}}
    return hub_files.table(columns, features)


@pytest.mark.parametrize("write", [hub_files.saved, hub_files.as_parquet])
def test_lists_of_images(write, tmp_path):
    path = write(tmp_path / "a.parquet", _pictures([12.5, None]))
    items = _items(path)
    for film, item, rate in zip(PIXELS, items, (12.5, None), strict=True):
        frames = _read(item)
        np.testing.assert_array_equal(frames.pixels, film[[0, 2, 4]])
        assert (frames.clock is None) == (rate is None)
        whole = b"".join(map(_png, film))
        assert frames.content_hash == hashlib.sha256(whole).hexdigest()
    assert _read(items[0]).clock.duration == 5 / 12.5


ARRAY = {"_type": "Array4D", "shape": [5, 8, 8, 3], "dtype": "uint8"}


@pytest.mark.parametrize(
    ("kind", "value", "feature", "words"),
    [
        (hub_files.VIDEO, {"bytes": b"a"}, {"_type": "Image"}, "video: Image"),
        (hub_files.VIDEO, {"bytes": b"a"}, {"_type": "Audio"}, "video: Audio"),
        (pa.int64(), 1, {"dtype": "int64", "_type": "Value"}, "video: int64"),
        (pa.int64(), 1, {"_type": "ClassLabel", "names": ["a"]}, "video: ClassLabel"),
        (pa.list_(pa.list_(pa.uint8())), [[1]], ARRAY, "video: Array4D"),
        (
            pa.list_(hub_files.VIDEO),
            [],
            {"_type": "List", "feature": {"_type": "Audio"}},
            "video: List(Audio)",
        ),
        (pa.struct([("a", pa.int8())]), {"a": 1}, None, "video: struct<a: int8>"),
        (pa.timestamp("ms"), 0, None, "video: timestamp[ms]"),
    ],
)
def test_a_video_column_of_another_type(kind, value, feature, words, tmp_path):
    columns = {"video": (kind, [value]), "film": (hub_files.VIDEO, [None])}
    about = {} if feature is None else {"video": feature}
    made = hub_files.table(columns, about)
    path = hub_files.as_parquet(tmp_path / "a.parquet", made)
    assert len(_items(path)) == 1  # The other column is one.
    said = _refused(path, "video=video")
    assert "corpus.fields: 'video' is not a video (a Video, a struct of bytes" in said
    assert words in said and "did you mean 'film'?" in said
    path = hub_files.as_parquet(tmp_path / "a.parquet", made.drop_columns(["film"]))
    said = _refused(path)
    assert f"its column {words.replace('video:', repr('video') + ' is')}; no" in said
    assert "no column can be the video (a Video, a struct of bytes and path;" in said


def test_several_columns_could_be_the_video(tmp_path):
    kinds = {"a": (pa.binary(), [b"x"]), "b": (pa.binary(), [b"x"])}
    path = hub_files.as_parquet(tmp_path / "a.parquet", hub_files.table(kinds))
    said = _refused(path)
    assert "several columns can be the video" in said and "a: binary, b: bin" in said
    assert len(_items(path, "video=b")) == 1
    said = _refused(path, "video=c")
    assert "no column 'c'" in said


def test_the_key_of_a_row_follows_its_file(tmp_path):
    path = hub_files.as_parquet(tmp_path / "a.parquet", _table())
    item = _items(path)[2]
    assert reading.file_of(item.clip) == path
    before = reading.stamp(item.clip)
    assert before[0] == path.stat().st_size
    assert _videos().unchanged(item.clip, HASHES[2], before)
    hub_files.as_parquet(path, _table(1))  # Other videos in the same rows.
    os.utime(path, ns=(1, 1))
    assert not _videos().unchanged(item.clip, HASHES[2], before)
    path.unlink()
    with pytest.raises(ClipError, match=r"row 2 of .*a\.parquet cannot be read"):
        _videos().unchanged(item.clip, HASHES[2], before)


def test_a_row_names_no_row_of_a_dataset(tmp_path):
    path = hub_files.as_parquet(tmp_path / "a.parquet", _table())
    rows = [{"video": f"hf:{path}/0"}, {"video": f"HF:{path}/0"}]
    said = "\n".join(problems_of(suspects=(as_json(tmp_path / "m.json", rows),)))
    assert said.count("a row names a file, not an example of a dataset; give the") == 2
    assert "('hf:PATH/SPLIT',)" in said
    for address in ("hf:", "hf:a.parquet/0", f"hf:{path}", f"hf:{path}/-1"):
        with pytest.raises(ClipError, match="open: a row of a dataset is hf:/F"):
            _videos().read(address, {3})
    with pytest.raises(ClipError, match="has 5 rows, no row 5"):
        _videos().read(f"hf:{path}/5", {3})


# ------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("left", [-9, -8, 700, 100, 0])
def test_a_stream_that_is_cut(left, tmp_path):
    folder = hub_files.saved(tmp_path / "ds", _table())
    (path,) = folder.glob("*.arrow")
    path.write_bytes(path.read_bytes()[:left])
    said = _refused(folder)
    assert f"hf:{folder}: data-00000-of-00001.arrow cannot be read: " in said


def test_a_stream_whose_offsets_lie(tmp_path):
    """Nothing is read beyond the file, wherever a video is said to be."""
    folder = hub_files.saved(tmp_path / "ds", _table(0, 2))
    (path,) = folder.glob("*.arrow")
    content, ends = path.read_bytes(), np.cumsum([0, *map(len, BYTES[:2])])
    places = ends.astype("<i4").tobytes()
    assert content.count(places) == 1
    path.write_bytes(
        content.replace(places, np.array([0, 2**31 - 1, ends[2]], "<i4").tobytes())
    )
    for item in _items(folder):
        with pytest.raises(ClipError, match=r"cannot be read.*[Oo]ffset"):
            _read(item)
    worse = np.array([0, ends[1], 2**31 - 1], "<i4").tobytes()
    path.write_bytes(content.replace(places, worse))
    assert "Length spanned by binary offsets (2147483647) larger" in _refused(folder)


def test_what_describes_a_saved_dataset(tmp_path):
    folder = hub_files.saved(tmp_path / "ds", _table())
    hub_files.as_arrow(tmp_path / "x.arrow", _table())
    state = folder / "state.json"
    for about, words in (
        ("{", "state.json is damaged"),
        ("[]", "state.json is damaged (it is not a JSON object)"),
        ("[" * 100_000, "state.json is damaged"),
        ("{}", "'_data_files' is not a list"),
        ('{"_data_files": []}', "state.json names no data file"),
        ('{"_data_files": [7]}', "None is not the name of a file in the folder"),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', "'../x.arrow' is not the"),
        (
            json.dumps({"_data_files": [{"filename": str(tmp_path / "x.arrow")}]}),
            "is not the name of a file in the folder",
        ),
        (
            '{"_data_files": [{"filename": "a.arrow"}]}',
            "names files that are missing: a.arrow",
        ),
        ('{"_data_files": [{"filename": "a\\u0000.arrow"}]}', "is not the name of"),
        ('{"_data_files": [{"filename": "\\ud800.arrow"}]}', "is not the name of a"),
        (
            '{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}',
            "save it again with a newer version, which stores the selection",
        ),
    ):
        state.write_text(about)
        assert words in _refused(folder)
    state.write_bytes(b" " * ((1 << 24) + 1))
    assert "state.json has 16777217 bytes; at most 16777216 are read" in (
        _refused(folder)
    )
    state.unlink()
    os.mkfifo(state)
    assert "state.json is not a regular file" in _refused(folder)
    both = tmp_path / "both"
    hub_files.saved_splits(both, train=_table())
    (both / "dataset_dict.json").write_text('{"splits": ["../ds"]}')
    assert "'../ds' is not the name of a file in the folder" in _refused(both)
    assert "such as hf:films/test" in _refused(" ")
    (tmp_path / "empty").mkdir()
    assert "has no dataset: neither the files of `Data" in (
        _refused(tmp_path / "empty")
    )


def test_files_of_one_split_have_the_same_columns(tmp_path):
    others = hub_files.videos(BYTES[:1], NAMES[:1])
    hub_files.saved(tmp_path / "ds", _table(), others)
    assert "-00001-of-00002.arrow cannot be read: its columns differ from those" in (
        _refused(tmp_path / "ds")
    )


def test_a_text_of_no_utf8(tmp_path):
    raw = pa.array([b"\xff\xfe"]).view(pa.string())
    made = pa.table({"video": pa.array([b"x"]), "question": raw})
    for path in (
        hub_files.saved(tmp_path / "ds", made),
        hub_files.as_parquet(tmp_path / "a.parquet", made),
    ):
        assert "cannot be read" in _refused(path)


def test_statistics_may_lack(tmp_path):
    made = hub_files.videos([BYTES[0], None, BYTES[2]], [None] * 3)
    path = tmp_path / "a.parquet"
    pq.write_table(made, path, write_statistics=False)
    items = _items(path)
    assert _read(items[2]).content_hash == HASHES[2]
    with pytest.raises(ClipError, match="row 1 has neither"):
        _read(items[1])


def test_what_the_package_writes(tmp_path):
    """The fixtures of this file are written by Arrow in the layout of `datasets`."""
    datasets = pytest.importorskip("datasets", reason="pip install -e '.[hub]'")
    features = datasets.Features(
        video=datasets.Video(),
        question=datasets.Value("string"),
        group=datasets.ClassLabel(names=["a", "b"]),
    )
    rows = {
        "video": [{"bytes": b, "path": n} for b, n in zip(BYTES, NAMES, strict=True)],
        "question": WHAT,
        "group": [0, 1, 0, 1, 0],
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(tmp_path / "whole"), num_shards=2)
    made.select([4, 0, 2]).save_to_disk(str(tmp_path / "some"))
    datasets.DatasetDict(train=made).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "hub" / "data").mkdir(parents=True)
    path = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    made.to_parquet(str(path))
    for source, rows in {
        "whole": range(5),
        "some": (4, 0, 2),
        "splits/train": range(5),
        "hub": range(5),
    }.items():
        items = _items(tmp_path / source)
        assert [item.question for item in items] == [WHAT[k] for k in rows]
        assert [item.group for item in items] == ["ab"[k % 2] for k in rows]
        hashes = [_read(item).content_hash for item in items]
        assert hashes == [HASHES[k] for k in rows]
