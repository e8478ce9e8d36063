"""Who writes parts, where several processes or shares fill one folder."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from vidsme_jax.store.mirrors import Mirror

NAME = re.compile(
    r"part-([0-9]{6}|[1-9][0-9]{6,17})(?:-([1-9][0-9]{0,5}-of-[1-9][0-9]{0,5}))?\.parquet"
)  # Of a part: its number, and the share that it is of.
_NUMBERS = 10**17  # Above are some that have none after them.


class Writer(NamedTuple):
    """Who writes parts, where others may write to the same folder at the same time.

    Attributes:
      process: The place of this process among those that work on one share together;
        all of them open the folder before one of them writes.
      processes: How many they are.
      share: "" or "I-of-N", which the names of its parts have; other shares may write
        at any time.
      mirror: Of the folder that holds the folders of parts, if it mirrors one in
        an object store: every part is put there too, and those of others are read.
    """

    process: int = 0
    processes: int = 1
    share: str = ""
    mirror: Mirror | None = None

    def name(self, number: int) -> str:
        """Returns the name of a part."""
        return f"part-{number:06}{f'-{self.share}' if self.share else ''}.parquet"

    def wrote(self, name: str) -> bool:
        """Returns whether a file is a part of this writer's share, by its name."""
        match = NAME.fullmatch(name)
        return match is not None and (match[2] or "") == self.share

    def numbers(self, names: Iterable[str]) -> list[int]:
        """Returns the numbers of the parts of this writer's share, by their names.

        One so large that few come after it is somebody else's, and is left out.
        """
        matches = filter(None, map(NAME.fullmatch, filter(self.wrote, names)))
        return [int(each[1]) for each in matches if int(each[1]) < _NUMBERS]


ALONE = Writer()
