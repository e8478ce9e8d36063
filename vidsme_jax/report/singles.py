"""The result of an audit for one suspect, and what it does not show."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import markupsafe
import numpy as np

from vidsme_jax.base import AuditError, ScoreTable
from vidsme_jax.evaluation.suspects import ASSUMPTION, CALLED
from vidsme_jax.evaluation.verdicts import p_is
from vidsme_jax.wording import counted, nearest, printable

_MAX_NAME = 100  # Characters.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suspect:
    """A suspect, ranked among calibration clips, each source of which counts once.

    Attributes:
      video: Its name in the manifest.
      ids: The ids of its rows.
      headline: The name of the score.
      score: Its value, with the sign of the table; None if it has none.
      p: The conformal p-value; None if nothing was tested, which `statement` explains.
      adjusted_p: By Benjamini and Hochberg over all suspects of the audit; or None.
      listed: Whether it is listed at the false discovery rate `fdr`; or None.
      fdr: The false discovery rate.
      suspects: How many were tested together.
      sources: The number of sources of calibration clips.
      smallest_p: The smallest p that they allow, 1 / (sources + 1).
      statement: What this shows, and what it does not.
    """

    video: str
    ids: tuple[str, ...]
    headline: str
    score: float | None
    p: float | None
    adjusted_p: float | None
    listed: bool | None
    fdr: float
    suspects: int
    sources: int
    smallest_p: float
    statement: str

    def __str__(self) -> str:
        """Returns the statement."""
        return self.statement

    def _repr_html_(self) -> str:
        """Returns the statement, for a notebook."""
        return f"<p>{markupsafe.escape(printable(self.statement))}</p>"


def suspect(found: Mapping[str, Any], table: ScoreTable, name: str) -> Suspect:
    """Returns the result of an audit for one suspect.

    Args:
      found: The content of `metrics.json`.
      table: The scores.
      name: The name of its video, or the id of one of its rows.

    Raises:
      AuditError: There is no such suspect; names its role, or the nearest name.
    """
    tested = found["suspects"]
    rows = tested["rows"]
    row = next((x for x in rows if name == x["video"] or name in x["ids"]), None)
    if row is None:
        raise AuditError([_unknown(rows, table, name)])
    calibration = tested["calibration"]
    sources = calibration["sources"]
    about = Suspect(
        video=row["video"],
        ids=tuple(row["ids"]),
        headline=tested["score"],
        score=row["score"],
        p=row["p_value"],
        adjusted_p=row["adjusted_p_value"],
        listed=row["listed"],
        fdr=tested["fdr"],
        suspects=sum(each["score"] is not None for each in rows),
        sources=sources,
        smallest_p=1 / (sources + 1),
        statement="",
    )
    statement = _statement(about, tested["statement"], CALLED[calibration["role"]])
    declared = found["declaration"]
    if declared and declared["exploratory"]:
        statement = f"Changed after the results: exploratory. {statement}"
    return dataclasses.replace(about, statement=statement)


def _statement(about: Suspect, of_all: str, called: str) -> str:
    name = printable(about.video, _MAX_NAME)
    if about.score is None:
        return f"{name} has no {about.headline}, so it has no result."
    value = f"{name} has {about.headline} {about.score:.4g}"
    if about.p is None or about.adjusted_p is None:
        return (
            f"{value}; it has no p-value: {of_all} The score alone does not show "
            "whether it was in the training data."
        )
    listed = "is listed" if about.listed else "is not listed"
    return (
        f"{value}: {p_is(about.p)}, compared with {called} from "
        f"{counted(about.sources, 'source')} (the smallest possible p is "
        f"{about.smallest_p:.2g}). Among {counted(about.suspects, 'suspect')} tested "
        f"together it {listed} at a false discovery rate of {about.fdr:g} "
        f"(adjusted {p_is(about.adjusted_p)}); the first p counts only for a video "
        f"that was named before any score was seen. "
        f"{ASSUMPTION.format(calibration=called)}"
    )


def _unknown(rows: list[dict[str, Any]], table: ScoreTable, name: str) -> str:
    """Returns the problem of a name that is not a suspect's."""
    shown = printable(repr(name), _MAX_NAME)
    at = np.flatnonzero((table.id == name) | (table.video == name))
    if len(at):
        role = table.role[at[0]]
        return (
            f"{shown} has the role {role} and is no suspect: only videos of "
            "config.corpus.suspects have p-values; move it there"
        )
    known = [each for row in rows for each in (row["video"], *row["ids"])]
    if not known:
        return f"{shown} is no suspect: this audit has none; set config.corpus.suspects"
    return f"{shown} is no suspect of this audit{nearest(str(name), known)}"
