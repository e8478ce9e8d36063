"""Hostile maps of URLs: a case passes a manifest and `corpus.urls`.

`SECRET` is a clip in a folder above that of the case's files.
"""

import csv
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from damaged import CLIPS

from generators import EITHER, HONEST, Case, damaged, rng_of

SECRET = "secret.mp4"
URLS = ("https://youtu.be/dQw4w9WgXcQ", "https://a.org/films/b.mp4")
_TABLE = [{"url": URLS[0], "file": "one.mp4"}, {"url": URLS[1], "file": "two.mp4"}]
_UNLIKE = ("http://[a/one", "http://[b/two")
_LONG = "i" * 200
Given = tuple[pathlib.Path, str]


def cases(seed: int = 0, random: int = 6) -> Iterator[Case]:
    """Yields cases; `random` of them with a table damaged by the seed."""
    for suffix in ("json", "jsonl", "csv"):
        yield Case(f"honest {suffix}", _table(_TABLE, suffix=suffix), HONEST)
    for name, (rows, words) in _tables().items():
        yield Case(name, _table(rows), words=words)
    for name, content in _contents().items():
        yield Case(name, _written(content))
    yield Case("a file of a URL that is a link out", _table(_TABLE, change=_link))
    yield Case("a file of a URL that is a FIFO", _table(_TABLE, change=_fifo))
    yield Case("a file of a URL that is a folder", _table(_TABLE, change=_folder))
    yield Case("5,000 rows", _table(_many()), HONEST)
    yield Case("5,000 faulty rows", _table(_faulty()), words="more problems")
    yield Case("a parsed URL is none", _table(_broken(), urls=_UNLIKE), HONEST)
    yield Case("a broken URL is no other", _table(_broken()[:1], urls=_UNLIKE), EITHER)
    for name, url in _ids().items():
        yield Case(f"pattern: {name}", _pattern("{id}.mp4", url))
    yield Case("pattern: honest", _pattern("v{id}.mp4", "https://a.org/1"), HONEST)
    yield Case("pattern: too long", _pattern("{id}{id}.mp4", f"http://a.org/{_LONG}"))
    yield Case("pattern: in a folder", _pattern("{id}/{id}.mp4", "http://a.org/1"))
    yield Case("folder: links in a circle", _circle, HONEST)
    yield Case("folder: two files of one id", _double, words="two files of")
    yield Case("folder: 5,000 names", _crowd, HONEST)
    for k in range(random):
        content = json.dumps(_TABLE).encode()
        name = f"damage {k}"
        yield Case(name, _written(damaged(content, rng_of(seed, name))), EITHER)


def _corpus(folder: pathlib.Path, urls: tuple[str, ...] = URLS) -> pathlib.Path:
    """Writes a manifest of URLs and two clips; returns their folder."""
    home = folder / "above" / "files"
    home.mkdir(parents=True)
    for clip, name in zip(CLIPS, ("one", "two", "1"), strict=False):
        shutil.copy(clip, home / f"{name}.mp4")
    shutil.copy(CLIPS[3], folder / SECRET)
    rows = [{"video": url} for url in urls]
    (home / "m.json").write_text(json.dumps(rows))
    return home


def _table(
    rows: list[Any],
    urls: tuple[str, ...] = URLS,
    suffix: str = "json",
    change: Callable[[pathlib.Path], object] = lambda home: None,
) -> Callable[[pathlib.Path], Given]:
    def build(folder: pathlib.Path) -> Given:
        home = _corpus(folder, urls)
        path = home / f"map.{suffix}"
        if suffix == "csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            lines = "\n".join(map(json.dumps, rows))
            path.write_text(lines if suffix == "jsonl" else json.dumps(rows))
        change(home)
        return home / "m.json", str(path)

    return build


def _written(content: bytes) -> Callable[[pathlib.Path], Given]:
    def build(folder: pathlib.Path) -> Given:
        home = _corpus(folder)
        (home / "map.json").write_bytes(content)
        return home / "m.json", str(home / "map.json")

    return build


