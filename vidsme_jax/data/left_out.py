"""Rows and files of a source that an audit does not take, and why."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What a source holds and a role, or the corpus, does not take.

    Attributes:
      source: As configured; "" for all of the role.
      role: That does not take it; "" for any.
      count: How many.
      what: Of what, "rows" or "files".
      why: The reason.
    """

    source: str
    role: str
    count: int
    what: str
    why: str

    def __str__(self) -> str:
        """Returns it in a line.

        Example:
          >>> str(LeftOut(source="a", role="members", count=3, what="rows", why="old"))
          'corpus.members: 3 rows of a left out: old'
        """
        to = f"corpus.{self.role}: " if self.role else ""
        of = f" of {self.source}" if self.source else ""
        return f"{to}{self.count} {self.what}{of} left out: {self.why}"
