"""Clips damaged at random, by number: the same number gives the same damage."""

import struct

import numpy as np

from vidsme_jax import settings

CLIPS = sorted((settings.DEMO / "corpus" / "clips").glob("*.mp4"))
# Fields of an mp4 whose size, count or duration may be made absurd.
_BOXES = (b"tkhd", b"mdhd", b"mvhd", b"stts", b"stsz", b"stsc", b"stco", b"ctts")
_BOXES += (b"avc1", b"avcC", b"elst", b"stsd", b"stss", b"hdlr", b"trak", b"moov")
_ABSURD = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000)


def damaged(number: int, sources: list[bytes]) -> bytes:
    """Returns one of the sources with damage of one to three kinds."""
    rng = np.random.default_rng([7, number])
    data = bytearray(sources[rng.integers(len(sources))])
    for _ in range(rng.integers(1, 4)):
        kind = _KINDS[rng.integers(len(_KINDS))]
        data = kind(data, rng, sources)
    return bytes(data)


def _flip_bits(data, rng, sources):
    for _ in range(int(2 ** rng.uniform(0, 10))):
        if data:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return data


def _flip_bits_of_the_header(data, rng, sources):
    for _ in range(rng.integers(1, 20)):
        if data:
            data[rng.integers(min(len(data), 200))] = rng.integers(256)
    return data


def _cut(data, rng, sources):
    return data[: rng.integers(len(data) + 1)]


def _behead(data, rng, sources):
    return data[rng.integers(len(data) + 1) :]


def _drop(data, rng, sources):
    start = rng.integers(len(data) + 1)
    return data[:start] + data[start + rng.integers(5000) :]


def _overwrite(data, rng, sources):
    start, size = rng.integers(len(data) + 1), rng.integers(1, 4000)
    filling = rng.bytes(size) if rng.integers(2) else bytes([rng.integers(256)]) * size
    data[start : start + size] = filling
    return data


def _splice(data, rng, sources):
    other = sources[rng.integers(len(sources))]
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other)) :]


def _swap_boxes(data, rng, sources):
    first, second = (_BOXES[rng.integers(len(_BOXES))] for _ in range(2))
    return data.replace(first, b"????").replace(second, first).replace(b"????", second)


def _make_absurd(data, rng, sources):
    """Writes a huge number near a field of the index, once or a few times."""
    for _ in range(rng.integers(1, 4)):
        name = _BOXES[rng.integers(len(_BOXES))]
        place = data.find(name)
        if place >= 4:
            at = place + 4 * rng.integers(-1, 24)
            value = struct.pack(">I", _ABSURD[rng.integers(len(_ABSURD))])
            data[at : at + 4] = value
    return data


_KINDS = (_flip_bits, _flip_bits_of_the_header, _cut, _behead, _drop, _overwrite)
_KINDS += (_splice, _swap_boxes, _make_absurd, _make_absurd)