def _tables() -> dict[str, tuple[list[Any], str]]:
    """Rows, each with words of what is said of them."""
    one = _TABLE[0]
    return {
        "a file above": ([one, _TABLE[1] | {"file": f"../../{SECRET}"}], "outside"),
        "an absolute file": ([one, _TABLE[1] | {"file": "/etc/passwd"}], "outside"),
        "a file that is a URL": ([one | {"file": URLS[1]}], "'file' is"),
        "a file that is a dataset": ([one | {"file": "tfds:mnist/train"}], "'file' is"),
        "a file of NaN": ([one | {"file": float("nan")}], "'file' is nan"),
        "a URL of NaN": ([one | {"url": float("nan")}], "'url' is nan"),
        "a file with a NUL": ([one | {"file": "a\0b"}], "'file' is"),
        "half of a surrogate pair": ([one | {"file": "\ud800"}], "'file' is"),
        "a URL that is a list": ([one | {"url": [URLS[0]]}], "'url' is"),
        "a number of 400 digits": ([one | {"url": 10**400}], "'url' is"),
        "rows that are none": ([one, None, 3, "x"], "row 2: 'url' is None"),
        "two files of a URL": ([one, one | {"file": "two.mp4"}], "another file of"),
        "two files of an id": (
            [
                one,
                one | {"url": "https://youtube.com/watch?v=dQw4w9WgXcQ", "file": "x"},
            ],
            "another file of",
        ),
        "another scheme": ([one | {"url": "ftp://a.org/b"}], "it must begin with"),
        "no column of files": ([{"url": URLS[0], "fil": "a"}], "no column 'file'"),
        "no row": ([], "no rows"),
    }


def _contents() -> dict[str, bytes]:
    return {
        "not UTF-8": b'[{"url": "http://a.org/\xff", "file": "a"}]',
        "UTF-16": json.dumps(_TABLE).encode("utf-16"),
        "nothing": b"",
        "zeros": bytes(10_000),
        "brackets": b"[" * 100_000,
        "an object": b'{"url": "http://a.org", "file": "a"}',
        "a number of 100,000 digits": b'[{"url": %s, "file": 1}]' % (b"9" * 100_000),
    }


def _many() -> list[Any]:
    rest = [{"url": f"https://a.org/{n}", "file": f"{n}.mp4"} for n in range(5_000)]
    return [*rest, *_TABLE]


def _faulty() -> list[Any]:
    return [{"url": URLS[0], "file": f"{n}.mp4"} for n in range(5_000)]


def _broken() -> list[Any]:
    """URLs whose parts cannot be told, each with a file of its own."""
    names = ("one.mp4", "two.mp4")
    return [{"url": x, "file": y} for x, y in zip(_UNLIKE, names, strict=True)]


def _ids() -> dict[str, str]:
    """URLs whose ids are no names, or lead elsewhere."""
    start = "https://www.youtube.com/watch?v="
    return {
        "slashes": f"{start}../../secret",
        "slashes in code": f"{start}..%2f..%2fsecret",
        "an absolute path": f"{start}/etc/passwd",
        "dots": "https://a.org/..",
        "dots of YouTube": "https://youtu.be/..",
        "a NUL": f"{start}a%00b",
        "a line break": f"{start}a%0ab",
        "no id": "https://a.org/",
        "a surrogate": "https://a.org/\ud800",
        "a home": "https://a.org/~root",
        "the pattern itself": "https://a.org/{id}",
        "very many fields": f"{start}&" + "&".join(f"a={n}" for n in range(5_000)),
    }


def _pattern(pattern: str, url: str) -> Callable[[pathlib.Path], Given]:
    def build(folder: pathlib.Path) -> Given:
        home = _corpus(folder, (url,))
        shutil.copy(home / "1.mp4", home / "v1.mp4")
        return home / "m.json", str(home / pattern)

    return build


def _replaced(home: pathlib.Path) -> pathlib.Path:
    (home / "two.mp4").unlink()
    return home / "two.mp4"


def _link(home: pathlib.Path) -> None:
    _replaced(home).symlink_to(f"../../{SECRET}")


def _fifo(home: pathlib.Path) -> None:
    os.mkfifo(_replaced(home))


def _folder(home: pathlib.Path) -> None:
    _replaced(home).mkdir()


def _circle(folder: pathlib.Path) -> Given:
    home = _corpus(folder, ("https://a.org/one",))
    (home / "loop").symlink_to(".")
    (home / "a.mp4").symlink_to("b.mp4")
    (home / "b.mp4").symlink_to("a.mp4")
    return home / "m.json", str(home)


def _double(folder: pathlib.Path) -> Given:
    home = _corpus(folder)
    shutil.copy(home / "one.mp4", home / "one.mkv")
    return home / "m.json", str(home)


def _crowd(folder: pathlib.Path) -> Given:
    home = _corpus(folder, ("https://a.org/one",))
    for number in range(5_000):
        (home / f"A film {number} [{number:011}].mp4").touch()
    return home / "m.json", str(home)
