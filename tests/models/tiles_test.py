"""Tiles against plain loops over pixels; rooms of grids; the padding of a corpus."""

import itertools
import math

import numpy as np
import pytest

from vidsme_jax.models import random, smart_resize
from vidsme_jax.models.tiles import Room, Tiling

TILING = Tiling(
    patch_size=3,
    merge=2,
    group=2,
    most=40,
    limit=lambda frames: 40 if frames < 9 else 20,
    least=(1, 2),
    usual=(2, 3),
)
WINDOWED = Tiling(
    patch_size=2,
    merge=2,
    group=2,
    window=2,
    most=64,
    limit=lambda frames: 64,
    least=(1, 1),
    usual=(3, 4),
)
PUBLISHED = "qwen2_vl-7b", "qwen2_5_vl-7b", "qwen3_vl-8b"
# Frames (width, height) of a corpus of many formats.
CORPUS = """320x240 480x360 640x360 640x480 854x480 1280x720 1920x1080 360x640 720x1280
1080x1920 480x480 1080x1080"""


def _frames(tiling, grid, count=3, seed=0):
    size = count, *(n * tiling.side for n in grid), 3
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def _patches(tiling, frames, order):
    """Groups, patches and their numbers, one pixel after another."""
    p, m = tiling.patch_size, tiling.merge
    down, across = (n // tiling.side for n in frames.shape[1:3])
    groups = []
    for first in range(0, len(order), tiling.group):
        members = [min(first + k, len(order) - 1) for k in range(tiling.group)]
        patches = []
        for block in itertools.product(range(down), range(across)):
            for within in itertools.product(range(m), range(m)):
                top, left = (
                    (b * m + w) * p for b, w in zip(block, within, strict=True)
                )
                patches.append(
                    [
                        frames[order[member], top + y, left + x, colour]
                        for member in members
                        for y in range(p)
                        for x in range(p)
                        for colour in range(3)
                    ]
                )
        groups.append(patches)
    return np.array(groups, np.uint8)


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("merge", [1, 2])
def test_patches_stand_in_the_order_of_the_tower(merge, group):
    """Two clips of different grids, odd numbers of frames, views in any order."""
    sizes = {"patch_size": 3, "merge": merge, "group": group}
    sizes |= {"limit": lambda frames: 40}
    tiling = Tiling(**sizes, most=40, least=(1, 1), usual=(1, 1))
    clips = [_frames(tiling, (2, 3), 5), _frames(tiling, (1, 4), 3, seed=1)]
    orders = [(np.arange(len(x)), np.roll(np.arange(len(x))[::-1], 1)) for x in clips]
    cut = [tiling.cut(clip) for clip in clips]
    assert [x.shape[:3] for x in cut] == [(5, 2, 3), (3, 1, 4)]
    room = Room(7)
    found = tiling.stack(cut, orders, 5, room)
    assert found.windows is None and found.values.dtype == np.uint8
    assert found.values.shape[:4] == (2, 2, -(-5 // group), 7 * merge**2)
    np.testing.assert_array_equal(found.grid, [(2, 3), (1, 4)])
    for k, clip in enumerate(clips):
        for view, order in enumerate(orders[k]):
            expected = _patches(tiling, clip, order)
            values = found.values[k, view]
            groups, patches = expected.shape[:2]
            np.testing.assert_array_equal(values[:groups, :patches], expected)
            assert not values[:groups, patches:].any() and not values[groups:].any()


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (3, 5), (1, 9), (7, 2)])
def test_windows_are_blocks_of_rows_and_are_undone(grid):
    cut = WINDOWED.cut(_frames(WINDOWED, grid))
    room = WINDOWED.room(grid)._replace(windows=WINDOWED.room(grid).windows + 2)
    (patches,), (lengths,), (slots,) = WINDOWED.stack(
        [cut], [(np.arange(3),)], 3, room
    ).windows
    down, across = grid
    own = down * across * WINDOWED.block
    assert len(slots) == room.rows * WINDOWED.block
    np.testing.assert_array_equal(patches[slots[:own]], np.arange(own))
    count = -(-down // 2) * -(-across // 2)
    assert len(lengths) == room.windows >= count + 2
    assert lengths[:count].sum() == own and (lengths[count:] == 1).all()
    by_window = patches.reshape(room.windows, -1)
    assert by_window.shape[1] == 4 * WINDOWED.block
    for number in range(count):
        top, left = (2 * n for n in divmod(number, -(-across // 2)))
        rows = range(top, min(top + 2, down))
        columns = range(left, min(left + 2, across))
        expected = [
            (row * across + column) * WINDOWED.block + k
            for row in rows
            for column in columns
            for k in range(WINDOWED.block)
        ]
        assert by_window[number, : lengths[number]].tolist() == expected
        places = [slots[patch] for patch in expected]
        first = number * by_window.shape[1]
        assert places == list(range(first, first + len(expected)))


def _grids(tiling):
    """Grids of every area, of every aspect of some."""
    most = tiling.most
    grids = {(1, n) for n in range(1, most + 1)}
    for down in (2, 3, 7, 13, 20, 27):
        grids |= {(down, n) for n in range(1, most // down + 1, 3)}
    return sorted(grids | {(b, a) for a, b in grids})


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_grid_has_a_room_that_holds_it(name):
    """More rows never have less room; the largest holds all of an aspect below it."""
    tiling = random.describe(name).tiling
    fewest = max(range(1, 33), key=tiling.limit)
    largest, before = tiling.largest(fewest), Room(0)
    for grid in sorted(_grids(tiling), key=math.prod):
        room, area = tiling.room(grid), math.prod(grid)
        assert area <= room.rows <= largest.rows and room.rows % 16 == 0
        assert room.rows >= before.rows and tiling.holds(room, grid)
        assert room == tiling.room(grid) == tiling.room(grid[::-1])
        assert not tiling.holds(room._replace(rows=room.rows - 16), grid)
        if tiling.window:
            own = math.prod(-(-side // tiling.window) for side in grid)
            assert room.windows >= own
            usual = tiling._windows_of(room.rows)
            assert room.windows == usual or room.windows % 32 == 0 < own - usual
            assert not tiling.holds(room._replace(windows=0), grid)
            if max(grid) <= 2.4 * min(grid):
                assert tiling.holds(largest, grid)
        else:
            assert room.windows == 0 and tiling.holds(largest, grid)
        before = room


def test_a_grid_beyond_the_largest_has_a_room_of_its_own():
    assert TILING.largest(8) == TILING.largest(9) == Room(48)
    assert TILING.room((5, 8)) == Room(48)
    assert TILING.room((7, 7)) == Room(64)
    assert not TILING.holds(TILING.largest(8), (7, 7))


@pytest.mark.parametrize("frames", [1, 8, 32])
@pytest.mark.parametrize("name", PUBLISHED[1:])
def test_a_corpus_of_many_formats_has_few_rooms(name, frames):
    """The budgets are those of the published files; nothing is resized for it."""
    model = random.describe(name)
    tiling, resize = model.tiling, _resize(model)
    sizes = [tuple(map(int, size.split("x"))) for size in CORPUS.split()]
    grids = []
    for k in range(100):
        width, height = sizes[k % len(sizes)]
        down, across = resize.target(frames, height, width)
        grids.append((down // tiling.side, across // tiling.side))
    rooms = [tiling.room(grid) for grid in grids]
    assert len(set(grids)) > 4 >= len(set(rooms))
    own, padded = sum(map(math.prod, grids)), sum(room.rows for room in rooms)
    assert 1 - own / padded <= 0.15


@pytest.mark.parametrize("frames", [1, 3, 8, 64])
@pytest.mark.parametrize("name", PUBLISHED)
def test_frames_of_any_aspect_have_room(name, frames):
    model = random.describe(name)
    tiling, resize = model.tiling, _resize(model)
    for long, short in itertools.product((60, 700, 1000, 9000), (5, 33, 300, 4000)):
        for height, width in ((long, short), (short, long)):
            if max(height, width) > 200 * min(height, width):
                continue
            down, across = resize.target(frames, height, width)
            grid = down // tiling.side, across // tiling.side
            room = tiling.room(grid)
            assert room.rows >= math.prod(grid) <= tiling.most
            assert room.rows <= tiling.largest(frames).rows


def _resize(model):
    """What `Model.prepare` resizes with."""
    cells = [cell.cell_contents for cell in model.prepare.__closure__]
    (resize,) = (x for x in cells if isinstance(x, smart_resize.SmartResize))
    return resize
