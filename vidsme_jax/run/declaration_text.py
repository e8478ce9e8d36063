"""States a declaration in words: when, what, and what was changed since."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vidsme_jax.settings.rules import is_number
from vidsme_jax.wording import printable

FILE = "declaration.json"
CHANGED = "Changed after the results: exploratory."
ELSEWHERE = "The declaration is of another corpus: its file may come from elsewhere."
_UNKNOWABLE = (
    "Whether results on these videos were seen before by other means, this program "
    "cannot know."
)
_LONGEST = 100  # Characters of a value in a sentence.
_NAMES = 5  # Scores that a sentence names.
_SENTENCE = 1000  # Characters of a verdict.


class Change(NamedTuple):
    """What is asked now and was declared otherwise.

    Attributes:
      what: The name of what was declared; "rows" of those that the first verdict was
        of, "declaration" where its own is missing.
      declared: Its value, JSON-ready; of a corpus the rows of each role, of "rows"
        those that the first verdict was of, in roles that lost some.
      now: The value now; of "rows", how many of these are left.
    """

    what: str
    declared: Any
    now: Any

    def __str__(self) -> str:
        """Returns it in a few words.

        Example:
          >>> str(Change("headline", "vid_sme", "perplexity"))
          'headline was vid_sme, now perplexity'
        """
        if self.what == "rows":
            return "; ".join(
                f"the first verdict was of {_count(count, role)}, now of "
                f"{self.now[role]} of these"
                for role, count in self.declared.items()
            )
        if self.what == "declaration":
            return (
                f"the {FILE} that the first verdict was reached under is missing: it "
                "was removed or replaced after that verdict"
            )
        if self.what == "scores":
            gone = _names([x for x in self.declared if x not in set(self.now)])
            return f"declared scores are left out now ({gone})"
        now = _value(self.now)
        if self.declared == self.now:
            now = "of as many, not the same or with other texts"
        return f"{self.what} was {_value(self.declared)}, now {now}"


@dataclasses.dataclass(frozen=True)
class Declared:
    """The declaration of a result.

    Attributes:
      record: The content of `declaration.json`.
      changes: What differs from it, or from the first verdict.
      first: The first verdict in the work directory, the content of `verdict.json`;
        None before there is one.
      rows: The rows of the result, as `result_rows.rows` returns them.
      notes: Sentences on what a reader should know but is no change.
    """

    record: dict[str, Any]
    changes: tuple[Change, ...] = ()
    first: dict[str, Any] | None = None
    rows: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict[str, Any]
    )
    notes: tuple[str, ...] = ()

    @property
    def sealed(self) -> bool:
        """Whether it was written before there was any signal."""
        return not self.record["after_signals"]

    @property
    def mark(self) -> str:
        """The beginning of a verdict: "", or that it is exploratory."""
        return f"{CHANGED} " if self.changes else ""

    def role_of(self, score: str, role: str) -> str:
        """Returns the role of a further score: declared, or exploratory.

        Args:
          score: The name of the score.
          role: Its role, such as "control".
        """
        if self.is_exploratory(score):
            return f"As {role}, exploratory"
        return (
            f"As {role}, not chosen after the results" if self.sealed else f"As {role}"
        )

    def is_exploratory(self, score: str) -> bool:
        """Returns whether the question of a score was changed after results."""
        said = [self.record, *([self.first] if self.first else [])]
        added = any(score not in each["declared"]["scores"] for each in said)
        return bool(self.changes) or added

    def facts(self) -> dict[str, Any]:
        """Returns what `metrics.json` says of it."""
        return {
            "sealed": self.sealed,
            "exploratory": bool(self.changes),
            "statement": statement(self.record, self.changes, self.first, self.notes),
            "changes": [change._asdict() for change in self.changes],
            "notes": list(self.notes),
            "first": self.first and self.first | {"rows": _counts(self.first["rows"])},
            **{key: self.record[key] for key in ("time", "digest", "declared")},
        }


def statement(
    record: dict[str, Any],
    changes: tuple[Change, ...] = (),
    first: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Says what was declared and when, what was changed since, and the first verdict.

    Args:
      record: The content of `declaration.json`.
      changes: What is asked otherwise.
      first: The first verdict; given where something was changed.
      notes: What else there is to know; sentences.
    """
    said = record["declared"]
    what = (
        f"headline {_value(said['headline'])}, comparison "
        f"{_value(said['comparison'])}, level {_value(said['alpha'])}, smallest AUC of "
        f"interest {_auc(said['smallest_auc'])}"
    )
    when = _when(record["time"])
    file = f"({FILE}, SHA-256 {record['digest'][:16]}...)"
    if record["after_signals"]:
        base = (
            f"Nothing was declared before the results: {what} was written down {when}, "
            f"when signals of this run were there already, and seals nothing {file}."
        )
    else:
        base = (
            f"Declared {when}, before the first signal of this run: {what} {file}. "
            f"{_replaced(record)}{_UNKNOWABLE}"
        )
    if not changes:
        return " ".join([base, *notes])
    listed = "; ".join(dict.fromkeys(map(str, changes)))
    reached = [_reached(record, first)] if first else []
    return " ".join([f"{CHANGED} {listed}. {base}", *reached, *notes])


