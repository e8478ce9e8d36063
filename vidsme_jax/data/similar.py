"""Near-duplicates: clips with the same pictures but different bytes.

A copy that was re-encoded, scaled, darkened, letterboxed or cropped has other bytes and
nearly the same pictures. A frame without its bars (see `bars`) is represented by 128
bits, a dHash [1] along both axes: its grey picture is shrunk to 8 x 9 and to 9 x 8
cells, and each bit states whether a cell is brighter than the previous one in its row
or column. Six windows of it are hashed too: the central 0.9 and 0.8 of its sides, and
the frame without 8 % at one side. Two frames match if at most 24 bits differ, and at
most 22 in the mean over their windows; or at most 15 between a frame and a window of
the other, of which it may be a crop. Two clips match if at least half of their frames
match, frame by frame in order of time, all as wholes or all in one window.

Measured (`similar_test.py` repeats it in part), at the better half of four frames:
among three times 2,000 drawn clips (`demo.drawing`), all of one design, no pair
matches; the nearest differ in 18 bits, but 24.6 in the mean over windows (copies: at
most 21), and a frame and a window of another in 17. Of 60 such clips of 72 x 96 pixels
all copies are found: remuxed, x264 at crf 40, half the size, a fifth darker, with bars
on two or four sides, cropped to 0.9, 0.85 and 0.8 of both sides, without 6 % or 10 % of
one side.

Limits: copies that are mirrored, cropped by more than a quarter of a side or off centre
by more than a tenth, or cut in time are not found, nor most of 18 x 24 pixels. The bits
of a nearly uniform frame, such as a fade or a title on black, are noise: it matches no
other, so that a clip of such frames has no copies.

Axes: `frames`, the sampled ones, in order of time; `windows`, the whole frame first.

[1] N. Krawetz, 2013. Kind of like that.
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt64

from vidsme_jax.base import Fingerprint
from vidsme_jax.data import bars

_CELLS = 8  # Per side; one more along the axis of the differences.
# Start and end of each window along rows, then columns, as shares of the frame.
_WINDOWS = (
    ((0.0, 1.0), (0.0, 1.0)),
    ((0.05, 0.95), (0.05, 0.95)),
    ((0.1, 0.9), (0.1, 0.9)),
    ((0.08, 1.0), (0.0, 1.0)),
    ((0.0, 0.92), (0.0, 1.0)),
    ((0.0, 1.0), (0.08, 1.0)),
    ((0.0, 1.0), (0.0, 0.92)),
)
WINDOWS = len(_WINDOWS)
_MOST_BITS = 24  # Differing bits of 128 between matching frames.
_MOST_MEAN = 22  # The same in the mean over their windows.
_MOST_CROPPED = 15  # The same between a frame and a window of another.
_SEEN = 1.0  # Grey levels by which cells must differ, beyond noise.
_TEXTURED = 0.5  # Share of a frame's cells that must differ so.
_SHRUNK = 320  # Pixels of the longer side before windows are cut, at most.
_ROWS, _COLUMNS = 128, 1024  # Clips compared at a time: they fit a CPU cache.

_EXACT = 4_000  # Up to this many clips all pairs are compared; else they are hashed.
_TABLES, _BITS = 16, 20  # Hash tables, and the sampled bits of each.
_LOOKED_UP = 4  # Frames per table.
_CROWDED = 64  # Windows with equal bits compared with one, at most.

# Hashes of several clips, and which of them are valid.
_Stack = tuple[
    UInt64[np.ndarray, "frames _ windows 2"], Bool[np.ndarray, "frames _ windows"]
]
_Places = Int64[np.ndarray, " pairs"]  # Indices of clips in a stack.
# Both clips of near-duplicates, and the number of their matching frames.
_Found = tuple[
    Int64[np.ndarray, " found"],
    Int64[np.ndarray, " found"],
    Int64[np.ndarray, " found"],
]


def fingerprint(pixels: UInt8[np.ndarray, "frames height width 3"]) -> Fingerprint:
    """Returns the fingerprint of a clip.

    Args:
      pixels: RGB, at any size; at least one frame, evenly spaced in time.

    Raises:
      ValueError: There is no frame.
    """
    if not len(pixels):
        raise ValueError("a fingerprint needs at least one frame, got none.")
    frames = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels)
    grey = np.stack([bars.shrunk(frame, _SHRUNK) for frame in frames])
    rows, columns = bars.content(grey)
    changes = np.stack([_windows(x.astype(np.float32)) for x in grey[:, rows, columns]])
    packed = np.packbits(changes > 0, axis=-1, bitorder="little")
    textured = np.mean(np.abs(changes) >= _SEEN, axis=(2, 3)) >= _TEXTURED
    return Fingerprint(packed.view("<u8")[..., 0].astype(np.uint64), textured)


def _windows(
    grey: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "windows 2 64"]:
    """Returns the brightness differences of neighbouring cells, in grey levels."""
    height, width = grey.shape
    found = []
    for (top, bottom), (left, right) in _WINDOWS:
        rows = slice(
            min(round(top * height), height - 1), max(round(bottom * height), 1)
        )
        columns = slice(
            min(round(left * width), width - 1), max(round(right * width), 1)
        )
        found.append(_changes(grey[rows, columns]))
    return np.stack(found)


def _changes(
    grey: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "2 64"]:
    n, area = _CELLS, cv2.INTER_AREA
    across = np.diff(cv2.resize(grey, (n + 1, n), interpolation=area), axis=1)
    down = np.diff(cv2.resize(grey, (n, n + 1), interpolation=area), axis=0)
    return np.stack([across.ravel(), down.ravel()])


def pairs(fingerprints: Mapping[str, Fingerprint]) -> list[tuple[str, str, float]]:
    """Returns the pairs of clips that are near-duplicates.

    Clips with different numbers of frames are compared at the smaller number, the
    longer one at the frames nearest in relative time. Above 4,000 clips, only pairs are
    compared that agree in 20 sampled bits, in one of 16 hash tables, in one of four
    frames and any window (locality-sensitive hashing): of pairs whose frames differ in
    10 random bits all are found, in 14 bits 99.5 %, in 17 bits 95 %. That takes 18 s of
    one core for 100,000 clips.

    Args:
      fingerprints: By the name of a clip.

    Returns:
      Two names, in the order of `fingerprints`, and the share of their matching frames,
      at least 0.5.
    """
    names, every = list(fingerprints), list(fingerprints.values())
    by_count: dict[int, list[int]] = collections.defaultdict(list)
    for place, one in enumerate(every):
        by_count[len(one.valid)].append(place)
    found: dict[tuple[int, int], float] = {}
    for count, alone in by_count.items():
        longer = [k for n, clips in by_count.items() if n > count for k in clips]
        both = np.array([*alone, *longer])
        stack = _stacked([every[k] for k in both], count)
        screened = _all_pairs if len(both) <= _EXACT else _hashed_pairs
        for first, second, alike in screened(stack, len(alone)):
            joined = both[first], both[second], alike / count
            for one, other, part in zip(*(x.tolist() for x in joined), strict=True):
                pair = min(one, other), max(one, other)
                found[pair] = max(part, found.get(pair, 0.0))
    return [(names[a], names[b], part) for (a, b), part in sorted(found.items())]


def groups(
    pairs: Iterable[tuple[str, str] | tuple[str, str, float]],
) -> list[tuple[str, ...]]:
    """Returns the connected components of pairs of clips.

    Groups and their members are sorted; a clip without a pair is in no group.

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
    """Returns `count` frames of each clip, evenly spaced from its first to its last."""
    lasts = (len(clip.valid) - 1 for clip in clips)
    places = [np.rint(np.linspace(0, last, count)).astype(int) for last in lasts]
    chosen = list(zip(clips, places, strict=True))
    hashes = np.stack([clip.hashes[at] for clip, at in chosen], axis=1)
    return hashes, np.stack([clip.valid[at] for clip, at in chosen], axis=1)


