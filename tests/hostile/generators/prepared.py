"""Hostile prepared corpora: what TFDS, the index and the records are said to be.

A case passes the folder that `corpus.prepared` names.
"""

import functools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from damaged import CLIPS

from generators import EITHER, HONEST, REFUSED, Case, damaged, rng_of
from vidsme_jax import settings

FRAMES = 2
_VERSION = f"prepared/uniform_{FRAMES}_png/1.0.0"
Change = Callable[[pathlib.Path], None]


def config(root: pathlib.Path | str, *sources: str) -> Any:
    """Returns a configuration that reads a prepared corpus, or prepares sources."""
    chosen = settings.default()
    chosen.corpus.prepared, chosen.corpus.suspects = str(root), sources
    chosen.corpus.allow_outside = True
    chosen.video.num_frames, chosen.workers = FRAMES, 2
    return chosen


@functools.cache
def base() -> pathlib.Path:
    """Returns a folder with the base, which each case copies."""
    from vidsme_jax.commands import prepare as prepare_command
    from vidsme_jax.prepared import preparation

    folder = pathlib.Path(tempfile.mkdtemp(prefix="hostile-prepared-"))
    rows = [{"video": str(clip), "id": clip.stem} for clip in CLIPS[10:14]]
    (folder / "m.json").write_text(json.dumps(rows))
    chosen = config(folder / "corpus", str(folder / "m.json"))
    preparation.run(*prepare_command.checked(chosen, None))
    return folder / "corpus"


def _with(change: Change) -> Callable[[pathlib.Path], pathlib.Path]:
    def build(folder: pathlib.Path) -> pathlib.Path:
        root = folder / "corpus"
        shutil.copytree(base(), root)
        change(root / _VERSION)
        return root

    return build


def cases(seed: int = 0, random: int = 6) -> Iterator[Case]:
    """Yields cases; `random` of each kind of damage."""
    yield Case("honest", _with(lambda folder: None), HONEST)
    yield from _features()
    yield from _infos()
    yield from _settings()
    yield from _indices()
    yield from _records()
    for k in range(random):
        for name in (
            *("features.json", "dataset_info.json", "../settings.json"),
            *("index-00000-of-00001.parquet",),
            *("prepared-clips.array_record-00000-of-00001",),
        ):
            title = f"{pathlib.PurePath(name).name}: damage {k}"

            def change(folder: pathlib.Path, name=name, title=title) -> None:
                data = damaged((folder / name).read_bytes(), rng_of(seed, title))
                (folder / name).write_bytes(data)

            yield Case(title, _with(change), EITHER)


def _json(name: str, edit: Callable[[Any], Any]) -> Change:
    def change(folder: pathlib.Path) -> None:
        raw = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(edit(raw)))

    return change


def _text(name: str, text: str | bytes) -> Change:
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / name).write_bytes(data) and None


def _everywhere(node: Any, key: str, value: Any) -> Any:
    """Returns a description in which a key has another value wherever it is."""
    if isinstance(node, list):
        return [_everywhere(part, key, value) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        k: value if k == key else _everywhere(v, key, value) for k, v in node.items()
    }


def foreign(edit: str, module: str) -> Callable[[Any], Any]:
    """Returns an edit of features.json that names a module of another's."""
    edits: dict[str, Callable[[Any], Any]] = {
        "pythonClassName": lambda raw: _everywhere(raw, "pythonClassName", module),
        "python_class_name": lambda raw: raw | {"python_class_name": module},
        "type": lambda raw: raw | {"type": module},
        "inside a text of JSON": lambda raw: (
            raw | {"json": json.dumps({"type": module, "content": "{}"})}
        ),
    }
    return edits[edit]


FOREIGN = (*("pythonClassName", "python_class_name", "type", "inside a text of JSON"),)


def _features() -> Iterator[Case]:
    def evil(edit: str) -> Callable[[pathlib.Path], pathlib.Path]:
        def build(folder: pathlib.Path) -> pathlib.Path:
            mark = folder / "was_run"
            code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
            (folder / "evilmod.py").write_text(f"{code}class Text:\n    pass\n")
            return _with(_json("features.json", foreign(edit, "evilmod.Text")))(folder)

        return build

    for edit in FOREIGN:
        kind = REFUSED if edit == "pythonClassName" else EITHER
        yield Case(f"features: code by {edit}", evil(edit), kind)
    for what, text in {
        "empty": "",
        "a list": "[]",
        "null": "null",
        "nested": '{"a":' * 100_000,
        "no UTF-8": b"\xff\xfe",
        "a text of JSON that is none": '{"json": "{"}',
        "a class of TFDS that is none": _class("x.Y"),
        "a class of TFDS that is a module": _class("core"),
        "video": json.dumps(
            {
                **json.loads(_class("core.features.video_feature.Video")),
                "video": [],
            }
        ),
    }.items():
        yield Case(f"features: {what}", _with(_text("features.json", text)))
    huge = _json(
        "features.json", lambda raw: _everywhere(raw, "dimensions", ["999999999"])
    )
    yield Case("features: shapes of 10^9", _with(huge), EITHER)


