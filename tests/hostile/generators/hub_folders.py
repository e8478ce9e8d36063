"""Hostile datasets of Hugging Face: what their files say, and what their rows hold.

A case passes what follows `hf:` in the source.
"""

import functools
import json
import os
import pathlib
import struct
import tempfile
from collections.abc import Callable, Iterator

import pyarrow as pa
from damaged import CLIPS

import hub_files
from generators import EITHER, HONEST, Case, damaged, rng_of

_DATA = "data-00000-of-00001.arrow"
_ESCAPE = "\x1b]0;owned\x07"
Build = Callable[[pathlib.Path], pathlib.Path]


@functools.cache
def base() -> dict[str, bytes]:
    """Returns the bytes of each file of the base: a saved dataset, and Parquet."""
    contents = [clip.read_bytes() for clip in CLIPS[10:13]]
    names = [clip.name for clip in CLIPS[10:13]]
    given = hub_files.videos(contents, names, question=["a", "b", "c"])
    with tempfile.TemporaryDirectory() as name:
        folder = hub_files.saved(pathlib.Path(name), given)
        hub_files.as_parquet(folder / "a.parquet", given)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _saved(**changed: bytes | None) -> Build:
    """Writes the saved dataset with other files; None: without."""

    def build(folder: pathlib.Path) -> pathlib.Path:
        made = folder / "ds"
        made.mkdir()
        its = {k: v for k, v in base().items() if k != "a.parquet"} | changed
        for name, data in its.items():
            if data is not None:
                (made / name).write_bytes(data)
        return made

    return build


def _parquet(data: bytes) -> Build:
    def build(folder: pathlib.Path) -> pathlib.Path:
        (folder / "a.parquet").write_bytes(data)
        return folder / "a.parquet"

    return build


def _table(given: pa.Table, kind: str = "saved") -> Build:
    def build(folder: pathlib.Path) -> pathlib.Path:
        if kind == "saved":
            return hub_files.saved(folder / "ds", given)
        return hub_files.as_parquet(folder / "a.parquet", given)

    return build


def cases(seed: int = 0, random: int = 12) -> Iterator[Case]:
    """Yields cases; `random` of each kind of damage."""
    yield Case("honest, saved", _saved(), HONEST)
    yield Case("honest, Parquet", _parquet(base()["a.parquet"]), HONEST)
    yield from _described()
    yield from _rows()
    yield from _claims()
    for k in range(random):
        for name in ("state.json", _DATA):
            title = f"{name}: damage {k}"
            data = damaged(base()[name], rng_of(seed, title))
            yield Case(title, _saved(**{name: data}), EITHER)
        title = f"Parquet: damage {k}"
        data = damaged(base()["a.parquet"], rng_of(seed, title))
        yield Case(title, _parquet(data), EITHER)


def _described() -> Iterator[Case]:
    for what, text in {
        "empty": b"",
        "a list": b"[]",
        "null": b"null",
        "nested": b'{"a":' * 100_000,
        "no UTF-8": b"\xff\xfe",
        "files elsewhere": b'{"_data_files": [{"filename": "/etc/passwd"}]}',
        "files above": b'{"_data_files": [{"filename": "../../x.arrow"}]}',
        "a folder": b'{"_data_files": [{"filename": "."}]}',
        "no name": b'{"_data_files": [{"filename": ["a"]}]}',
        "a name with NUL": b'{"_data_files": [{"filename": "a\\u0000"}]}',
        "half a surrogate": b'{"_data_files": [{"filename": "\\ud800"}]}',
        "no file": b'{"_data_files": []}',
        "10^6 files": json.dumps(
            {"_data_files": [{"filename": "a"}] * 1_000_000}
        ).encode(),
        "indices": b'{"_data_files": [], "_indices_data_files": [{}]}',
    }.items():
        yield Case(f"state.json: {what}", _saved(**{"state.json": text}))
    yield Case("no data", _saved(**{_DATA: None}))

    def fifo(folder: pathlib.Path) -> pathlib.Path:
        made = _saved(**{_DATA: None})(folder)
        os.mkfifo(made / _DATA)
        return made

    def loop(folder: pathlib.Path) -> pathlib.Path:
        made = _saved(**{_DATA: None})(folder)
        (made / _DATA).symlink_to(_DATA)
        return made

    def secret(folder: pathlib.Path) -> pathlib.Path:
        made = _saved(**{_DATA: None})(folder)
        (made / _DATA).symlink_to("/etc/passwd")
        return made

    yield Case("data: a FIFO", fifo)
    yield Case("data: a link to itself", loop)
    yield Case("data: a link to a text", secret)
    splits = {"splits": ["../ds"]}
    text = json.dumps(splits).encode()
    yield Case(
        "splits above", _saved(**{"state.json": None, "dataset_dict.json": text})
    )


