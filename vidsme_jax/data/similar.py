"""Near-duplicates: clips that show the same pictures in other bytes.

A copy that was encoded again, made smaller or darker, set between black bars or cropped
has other bytes and nearly the same pictures. A frame without its bars (see `bars`) is
known by 128 bits, a dHash [1] along both axes: its grey picture is shrunk to 8 x 9 and
to 9 x 8 cells, and each bit says whether a cell is brighter than the one in front of
it, or above. So are six windows of it: the middle nine and eight tenths of its sides,
and what is left without 8 % of one of them. Two frames are alike where at most 24 bits
differ, and at most 22 in the mean over their windows; or at most 15 between one and a
window of the other, which it may be a crop of. Two clips are where at least half of
their frames are, frame by frame in the order of time, all of them whole or all in one
window.

What was measured (`similar_test.py` repeats it in part), at the better half of four
frames: of three times 2,000 drawn clips (`demo.drawing`), all of one design, no pair is
taken for copies; the nearest differ in 18 bits, but 24.6 in the mean over windows (of
copies at most 21 differ so), and a frame and a window of another in 17. Of 60 such
clips of 72 x 96 pixels all copies are found: remuxed, x264 at crf 40, half the size, a
fifth darker, with bars on two sides or on four, cropped to 0.9, 0.85 and 0.8 of both
sides, without 6 % or 10 % of one side.

Limits: copies that are mirrored, cropped by more than a quarter of a side or off centre
by more than a tenth, or cut in time are not found, nor most of 18 x 24 pixels. A frame
that is nearly uniform, such as a fade or a title on black, has bits of mere noise and
is like no other, so that a clip of such frames has no copies.

Axes: `frames`, the sampled ones, in the order of time; `windows`, the whole first.

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

_CELLS = 8  # A side; one more along the axis of the differences.
# Of each window its start and end along rows, then columns, as shares of the frame.
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
_MOST_BITS = 24  # Of 128, that differ between frames that are alike.
_MOST_MEAN = 22  # In the mean over their windows.
_MOST_CROPPED = 15  # Between a frame and a window of another.
_SEEN = 1.0  # Grey levels that cells must differ by to be no noise.
_TEXTURED = 0.5  # Of the cells of a frame, how many must.
_SHRUNK = 320  # Pixels of the longer side that windows are cut from, at most.
_ROWS, _COLUMNS = 128, 1024  # Clips that are compared at a time: they fit a cache.

_EXACT = 4_000  # Clips that are all compared with one another; more are looked up.
_TABLES, _BITS = 16, 20  # By so many choices of so many bits of some frames.
_LOOKED_UP = 4  # Frames.
_CROWDED = 64  # Windows with equal bits, of which no more are compared with one.

# Of several clips: hashes, and which are valid.
_Stack = tuple[
    UInt64[np.ndarray, "frames _ windows 2"], Bool[np.ndarray, "frames _ windows"]
]
_Places = Int64[np.ndarray, " pairs"]  # Of clips in a stack.
# Both clips of near-duplicates, and how many of their frames are alike.
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
    grey = np.stack([_shrunk(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)) for x in pixels])
    rows, columns = bars.content(grey)
    changes = np.stack([_windows(x.astype(np.float32)) for x in grey[:, rows, columns]])
    packed = np.packbits(changes > 0, axis=-1, bitorder="little")
    textured = np.mean(np.abs(changes) >= _SEEN, axis=(2, 3)) >= _TEXTURED
    return Fingerprint(packed.view("<u8")[..., 0].astype(np.uint64), textured)


def _shrunk(
    grey: UInt8[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height_ width_"]:
    height, width = grey.shape
    by = _SHRUNK / max(height, width)
    if by >= 1:
        return grey
    size = max(round(width * by), 1), max(round(height * by), 1)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _windows(
    grey: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "windows 2 64"]:
    """Returns by how much cells are brighter than those before them, in grey levels."""
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
    """Returns the clips that are near-duplicates.

    Clips of different numbers of frames are compared at the smaller number, the longer
    one at the frames nearest in relative time. Of more than 4,000 clips only those are
    compared that have 20 bits in common, by one of 16 choices, in one of four frames
    and any window: of pairs in whose frames 10 random bits differ all are found, of 14
    bits 99.5 %, of 17 bits 95 %. That takes 18 s of one core for 100,000 clips.

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
    found: dict[tuple[int, int], float] = {}
    for count, alone in by_count.items():
        longer = [k for n, its in by_count.items() if n > count for k in its]
        both = np.array([*alone, *longer])
        stack = _stacked([every[k] for k in both], count)
        screened = _compared if len(both) <= _EXACT else _looked_up
        for first, second, alike in screened(stack, len(alone)):
            joined = both[first], both[second], alike / count
            for one, other, part in zip(*(x.tolist() for x in joined), strict=True):
                pair = min(one, other), max(one, other)
                found[pair] = max(part, found.get(pair, 0.0))
    return [(names[a], names[b], part) for (a, b), part in sorted(found.items())]


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


def _compared(stack: _Stack, rows: int) -> Iterator[_Found]:
    """Compares the first clips with all others; yields pairs and their alike frames."""
    hashes, valid = stack
    count, columns, windows = valid.shape
    screening = range(count + 1 - -(-count // 2))  # One is alike, if half are.
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
            once = first < second  # Nor any clip with itself.
            yield _verified(stack, first[once], second[once], of_one, of_other)


def _looked_up(stack: _Stack, rows: int) -> Iterator[_Found]:
    """Compares clips that have the same bits somewhere; as `_compared`."""
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
    """Verifies pairs that are given as numbers of clips and windows."""
    _, columns, windows = stack[1].shape
    clips, sides = np.divmod(found, windows**2)
    for side in np.flatnonzero(np.bincount(sides)).tolist():
        its = clips[sides == side]
        yield _verified(stack, its // columns, its % columns, *divmod(side, windows))


def _same_bits(
    code: UInt64[np.ndarray, " places"],
    place: Int64[np.ndarray, " places"],
    windows: int,
    rows: int,
    columns: int,
) -> Int64[np.ndarray, " found"]:
    """Returns pairs with equal codes, as numbers of both clips and windows.

    Args:
      code: Ascending.
      place: The clip and the window of each, as one number.
      windows: Of a clip.
      rows: One of each pair is among the first so many clips.
      columns: Of all clips.
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
    """Returns which pairs are near-duplicates in given windows, and in what frames."""
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
    """Returns where no more bits differ than may, between frames or with a window."""
    return _differing(one, other) <= (_MOST_CROPPED if cropped else _MOST_BITS)


def _differing(
    one: UInt64[np.ndarray, "*shape 2"], other: UInt64[np.ndarray, "*other 2"]
) -> UInt8[np.ndarray, "*both"]:
    across, down = (np.bitwise_count(one[..., k] ^ other[..., k]) for k in range(2))
    return across + down
