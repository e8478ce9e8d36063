"""Cards of single clips: what they are, their scores, and their place among others.

A place is a count: of the known non-members that are less member-like. It is not a
p-value, since the extreme clips were chosen by it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import Int

from vidsme_jax.base import ScoreTable
from vidsme_jax.evaluation import metrics
from vidsme_jax.evaluation.validity import CALLED
from vidsme_jax.report import plots, representatives
from vidsme_jax.report.plots import ClipCurve
from vidsme_jax.wording import counted, printable

_MAX_SCORES = 8  # Of a card.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 80]


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of a clip among other clips by one score.

    Attributes:
      score: The name of the score.
      value: Its value, with the sign of the table; None if the clip has none.
      below: How many of the others are less member-like.
      others: How many others have the score.
    """

    score: str
    value: float | None
    below: int
    others: int

    @property
    def share(self) -> float:
        """Returns the share of the others that are less member-like, from 0 to 1."""
        return self.below / self.others if self.others else 0.0


@dataclasses.dataclass(frozen=True)
class Card:
    """What a page shows of one clip, apart from its figure.

    Attributes:
      curve: The clip, with its entropies.
      video: The name in the manifest; "" if the row is not in the table.
      role: In words.
      group: "" for none.
      compared_with: The clips that it is ranked among, such as "calibration clips".
      places: The headline first, then the further score and those of other families.
      frames: Pairs of a number in the file and a JPEG.
      tested: The p-values of a suspect, in words; "" for other clips.
    """

    curve: ClipCurve
    video: str
    role: str
    group: str
    compared_with: str
    places: list[Place]
    frames: list[tuple[int, bytes]]
    tested: str

    def statement(self) -> str:
        """Returns the place by the headline score as a sentence."""
        if not self.places or self.places[0].value is None:
            return "It has no headline score."
        first = self.places[0]
        if not first.others:
            return "There are no clips known not to be members to place it among."
        return (
            f"More member-like by {first.score} than {first.below} of "
            f"{first.others} {self.compared_with}."
        )


def of_curves(
    curves: Sequence[ClipCurve],
    table: ScoreTable,
    headline: str,
    beside: str,
    suspects: dict[str, Any],
) -> list[Card]:
    """Returns the cards of clips, in their order; see `figures.draw`."""
    calibrated = (table.role == "calibration").any()
    role = "calibration" if calibrated else "nonmembers"
    declared = [headline, *([beside] if beside else [])]
    every = representatives.of_scores(table.scores, table.larger_is_member, declared)
    names = [each.score for each in every][:_MAX_SCORES]
    known = np.flatnonzero(table.role == role)
    tested = {name: suspect for suspect in suspects["rows"] for name in suspect["ids"]}
    found: list[Card] = []
    for curve in curves:
        rows = np.flatnonzero(table.id == curve.id).tolist()
        row = rows[0] if rows else None
        others, compared_with = known, CALLED[role]
        if row is not None and table.role[row] == role:
            others = known[table.cluster[known] != table.cluster[row]]
            compared_with = f"other {compared_with}"
        found.append(
            Card(
                curve=curve,
                video="" if row is None else str(table.video[row]),
                role=plots.NAMES[curve.role].removesuffix("s"),
                group="" if row is None else str(table.group[row]),
                compared_with=compared_with,
                places=[]
                if row is None
                else [_place(table, name, row, others) for name in names],
                frames=_frames(curve),
                tested=_tested(tested.get(curve.id)),
            )
        )
    return found


def _place(
    table: ScoreTable, name: str, row: int, others: Int[np.ndarray, " others"]
) -> Place:
    values = metrics.oriented(table, name)
    score, known = float(values[row]), values[others]
    known = known[np.isfinite(known)]
    if not np.isfinite(score):
        return Place(name, None, 0, len(known))
    value = float(table.scores[name][row])
    return Place(name, value, int((known < score).sum()), len(known))


def _frames(curve: ClipCurve) -> list[tuple[int, bytes]]:
    """Returns the thumbnails as JPEG; none if they cannot be encoded."""
    if curve.thumbnails is None:
        return []
    shown = [curve.frame_indices[k] for k in plots.pictured(len(curve.frame_indices))]
    found: list[tuple[int, bytes]] = []
    for number, picture in zip(shown, curve.thumbnails, strict=False):
        bgr = np.ascontiguousarray(picture[..., ::-1])
        try:
            content = cv2.imencode(".jpg", bgr, _JPEG)[1].tobytes()
        except cv2.error as error:
            name = printable(curve.id, 100)
            logging.warning("%s: its frames are not shown: %s", name, error)
            return []
        found.append((int(number), content))
    return found


def _tested(row: dict[str, Any] | None) -> str:
    """Returns the test results of a suspect's video, in words."""
    if row is None:
        return ""
    if row["p_value"] is None:
        return "Ranked, but not tested."
    listed = "listed" if row["listed"] else "not listed"
    rows = (
        f" (mean of {counted(len(row['ids']), 'row')})" if len(row["ids"]) > 1 else ""
    )
    return (
        f"Its video{rows}: p = {row['p_value']:.3g}, adjusted "
        f"{row['adjusted_p_value']:.3g}: {listed}."
    )
