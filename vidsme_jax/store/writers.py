"""Who writes parts, where several processes or shares fill one folder."""

from typing import NamedTuple

from vidsme_jax.store.mirrors import Mirror


class Writer(NamedTuple):
    """Who writes parts, where others may write to the same folder at the same time.

    Attributes:
      process: The place of this process among those that work on one share together;
        all of them open the folder before one of them writes.
      processes: How many they are.
      share: "" or "I-of-N", which the names of its parts have; other shares may write
        at any time.
      mirror: Of the folder that holds the folders of parts, where it stands for one in
        an object store: every part is put there too, and those of others are read.
    """

    process: int = 0
    processes: int = 1
    share: str = ""
    mirror: Mirror | None = None

    def name(self, number: int) -> str:
        """Returns the name of a part."""
        return f"part-{number:06}{f'-{self.share}' if self.share else ''}.parquet"


ALONE = Writer()