def _rows() -> Iterator[Case]:
    for what, paths in {
        "paths outside": ["../../../etc/passwd", "/etc/passwd"],
        "addresses": ["tfds:other/1.0.0/train/0", "hf:/etc/passwd/0"],
        "paths with NUL": ["a\0b.mp4"],
    }.items():
        given = hub_files.videos([None] * len(paths), paths)
        for kind in ("saved", "Parquet"):
            yield Case(f"{kind}: {what}", _table(given, kind))
    for what, contents, paths in (
        ("no videos", [b"x"] * 3, [None] * 3),
        ("empty videos", [b""] * 3, [None] * 3),
        ("nulls", [None] * 3, [None] * 3),
        ("names with escapes", [None], [f"{_ESCAPE}.mp4"]),
        ("names in archives", [None], [f"zip://{_ESCAPE}::a.zip"]),
        ("long names", [None], ["x" * 5_000]),
        ("playlists", [b"#EXTM3U\n#EXTINF:2,\n/etc/passwd\n"], [None]),
    ):
        given = hub_files.videos(contents, paths)
        for kind in ("saved", "Parquet"):
            yield Case(f"{kind}: {what}", _table(given, kind), EITHER)
    columns = {"video": (hub_files.VIDEO, [None]), _ESCAPE: (pa.int8(), [1])}
    for what, about in {
        "features that are a list": [],
        "features of no type": {"video": 7, _ESCAPE: {"_type": ["a"]}},
        "a type with escapes": {"video": {"_type": _ESCAPE}},
        "names of classes that are none": {
            "video": {"_type": "Video"},
            _ESCAPE: {"_type": "ClassLabel", "names": 7},
        },
    }.items():
        made = hub_files.table(columns)
        text = json.dumps({"info": {"features": about}})
        made = made.replace_schema_metadata({"huggingface": text})
        yield Case(what, _table(made), EITHER)
    for what, text in {
        "none": "{",
        "nested": '{"a":' * 100_000,
        "null": "null",
    }.items():
        made = hub_files.table(columns).replace_schema_metadata({"huggingface": text})
        yield Case(f"a description that is {what}", _table(made), EITHER)
    picture = [{"bytes": b"no picture", "path": None}]
    for what, films in {
        "no pictures": [picture],
        "no picture": [[]],
        "pictures that are null": [[None], None],
    }.items():
        kind = pa.list_(hub_files.VIDEO)
        made = hub_files.table({"video": (kind, films)})
        yield Case(f"lists of {what}", _table(made), EITHER)


def _claims() -> Iterator[Case]:
    """Lengths that the file cannot hold, where the numbers stand in it."""
    data = base()[_DATA]
    for name, old, new in (
        ("rows", struct.pack("<q", 2), struct.pack("<q", 2**40)),
        ("rows", struct.pack("<q", 2), struct.pack("<q", -1)),
        ("metadata", data[4:8], struct.pack("<i", 2**31 - 1)),
    ):
        changed = data.replace(old, new)
        claim = int.from_bytes(new, "little", signed=True)
        yield Case(f"a claim of {claim} of {name}", _saved(**{_DATA: changed}), EITHER)
