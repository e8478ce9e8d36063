"""A profile: which scores there are, by which name, with which sign and arithmetic."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vidsme_jax.base import SLICES, AuditError, ScoredText, TokenSignals
from vidsme_jax.names import CALIBRATED, is_calibrated, uncalibrated
from vidsme_jax.scores import statistics
from vidsme_jax.scores.statistics import ClipView, Deformation, Statistic
from vidsme_jax.wording import nearest


class Revealed(NamedTuple):
    """What a model reveals of one clip and of one text about it.

    Attributes:
      signals: Of the video's rows, (2, rows, ...) each; None if there are none.
      text: With its signals; None if there is none.
    """

    signals: TokenSignals | None = None
    text: ScoredText | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """The statistic of a score, and the rows that it averages.

    Attributes:
      family: Its name without K.
      statistic: One of `scores.statistics`.
      tail: "max" or "min": the largest or smallest rows; "mean": all of them.
      ratio: K, the share of the rows that is averaged, at least one; not for "mean".
      description: One line.
      slice: One of `base.SLICES`, whose rows they are.
    """

    family: str
    statistic: Statistic
    tail: str
    ratio: float
    description: str
    slice: str = "video"

    @property
    def compares(self) -> bool:
        """Whether it compares the model with the reference row by row."""
        return self.statistic in statistics.COMPARING


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """One way to compute, name and orient scores.

    Attributes:
      name: Of the configuration key `profile`.
      table: The scores by name, in the order of the columns on disk. But for those that
        compare two models, each has a form of which the reference model's value is
        taken away, whose name ends in `CALIBRATED`.
      sign: 1 where a smaller score means "more likely a member", as in all statistics
        of rows; -1 where a larger one does.
      deform: Of a Renyi entropy into the Sharma-Mittal entropy.
      aliases: Further names that a headline may have.
    """

    name: str
    table: Mapping[str, Score]
    sign: float
    deform: Deformation
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    @property
    def larger_is_member(self) -> bool:
        """Whether a larger score means "more likely a member"."""
        return self.sign < 0

    def names(
        self, slices: Iterable[str] = SLICES, reference: bool = False
    ) -> tuple[str, ...]:
        """Returns the names of the scores of some slices, in the order of the columns.

        Args:
          slices: Of `base.SLICES`.
          reference: Whether there is a reference model: then the scores that compare
            the two, and the calibrated forms.
        """
        chosen = [name for name, s in self.table.items() if s.slice in set(slices)]
        plain = [name for name in chosen if not self.table[name].compares]
        if not reference:
            return tuple(plain)
        return (*chosen, *(name + CALIBRATED for name in plain))

    def score(self, name: str) -> Score:
        """Returns the score of a name, of a calibrated one the score that it is of.

        Raises:
          AuditError: There is none; with the nearest known name.
        """
        table, plain = self.table, uncalibrated(name)
        if plain not in table or (plain != name and table[plain].compares):
            hint = nearest(name, self.names(SLICES, name.endswith(CALIBRATED)))
            said = f"unknown score {name!r} in profile {self.name}{hint}"
            raise AuditError([said])
        return table[plain]

    def statistics_of(self, names: Iterable[str], video: bool) -> set[Statistic]:
        """Returns what the named scores average, of the video's or of text rows."""
        found = map(self.score, names)
        return {s.statistic for s in found if (s.slice == "video") == video}

    def compute(
        self,
        signals: TokenSignals | None,
        q: float,
        r: float,
        names: Iterable[str],
        *,
        text: ScoredText | None = None,
        reference: Revealed | None = None,
    ) -> dict[str, float]:
        """Returns the named scores of one clip; see `scores.compute`.

        NaN where the rows of a score, or the reference model's, are not there.
        """
        names = tuple(names)
        plain = list(dict.fromkeys(map(uncalibrated, names)))
        own = self._values(Revealed(signals, text), reference, q, r, plain)
        calibrated = [uncalibrated(name) for name in names if is_calibrated(name)]
        others = self._values(reference or Revealed(), None, q, r, calibrated)
        return {
            name: own[name]
            if name in own
            else own[uncalibrated(name)] - others[uncalibrated(name)]
            for name in names
        }

    def _values(
        self,
        revealed: Revealed,
        reference: Revealed | None,
        q: float,
        r: float,
        names: Iterable[str],
    ) -> dict[str, float]:
        views: dict[str, ClipView | None] = {}
        ordered: dict[tuple[str, Statistic], np.ndarray] = {}
        out: dict[str, float] = {}
        for name in names:
            score = self.score(name)
            where = score.slice
            if where not in views:
                views[where] = self._view(where, revealed, reference, q, r)
            if (view := views[where]) is None:
                out[name] = np.nan
                continue
            key = where, score.statistic
            if key not in ordered:
                rows = np.asarray(score.statistic(view), np.float64)
                ordered[key] = np.sort(rows)
            mean = tail_mean(ordered[key], score.tail, score.ratio)
            out[name] = self.sign * float(mean)
        return out

    def _view(
        self, where: str, revealed: Revealed, other: Revealed | None, q: float, r: float
    ) -> ClipView | None:
        """Returns the rows of one slice; None if there are none."""
        if where == "video":
            signals = revealed.signals
            return signals and ClipView(signals, q, r, self.deform)
        text, number = revealed.text, SLICES.index(where)
        if text is None or not (rows := text.slice == number).any():
            return None
        mean = [number - 1]  # The means are over the instruction and over the response.
        return ClipView(
            text.signals.map(
                lambda name, x: x[:, mean if name == "mean_renyi" else rows]
            ),
            q,
            r,
            self.deform,
            answer=text.asked.answer,
            tokens=tuple(text.tokens[rows].tolist()),
            blank=None if text.blank is None else text.blank[rows],
            reference=other and self._view(where, other, None, q, r),
        )

    def sharma_mittal(
        self, signals: TokenSignals, q: Any, r: Any
    ) -> Float[np.ndarray, "*points 2 rows"]:
        """Returns the entropies of all rows; see `statistics.sharma_mittal`."""
        return statistics.sharma_mittal(signals, q, r, self.deform)


def tail_mean(
    ordered: Float[np.ndarray, "*series rows"], tail: str, ratio: float
) -> Float[np.ndarray, "*series"] | np.floating:
    """Averages one end of ascending rows: max(1, int(n * ratio)) of them."""
    if tail != "mean":
        k = max(1, int(ordered.shape[-1] * ratio))
        ordered = ordered[..., :k] if tail == "min" else ordered[..., -k:]
    # `mean` of so few numbers spends its time on checks; the value is the same.
    return np.add.reduce(ordered, -1) / ordered.shape[-1]
