"""Near-duplicates: clips that show the same pictures in other bytes.

A copy that was encoded again, made smaller or darker has other bytes and nearly the
same pictures. A frame is known by 128 bits, a dHash [1] along both axes: its grey
picture is shrunk to 8 x 9 and to 9 x 8 cells, and each bit says whether a cell is
brighter than the one in front of it, or above. Two frames are alike where at most 20
bits differ, and two clips where at least half of their frames are, frame by frame in
the order of time.

What was measured (`similar_test.py` repeats it in part), at the better half of four
frames: of 2,000 drawn clips (`demo.drawing`), all of one design, the usual 64 bits of
one axis take 24 of 1,999,000 pairs for copies at 10 bits; both axes take none at 20,
and the nearest pair differs in 23. Copies of 60 such clips of 72 x 96 pixels differ in
at most 16 bits (half the size), 15 (x264 at crf 40) and 10 (a fifth darker), such
copies of four filmed clips in 5, and a distorted broadcast of one in 10.

Limits: copies that are mirrored, cropped by more than a few per cent or cut in time are
not found, nor most of 18 x 24 pixels. A frame that is nearly uniform, such as a fade or
a title on black, has bits of mere noise and is like no other, so that a clip of such
frames has no copies.

Axes: `frames`, the sampled ones, in the order of time.

[1] N. Krawetz, 2013. Kind of like that.
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8, UInt64

_CELLS = 8  # A side; one more along the axis of the differences.
_MOST_BITS = 20  # Of 128, that differ between frames that are alike.
_SEEN = 1.0  # Grey levels that cells must differ by to be no noise.
_TEXTURED = 0.5  # Of the cells of a frame, how many must.
_ROWS, _COLUMNS = 128, 1024  # Clips that are compared at a time: they fit a cache.


# Of several clips: hashes, and which are valid.
_Stack = tuple[UInt64[np.ndarray, "frames _ 2"], Bool[np.ndarray, "frames _"]]


class Fingerprint(NamedTuple):
    """What a clip is compared by.

    Attributes:
      hashes: The bits of each frame: along rows, along columns.
      valid: Whether the frame has enough texture to be known by them.
    """

    hashes: UInt64[np.ndarray, "frames 2"]
    valid: Bool[np.ndarray, " frames"]


def fingerprint(pixels: UInt8[np.ndarray, "frames height width 3"]) -> Fingerprint:
    """Returns the fingerprint of a clip.

    Args:
      pixels: RGB, at any size; at least one frame, evenly spaced in time.

    Raises:
      ValueError: There is no frame.
    """
    if not len(pixels):
        raise ValueError("a fingerprint needs at least one frame, got none.")
    changes = np.stack([_changes(frame) for frame in pixels])
    packed = np.packbits(changes > 0, axis=-1, bitorder="little")
    textured = np.mean(np.abs(changes) >= _SEEN, axis=(1, 2)) >= _TEXTURED
    return Fingerprint(packed.view("<u8")[..., 0].astype(np.uint64), textured)


def _changes(
    frame: UInt8[np.ndarray, "height width 3"],
) -> Float32[np.ndarray, "2 64"]:
    """Returns by how much cells are brighter than those before them, in grey levels."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    n, area = _CELLS, cv2.INTER_AREA
    across = np.diff(cv2.resize(grey, (n + 1, n), interpolation=area), axis=1)
    down = np.diff(cv2.resize(grey, (n, n + 1), interpolation=area), axis=0)
    return np.stack([across.ravel(), down.ravel()])


