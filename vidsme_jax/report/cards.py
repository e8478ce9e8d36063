"""Cards of single clips: who they are, their scores, and their place among others.

A place is a count: more member-like than so many of the known non-members. It is no
p-value, for the extreme clips were chosen by their place.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from absl import logging

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import metrics
from vidsme_jax.evaluation.validity import CALLED
from vidsme_jax.report import plots, representatives
from vidsme_jax.report.plots import ClipCurve
from vidsme_jax.wording import counted

_SCORES = 8  # Of a card.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 80]


@dataclasses.dataclass(frozen=True)
class Place:
    """Of one score of a clip.

    Attributes:
      score: Its name.
      value: With the table's sign; None where the clip has none.
      below: How many of the others are less member-like.
      others: How many there are.
    """

    score: str
    value: float | None
    below: int
    others: int

    @property
    def share(self) -> float:
        """Returns the place from 0, less than all others, to 1."""
        return self.below / self.others if self.others else 0.0


@dataclasses.dataclass(frozen=True)
class Card:
    """What a page shows of one clip with its figure.

    Attributes:
      curve: The clip, with its entropies.
      video: As the manifest names it; "" if the row is not in the table.
      role: In words.
      group: "" for none.
      against: What its place is among, such as "calibration clips".
      places: The headline first, then the further score and those of other families.
      frames: Number in the file, and JPEG.
      tested: The suspect's p-values, in words; "" of other clips.
    """

    curve: ClipCurve
    video: str
    role: str
    group: str
    against: str
    places: list[Place]
    frames: list[tuple[int, bytes]]
    tested: str

    def statement(self) -> str:
        """Says the headline's place in a sentence."""
        if not self.places or self.places[0].value is None:
            return "It has no headline score."
        first = self.places[0]
        if not first.others:
            return "There are no clips known not to be members to place it among."
        return (
            f"More member-like by {first.score} than {first.below} of "
            f"{first.others} {self.against}."
        )


def of_curves(
    curves: Sequence[ClipCurve],
    table: ScoreTable,
    headline: str,
    beside: str,
    suspects: dict[str, Any],
) -> list[Card]:
    """Returns the cards of some clips, in their order."""
    calibrated = (table.role == "calibration").any()
    role = "calibration" if calibrated else "nonmembers"
    declared = [headline, *([beside] if beside else [])]
    every = representatives.of_scores(table.scores, table.larger_is_member, declared)
    names = [each.score for each in every][:_SCORES]
    known = np.flatnonzero(table.role == role)
    tested = {row: its for its in suspects["rows"] for row in its["ids"]}
    found = []
    for curve in curves:
        at = np.flatnonzero(table.id == curve.id).tolist()
        row = at[0] if at else None
        others, against = known, CALLED[role]
        if row is not None and table.role[row] == role:
            others = known[table.cluster[known] != table.cluster[row]]
            against = f"other {against}"
        found.append(
            Card(
                curve=curve,
                video="" if row is None else str(table.video[row]),
                role=plots.NAMES.get(curve.role, curve.role).removesuffix("s"),
                group="" if row is None else str(table.group[row]),
                against=against,
                places=[]
                if row is None
                else [_place(table, name, row, others) for name in names],
                frames=_frames(curve),
                tested=_tested(tested.get(curve.id)),
            )
        )
    return found


def _place(table: ScoreTable, name: str, row: int, others: np.ndarray) -> Place:
    values = metrics.oriented(table, name)
    own, known = float(values[row]), values[others]
    known = known[np.isfinite(known)]
    if not np.isfinite(own):
        return Place(name, None, 0, len(known))
    value = float(table.scores[name][row])
    return Place(name, value, int((known < own).sum()), len(known))


def _frames(curve: ClipCurve) -> list[tuple[int, bytes]]:
    """Returns small pictures as JPEG; none where they cannot be made."""
    if curve.thumbnails is None:
        return []
    shown = [curve.frame_indices[k] for k in plots.pictured(len(curve.frame_indices))]
    found = []
    for number, picture in zip(shown, curve.thumbnails, strict=False):
        bgr = np.ascontiguousarray(picture[..., ::-1])
        try:
            content = cv2.imencode(".jpg", bgr, _JPEG)[1].tobytes()
        except cv2.error as error:
            logging.warning("a frame of a clip is not shown: %s", error)
            return []
        found.append((int(number), content))
    return found


def _tested(row: dict[str, Any] | None) -> str:
    """Says in words what the tests of a suspect's video gave."""
    if row is None:
        return ""
    if row["p_value"] is None:
        return "Ranked, and not tested."
    listed = "listed" if row["listed"] else "not listed"
    rows = (
        f" (mean of {counted(len(row['ids']), 'row')})" if len(row["ids"]) > 1 else ""
    )
    return (
        f"Its video{rows}: p = {row['p_value']:.3g}, adjusted "
        f"{row['adjusted_p_value']:.3g}: {listed}."
    )