def _class(name: str) -> str:
    return json.dumps({"pythonClassName": f"tensorflow_datasets.{name}"})


def _infos() -> Iterator[Case]:
    name = "dataset_info.json"

    def split(**keys: Any) -> Change:
        def edit(raw: Any) -> Any:
            return raw | {"splits": [one | keys for one in raw["splits"]]}

        return _json(name, edit)

    for what, change in {
        "no splits": _json(name, lambda raw: raw | {"splits": []}),
        "splits that are a number": _json(name, lambda raw: raw | {"splits": 1}),
        "10^18 examples": split(shardLengths=[str(10**18)]),
        "negative lengths": split(shardLengths=["-1"]),
        "10^5 shards": split(shardLengths=["1"] * 100_000),
        "lengths that are texts": split(shardLengths=["x"]),
        "files elsewhere": split(filepathTemplate="/etc/{DATASET}-{SPLIT}"),
        "files above": split(filepathTemplate="../../{DATASET}-{SPLIT}.{FILEFORMAT}"),
        "a template that is none": split(filepathTemplate="{0.__class__}{"),
        "bytes of 10^30": split(numBytes=str(10**30)),
        "another format": _json(name, lambda raw: raw | {"fileFormat": "evil"}),
        "another version": _json(name, lambda raw: raw | {"version": "x.y.z"}),
        "another name": _json(name, lambda raw: raw | {"name": "../../evil"}),
        "a module": _json(name, lambda raw: raw | {"moduleName": "evilmod"}),
        "unknown keys": _json(name, lambda raw: raw | {"evil": 1}),
        "empty": _text(name, ""),
        "nested": _text(name, '{"a":' * 100_000),
        "a list": _text(name, "[]"),
        "gone": lambda folder: (folder / name).unlink(),
        "a FIFO": lambda folder: _fifo(folder / name),
    }.items():
        kind = (
            EITHER
            if what in ("another name", "a module", "bytes of 10^30")
            else REFUSED
        )
        if "files" in what or "template" in what or what.startswith("another"):
            kind = EITHER
        yield Case(f"info: {what}", _with(change), kind)


