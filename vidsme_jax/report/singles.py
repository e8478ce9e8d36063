"""What an audit says of one suspect, with what it can and cannot say."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import markupsafe
import numpy as np

from vidsme_jax.base import AuditError, ScoreTable
from vidsme_jax.evaluation.suspects import ASSUMPTION, CALLED
from vidsme_jax.evaluation.verdicts import p_is
from vidsme_jax.wording import counted, nearest, printable

_NAME = 100  # Characters.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suspect:
    """A suspect among calibration clips, each source of which counts once.

    Attributes:
      video: As the manifest names it.
      ids: Of its rows.
      headline: The score.
      score: Its value, in the sign of the table; None if it has none.
      p: The conformal p-value; None where nothing is tested, which `statement`
        explains.
      adjusted_p: By Benjamini and Hochberg over all suspects of the audit; likewise.
      listed: Whether it is listed at the false discovery rate `fdr`; likewise.
      fdr: That rate.
      suspects: How many were tested together.
      sources: Of calibration clips.
      smallest_p: That so many sources allow, 1 / (sources + 1).
      statement: What this says, and what it does not.
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
    """Returns what an audit says of one suspect.

    Args:
      found: The content of `metrics.json`.
      table: The scores.
      name: Of its video, or the id of one of its rows.

    Raises:
      AuditError: There is no such suspect.
    """
    its = found["suspects"]
    chosen = [row for row in its["rows"] if name == row["video"] or name in row["ids"]]
    if not chosen:
        raise AuditError([_unknown(its["rows"], table, name)])
    (row, *_), many = chosen, its["calibration"]
    sources = many["sources"]
    about = Suspect(
        video=row["video"],
        ids=tuple(row["ids"]),
        headline=its["score"],
        score=row["score"],
        p=row["p_value"],
        adjusted_p=row["adjusted_p_value"],
        listed=row["listed"],
        fdr=its["fdr"],
        suspects=sum(each["score"] is not None for each in its["rows"]),
        sources=sources,
        smallest_p=1 / (sources + 1),
        statement="",
    )
    said = _statement(about, its["statement"], CALLED[many["role"]])
    declared = found["declaration"]
    if declared and declared["exploratory"]:
        said = f"Changed after the results: exploratory. {said}"
    return dataclasses.replace(about, statement=said)


def _statement(about: Suspect, of_all: str, called: str) -> str:
    name = printable(about.video, _NAME)
    if about.score is None:
        return f"{name} has no {about.headline}, so that it has no result."
    value = f"{name} has {about.headline} {about.score:.4g}"
    if about.p is None or about.adjusted_p is None:
        return (
            f"{value}; it has no p-value: {of_all} The score alone says nothing of "
            "whether it was in the training data."
        )
    listed = "is listed" if about.listed else "is not listed"
    return (
        f"{value}: {p_is(about.p)}, against {called} from "
        f"{counted(about.sources, 'source')}, of which none can give less than "
        f"{about.smallest_p:.2g}. Among {counted(about.suspects, 'suspect')} that were "
        f"tested together it {listed} at a false discovery rate of {about.fdr:g} "
        f"(adjusted {p_is(about.adjusted_p)}); the first p counts only for a video "
        f"that was named before any score was seen. "
        f"{ASSUMPTION.format(calibration=called)}"
    )


def _unknown(rows: list[dict[str, Any]], table: ScoreTable, name: str) -> str:
    """Says what a name is that is no suspect's."""
    shown = printable(repr(name), _NAME)
    at = np.flatnonzero((table.id == name) | (table.video == name))
    if len(at):
        role = table.role[at[0]]
        return (
            f"{shown} is in the role {role}, no suspect: a p-value is of a video whose "
            "membership is unknown; give it to corpus.suspects"
        )
    known = [each for row in rows for each in (row["video"], *row["ids"])]
    if not known:
        return f"{shown} is no suspect: this audit has none; give corpus.suspects"
    return f"{shown} is no suspect of this audit{nearest(str(name), known)}"