def pairs(fingerprints: Mapping[str, Fingerprint]) -> list[tuple[str, str, float]]:
    """Returns the clips that are near-duplicates.

    Clips of different numbers of frames are compared at the smaller number, the longer
    one at the frames nearest in relative time.

    Args:
      fingerprints: By the name of a clip.

    Returns:
      Two names, in the order of `fingerprints`, and the share of their frames that are
      alike, at least 0.5.
    """
    names, every = list(fingerprints), list(fingerprints.values())
    by_count: dict[int, list[int]] = collections.defaultdict(list)
    for place, one in enumerate(every):
        by_count[len(one.valid)].append(place)
    found: list[tuple[int, int, float]] = []
    for count, alone in by_count.items():
        longer = [k for n, its in by_count.items() if n > count for k in its]
        both = np.array([*alone, *longer])
        hashes, valid = _stacked([every[k] for k in both], count)
        for a, b in _blocks(len(alone), len(both)):
            first, second, share = _alike(
                (hashes[:, a], valid[:, a]), (hashes[:, b], valid[:, b])
            )
            first, second = first + a.start, second + b.start
            once = first < second  # Nor any clip with itself.
            joined = both[first[once]], both[second[once]], share[once]
            for one, other, part in zip(*(x.tolist() for x in joined), strict=True):
                found.append((min(one, other), max(one, other), part))
    return [(names[one], names[other], part) for one, other, part in sorted(found)]


def groups(
    pairs: Iterable[tuple[str, str] | tuple[str, str, float]],
) -> list[tuple[str, ...]]:
    """Returns the clips that are joined by pairs, directly or through others.

    Each group, and all of them, are sorted; a clip that is in no pair is in no group.

    Example:
      >>> groups([("a", "b", 1.0), ("d", "c", 0.5), ("b", "e", 0.75)])
      [('a', 'b', 'e'), ('c', 'd')]
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for pair in pairs:
        parent[root(pair[0])] = root(pair[1])
    by_root: dict[str, list[str]] = collections.defaultdict(list)
    for name in sorted(parent):
        by_root[root(name)].append(name)
    return sorted(map(tuple, by_root.values()))


def _stacked(clips: Sequence[Fingerprint], count: int) -> _Stack:
    """Returns as many frames of each clip, evenly spaced from its first to its last."""
    lasts = (len(clip.valid) - 1 for clip in clips)
    places = [np.rint(np.linspace(0, last, count)).astype(int) for last in lasts]
    chosen = list(zip(clips, places, strict=True))
    hashes = np.stack([clip.hashes[at] for clip, at in chosen], axis=1)
    return hashes, np.stack([clip.valid[at] for clip, at in chosen], axis=1)


def _blocks(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Yields blocks that hold each pair of a row and a later column."""
    for first in range(0, rows, _ROWS):
        a = slice(first, min(first + _ROWS, rows))
        for second in range(first, columns, _COLUMNS):
            yield a, slice(second, second + _COLUMNS)


def _alike(
    one: _Stack, other: _Stack
) -> tuple[
    Int64[np.ndarray, " pairs"],
    Int64[np.ndarray, " pairs"],
    Float64[np.ndarray, " pairs"],
]:
    """Returns which clips of two stacks are near-duplicates, and their share."""
    count = len(one[0])
    needed = -(-count // 2)
    near = np.zeros((one[1].shape[1], other[1].shape[1]), bool)
    for k in range(count - needed + 1):  # One of these must be, if half are.
        hashes = one[0][k, :, None], other[0][k, None, :]
        near |= _equal(*hashes) & one[1][k, :, None] & other[1][k, None, :]
    first, second = np.nonzero(near)
    valid = one[1][:, first] & other[1][:, second]
    same = _equal(one[0][:, first], other[0][:, second]) & valid
    alike = np.count_nonzero(same, axis=0)
    kept = alike >= needed
    return first[kept], second[kept], alike[kept] / count


def _equal(
    one: UInt64[np.ndarray, "*shape 2"], other: UInt64[np.ndarray, "*other 2"]
) -> Bool[np.ndarray, "*both"]:
    """Returns where at most `_MOST_BITS` differ."""
    across, down = (np.bitwise_count(one[..., k] ^ other[..., k]) for k in range(2))
    return across + down <= _MOST_BITS
