"""Hostile work directories: what a finished run left, as somebody else changed it.

A case passes the folder. Its base is a small audit of four clips of the demo.
"""

import functools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import asked
import pyarrow as pa
import pyarrow.parquet
from damaged import CLIPS

from generators import EITHER, HONEST, REFUSED, Case, damaged, rng_of

PART = "signals/part-000000.parquet"
Change = Callable[[pathlib.Path], None]


def small(manifest: pathlib.Path, *more: str) -> tuple[str, ...]:
    """Returns the flags of a small audit, whose scores no other clip can move."""
    flags = {
        "config": "configs/llava.py:tiny",
        "config.corpus.members": "()",
        "config.corpus.nonmembers": "()",
        "config.corpus.suspects": f"({str(manifest)!r},)",
        "config.corpus.max_clips": "None",
        "config.video.num_frames": "2",
        "config.scores": "vid_sme,perplexity,min_k_prob_10",
        "config.motion.bounds": "(0.0,10.0,0.0,20.0)",
    }
    return (*(f"--{key}={value}" for key, value in flags.items()), *more)


@functools.cache
def base() -> pathlib.Path:
    """Returns a folder with `corpus` and its audit `run`, made once."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hostile-workdir-"))
    (folder / "corpus").mkdir()
    rows = []
    for clip in CLIPS[10:14]:
        (folder / "corpus" / clip.name).write_bytes(clip.read_bytes())
        rows.append({"video": clip.name, "id": f"honest {clip.stem}"})
    manifest = folder / "corpus" / "m.json"
    manifest.write_text(json.dumps(rows))
    flags = small(
        manifest,
        f"--config.compile_cache={folder / 'compiled'}",
        f"--workdir={folder / 'run'}",
    )
    command = asked.Command("vidsme_jax.main", flags)
    (folder / "printed").mkdir()
    (ended,) = asked.run([command], folder / "printed")
    asked.check(ended, command, [0])
    return folder


def _with(change: Change) -> Callable[[pathlib.Path], pathlib.Path]:
    def build(folder: pathlib.Path) -> pathlib.Path:
        made = folder / "run"
        leave = shutil.ignore_patterns("figures", "*.lock")
        shutil.copytree(base() / "run", made, ignore=leave)
        change(made)
        return made

    return build


def cases(seed: int = 0, random: int = 6) -> Iterator[Case]:
    """Yields cases; `random` of each kind of damage."""
    yield Case("honest", _with(lambda folder: None), HONEST)
    yield from _files()
    yield from _configs()
    yield from _parts()
    for k in range(random):
        for name in ("config.json", "signals/run.json", PART):
            title = f"{name}: damage {k}"

            def change(folder: pathlib.Path, name=name, title=title) -> None:
                data = damaged((folder / name).read_bytes(), rng_of(seed, title))
                (folder / name).write_bytes(data)

            yield Case(title, _with(change), EITHER)


def _text(name: str, text: str | bytes) -> Change:
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / name).write_bytes(data) and None


def _special(name: str, make: Callable[[pathlib.Path], Any]) -> Change:
    def change(folder: pathlib.Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def _files() -> Iterator[Case]:
    for name in ("config.json", "signals/run.json", PART, "failures.jsonl"):
        optional = name in ("signals/run.json", "failures.jsonl")
        for what, text in {
            "empty": "",
            "a list": "[]",
            "null": "null",
            "nested": '{"a":' * 100_000,
            "no UTF-8": b"\xff\xfe",
            "NUL": bytes(1000),
            "a number of 5000 digits": "9" * 5000,
        }.items():
            kind = EITHER if optional else REFUSED
            yield Case(f"{name}: {what}", _with(_text(name, text)), kind)
        kind = EITHER if optional else REFUSED
        for what, make in {
            "a FIFO": os.mkfifo,
            "a folder": pathlib.Path.mkdir,
            "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
            "a link to itself": lambda path: path.symlink_to(path.name),
            "gone": lambda path: None,
        }.items():
            yield Case(f"{name}: {what}", _with(_special(name, make)), EITHER)
    lines = {
        "a failure without fields": "{}\n",
        "a failure of numbers": '{"id": 1, "video": 2, "stage": 3, "cause": 4}\n',
        "a failure with escapes": json.dumps(
            dict.fromkeys(("id", "video", "stage", "cause"), "\x1b]0;owned\x07")
        ),
        "a failure with surrogates": json.dumps(
            dict.fromkeys(("id", "video", "stage", "cause"), "\ud800")
        ),
        "a failure with more": json.dumps(
            dict.fromkeys(("id", "video", "stage", "cause", "more"), "")
        ),
        "a failure of an honest row": json.dumps(
            {"id": f"honest {CLIPS[10].stem}", "video": "", "stage": "a", "cause": "b"}
        ),
        "a line that is none": "{\n",
        "10^5 failures": '{"id": "a", "video": "b", "stage": "c", "cause": "d"}\n'
        * 10**5,
    }
    for what, text in lines.items():
        yield Case(f"failures: {what}", _with(_text("failures.jsonl", text)), EITHER)


def _configs() -> Iterator[Case]:
    def edited(edit: Callable[[Any], Any], name: str = "config.json") -> Change:
        def change(folder: pathlib.Path) -> None:
            raw = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(edit(raw)))

        return change

    def key(name: str, value: Any) -> Change:
        return edited(lambda raw: raw | {"config": raw["config"] | {name: value}})

    for what, change in {
        "no config": edited(
            lambda raw: {k: v for k, v in raw.items() if k != "config"}
        ),
        "a config that is a list": edited(lambda raw: raw | {"config": []}),
        "a config that is empty": edited(lambda raw: raw | {"config": {}}),
        "fingerprints that are a list": edited(lambda raw: raw | {"fingerprints": []}),
        "fingerprints that are empty": edited(lambda raw: raw | {"fingerprints": {}}),
        "unknown keys": key("evil", 1),
        "3,000 unknown keys": edited(
            lambda raw: (
                raw | {"config": raw["config"] | {f"k{n}": n for n in range(3000)}}
            )
        ),
        "a key with escapes": key("\x1b]0;owned\x07", 1),
        "a group in place of a key": key("video", 1),
        "a key in a key": key("video.num_frames.x", 1),
        "a key of dots": key("...", 1),
        "a key that is empty": key("", 1),
        "a number of frames that is a text": key("video.num_frames", "x"),
        "10^30 frames": key("video.num_frames", 10**30),
        "scores that are none": key("scores", "evil"),
        "a manifest elsewhere": key("corpus.suspects", ["/etc/passwd"]),
        "a manifest that is a number": key("corpus.suspects", [7]),
        "a surrogate": key("corpus.suspects", ["\ud800.json"]),
        "a study": key("study", {"a": [1]}),
        "10^9 bootstraps": key("report.num_permutations", 10**9),
        "lists in lists": key("report.fprs", [[[[[0.1]]]]]),
    }.items():
        kind = EITHER if what == "fingerprints that are empty" else REFUSED
        kind = EITHER if what in ("a study", "a config that is empty") else kind
        if what != "10^9 bootstraps":  # What is allowed may take its time.
            yield Case(f"config: {what}", _with(change), kind)
    for key_, value in (("format", 99), ("format", "x"), ("model", None), ("evil", 1)):
        change = edited(lambda raw, k=key_, v=value: raw | {k: v}, "signals/run.json")
        yield Case(f"run.json: {key_} is {value!r}", _with(change), EITHER)


def _parts() -> Iterator[Case]:
    def table(edit: Callable[[pa.Table], pa.Table]) -> Change:
        def change(folder: pathlib.Path) -> None:
            found = pa.parquet.read_table(folder / PART)
            made = edit(found).replace_schema_metadata(found.schema.metadata)
            pa.parquet.write_table(made, folder / PART)

        return change

    def column(name: str, of: Callable[[Any], Any]) -> Change:
        def edit(found: pa.Table) -> pa.Table:
            place = found.schema.get_field_index(name)
            kind = found.schema.field(place)
            values = [of(value) for value in found.column(name).to_pylist()]
            return found.set_column(place, kind, pa.array(values, kind.type))

        return table(edit)

    for what, change in {
        "no rows": table(lambda found: found.slice(0, 0)),
        "rows twice": table(lambda found: pa.concat_tables([found, found])),
        "a column gone": table(lambda found: found.drop_columns(["renyi"])),
        "keys that are null": column("key", lambda _: None),
        "one key": column("key", lambda _: "same"),
        "keys with escapes": column("key", lambda _: "\x1b]0;owned\x07"),
        "keys of addresses": column("key", lambda _: "tfds:a/1.0.0/b/0"),
        "hashes that are null": column("content_hash", lambda _: None),
        "hashes with escapes": column("content_hash", lambda _: "\x1b[2J"),
        "no signals": column("renyi", lambda _: []),
        "signals that are null": column("renyi", lambda _: None),
        "signals cut short": column("renyi", lambda value: value[:-1]),
        "signals that are not finite": column(
            "renyi", lambda v: [float("nan")] * len(v)
        ),
        "signals of null": column("renyi", lambda value: [None] * len(value)),
        "more frames than rows": column("frame", lambda value: value * 2),
        "frames below none": column("frame", lambda value: [-99] * len(value)),
        "no frames": column("frame_indices", lambda _: []),
        "frames that are null": column("frame_indices", lambda _: None),
        "frames of 2^62": column("frame_indices", lambda v: [2**62] * len(v)),
        "motion that is infinite": column("flow_variance", lambda _: float("inf")),
        "motion that is null": column("flow_variance", lambda _: None),
        "holds null": column("holds", lambda _: None),
        "holds what there is not": column("holds", lambda _: ["response", "evil"]),
        "warnings with escapes": column("warnings", lambda _: ["\x1b]0;owned\x07"]),
        "warnings that are null": column("warnings", lambda _: [None]),
        "10^5 warnings": column("warnings", lambda _: ["w" * 100] * 10**5),
        "a size below none": column("file_size", lambda _: -(2**60)),
        "another text": column("text", lambda _: "f" * 16),
    }.items():
        yield Case(f"part: {what}", _with(change), EITHER)
    for name in (b"part-%s.parquet" % (b"9" * 200), "part-\u0661.parquet".encode()):
        change = _text(os.path.join("signals", os.fsdecode(name)), "x")
        yield Case(f"a part named {name[:12]!r}", _with(change), EITHER)
    names = (b"part-\xff.parquet", b"\x1b[2J.tmp", b"part-000001.parquet.tmp")
    for name in names:
        change = _text(os.path.join("signals", os.fsdecode(name)), "x")
        yield Case(f"a file named {name!r}", _with(change), EITHER)
    folder = _with(lambda folder: (folder / "signals" / "a.tmp").mkdir())
    yield Case("a folder named a.tmp", folder, EITHER)
