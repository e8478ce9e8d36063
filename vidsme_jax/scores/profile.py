"""A profile: which scores there are, by which name, with which sign and arithmetic."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vidsme_jax.base import TokenSignals
from vidsme_jax.scores import statistics
from vidsme_jax.scores.statistics import ClipView, Deformation, Rows


@dataclasses.dataclass(frozen=True)
class Score:
    """Which rows of which statistic are averaged.

    Attributes:
      family: Its name without K.
      statistic: One of `scores.statistics`.
      tail: "max" or "min": the largest or smallest rows; "mean": all of them.
      ratio: K, the share of the rows that is averaged, at least one; not for "mean".
      description: One line.
    """

    family: str
    statistic: Callable[[ClipView], Rows]
    tail: str
    ratio: float
    description: str
    slice: str = "video"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """One way to compute, name and orient scores.

    Attributes:
      name: Of the configuration key `profile`.
      table: The scores by name, in the order of the columns on disk.
      sign: 1 where a smaller score means "more likely a member", as in all statistics
        of rows; -1 where a larger one does.
      deform: Of a Renyi entropy into the Sharma-Mittal entropy.
      aliases: Further names that a headline may have.
    """

    name: str
    table: Mapping[str, Score]
    sign: float
    deform: Deformation
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def larger_is_member(self) -> bool:
        """Whether a larger score means "more likely a member"."""
        return self.sign < 0

    def score(self, name):
        """Stand-in."""
        return self.table[name]

    def needs_second_pass(self, names: Iterable[str]) -> bool:
        """Returns whether a score needs what the head's second pass computes."""
        wanted = {self.table[name].statistic for name in names}
        return bool(wanted & statistics.SECOND_PASS)

    def compute(
        self, signals: TokenSignals, q: float, r: float, names: Iterable[str]
    ) -> dict[str, float]:
        """Returns the named scores of one clip; see `scores.compute`."""
        clip = ClipView(signals, q, r, self.deform)
        ordered: dict[Any, Rows] = {}
        out = {}
        for name in names:
            score = self.table[name]
            if score.statistic not in ordered:
                rows = score.statistic(clip).astype(np.float64)
                ordered[score.statistic] = np.sort(rows)
            mean = tail_mean(ordered[score.statistic], score.tail, score.ratio)
            out[name] = self.sign * float(mean)
        return out

    def sharma_mittal(
        self, signals: TokenSignals, q: Any, r: Any
    ) -> Float[np.ndarray, "*points 2 rows"]:
        """Returns the entropies of all rows; see `statistics.sharma_mittal`."""
        return statistics.sharma_mittal(signals, q, r, self.deform)


def tail_mean(
    ordered: Float[np.ndarray, "*series rows"], tail: str, ratio: float
) -> Float[np.ndarray, "*series"] | np.floating:
    """Averages one end of ascending rows: max(1, int(n * ratio)) of them."""
    if tail == "mean":
        return ordered.mean(-1)
    k = max(1, int(ordered.shape[-1] * ratio))
    return (ordered[..., :k] if tail == "min" else ordered[..., -k:]).mean(-1)