def added(names: Sequence[str]) -> str:
    """Says which scores were added to those that were declared."""
    return (
        f"Scores were added to those that were declared ({_names(names)}): of the "
        "headline they change the adjusted p only."
    )


def more_rows(gained: Mapping[str, int]) -> str:
    """Says how many rows are evaluated that the first verdict was not of."""
    rows = " and ".join(_count(number, role) for role, number in gained.items())
    return (
        f"Evaluated now, but not for the first verdict: {rows} (clips may not have "
        "been readable then)."
    )


def _reached(record: dict[str, Any], first: dict[str, Any]) -> str:
    """Tells the first verdict."""
    under = (
        "under the declaration"
        if first["declaration"] == record["digest"]
        else "in this work directory, under an earlier declaration"
    )
    name = f" ({printable(first['verdict'], _LONGEST)})" if first["verdict"] else ""
    return (
        f"The first verdict {under}, {_when(first['time'])}, of "
        f"{_value(first['headline'])}, {_value(first['comparison'])}{name}: "
        f"{printable(first['statement'], _SENTENCE)}"
    )


def _replaced(record: dict[str, Any]) -> str:
    """Says what was in the work directory before a declaration."""
    if earlier := record["earlier"]:
        many = f"{len(earlier)} earlier declarations" if earlier[1:] else "another"
        last = earlier[-1]["time"]
        when = f", {'the last ' * bool(earlier[1:])}of {_when(last)}" if last else ""
        return (
            f"It took the place of {many} in this work directory{when}, whose results "
            "may have been seen. "
        )
    if record["after_report"]:
        return "A report was in this work directory then, and may have been seen. "
    return ""


def _when(time: str) -> str:
    """Returns 2026-11-29 22:10 UTC of 2026-11-29T22:10:05Z."""
    return f"{time[:10]} {time[11:16]} UTC"


def _auc(value: float) -> str:
    short = f"{value:.2f}"
    return short if float(short) == value else f"{value:g}"


def _names(names: Sequence[str]) -> str:
    """Returns the first of some names, and how many more there are."""
    more = len(names) - _NAMES
    some = ", ".join(printable(name, _LONGEST) for name in names[:_NAMES])
    return f"{some} and {more} more" if more > 0 else some


def _counts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    return {role: its["count"] for role, its in rows.items()}


def _count(number: int, role: str) -> str:
    """Returns such as "1 member"."""
    words = {"nonmembers": "non-members", "calibration": "calibration rows"}
    word = words.get(role, role)
    return f"{number} {word.removesuffix('s') if number == 1 else word}"


def _value(value: Any) -> str:
    """Returns a declared value for a sentence."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    rows: dict[str, int] = value
    several: list[Any] = value
    if isinstance(value, dict):
        roles = (f"{count} {printable(x, _LONGEST)}" for x, count in rows.items())
        return f"of {sum(rows.values())} rows ({', '.join(roles)})"
    if isinstance(value, list):
        return f"({', '.join(map(_value, several))})"
    return f"{value:g}" if is_number(value) else printable(value, _LONGEST)
