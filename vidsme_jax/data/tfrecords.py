"""Random access to TFRecord files, without TensorFlow.

TFRecord is TFDS's default format, and its own reader needs TensorFlow. A record is its
length (8 bytes, little-endian), a checksum of that (4), the data, and their checksum
(4). The checksums are not verified; a file whose records do not end at its end, or
whose count is wrong, is refused.
"""

import bisect
import itertools
import pathlib
import struct
from collections.abc import Sequence

_HEAD, _SUM = struct.Struct("<QI"), 4


class TFRecords:
    """The concatenated records of several files; thread-safe.

    A file is indexed when its first record is read.
    """

    def __init__(self, files: Sequence[pathlib.Path], lengths: Sequence[int]):
        """Takes the files, and the expected number of records of each."""
        self._files, self._lengths = files, lengths
        self._ends = list(itertools.accumulate(lengths))
        self._places: dict[int, list[int]] = {}  # Offsets of records, by file.

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """Reads one record.

        Raises:
          IndexError: There is no such record.
          ValueError: Its file is damaged.
          OSError: Its file cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no record {index}; there are {len(self)}")
        which = bisect.bisect_right(self._ends, index)
        if which not in self._places:
            self._places[which] = self._found(which)
        place = self._places[which][index - self._ends[which]]  # From the end.
        with self._files[which].open("rb") as file:
            file.seek(place)
            length, _ = _HEAD.unpack(file.read(_HEAD.size))
            return file.read(length)

    def _found(self, which: int) -> list[int]:
        """Returns the offsets of the records of a file, in bytes."""
        path, places = self._files[which], []
        size, place = path.stat().st_size, 0
        with path.open("rb") as file:
            while place < size and len(places) <= self._lengths[which]:
                places.append(place)
                file.seek(place)
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    break
                place += _HEAD.size + _HEAD.unpack(head)[0] + _SUM
        if place != size or len(places) != self._lengths[which]:
            raise ValueError(
                f"{path.name} is damaged: {self._lengths[which]} records should fill "
                f"its {size} bytes"
            )
        return places
