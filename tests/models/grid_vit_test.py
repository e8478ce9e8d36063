"""The tower of frames of any size: what padding, windows and neighbours change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from vidsme_jax.models.tiles import Room, Tiling
from vidsme_jax.models.towers.grid_vit import GridVit, GridVitConfig, normalise

SIZES = dict(
    hidden_size=16,
    intermediate_size=24,
    depth=3,
    num_heads=2,
    patch_size=2,
    merge=2,
    group=2,
    dtype=jnp.float32,
)
TOWERS = {
    "plain": GridVitConfig(**SIZES, activation="quick_gelu", fused=False),
    "table and taps": GridVitConfig(
        **SIZES,
        activation="gelu_pytorch_tanh",
        patch_bias=True,
        table=5,
        taps=(0, 1),
    ),
    "windows": GridVitConfig(
        **SIZES, activation="silu", gated=True, rms=True, window=2, whole=(1,)
    ),
}
GRIDS = (2, 3), (5, 2), (1, 4)


def _tiling(config):
    return Tiling(
        patch_size=config.patch_size,
        merge=config.merge,
        group=config.group,
        window=config.window,
        most=40,
        limit=lambda frames: 40,
        least=(1, 1),
        usual=(2, 3),
    )


@functools.cache
def _tower(config):
    """Weights large enough that errors show."""
    graphdef, state = nnx.split(GridVit(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape, scale=0.3), x.dtype), state
    )

    @jax.jit
    def run(state, tiles, grid, windows):
        tiles = normalise(tiles, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
        tower = nnx.merge(graphdef, state)
        return tower(tiles, tower.places(grid, tiles.shape[1], windows))

    return functools.partial(run, state)


def _frames(grid, count=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 4 * grid[0], 4 * grid[1], 3), np.uint8)


def _tiles(config, clips, room, order=None):
    """Groups of all clips, one after another."""
    tiling = _tiling(config)
    cut = [tiling.cut(clip) for clip in clips]
    count = len(clips[0])
    order = np.arange(count) if order is None else order
    tiles = tiling.stack(cut, [(order,)] * len(clips), count, room)
    groups = tiling.groups(count)
    own = jax.tree.map(
        lambda x: jnp.asarray(np.repeat(x, groups, axis=0)), (tiles.grid, tiles.windows)
    )
    return jnp.asarray(tiles.values.reshape(-1, *tiles.values.shape[3:])), *own


def _room(config, grids):
    rooms = [_tiling(config).room(grid) for grid in grids]
    return Room(*np.max(rooms, axis=0).tolist())


def _exact(config, grid):
    side = config.window
    windows = -(-grid[0] // side) * -(-grid[1] // side) if side else 0
    return Room(grid[0] * grid[1], windows)


def _own(found, grid):
    """Features without those of padding."""
    return [np.asarray(x)[:, : 4 * grid[0] * grid[1]] for x in found]


def _assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.std() > 0.5, "weights too small for errors to show"
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.long
@pytest.mark.parametrize("name", TOWERS)
def test_padding_changes_nothing(name):
    """In a room of its own, in the one of its grid, with more rows and windows."""
    config, grid = TOWERS[name], GRIDS[1]
    clip, tower = _frames(grid), _tower(config)
    expected = _own(tower(*_tiles(config, [clip], _exact(config, grid))), grid)
    assert len(expected) == len(config.taps) + 1
    usual = _room(config, [grid])
    assert usual != _exact(config, grid)
    more = usual._replace(rows=usual.rows + 16)
    if config.window:
        more = more._replace(windows=usual.windows + 5)
    for room in (usual, more):
        _assert_close(_own(tower(*_tiles(config, [clip], room)), grid), expected)


@pytest.mark.long
@pytest.mark.parametrize("name", TOWERS)
def test_grids_of_one_batch_give_what_each_gives_alone(name):
    """And so does a mesh of eight devices."""
    config = TOWERS[name]
    clips = [_frames(grid, seed=k) for k, grid in enumerate(GRIDS[:2] * 2)]
    tower, room = _tower(config), _room(config, GRIDS)
    given = _tiles(config, clips, room)
    found = tower(*given)
    assert len(found[0]) == 8
    for k, clip in enumerate(clips):
        grid = GRIDS[k % 2]
        alone = tower(*_tiles(config, [clip], _exact(config, grid)))
        mine = _own([x[2 * k : 2 * k + 2] for x in found], grid)
        _assert_close(mine, _own(alone, grid))
    axes = dict(axis_types=(AxisType.Auto,) * 2)
    for shape in ((8, 1), (2, 4)):
        with jax.set_mesh(jax.make_mesh(shape, ("data", "model"), **axes)):
            spread = tower(*given)
        for one, other in zip(spread, found, strict=True):
            for k in range(8):
                grid = GRIDS[k // 2 % 2]
                pair = (_own([x[k : k + 1]], grid) for x in (one, other))
                _assert_close(*pair)


@pytest.mark.parametrize("whole", [(), (1,)])
def test_patches_of_a_window_see_each_other_alone(whole):
    config = GridVitConfig(
        **SIZES, activation="silu", gated=True, rms=True, window=2, whole=whole
    )
    grid = (5, 3)
    clip, tower, room = _frames(grid), _tower(config), _room(config, [grid])
    changed = clip.copy()
    changed[:2, 8:10, 4:6] = 255 - changed[:2, 8:10, 4:6]  # Of the row (2, 1).
    before, after = (
        np.asarray(tower(*_tiles(config, [x], room))[-1]) for x in (clip, changed)
    )
    moved = np.abs(after - before).max(-1)[:, : 4 * 15].reshape(2, 5, 3, 4)
    expected = np.zeros((2, 5, 3, 4), bool)
    expected[0, 2:4, :2] = True
    if whole:
        expected[0] = True
    np.testing.assert_array_equal(moved > 1e-6, expected)


def test_a_window_costs_no_more_than_the_frame():
    full, windows, more = (
        GridVitConfig(**SIZES, activation="silu", window=window, whole=(0,))
        for window in (0, 2, 3)
    )
    assert windows.flops(4) == more.flops(4) == full.flops(4)
    saved = full.flops(16) - windows.flops(16)
    assert saved == 2 * 4 * 64 * (64 - 16) * 16  # Blocks, products, patches, features.


@pytest.mark.parametrize("name", TOWERS)
def test_groups_do_not_see_each_other(name):
    """Groups in another order give their features in that order."""
    config, grid = TOWERS[name], GRIDS[0]
    clip, tower, room = _frames(grid), _tower(config), _room(config, [grid])
    natural, turned = (
        _own(tower(*_tiles(config, [clip], room, np.array(order))), grid)
        for order in ([0, 1, 2, 3], [2, 3, 0, 1])
    )
    for one, other in zip(natural, turned, strict=True):
        np.testing.assert_allclose(one, other[::-1], atol=1e-6 * np.abs(one).max())
        assert np.abs(one - one[::-1]).max() > 0.1, "both groups are alike"


def test_places_and_the_table_are_read_where_the_grid_says():
    """The same patches on another grid of as many rows have other features."""
    for name in TOWERS:
        config = TOWERS[name]
        room = _room(config, [(2, 3), (3, 2)])
        tiles, grid, windows = _tiles(config, [_frames((2, 3))], room)
        other = _tower(config)(tiles, grid[:, ::-1], windows)
        for one, two in zip(_tower(config)(tiles, grid, windows), other, strict=True):
            assert np.abs(one - two)[:, :24].max() > 0.05
