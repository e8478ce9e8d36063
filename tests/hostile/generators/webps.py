"""Hostile animated WebP: chunks that lie, frames that do not fit, damage."""

import io
import struct
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from generators import EITHER, HONEST, REFUSED, Case, damaged, rng_of, written

FILM = np.random.default_rng(1).integers(0, 256, (4, 16, 24, 3), np.uint8)
_ANIMATION = b"ANIM" + struct.pack("<IIH", 6, 0, 0)


def cases(seed: int = 0, random: int = 60) -> Iterator[Case]:
    """Yields cases; `random` of them damaged by the seed."""
    for name, (content, expected) in _made().items():
        yield Case(name, written("a.webp", content), expected)
    whole = animated()
    for k in range(random):
        name = f"damage {k}"
        rng = rng_of(seed, name)
        content = damaged(whole, rng) if k % 2 else _flipped(whole, rng)
        yield Case(name, written("a.webp", content), EITHER)


def animated(durations: int | tuple[int, ...] = 100) -> bytes:
    """Four frames."""
    first, *rest = map(Image.fromarray, FILM)
    with io.BytesIO() as file:
        how = {"save_all": True, "append_images": rest, "lossless": True}
        first.save(
            file,
            "webp",
            duration=list(durations) if isinstance(durations, tuple) else durations,
            **how,
        )
        return file.getvalue()


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bits are others, most of them in the heads of chunks."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        end = len(found) if rng.integers(3) else 80
        found[rng.integers(12, end)] ^= 1 << rng.integers(8)
    return bytes(found)


def _still() -> bytes:
    """The chunk of a picture of one pixel."""
    with io.BytesIO() as file:
        Image.new("RGB", (1, 1)).save(file, "webp", lossless=True)
        return file.getvalue()[12:]


def _frame(x: int = 0, y: int = 0, wide: int = 1, high: int = 1, ms: int = 40) -> bytes:
    """A frame of one pixel, whatever size it says."""
    numbers = (x // 2, y // 2, wide - 1, high - 1, ms)
    head = b"".join(number.to_bytes(3, "little") for number in numbers) + b"\0"
    content = head + _still()
    return b"ANMF" + struct.pack("<I", len(content)) + content


def _file(*frames: bytes, wide: int = 24, high: int = 16) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (wide, high))
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + sides
    content = b"WEBP" + canvas + _ANIMATION + b"".join(frames)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _cut(at: int | Callable[[bytes], int]) -> bytes:
    whole = animated()
    return whole[: at if isinstance(at, int) else at(whole)]


def _sized(number: int) -> bytes:
    """The first frame's chunk says a size."""
    found = bytearray(animated())
    at = found.index(b"ANMF") + 4
    found[at : at + 4] = struct.pack("<I", number)
    return bytes(found)


def _made() -> dict[str, tuple[bytes, str]]:
    frames = [_frame() for _ in range(3)]
    found = {
        "honest": (animated(), HONEST),
        "honest, of small frames": (_file(*frames), HONEST),
        "all durations 0": (animated(0), HONEST),
        "some durations 0": (_file(_frame(ms=0), *frames, _frame(ms=0)), HONEST),
        "durations of 2^24-1 ms": (_file(*[_frame(ms=2**24 - 1)] * 3), HONEST),
        "zero frames": (_file(), REFUSED),
        "one frame": (_file(_frame()), EITHER),
        "a canvas of 16384x16384": (_file(*frames, wide=16384, high=16384), REFUSED),
        "a canvas of 2048x2048": (_file(*frames, wide=2048, high=2048), EITHER),
        "a canvas of one row": (_file(*frames, wide=16384, high=1), REFUSED),
        "a frame beside the canvas": (_file(*frames, _frame(x=5000)), REFUSED),
        "a frame that says it is larger": (_file(*frames, _frame(wide=999)), EITHER),
        "a frame that says 2^24 pixels": (
            _file(*frames, _frame(wide=2**24, high=2**24)),
            REFUSED,
        ),
        "no chunk of the animation": (_file(*frames).replace(_ANIMATION, b""), EITHER),
        "100,000 chunks of nothing": (_file(*frames, bytes(800_000)), EITHER),
        "20,000 empty frames": (
            _file(*[b"ANMF" + struct.pack("<I", 16) + bytes(16)] * 20_000),
            EITHER,
        ),
        "a RIFF that says 2^32-1 bytes": (
            b"RIFF\xff\xff\xff\xff" + _file(*frames)[8:],
            EITHER,
        ),
        "a RIFF that says no bytes": (b"RIFF\0\0\0\0" + _file(*frames)[8:], EITHER),
    }
    for size in (0, 1, 15, 16, 2**31 - 1, 2**31, 2**32 - 1):
        found[f"a frame's chunk of {size} bytes"] = (_sized(size), EITHER)
    for at in (13, 20, 21, 29, 30, 44, 50, 80, 300):
        found[f"cut at {at}"] = (_cut(at), REFUSED)
    found["cut in the last frame"] = (_cut(-10), EITHER)
    found["cut before the last frame"] = (_cut(lambda x: x.rindex(b"ANMF")), EITHER)
    return found
