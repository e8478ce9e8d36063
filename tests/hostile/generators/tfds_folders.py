"""Hostile TFDS datasets: what their files say, and what their examples hold.

A case passes the folder that TFDS_DATA_DIR names; the source is `SOURCE` in it.
"""

import functools
import io
import json
import os
import pathlib
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from damaged import CLIPS

from generators import EITHER, HONEST, REFUSED, Case, damaged, prepared, rng_of

SOURCE = "tfds:made/train"
_VERSION = "made/1.0.0"
Change = Callable[[pathlib.Path], None]


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Given examples, in order."""

    name = "made"
    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # Else TFDS looks for files beside this one.

    def __init__(self, features: dict[str, Any], examples: list, folder: pathlib.Path):
        """Builds in a folder."""
        self._given, self._examples = features, examples
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        given = tfds.features.FeaturesDict(self._given)
        return tfds.core.DatasetInfo(
            builder=self, features=given, disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, Any]]:
        yield from enumerate(self._examples)


def _build(folder: pathlib.Path, features: dict[str, Any], examples: list) -> None:
    how = tfds.download.DownloadConfig(num_shards=1)
    Made(features, examples, folder).download_and_prepare(download_config=how)


@functools.cache
def base() -> pathlib.Path:
    """Returns a folder with the base, which each case copies."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hostile-tfds-"))
    videos = [{"video": clip.read_bytes(), "id": clip.stem} for clip in CLIPS[10:13]]
    features = {
        "video": tfds.features.Tensor(shape=(), dtype=np.object_),
        "id": tfds.features.Text(),
    }
    _build(folder, features, videos)
    return folder


def _with(change: Change) -> Callable[[pathlib.Path], pathlib.Path]:
    def build(folder: pathlib.Path) -> pathlib.Path:
        shutil.copytree(base() / "made", folder / "made")
        change(folder / _VERSION)
        return folder

    return build


def cases(seed: int = 0, random: int = 6) -> Iterator[Case]:
    """Yields cases; `random` of each kind of damage."""
    yield Case("honest", _with(lambda folder: None), HONEST)
    yield from _described()
    yield from _examples()
    names = ("features.json", "dataset_info.json")
    for k in range(random):
        for name in (*names, "made-train.array_record-00000-of-00001"):
            title = f"{name}: damage {k}"

            def change(folder: pathlib.Path, name=name, title=title) -> None:
                data = damaged((folder / name).read_bytes(), rng_of(seed, title))
                (folder / name).write_bytes(data)

            yield Case(title, _with(change), EITHER)


def _edited(name: str, edit: Callable[[Any], Any]) -> Change:
    def change(folder: pathlib.Path) -> None:
        raw = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(edit(raw)))

    return change


def _text(name: str, text: str | bytes) -> Change:
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / name).write_bytes(data) and None