def _fifo(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _settings() -> Iterator[Case]:
    name = "../settings.json"
    for key, values in {
        "num_shards": (0, -1, 10**9, 10**30, "x", None, [], 1.5, True),
        "format": (0, "x", None, [], 10**30),
        "sampling": ("x", 1, None),
    }.items():
        for value in values:
            change = _json(name, lambda raw, key=key, v=value: raw | {key: v})
            kind = EITHER if value is True else REFUSED
            yield Case(f"settings: {key} is {value!r:.20}", _with(change), kind)
    for what, text in {
        "empty": "",
        "a list": "[]",
        "pairs": '[["format", 3]]',
        "nested": "[" * 100_000,
        "no UTF-8": b"\xff",
        "1.5 million digits": b"1" * 1_500_000,
    }.items():
        yield Case(f"settings: {what}", _with(_text(name, text)))
    yield Case("settings: a FIFO", _with(lambda folder: _fifo(folder / name)))
    yield Case("settings: gone", _with(lambda folder: (folder / name).unlink()))
    numbers = _with(lambda folder: (folder.parent / f"1.{'9' * 200}.0").mkdir())
    yield Case("a version of 200 digits", numbers, EITHER)
    digits = _with(lambda folder: (folder.parent / "1.\u00b2.0").mkdir())
    yield Case("a version that is no number", digits, EITHER)
    empty = _with(lambda folder: (folder.parent / "1.2.0").mkdir())
    yield Case("a version that is empty", empty)


def _indices() -> Iterator[Case]:
    name = "index-00000-of-00001.parquet"

    def table(edit: Callable[[pa.Table], pa.Table]) -> Change:
        def change(folder: pathlib.Path) -> None:
            found = pa.parquet.read_table(folder / name)
            made = edit(found).replace_schema_metadata(found.schema.metadata)
            pa.parquet.write_table(made, folder / name)

        return change

    def column(key: str, of: Callable[[Any], Any]) -> Change:
        def edit(found: pa.Table) -> pa.Table:
            values = [of(value) for value in found.column(key).to_pylist()]
            place = found.schema.get_field_index(key)
            return found.set_column(place, key, pa.array(values))

        return table(edit)

    def item(**fields: Any) -> Change:
        def of(value: str) -> str:
            rows = json.loads(value)
            return json.dumps([[row[0], row[1], row[2] | fields] for row in rows])

        return column("rows", of)

    for what, change in {
        "no columns": table(lambda found: found.select([])),
        "a column gone": table(lambda found: found.drop_columns(["digest"])),
        "a column more": table(lambda x: x.append_column("evil", x.column("digest"))),
        "another order": table(lambda found: found.take(list(range(len(found)))[::-1])),
        "rows twice": table(lambda found: pa.concat_tables([found, found])),
        "rows that are no JSON": column("rows", lambda value: "{"),
        "rows that are numbers": column("rows", lambda value: "[1]"),
        "rows that are null": column("rows", lambda value: None),
        "rows nested deeply": column("rows", lambda value: "[" * 100_000),
        "rows of two": column("rows", lambda value: "[[0, [1, 2]]]"),
        "a stamp that is a number": column(
            "rows", lambda v: v.replace("[[0, [", "[[0, [[")
        ),
        "digests that are empty": column("digest", lambda value: ""),
        "digests of another": column("digest", lambda value: "0" * 64),
        "digests that are numbers": column("digest", lambda value: 1),
        "a stage with escapes": column("stage", lambda value: "\x1b]0;owned\x07"),
        "an unknown field": item(evil=1),
        "an unknown role": item(role="owner"),
        "a role that is a list": item(role=["members"]),
        "a clip that is a number": item(clip=7),
        "a clip elsewhere": item(clip="/etc/passwd"),
        "a clip that is an address": item(clip="tfds:a/1.0.0/train/0"),
        "an id that is null": item(id=None),
        "one id": item(id="same"),
        "an id with a surrogate": item(id="a\ud800"),
        "a group with escapes": item(group="\x1b]0;owned\x07"),
        "a source with escapes": item(source="\x1b]0;owned\x07"),
        "a source that is a number": item(source=7),
        "candidates that are a number": item(candidates=7),
        "a question that is a list": item(question=[["x"]]),
    }.items():
        yield Case(f"index: {what}", _with(change), EITHER)
    yield Case("index: gone", _with(lambda folder: (folder / name).unlink()))
    yield Case("index: empty", _with(_text(name, "")))

    def metadata(value: bytes) -> Change:
        def change(folder: pathlib.Path) -> None:
            found = pa.parquet.read_table(folder / name)
            found = found.replace_schema_metadata({"shard": value})
            pa.parquet.write_table(found, folder / name)

        return change

    for what, value in {
        "nothing": b"",
        "a list": b"[]",
        "an empty object": b"{}",
        "a number": b"1",
        "nested": b"[" * 100_000,
        "no UTF-8": b"\xff",
    }.items():
        yield Case(f"index: its facts are {what}", _with(metadata(value)))


def _records() -> Iterator[Case]:
    """Records that the index vouches for, whatever they hold."""
    name = "prepared-clips.array_record-00000-of-00001"

    def sealed(folder: pathlib.Path) -> None:
        from vidsme_jax.prepared import layout

        index = folder / "index-00000-of-00001.parquet"
        facts = json.dumps(layout._facts(folder / name))
        found = pa.parquet.read_table(index).replace_schema_metadata({"shard": facts})
        pa.parquet.write_table(found, index)

    def bytes_of(edit: Callable[[bytes], bytes]) -> Change:
        def change(folder: pathlib.Path) -> None:
            (folder / name).write_bytes(edit((folder / name).read_bytes()))
            sealed(folder)

        return change

    def examples(edit: Callable[[bytes], bytes]) -> Change:
        def change(folder: pathlib.Path) -> None:
            from array_record.python import array_record_module

            reader = array_record_module.ArrayRecordReader(str(folder / name))
            found = [reader.read([k])[0] for k in range(reader.num_records())]
            reader.close()
            writer = array_record_module.ArrayRecordWriter(
                str(folder / name), "group_size:1"
            )
            for one in found:
                writer.write(edit(one))
            writer.close()
            sealed(folder)

        return change

    for what, change in {
        "empty": bytes_of(lambda data: b""),
        "cut": bytes_of(lambda data: data[: len(data) // 2]),
        "zeros": bytes_of(lambda data: bytes(len(data))),
        "doubled": bytes_of(lambda data: data + data),
        "examples that are empty": examples(lambda one: b""),
        "examples that are cut": examples(lambda one: one[: len(one) // 2]),
        "examples of noise": examples(lambda one: b"\xff" * 1000),
        "pictures that are none": examples(lambda one: one.replace(b"IHDR", b"IDAT")),
        "pictures of 2^31": examples(_wide),
    }.items():
        yield Case(f"records: {what}", _with(change), EITHER)
    yield Case("records: gone", _with(lambda folder: (folder / name).unlink()))
    yield Case("records: a FIFO", _with(lambda folder: _fifo(folder / name)))


def _wide(example: bytes) -> bytes:
    found = bytearray(example)
    at = found.find(b"IHDR")
    while at >= 0:
        found[at + 4 : at + 12] = b"\x7f\xff\xff\xff" * 2
        at = found.find(b"IHDR", at + 4)
    return bytes(found)
