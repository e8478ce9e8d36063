"""tfds: sources: every kind of video feature, splits, fields, what is refused."""

import hashlib
import json
import os
import pathlib
import struct
import zlib

import cv2
import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from decoding import decode
from vidsme_jax import settings
from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.data import corpora, datasets, reading
from vidsme_jax.settings import views

F = tfds.features
CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))[:4]
PIXELS = [
    np.random.default_rng(k).integers(0, 256, (5 + k, 8, 12, 3), np.uint8)
    for k in range(4)
]


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The same examples as train and as test, in order."""

    name = "made"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, features: dict, examples: list, folder: pathlib.Path):
        self._given, self._examples = features, examples
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self):
        given = F.FeaturesDict(self._given)
        how = {"disable_shuffling": True}
        return tfds.core.DatasetInfo(builder=self, features=given, **how)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples() for name in ("train", "test")}

    def _generate_examples(self):
        yield from enumerate(self._examples)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Builds the dataset where tfds: sources are looked for; returns its folder."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def make(features: dict, examples: list, shards: int = 1) -> pathlib.Path:
        how = tfds.download.DownloadConfig(num_shards=shards)
        made = Made(features, examples, tmp_path)
        made.download_and_prepare(download_config=how)
        return tmp_path / "made" / "1.0.0"

    return make


def _png(frame: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr)[1].tobytes()


def _config(*fields: str, source: str = "tfds:made/train", **corpus):
    config = settings.default()
    config.video.num_frames = 3
    config.corpus.suspects = (source,)
    config.corpus.fields = fields
    config.corpus.update(corpus)
    return config


def _frames(config) -> list:
    return [_read(config, item.clip) for item in _load(config)]


def _load(config) -> tuple:
    return corpora.load(views.view(views.Corpus, config), looks=False).items


def _videos(config) -> reading.Videos:
    how = views.view(views.Video, config)
    return reading.Videos(how, config.corpus.fields)


def _read(config, key: str):
    count = config.video.num_frames
    return _videos(config).read(key, {count})(count)[0]


def _problems(config) -> str:
    with pytest.raises(AuditError) as caught:
        _load(config)
    return "\n".join(caught.value.problems)


def _images():
    sequence = F.Sequence(F.Image(shape=(None, None, 3), encoding_format="png"))
    return {"clip": sequence}, [{"clip": [_png(f) for f in p]} for p in PIXELS]


def _inside():
    inside = {"clip": F.Sequence({"image": F.Image(), "time": F.Scalar(np.int64)})}
    examples = [
        {"clip": [{"image": _png(f), "time": 0} for f in pixels]} for pixels in PIXELS
    ]
    return inside, examples


def _array():
    shape = F.Tensor(shape=(None, 8, 12, 3), dtype=np.uint8)
    return {"clip": shape}, [{"clip": pixels} for pixels in PIXELS]


def _files():
    mp4 = F.Tensor(shape=(), dtype=np.object_)
    return {"mp4": mp4}, [{"mp4": clip.read_bytes()} for clip in CLIPS[:2]]


@pytest.mark.parametrize("make", [_images, _inside, _array])
def test_frames_as_pictures(make, build):
    build(*make())
    for pixels, frames in zip(PIXELS, _frames(_config()), strict=True):
        last = len(pixels) - 1
        assert frames.indices == (0, last // 2, last)
        np.testing.assert_array_equal(frames.pixels, pixels[list(frames.indices)])
        assert len(frames.content_hash) == 64


@pytest.mark.parametrize("make", [_images, _array, _files])
def test_several_numbers_of_frames_at_once(make, build):
    build(*make())
    config = _config()
    for item in _load(config):
        of = _videos(config).read(item.clip, {1, 2, 3})
        for config.video.num_frames in (1, 2, 3):
            alone = _read(config, item.clip)
            frames, known = of(config.video.num_frames)
            assert frames.indices == alone.indices and known is None
            assert frames.content_hash == alone.content_hash
            np.testing.assert_array_equal(frames.pixels, alone.pixels)


@pytest.mark.parametrize("make", [_images, _array])
@pytest.mark.parametrize(
    ("feature", "values", "rates"),
    [
        (F.Scalar(np.int64), [25, 0, 90_000, 5], [25, None, None, 5]),
        (F.Scalar(np.float32), [12.5, -1, np.nan, np.inf], [12.5, None, None, None]),
        (F.Tensor(shape=(2,), dtype=np.int64), [[25, 25]] * 4, [None] * 4),
        (F.Text(), ["25"] * 4, [None] * 4),
        (None, [], [None] * 4),
    ],
    ids=["int", "float", "vector", "text", "none"],
)
def test_pictures_have_times_where_the_example_has_a_rate(
    make, feature, values, rates, build
):
    features, examples = make()
    if feature is not None:
        features |= {"fps": feature}
        for example, value in zip(examples, values, strict=True):
            example["fps"] = value
    build(features, examples)
    config = _config("video=clip")
    of = _videos(config).read(_load(config)[1].clip, {2, 3})
    for pixels, frames, rate in zip(PIXELS, _frames(config), rates, strict=True):
        clock, count = frames.clock, len(pixels)
        if rate is None:
            assert clock is None
        else:
            assert clock.times == tuple(index / rate for index in frames.indices)
            assert (clock.duration, clock.drift) == (count / rate, 0.0)
    assert of(2)[0].clock is None


def test_groups_are_named_by_their_sources(build):
    build(*_array())
    config = _config()
    config.corpus.suspects = ("tfds:made/train[:1]", "tfds:made/test[:1]")
    groups = [item.group for item in _load(config)]
    assert groups == ["made/train[:1]", "made/test[:1]"]


def test_videos_as_tfds_declares_them_need_no_tensorflow(build):
    folder = build(*_images())
    # What TFDS writes for Video(shape=(None, 8, 12, 3)), which it cannot make here.
    content = json.loads((folder / "features.json").read_text())
    content["featuresDict"]["features"]["clip"] = {
        "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
        "video": {
            "shape": {"dimensions": ["-1", "8", "12", "3"]},
            "dtype": "uint8",
            "encodingFormat": "png",
        },
    }
    (folder / "features.json").write_text(json.dumps(content))
    frames = _frames(_config())[1]
    np.testing.assert_array_equal(frames.pixels, PIXELS[1][[0, 2, 5]])


def test_files_as_bytes(build):
    features = {"mp4": F.Tensor(shape=(), dtype=np.object_), "name": F.Text()}
    build(features, [{"mp4": c.read_bytes(), "name": c.name} for c in CLIPS])
    config = _config("id=name")
    assert [i.id for i in _load(config)] == [c.name for c in CLIPS]
    for clip, frames in zip(CLIPS, _frames(config), strict=True):
        expected = decode(clip, num_frames=3)
        np.testing.assert_array_equal(frames.pixels, expected.pixels)
        assert frames.content_hash == expected.content_hash
        assert frames.warnings == expected.warnings
        assert frames.clock == expected.clock and frames.clock is not None
    key = _load(config)[-1].clip
    small = _videos(config).thumbnails(key, expected.indices, 16)
    assert small.shape[:2] == (3, 16)


@pytest.mark.parametrize("kind", [F.Text(), F.Tensor(shape=(), dtype=np.object_)])
def test_paths(kind, build):
    build(
        {"path": kind, "text": F.Text()}, [{"path": c.name, "text": ""} for c in CLIPS]
    )
    config = _config("video=path", video_root=str(CLIPS[0].parent))
    assert [i.clip for i in _load(config)] == [str(c.resolve()) for c in CLIPS]
    expected = decode(CLIPS[0], num_frames=3)
    np.testing.assert_array_equal(_frames(config)[0].pixels, expected.pixels)


def test_paths_are_relative_to_the_dataset(build):
    folder = build({"path": F.Text()}, [{"path": "a/b.mp4"}])
    items = _load(_config())
    assert items[0].clip == str((folder / "a" / "b.mp4").resolve())


def test_columns_by_name_and_by_field(build):
    features, examples = _images()
    features |= {
        "question": F.Text(),
        "label": F.ClassLabel(names=["run", "walk"]),
        "id": F.Scalar(np.int64),
        "candidates": F.Sequence(F.Text()),
    }
    for k, example in enumerate(examples):
        example |= {"question": f"{k}?", "label": k % 2, "id": 10 + k}
        example["candidates"] = ["yes", "no"]
    build(features, examples)
    items = _load(_config("group=label", "source=question"))
    assert [i.question for i in items] == ["0?", "1?", "2?", "3?"]
    assert {i.candidates for i in items} == {("yes", "no")}
    assert [i.group for i in items] == ["run", "walk", "run", "walk"]
    assert [i.source for i in items] == ["0?", "1?", "2?", "3?"]
    assert [i.id for i in items] == ["10", "11", "12", "13"]


def test_split_syntax_and_addresses(build):
    folder = build(*_images(), shards=2)
    assert len(list(folder.glob("*train*-of-00002"))) == 2
    items = _load(_config(source="tfds:made:1.0.0/train[1:3]"))
    names = ["tfds:made/1.0.0/train/1", "tfds:made/1.0.0/train/2"]
    assert [item.video for item in items] == names
    assert [item.clip for item in items] == names
    assert _frames(_config())[2].indices[-1] == len(PIXELS[2]) - 1
    assert len(_load(_config(source="tfds:made/train[:50%]"))) == 2
    assert len(_load(_config(source="tfds:made/train+test"))) == 8
    config = _config(
        suspects=(),
        members=("tfds:made/train[:2]",),
        nonmembers=("tfds:made/train[1:]",),
    )
    assert "1 video is in two roles as one file: tfds:" in _problems(config)


def test_a_feature_is_a_label_only_if_it_is_named(build, caplog):
    features, examples = _images()
    features["label"] = F.ClassLabel(names=["member", "nonmember"])
    for number, example in enumerate(examples):
        example["label"] = number % 2
    build(features, examples)
    with caplog.at_level("INFO", logger="absl"):
        assert len(_load(_config())) == len(PIXELS)
    assert "its feature 'label' is not read as membership; --config.c" in caplog.text
    config = _config("label=label")
    assert "is given as corpus.suspects alone, but by its column" in _problems(config)
    source = config.corpus.suspects
    config.corpus.update({"members": source, "nonmembers": source, "suspects": ()})
    roles = [item.role for item in _load(config)]
    assert set(roles) == {"members", "nonmembers"} and len(roles) == len(PIXELS)


@pytest.mark.parametrize("pictures", [True, False])
def test_segments_of_examples(build, pictures):
    features, examples = _images()
    if not pictures:
        features = {"mp4": F.Tensor(shape=(), dtype=np.object_)}
        examples = [{"mp4": CLIPS[0].read_bytes()}]
    features["start"] = F.Tensor(shape=(), dtype=np.float32)
    for example in examples:
        example["start"] = 0.5
    build(features, examples)
    config = _config()
    if pictures:
        assert "'start' and 'end' select a segment by its seconds, which the pictu" in (
            _problems(config)
        )
        assert len(_load(_config("start="))) == len(PIXELS)
        item = _load(_config("start="))[0]
        with pytest.raises(ClipError, match="to the end: pictures have no times"):
            _read(config, f"{item.clip}#t=0.5,")
        return
    (item,) = _load(config)
    assert item.clip == "tfds:made/1.0.0/train/0#t=0.5,"
    frames = _read(config, item.clip)
    assert frames.indices[0] > 0
    assert frames.content_hash == hashlib.sha256(CLIPS[0].read_bytes()).hexdigest()


@pytest.mark.parametrize("how", [{}, {"start": 1}, {"allow_outside": True}])
def test_a_manifest_names_no_examples(build, tmp_path, how):
    build(*_images())
    rows = [{"video": "tfds:made/1.0.0/test/2", "start": how.pop("start", None)}]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    found = _problems(_config(source=str(tmp_path / "m.json"), **how))
    assert (
        "row 1: 'video' is 'tfds:made/1.0.0/test/2'; a row names a file, not" in found
    )
    assert "give the dataset as a source, such as corpus.suspects = ('tfds:" in found


@pytest.mark.parametrize("kind", [F.Text(), F.Tensor(shape=(), dtype=np.object_)])
def test_a_text_of_an_example_is_no_address(kind, build):
    paths = [CLIPS[0].name, "tfds:made/1.0.0/train/0", "TFDS:other/1.0.0/train/0"]
    build({"path": kind}, [{"path": path} for path in paths])
    found = _problems(_config("video=path", video_root=str(CLIPS[0].parent)))
    assert found.count("a row names a file, not an example of a dataset") == 2
    assert "example 1: 'video' is 'tfds:made/1.0.0/train/0'" in found


def test_what_is_refused(build, tmp_path):
    features, examples = _images()
    features |= {"mask": F.Sequence(F.Image()), "n": F.Scalar(np.int64)}
    for example in examples:
        example |= {"mask": [_png(PIXELS[0][0])], "n": 1}
    folder = build(features, examples)
    found = _problems(_config())
    assert "tfds:made/train: several features can be the video" in found
    assert "clip: Sequence, mask: Sequence, n: Scalar" in found
    assert _load(_config("video=clip"))
    assert "no feature 'clap'" in (found := _problems(_config("video=clap")))
    assert "did you mean 'clip'?" in found
    assert "'n' is not a video" in _problems(_config("video=n"))
    found = _problems(_config("video=clip", source="tfds:made/tran"))
    assert "no split 'tran'; it has test, train; did you mean 'train'?" in found
    found = _problems(_config(source="tfds:mode/train"))
    assert (
        f"no dataset 'mode' in {tmp_path}" in found and "did you mean 'made'?" in found
    )
    assert "it must be tfds:NAME" in _problems(_config(source="tfds:made"))
    assert settings.problems(_config("vidoe=clip"))
    about = (folder / "dataset_info.json").read_text()
    other = folder.with_name("1.1.0")
    folder.rename(other)
    about = about.replace('"1.0.0"', '"1.1.0"').replace("array_record", "riegeli")
    (other / "dataset_info.json").write_text(about)
    found = _problems(_config())
    assert "stored as riegeli; array_record and tfrecord can be read" in found


def _as_tfrecords(folder: pathlib.Path) -> list[pathlib.Path]:
    """Makes a dataset what it would be had TFDS been given TensorFlow."""
    made = []
    for path in sorted(folder.glob("*.array_record-*")):
        reader = array_record_module.ArrayRecordReader(str(path))
        made.append(path.with_name(path.name.replace("array_record", "tfrecord")))
        with made[-1].open("wb") as file:
            for record in reader.read_all():
                head = struct.pack("<QI", len(record), 0)
                file.write(head + record + b"\0\0\0\0")
        assert list(grain.experimental.TFRecordIterDataset(str(made[-1]))) == (
            reader.read_all()
        )
        reader.close()
        path.unlink()
    about = folder / "dataset_info.json"
    about.write_text(about.read_text().replace("array_record", "tfrecord"))
    return made


@pytest.mark.long
def test_tfrecords_are_read_in_any_order(build):
    features, examples = _images()
    examples = [e | {"id": f"{k}"} for k, e in enumerate(examples)]
    folder = build(features | {"id": F.Text()}, examples, shards=2)
    config = _config()
    before, ids = _frames(config), [i.id for i in _load(config)]
    datasets._opened.cache_clear()
    files = _as_tfrecords(folder)
    assert len(files) == 4
    items = _load(_config(source="tfds:made/train[1:]"))
    assert [item.id for item in items] == ids[1:]
    for frames, item in reversed(list(zip(before[1:], items, strict=True))):
        now = _read(config, item.clip)
        np.testing.assert_array_equal(now.pixels, frames.pixels)
        assert now.content_hash == frames.content_hash


def test_a_damaged_tfrecord_costs_its_examples_only(build):
    clips = [{"mp4": c.read_bytes(), "id": c.name} for c in CLIPS]
    mp4 = F.Tensor(shape=(), dtype=np.object_)
    folder = build({"mp4": mp4, "id": F.Text()}, clips, shards=2)
    train = [path for path in _as_tfrecords(folder) if "train" in path.name]
    train[0].write_bytes(train[0].read_bytes()[:-9])
    config = _config()
    items = _load(config)
    assert [item.id for item in items[-2:]] == [c.name for c in CLIPS[-2:]]
    for item in items[:2]:
        with pytest.raises(
            ClipError, match=r"train.*-00000-of-00002 is damaged: 2 rec"
        ):
            _read(config, item.clip)
    assert _read(config, items[2].clip).indices[-1] > 2


@pytest.mark.parametrize("name", ["", "a", "a/train/x", "../made/1.0.0/train/0"])
def test_addresses_that_are_none(build, name):
    build(*_array())
    with pytest.raises(ClipError, match="an example is tfds:NAME"):
        _read(_config(), f"tfds:{name}")


@pytest.mark.parametrize("make", [_images, _array])
def test_pictures_that_are_too_large(make, build):
    build(*make())
    config = _config()
    config.video.max_pixels = 8 * 12
    assert _frames(config)
    config.video.max_pixels -= 1
    with pytest.raises(ClipError, match="12x8 pixels; at most 95 are decoded"):
        _frames(config)


def test_a_picture_is_measured_before_it_is_decoded(build, monkeypatch):
    """A head that claims 60,000 x 60,000 pixels, of which a few bytes are there."""
    png = bytearray(_png(PIXELS[0][0]))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    sequence = F.Sequence(F.Image(shape=(None, None, 3), encoding_format="png"))
    build({"clip": sequence}, [{"clip": [bytes(png)]}, {"clip": [b"no picture"]}])
    monkeypatch.setattr(cv2, "imdecode", None)
    config = _config()
    keys = [item.clip for item in _load(config)]
    for key, cause in zip(keys, ("too large", "is not a picture"), strict=True):
        with pytest.raises(ClipError, match=f"frame 0.*{cause}"):
            _read(config, key)


@pytest.mark.parametrize("nested", [False, True])
def test_features_of_other_modules_are_not_imported(build, nested, monkeypatch):
    folder = build(*_array())
    monkeypatch.syspath_prepend(folder)
    (folder / "evil.py").write_text("raise SystemExit('imported')")
    content: dict = {"type": "evil.Feature", "content": {}}
    if nested:
        inside = json.dumps({"feature": content, "length": None})
        name = "tensorflow_datasets.core.features.sequence_feature.Sequence"
        content = {"pythonClassName": name, "jsonFeature": {"json": inside}}
    (folder / "features.json").write_text(json.dumps(content))
    found = _problems(_config())
    assert "names evil.Feature; only the features of tensorflow_datasets" in found


def test_features_in_the_description_are_not_imported_either(build, monkeypatch):
    folder = build(*_array())
    monkeypatch.syspath_prepend(folder)
    (folder / "evil.py").write_text("raise SystemExit('imported')")
    about = folder / "dataset_info.json"
    inside = {"features": {"pythonClassName": "evil.Feature"}}
    about.write_text(json.dumps(json.loads(about.read_text()) | inside))
    assert "dataset_info.json names evil.Feature" in _problems(_config())


def test_as_many_examples_as_there_are_bytes_at_most(build):
    folder = build(*_array())
    about = folder / "dataset_info.json"
    content = json.loads(about.read_text())
    for split in content["splits"]:
        split["shardLengths"] = [str(10**12)]
    about.write_text(json.dumps(content))
    found = _problems(_config())
    assert "dataset_info.json claims 1000000000000 examples in made-train" in found


def test_names_of_files_need_the_name_that_they_are_made_of(build):
    about = build(*_array()) / "dataset_info.json"
    content = json.loads(about.read_text())
    del content["name"]
    about.write_text(json.dumps(content))
    assert "Could not format template {DATASET}-{SPLIT}" in _problems(_config())


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "x.labels.txt"])
def test_descriptions_have_a_limit(build, name):
    folder = build(*_array())
    with (folder / name).open("ab") as file:
        file.truncate((1 << 24) + 1)
    assert f"{name} has 16777217 bytes; at most 16777216 are read" in (
        _problems(_config())
    )


def test_a_description_is_a_file(build):
    folder = build(*_array())
    (folder / "features.json").unlink()
    os.mkfifo(folder / "features.json")
    assert "features.json is not a regular file" in _problems(_config())


def test_a_length_of_a_tfrecord_that_lies(build):
    folder = build(*_array())
    for path in _as_tfrecords(folder):
        path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
    for item in _load(_config()):
        with pytest.raises(ClipError, match="is damaged: 4 records should fill"):
            _read(_config(), item.clip)


def test_examples_that_cannot_be_sampled(build):
    sequence = F.Sequence(F.Image(shape=(None, None, 3), encoding_format="png"))
    mixed = [_png(PIXELS[0][0]), _png(PIXELS[0][0][:4])]
    build({"clip": sequence}, [{"clip": []}, {"clip": mixed}, {"clip": mixed[:1]}])
    config = _config()
    keys = [item.clip for item in _load(config)]
    for key, cause in zip(keys, ("has no frame", "frames of 2 sizes"), strict=False):
        with pytest.raises(ClipError, match=cause):
            _read(config, key)
    config.video.sampling = "fps"
    with pytest.raises(ClipError, match="take uniform or midpoint"):
        _read(config, keys[2])
    with pytest.raises(ClipError, match="cannot be read"):
        _read(config, "tfds:made/1.0.0/train/9")
    with pytest.raises(ClipError, match="cannot open"):
        _read(config, "tfds:made/2.0.0/train/0")