def _blocks(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Yields blocks that cover each pair of a row and a later column."""
    for first in range(0, rows, _ROWS):
        a = slice(first, min(first + _ROWS, rows))
        for second in range(first, columns, _COLUMNS):
            yield a, slice(second, second + _COLUMNS)


def _all_pairs(stack: _Stack, rows: int) -> Iterator[_Found]:
    """Compares the first `rows` clips with all others; yields near-duplicates."""
    hashes, valid = stack
    count, columns, windows = valid.shape
    screening = range(count + 1 - -(-count // 2))  # One of them matches, if half do.
    sides = [(0, 0), *((0, k) for k in range(1, windows))]
    sides += [(k, 0) for k in range(1, windows)]
    for a, b in _blocks(rows, columns):
        for of_one, of_other in sides:
            near = np.zeros((a.stop - a.start, len(valid[0, b])), bool)
            for k in screening:
                one, other = hashes[k, a, None, of_one], hashes[k, None, b, of_other]
                same = _equal(one, other, cropped=of_one != of_other)
                same &= valid[k, a, None, of_one] & valid[k, None, b, of_other]
                near |= same
            first, second = np.nonzero(near)
            first, second = first + a.start, second + b.start
            once = first < second  # Each pair once, and no clip with itself.
            yield _verified(stack, first[once], second[once], of_one, of_other)


def _hashed_pairs(stack: _Stack, rows: int) -> Iterator[_Found]:
    """Compares clips that agree in the bits of a hash table; as `_all_pairs`."""
    hashes, valid = stack
    count, columns, windows = valid.shape
    frames = np.unique(np.rint(np.linspace(0, count - 1, _LOOKED_UP)).astype(int))
    rng = np.random.default_rng(0)
    for _ in range(_TABLES):
        bits = rng.permutation(128)[:_BITS].astype(np.uint64)
        for k in frames.tolist():
            code = np.zeros((columns, windows), np.uint64)
            for bit in bits:
                half = hashes[k, :, :, int(bit) // 64]
                code = (code << np.uint64(1)) | (
                    (half >> (bit % np.uint64(64))) & np.uint64(1)
                )
            place = np.flatnonzero(valid[k].ravel())
            order = np.argsort(code.ravel()[place], kind="stable")
            place, code = place[order], code.ravel()[place[order]]
            found = _same_bits(code, place, windows, rows, columns)
            yield from _by_window(stack, found)


def _by_window(stack: _Stack, found: _Places) -> Iterator[_Found]:
    """Verifies pairs that are encoded as by `_same_bits`."""
    _, columns, windows = stack[1].shape
    clips, sides = np.divmod(found, windows**2)
    for side in np.flatnonzero(np.bincount(sides)).tolist():
        pair = clips[sides == side]
        yield _verified(stack, pair // columns, pair % columns, *divmod(side, windows))


def _same_bits(
    code: UInt64[np.ndarray, " places"],
    place: Int64[np.ndarray, " places"],
    windows: int,
    rows: int,
    columns: int,
) -> Int64[np.ndarray, " found"]:
    """Returns pairs with equal codes, encoded as one number of clips and windows.

    Args:
      code: Ascending.
      place: The clip and the window of each code, as one number.
      windows: The number of windows of a clip.
      rows: One clip of each pair is among the first `rows`.
      columns: The number of clips.
    """
    found = []
    at = np.arange(len(code))
    for step in range(1, _CROWDED):
        at = at[at + step < len(code)]
        at = at[code[at] == code[at + step]]
        if not len(at):
            break
        both = np.sort(np.stack([place[at], place[at + step]]), axis=0)
        (one, of_one), (other, of_other) = (divmod(x, windows) for x in both)
        kept = (one < rows) & (one < other) & ((of_one == 0) | (of_other == 0))
        number = (one * columns + other) * windows**2 + of_one * windows + of_other
        found.append(number[kept])
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _verified(
    stack: _Stack, first: _Places, second: _Places, of_one: int, of_other: int
) -> _Found:
    """Returns the near-duplicates among pairs, compared in the given windows."""
    hashes, valid = stack
    both = valid[:, first, of_one] & valid[:, second, of_other]
    one, other = hashes[:, first, of_one], hashes[:, second, of_other]
    same = _equal(one, other, cropped=of_one != of_other) & both
    if of_one == of_other:
        used = valid[:, first] & valid[:, second]
        bits = _differing(hashes[:, first], hashes[:, second]) * used
        same &= bits.sum(axis=-1) <= _MOST_MEAN * np.count_nonzero(used, axis=-1)
    alike = np.count_nonzero(same, axis=0)
    kept = 2 * alike >= len(valid)
    return first[kept], second[kept], alike[kept]


def _equal(
    one: UInt64[np.ndarray, "*shape 2"],
    other: UInt64[np.ndarray, "*other 2"],
    *,
    cropped: bool,
) -> Bool[np.ndarray, "*both"]:
    """Returns where the differing bits are within the limit for frames or crops."""
    return _differing(one, other) <= (_MOST_CROPPED if cropped else _MOST_BITS)


def _differing(
    one: UInt64[np.ndarray, "*shape 2"], other: UInt64[np.ndarray, "*other 2"]
) -> UInt8[np.ndarray, "*both"]:
    across, down = (np.bitwise_count(one[..., k] ^ other[..., k]) for k in range(2))
    return across + down