def _fifo(name: str) -> Change:
    def change(folder: pathlib.Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def _described() -> Iterator[Case]:
    def evil(edit: str) -> Callable[[pathlib.Path], pathlib.Path]:
        def build(folder: pathlib.Path) -> pathlib.Path:
            mark = folder / "was_run"
            code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
            (folder / "evilmod.py").write_text(f"{code}class Text:\n    pass\n")
            edited = prepared.foreign(edit, "evilmod.Text")
            return _with(_edited("features.json", edited))(folder)

        return build

    for edit in prepared.FOREIGN:
        yield Case(f"features: code by {edit}", evil(edit))
    for name in ("features.json", "dataset_info.json"):
        for what, text in {
            "empty": "",
            "a list": "[]",
            "null": "null",
            "a number": "7",
            "nested": '{"a":' * 100_000,
            "no UTF-8": b"\xff\xfe",
            "an empty object": "{}",
        }.items():
            yield Case(f"{name}: {what}", _with(_text(name, text)))
        yield Case(f"{name}: a FIFO", _with(_fifo(name)))
        yield Case(f"{name}: gone", _with(lambda f, name=name: (f / name).unlink()))
    for what, text in {
        "a text of JSON that is none": '{"json": "{"}',
        "a class of TFDS that is none": '{"type": "tensorflow_datasets.x.Y"}',
        "a class of TFDS that is no feature": '{"pythonClassName": '
        '"tensorflow_datasets.core.download.DownloadManager"}',
        "video": '{"pythonClassName": "tensorflow_datasets.core.features.video_feature'
        '.Video", "video": []}',
        "video without shape": '{"pythonClassName": "tensorflow_datasets.core.features.'
        'video_feature.Video"}',
    }.items():
        yield Case(f"features.json: {what}", _with(_text("features.json", text)))

    def split(**keys: Any) -> Change:
        def edit(raw: Any) -> Any:
            return raw | {"splits": [one | keys for one in raw["splits"]]}

        return _edited("dataset_info.json", edit)

    for what, keys in {
        "10^12 examples": {"shardLengths": [str(10**12)]},
        "10^7 examples": {"shardLengths": [str(10**7)]},
        "negative lengths": {"shardLengths": ["-1"]},
        "10^5 shards": {"shardLengths": ["1"] * 100_000},
        "lengths that are texts": {"shardLengths": ["x"]},
        "files elsewhere": {"filepathTemplate": "/etc/passwd"},
        "files above": {"filepathTemplate": "../../../{DATASET}.{FILEFORMAT}"},
        "a template that is none": {"filepathTemplate": "{0.__class__}{"},
        "a name of the split with escapes": {"name": "\x1b]0;owned\x07"},
    }.items():
        yield Case(f"info: {what}", _with(split(**keys)), EITHER)
    for what, keys in {
        "another format": {"fileFormat": "evil"},
        "another name": {"name": "../../evil"},
        "a module": {"moduleName": "evilmod"},
        "another version": {"version": "x"},
        "no splits": {"splits": []},
    }.items():
        edited = _edited("dataset_info.json", lambda raw, keys=keys: raw | keys)
        yield Case(f"info: {what}", _with(edited), EITHER)


def _examples() -> Iterator[Case]:
    f = tfds.features
    raw = f.Tensor(shape=(), dtype=np.object_)

    def built(features: dict[str, Any], examples: list):
        def build(folder: pathlib.Path) -> pathlib.Path:
            _build(folder, features, examples)
            return folder

        return build

    for what, videos in {
        "no videos": [b"x"] * 3,
        "empty videos": [b""] * 3,
        "names outside": [b"../../../etc/passwd", b"/etc/passwd"],
        "addresses": [b"tfds:other/1.0.0/train/0"],
        "names of no UTF-8": [b"\xff\xfe.mp4"],
        "names with escapes": [b"\x1b]0;owned\x07.mp4"],
        "playlists": [b"#EXTM3U\n#EXTINF:2,\n/etc/passwd\n#EXT-X-ENDLIST\n"],
        "a y4m of 20000x2": [
            b"YUV4MPEG2 W20000 H2 F25:1 C420jpeg\nFRAME\n" + bytes(60000)
        ],
    }.items():
        kind = REFUSED if what in ("names outside", "addresses") else EITHER
        examples = [{"video": video} for video in videos]
        yield Case(f"examples: {what}", built({"video": raw}, examples), kind)
    ids = [{"video": b"\0", "id": text} for text in ("\x1b[2J", "\x1b[2J", "")]
    yield Case(
        "examples: ids with escapes", built({"video": raw, "id": f.Text()}, ids), EITHER
    )
    for side in (2**15, 2**31 - 1):
        yield Case(f"examples: pictures of {side}", _pictures(side), EITHER)


def _pictures(side: int) -> Callable[[pathlib.Path], pathlib.Path]:
    """Writes a dataset whose pictures say that they are larger than they are."""

    def build(folder: pathlib.Path) -> pathlib.Path:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        examples = [{"video": [io.BytesIO(_png(8))]}]
        _build(folder, {"video": tfds.features.Sequence(image)}, examples)
        _grown(side)(folder / _VERSION)
        return folder

    return build


def _png(side: int) -> bytes:
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("RGB", (side, side)).save(file, "png")
        return file.getvalue()


def _grown(side: int) -> Change:
    """Says that pictures of the records are larger, with the checksum of that."""

    def change(folder: pathlib.Path) -> None:
        from array_record.python import array_record_module

        (path,) = folder.glob("*.array_record*")
        reader = array_record_module.ArrayRecordReader(str(path))
        found = [bytearray(reader.read([k])[0]) for k in range(reader.num_records())]
        reader.close()
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for one in found:
            at = one.index(b"IHDR")
            one[at + 4 : at + 12] = struct.pack(">II", side, side)
            one[at + 17 : at + 21] = struct.pack(">I", zlib.crc32(one[at : at + 17]))
            writer.write(bytes(one))
        writer.close()

    return change
