"""Hostile folders of numbered pictures: a case passes the folder."""

import functools
import io
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from generators import EITHER, HONEST, Case, damaged, rng_of

FILM = np.random.default_rng(0).integers(0, 256, (6, 16, 24, 3), np.uint8)
Change = Callable[[pathlib.Path], object]


def cases(seed: int = 0, random: int = 6, many: int = 100_000) -> Iterator[Case]:
    """Yields cases; `random` of them with a picture damaged by the seed.

    Args:
      seed: Of the damage.
      random: How many cases are damaged at random.
      many: Names in the folder that has very many.
    """
    yield Case("honest", _changed(lambda folder: None), HONEST)
    yield Case("names that are not UTF-8", _named(b"\xff%d.png"), HONEST)
    yield Case("names of 250 digits", _named(b"%0250d.png"), HONEST)
    yield Case("numbers of 201 digits", _named(b"%d" + b"0" * 200 + b".png"), HONEST)
    yield Case("a gap of 10^200", _copied("5.png", f"1{'0' * 200}.png"), HONEST)
    yield Case("numbers of other scripts", _copied("1.png", "\u0967.png"), HONEST)
    yield Case("control characters", _copied("1.png", "\x1b[2J\n9.png"), HONEST)
    yield Case("doubles: 1.png and 01.png", _copied("1.png", "01.png"), words="1")
    yield Case("a picture of another size", _changed(_shorten))
    yield Case("very many names", _changed(functools.partial(_add_links, many)))
    for name, content in _pictures().items():
        yield Case(name, _content(content))
    yield Case("an empty picture that is not sampled", _content(b"", "2.png"))
    for name, change in _no_files().items():
        yield Case(name, _changed(change))
    for k in range(random):
        name = f"damage {k}"
        content = damaged(_encoded("png"), rng_of(seed, name))
        yield Case(name, _content(content), EITHER)


def _write(folder: pathlib.Path) -> None:
    for number, picture in enumerate(FILM, 1):
        Image.fromarray(picture).save(folder / f"{number}.png")


def _changed(change: Change) -> Callable[[pathlib.Path], pathlib.Path]:
    def build(folder: pathlib.Path) -> pathlib.Path:
        clip = folder / "films" / "clip"
        clip.mkdir(parents=True)
        _write(clip)
        change(clip)
        return clip

    return build


def _content(content: bytes, *names: str) -> Callable[[pathlib.Path], pathlib.Path]:
    """Writes a picture in the middle and the last one, or those of some names."""

    def write(folder: pathlib.Path) -> None:
        for name in names or ("3.png", "6.png"):
            (folder / name).write_bytes(content)

    return _changed(write)


def _copied(name: str, other: str) -> Callable[[pathlib.Path], pathlib.Path]:
    return _changed(
        lambda folder: (folder / other).write_bytes((folder / name).read_bytes())
    )


def _named(pattern: bytes) -> Callable[[pathlib.Path], pathlib.Path]:
    def rename(folder: pathlib.Path) -> None:
        for number in range(1, len(FILM) + 1):
            name = os.fsdecode(pattern % number)
            (folder / f"{number}.png").rename(folder / name)

    return _changed(rename)


def _shorten(folder: pathlib.Path) -> None:
    Image.fromarray(FILM[0, :8]).save(folder / "6.png")


def _add_links(many: int, folder: pathlib.Path) -> None:
    """Adds links to the first picture, and to nothing."""
    for number in range(len(FILM) + 1, many):
        os.symlink("1.png" if number % 2 else "nowhere", folder / f"{number}.png")


def _encoded(kind: str) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(FILM[0]).save(file, kind)
        return file.getvalue()


def _pictures() -> dict[str, bytes]:
    """What stands in place of a picture in the middle."""
    png = _encoded("png")
    return {
        "a picture that is cut": png[: len(png) // 2],
        "a picture that is cut in its head": png[:20],
        "a JPEG that is cut in its head": _encoded("jpeg")[:100],
        "text": b"no picture " * 1000,
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 16\nshowpage",
        "zeros": bytes(100_000),
        "60000x60000": _sized(60_000),
        "10000x10000": _sized(10_000),
        "2^31-1 on a side": _sized(2**31 - 1),
        "a BMP of 60000x60000": _bitmap(60_000),
        "a TIFF that says two sizes": _twice(9_000),
    }


def _sized(side: int) -> bytes:
    """A PNG that says that it is larger than it is."""
    found = bytearray(_encoded("png"))
    found[16:24] = struct.pack(">II", side, side)
    found[29:33] = struct.pack(">I", zlib.crc32(found[12:29]))
    return bytes(found)


def _bitmap(side: int) -> bytes:
    found = bytearray(_encoded("bmp"))
    found[18:26] = struct.pack("<ii", side, side)
    return bytes(found)


def _twice(side: int) -> bytes:
    """A TIFF whose first size is large, and whose second is small."""
    strip = zlib.compress(bytes(side * side), 9)
    tags = [(256, 4, 1, side), (256, 4, 1, 24), (257, 4, 1, side), (257, 4, 1, 16)]
    tags += [(258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 0)]
    tags += [(277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, len(strip))]
    start = 8 + 2 + 12 * len(tags) + 4
    tags = [(*x[:3], start) if x[0] == 273 else x for x in tags]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    packed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return head + packed + bytes(4) + strip


def _no_files() -> dict[str, Change]:
    """What stands at a picture's name."""

    def at(make: Callable[[pathlib.Path], object]) -> Change:
        def change(folder: pathlib.Path) -> None:
            (folder / "3.png").unlink()
            make(folder / "3.png")

        return change

    def outside(path: pathlib.Path) -> None:
        secret = path.parents[2] / "secret.png"
        Image.fromarray(FILM[1]).save(secret)
        path.symlink_to(secret)

    def through(path: pathlib.Path) -> None:
        """By a folder beside the clip that is a link."""
        outside(path)
        path.unlink()
        (path.parents[1] / "up").symlink_to("..")
        path.symlink_to("../up/secret.png")

    return {
        "a FIFO": at(os.mkfifo),
        "a folder": at(pathlib.Path.mkdir),
        "a link to itself": at(lambda path: path.symlink_to(path.name)),
        "a link to nothing": at(lambda path: path.symlink_to("nowhere")),
        "a link to a device": at(lambda path: path.symlink_to("/dev/zero")),
        "a link to the folder": at(lambda path: path.symlink_to(".")),
        "a link out of the folder": at(outside),
        "a link out of it through another": at(through),
        "a file of 2 GiB": at(_sparse),
    }


def _sparse(path: pathlib.Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 << 30)
