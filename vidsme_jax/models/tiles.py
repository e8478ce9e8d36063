"""Frames of any size as tiles, padded to a few shapes.

The tower cuts a frame into patches. Each block of merge x merge patches becomes one
visual row, so that a clip has a `grid`: the rows down and across a frame. Some towers
see a group of frames at once, which then has the rows of one frame.

The padded shape of a clip is a function of its grid alone: rows are padded to those of
frames of a few areas (`_AREAS`), so that a corpus of many formats needs few programs.

Axes: `clips`; `views`; `groups` of frames; `down`, `across`, the grid; `patches` of a
group, block by block, row-major in each; `tile`, the numbers of a patch of all frames
of a group: (frame, row, column, channel); `windows`, within which a tower may attend;
`slots` of all windows.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int, Int32, UInt8

Grid = tuple[int, int]  # Rows down a frame, and across it.

# Pixels of a frame. Most videos are of 320x240, 480x360, 640x360 to 854x480, or as
# large as the model allows: one area for each; larger areas grow by half, smaller ones
# are halved.
_AREAS = (2**13, 2**14, 2**15, 2**16, 2**17, 2**18, 13 * 2**15, 3 * 2**18)
_GROWTH = 1.5
_ROWS = 16  # A padded frame has a multiple of this many rows.
_ASPECT = 2.4  # Up to this aspect the number of windows follows from that of rows.
_WINDOWS = 32  # Beyond it, the number of windows is a multiple of this.


class Room(NamedTuple):
    """The padded size of a group of frames.

    Attributes:
      rows: Visual rows.
      windows: Windows; 0 if the tower has none.
    """

    rows: int
    windows: int = 0


class Windows(NamedTuple):
    """The parts of a frame within which a tower attends, padded to equal size.

    Attributes:
      patches: The patch at each slot; in a window, padding follows the patches.
      lengths: Patches of each window; 1 for windows that are padding.
      slots: The slot of each patch.
    """

    patches: Int32[Array | np.ndarray, "clips slots"]
    lengths: Int32[Array | np.ndarray, "clips windows"]
    slots: Int32[Array | np.ndarray, "clips patches"]


class Tiles(NamedTuple):
    """The pixels of a batch.

    Attributes:
      values: The values of the patches, followed by zeros.
      grid: Rows down and across each clip's frames.
      windows: The windows; None if the tower has none.
    """

    values: UInt8[Array | np.ndarray, "clips views groups patches tile"]
    grid: Int32[Array | np.ndarray, "clips 2"]
    windows: Windows | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """The way in which a model cuts frames.

    Attributes:
      patch_size: Pixels along a side of a patch.
      merge: Patches along a side of the block that becomes a row.
      group: Frames that the tower sees at once; the last frame is repeated to fill a
        group.
      window: Rows along a side of a window; 0: the tower has none.
      most: Rows of the largest frame after preprocessing.
      limit: Returns the rows of the largest frame for a number of frames.
      least: The smallest grid after preprocessing.
      usual: The grid of a video of 640 x 360.
    """

    patch_size: int
    merge: int
    group: int
    window: int = 0
    most: int
    limit: Callable[[int], int]
    least: Grid
    usual: Grid

    @property
    def block(self) -> int:
        """The patches that become one row."""
        return self.merge**2

    @property
    def side(self) -> int:
        """The pixels along a side of a block."""
        return self.patch_size * self.merge

    def known(self, grid: Grid) -> Grid:
        """Returns a grid; the usual one if it is zeros (`rows.Shown`)."""
        return grid if grid[0] else self.usual

    def groups(self, frames: int) -> int:
        """Returns the number of groups for a number of frames."""
        return -(-frames // self.group)

    def cut(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> UInt8[np.ndarray, "frames down across numbers"]:
        """Cuts frames into blocks; `numbers` are the values of a block's patches."""
        count, height, width, _ = frames.shape
        m, p = self.merge, self.patch_size
        down, across = height // self.side, width // self.side
        cut = frames.reshape(count, down, m, p, across, m, p, 3)
        cut = cut.transpose(0, 1, 4, 2, 5, 3, 6, 7)
        return cut.reshape(count, down, across, -1)

    def room(self, grid: Grid) -> Room:
        """Returns the padded size of a clip's groups.

        Example:
          >>> sizes = {"patch_size": 14, "merge": 2, "group": 2, "least": (11, 12)}
          >>> sizes |= {"most": 768, "limit": lambda frames: 768, "usual": (13, 23)}
          >>> tiling = Tiling(**sizes)
          >>> [tiling.room(grid).rows for grid in ((9, 12), (13, 23), (20, 36))]
          [176, 336, 768]
        """
        needed = grid[0] * grid[1]
        fitting = (rows for rows in self._rooms if rows >= needed)
        rows = next(fitting, 0) or -(-needed // _ROWS) * _ROWS
        if not self.window:
            return Room(rows)
        windows = math.prod(-(-side // self.window) for side in grid)
        room = self._windows_of(rows)
        if windows > room:
            room = -(-windows // _WINDOWS) * _WINDOWS
        return Room(rows, room)

    def largest(self, frames: int) -> Room:
        """Returns the room of the largest frame of clips with this many frames."""
        rows = self.room((1, self.limit(frames))).rows
        return Room(rows, self._windows_of(rows) if self.window else 0)

    def holds(self, room: Room, grid: Grid) -> bool:
        """Returns whether a clip's groups can be padded to this room."""
        needed = self.room(grid)
        return needed.rows <= room.rows and needed.windows <= room.windows

    @functools.cached_property
    def _rooms(self) -> tuple[int, ...]:
        """The numbers of rows that frames are padded to, in ascending order."""
        most = -(-self.most // _ROWS) * _ROWS
        areas: list[int] = list(_AREAS)
        while areas[-1] < most * self.side**2:
            areas.append(round(areas[-1] * _GROWTH))
        rows = (-(-area // (self.side**2 * _ROWS)) * _ROWS for area in areas)
        return tuple(sorted({min(each, most) for each in rows}))

    def _windows_of(self, rows: int) -> int:
        """Returns how many windows hold `rows` rows, up to an aspect of `_ASPECT`."""
        w, around = self.window, rows**0.5 * (_ASPECT**0.5 + _ASPECT**-0.5)
        return math.ceil((rows + (w - 1) * around + (w - 1) ** 2) / w**2)

    def stack(
        self,
        clips: Sequence[UInt8[np.ndarray, "_ _ _ numbers"]],
        orders: Sequence[Sequence[Int[np.ndarray, " _"]]],
        num_frames: int,
        room: Room,
    ) -> Tiles:
        """Returns clips of one room as the arrays that the device reads.

        Args:
          clips: Results of `cut`, with any number of frames and any grid.
          orders: For each clip, the orders of its views (`rows.Order`).
          num_frames: The frames that clips are padded to; only if a group is one frame.
          room: The room of all clips.
        """
        patches, numbers = room.rows * self.block, 3 * self.patch_size**2
        size = len(clips), len(orders[0]), self.groups(num_frames), patches
        values = np.zeros((*size, self.group * numbers), np.uint8)
        for k, cut in enumerate(clips):
            tiles = cut.reshape(len(cut), -1, numbers)
            for view, order in enumerate(orders[k]):
                whole = np.pad(order, (0, -len(order) % self.group), "edge")
                for place in range(self.group):
                    pixels = tiles[whole[place :: self.group]]
                    part = slice(place * numbers, (place + 1) * numbers)
                    values[k, view, : len(pixels), : tiles.shape[1], part] = pixels
        grids = [cut.shape[1:3] for cut in clips]
        windows = None
        if self.window:
            each = (self._windowed(grid, room) for grid in grids)
            windows = Windows(*map(np.stack, zip(*each, strict=True)))
        return Tiles(values, np.array(grids, np.int32), windows)

    def _windowed(self, grid: Grid, room: Room) -> tuple[np.ndarray, ...]:
        """Returns the arrays of `Windows` for one clip."""
        (down, across), side, block = grid, self.window, self.block
        places = np.arange(down * across).reshape(down, across)
        patches = np.zeros((room.windows, side**2, block), np.int32)
        lengths = np.ones(room.windows, np.int32)
        slots = np.zeros((room.rows, block), np.int32)
        window = 0
        for top in range(0, down, side):
            for left in range(0, across, side):
                rows = places[top : top + side, left : left + side].ravel()
                count = len(rows)
                patches[window, :count] = rows[:, None] * block + np.arange(block)
                lengths[window] = count * block
                first = window * side**2 * block
                slots[rows] = first + np.arange(count * block).reshape(count, block)
                window += 1
        return patches.ravel(), lengths, slots.ravel()
