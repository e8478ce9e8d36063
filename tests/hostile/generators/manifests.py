"""Hostile manifests: their bytes, their values, and where their rows lead."""

import datetime
import decimal
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from generators import EITHER, HONEST, REFUSED, Case, damaged, rng_of, written

ROWS = [
    {
        "video": f"{n}.mp4",
        "question": "What is it?",
        "candidates": ["a", "größer"],
        "answer": "a",
        "id": f"row {n}",
        "group": "street",
        "source": "film",
        "label": "suspect",
    }
    for n in range(4)
]
# What a field may hold instead of what one would expect.
STRANGE = (
    *(None, True, -1, 10**300, float("nan"), float("inf"), "", " ", "\t", "\n"),
    *("\0", "a\0b", "\ud800", "\udcff.mp4", "\u202egpj", "\x1b[2J", "x" * 100_000),
    *("a/" * 3000, "../" * 50, "/", ".", "..", "~", "/dev/zero", "file:///etc/passwd"),
    *("http://[::1/a.mp4", "a" * 300 + ".mp4", "[" * 100_000, '["a', '[{"a": [1]}]'),
    *([], [[]], [None, {}], {}, {"a": {"b": []}}, [1e400], ["\ud800"]),
)
_MANY = 1000


def files(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """Returns the same rows in every format that can hold them, by suffix."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name, "")) for name in columns] for row in rows]
    quoted = [[cell.replace('"', '""') for cell in line] for line in cells]
    lines = [columns, *quoted]
    text = "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines)
    table = {name: [_plain(row.get(name)) for row in rows] for name in columns}
    return {
        "json": json.dumps(rows).encode(),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "csv": text.encode("utf-8", "surrogatepass"),
        "parquet": _parquet(pa.table(table)),
    }


def _plain(value: Any) -> str:
    return _text(value).encode("utf-8", "replace").decode()


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list) else str(value)


def _parquet(table: pa.Table, **how: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink, **how)
    return sink.getvalue().to_pybytes()


def cases(seed: int = 0, random: int = 10) -> Iterator[Case]:
    """Yields cases; those of a seed have `random` of each kind of damage."""
    for suffix, data in files(ROWS).items():
        yield Case(f"honest {suffix}", written(f"m.{suffix}", data), HONEST)
    yield from _of_bytes()
    yield from _of_rows()
    yield from _of_amounts()
    yield from _of_columns()
    yield from _of_places()
    yield from random_cases(seed, random)


def random_cases(seed: int, random: int) -> Iterator[Case]:
    """Yields damaged files and strange values, `random` of each in every format."""
    for k in range(random):
        for suffix, data in files(ROWS).items():
            name = f"{suffix}: damage {k}"
            hurt = damaged(data, rng_of(seed, name))
            yield Case(name, written(f"m.{suffix}", hurt), EITHER)
        name = f"strange values {k}"
        for suffix, data in files(_strange(rng_of(seed, name))).items():
            yield Case(f"{suffix}: {name}", written(f"m.{suffix}", data), EITHER)


def _strange(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = [dict(row) for row in ROWS]
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        name = list(ROWS[0])[rng.integers(len(ROWS[0]))]
        row[name] = STRANGE[rng.integers(len(STRANGE))]
    return rows


def _of_bytes() -> Iterator[Case]:
    row = '{"video": "a.mp4"}'
    for suffix in ("json", "jsonl", "csv", "parquet"):
        for name, data in {
            "empty": b"",
            "blanks": b" \n\t\n",
            "a NUL": b"\0",
            "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
            "a zip": b"PK\3\4" + bytes(100),
            "no UTF-8": b'[{"video": "\xff\xfe.mp4"}]',
            "UTF-16": f"[{row}]".encode("utf-16"),
            "the magic of Parquet, twice": b"PAR1PAR1",
            "Parquet whose footer is longer than it": b"PAR1" + b"\xff" * 8 + b"PAR1",
        }.items():
            yield Case(f"{suffix}: {name}", written(f"m.{suffix}", data))
    yield Case("a FIFO", _fifo)
    yield Case("a folder with the suffix", _folder)
    for name, text in {
        "nested deeply": "[" * 200_000,
        "objects nested deeply": '{"a":' * 100_000,
        "a row nested deeply": f'[{{"video": {"[" * 50_000}{"]" * 50_000}}}]',
        "a number of 5000 digits": f'[{{"video": "a.mp4", "id": {"9" * 5000}}}]',
        "an object": row,
        "a text": '"a.mp4"',
        "null": "null",
        "no rows": "[]",
        "rows that are no objects": "[1, null, [], true]",
        "a key twice": '[{"video": "a.mp4", "video": "b.mp4"}]',
        "2,000 keys twice": f"[{{{_pairs(2000)}}}]",
        "an empty object": "[{}]",
        "no comma": f"[{row} {row}]",
        "lines": f"{row}\n{row}",
        "no end": f"[{row}, " + '{"video": "',
        "a lone surrogate as the video": '[{"video": "\\ud800.mp4"}]',
    }.items():
        yield Case(f"json: {name}", written("m.json", text))
    yield Case("json: NaN", written("m.json", '[{"video": NaN}]'))
    yield Case("json: infinite start", written("m.json", _row(start=float("inf"))))
    yield Case(
        "jsonl: 5,000 lines that are none", written("m.jsonl", '{"video": \n' * 5000)
    )
    yield Case(
        "jsonl: other ends of lines",
        written("m.jsonl", f"{row}\u2028{row}\x85{row}\x0b"),
    )
    for name, text in {
        "a quote that never ends": 'video\n"a.mp4\n',
        "a NUL in a cell": "video\na\0.mp4\n",
        "a cell over csv's limit": f"video\n{'a' * 200_000}\n",
        "semicolons": "video;question\na.mp4;b\n",
        "a column twice": "video,video\na.mp4,b.mp4\n",
        "more cells than columns": "video\na.mp4,b,c\n",
        "30,000 columns": f"video,{','.join(map(str, range(30_000)))}\na.mp4\n",
        "no header": "a.mp4\nb.mp4\n",
    }.items():
        words = "" if name != "30,000 columns" else EITHER
        yield Case(f"csv: {name}", written("m.csv", text), words or REFUSED)


def _pairs(count: int) -> str:
    return ", ".join(f'"k{n}": 1, "k{n}": 2' for n in range(count))


def _row(**fields: Any) -> str:
    return json.dumps([{"video": "a.mp4", **fields}])


def _fifo(folder: pathlib.Path) -> pathlib.Path:
    import os

    os.mkfifo(folder / "m.json")
    return folder / "m.json"


def _folder(folder: pathlib.Path) -> pathlib.Path:
    (folder / "m.json").mkdir()
    return folder / "m.json"


def _of_rows() -> Iterator[Case]:
    """Values of fields, and names of videos that lead elsewhere."""
    for name in (
        *("/etc/passwd", "../../secret.mp4", "a/../../../secret.mp4"),
        *("tfds:made/1.0.0/train/0", "tfds:../secret/train/0"),
    ):
        yield Case(f"json: the video {name}", written("m.json", _row(video=name)))
    for name in (
        *(
            "~/secret.mp4",
            "hf:owner/name",
            "http://localhost/a.mp4",
            "file:///etc/passwd",
            "pipe:0",
        ),
        *("concat:a.mp4|/etc/passwd", "-i", "--help", "a\nb.mp4", "\x1b]0;x\x07.mp4"),
        *("\udcff\udcfe.mp4", "a" * 300 + ".mp4", "a/" * 3000 + "a.mp4", "#t=1,2"),
    ):
        shown = name[:30].encode("ascii", "backslashreplace").decode()
        text = json.dumps([{"video": name}])
        yield Case(f"json: the video {shown!r}", written("m.json", text), EITHER)
    texts = ("question", "answer", "id", "group", "source")
    for field in (*texts, "candidates", "start", "end"):
        for value in (
            True,
            -1,
            1e300,
            10**400,
            [],
            {},
            [[]],
            [{}],
            "\ud800",
            "\x1b[2J",
        ):
            shown = str(value)[:20].encode("ascii", "backslashreplace").decode()
            yield Case(
                f"json: {field} is {type(value).__name__} {shown!r}",
                written("m.json", _row(**{field: value})),
                EITHER,
            )
    for start, end in (("1:99", ""), ("-1", ""), (5, 3), ("9" * 400, ""), ("", 1e8)):
        name = f"json: from {start!s:.9} to {end!s:.9}"
        yield Case(name, written("m.json", _row(start=start, end=end)))
    for label in (2, "train", [], {}, "member" * 1000, 0.5, True and "\x1b[2J"):
        name = f"json: the label {label!r:.30}"
        yield Case(name, written("m.json", _row(label=label)))


def _of_amounts() -> Iterator[Case]:
    """What is wrong a thousand times is said 20 times and counted."""
    numbers = range(_MANY)
    yield Case(
        "many: faulty rows", written("m.json", json.dumps([{"video": "\0"}] * _MANY))
    )
    pairs = [{"video": f"{n}.mp4", "id": f"{n // 2}"} for n in numbers]
    yield Case("many: ids in pairs", written("m.json", json.dumps(pairs)))
    outside = [{"video": f"../../{n}.mp4"} for n in range(_MANY // 4)]
    yield Case("many: videos outside", written("m.json", json.dumps(outside)))
    labels = [{"video": f"{n}.mp4", "label": f"class {n}"} for n in numbers]
    yield Case("many: labels that are none", written("m.json", json.dumps(labels)))
    times = [{"video": f"{n}.mp4", "start": "soon"} for n in numbers]
    yield Case("many: times that are none", written("m.json", json.dumps(times)))
    columns = {f"column {n}": 1 for n in range(5000)}
    yield Case(
        "many: columns, none the video", written("m.json", json.dumps([columns]))
    )
    rows = [{"video": "\0" + "x" * 10_000}] * 1000
    yield Case("many: long faulty names", written("m.json", json.dumps(rows)))


def _of_columns() -> Iterator[Case]:
    """Columns of Parquet of types that no manifest needs."""
    names = pa.array(["a.mp4", "b.mp4"])
    far = datetime.date(9999, 12, 31)
    odd: dict[str, Any] = {
        "durations": pa.array([1, 2**62], pa.duration("ns")),
        "durations of days": pa.array([2**62, -(2**62)], pa.duration("s")),
        "times": pa.array([1, 2], pa.time64("ns")),
        "instants beyond Python's": pa.array([2**62, -(2**62)], pa.timestamp("s")),
        "instants of a zone that is none": pa.array(
            [1, 2], pa.timestamp("s", "No/Where")
        ),
        "nanoseconds": pa.array([1, 2**62 + 1], pa.timestamp("ns")),
        "days": pa.array([far, far]),
        "days beyond Python's": pa.array([2**31 - 1, -(2**31)], pa.date32()),
        "decimals": pa.array([decimal.Decimal("1.5")] * 2),
        "bytes": pa.array([b"\xff", b"a"]),
        "objects": pa.array([{"a": 1}, {"a": None}]),
        "maps": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        "lists of lists": pa.array([[[1]], [None]]),
        "nothing": pa.nulls(2),
        "a dictionary": pa.array(["x", "y"]).dictionary_encode(),
        "large texts": pa.array(["x", "y"], pa.large_string()),
        "half floats": pa.array(np.array([1, np.nan], np.float16)),
        "huge numbers": pa.array([2**63, 2**64 - 1], pa.uint64()),
    }
    for what, column in odd.items():
        for field in ("question", "start", "group", "source", "id", "date"):
            data = _written(pa.table({"video": names, field: column}))
            if data is not None:
                name = f"parquet: {field} holds {what}"
                yield Case(name, written("m.parquet", data), EITHER)
        data = _written(pa.table({"video": column}))
        if data is not None:
            yield Case(
                f"parquet: video holds {what}", written("m.parquet", data), EITHER
            )
    twice = pa.Table.from_arrays([names, names], names=["video", "video"])
    yield Case("parquet: a column twice", written("m.parquet", _parquet(twice)))
    none = pa.table({"video": pa.array([], pa.string())})
    yield Case("parquet: no rows", written("m.parquet", _parquet(none)))
    yield Case("parquet: no columns", written("m.parquet", _parquet(pa.table({}))))
    data = _parquet(pa.table({"video": names}))
    for at in range(4, len(data), max(1, len(data) // 12)):
        yield Case(f"parquet: cut at {at}", written("m.parquet", data[:at]))


def _written(table: pa.Table) -> bytes | None:
    try:
        return _parquet(table)
    except (pa.ArrowException, ValueError):  # Parquet has no such column.
        return None


def _of_places() -> Iterator[Case]:
    """A row that leads outside by a link."""

    def link(make: Callable[[pathlib.Path], None]):
        def build(folder: pathlib.Path) -> pathlib.Path:
            inside = folder / "inside"
            inside.mkdir()
            (folder / "secret.mp4").write_bytes(b"secret")
            make(inside)
            (inside / "m.json").write_text('[{"video": "a/secret.mp4"}]')
            return inside / "m.json"

        return build

    yield Case(
        "a link to the folder above",
        link(lambda inside: (inside / "a").symlink_to("..")),
    )
    yield Case(
        "a link to a link to the root",
        link(
            lambda inside: (
                (
                    (inside / "b").symlink_to("/"),
                    (inside / "a").symlink_to(f"b{inside.parent}"),
                )
                and None
            )
        ),
    )

    def loop(folder: pathlib.Path) -> pathlib.Path:
        (folder / "a.mp4").symlink_to("b.mp4")
        (folder / "b.mp4").symlink_to("a.mp4")
        (folder / "m.json").write_text('[{"video": "a.mp4"}]')
        return folder / "m.json"

    yield Case("a link to itself", loop, EITHER)
