"""What a reader is told of a declaration: when, what, and what was changed since."""

import dataclasses
from typing import Any, NamedTuple

from vidsme_jax.settings.rules import is_number
from vidsme_jax.wording import printable

FILE = "declaration.json"
CHANGED = "Changed after the results: exploratory."
_UNKNOWABLE = (
    "Whether results on these videos were seen before by other means, this program "
    "cannot know."
)
_LONGEST = 100  # Characters of a value in a sentence.
_SENTENCE = 1000  # Characters of a verdict.


class Change(NamedTuple):
    """What is asked now and was declared otherwise.

    Attributes:
      what: The name of what was declared.
      declared: Its value, JSON-ready; of a corpus the rows of each role.
      now: Likewise.
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
        now = _value(self.now)
        if self.declared == self.now:
            now = "of as many, not the same or with other texts"
        return f"{self.what} was {_value(self.declared)}, now {now}"


@dataclasses.dataclass(frozen=True)
class Declared:
    """The declaration that a result stands under.

    Attributes:
      record: The content of `declaration.json`.
      changes: What is asked otherwise than it says; empty where nothing is.
      first: The first verdict under it, the content of `verdict.json`; None before
        there is one.
    """

    record: dict[str, Any]
    changes: tuple[Change, ...] = ()
    first: dict[str, Any] | None = None

    @property
    def sealed(self) -> bool:
        """Whether it was written before there was any signal."""
        return not self.record["after_signals"]

    @property
    def mark(self) -> str:
        """What a verdict begins with: nothing, or that it is exploratory."""
        return f"{CHANGED} " if self.changes else ""

    def facts(self) -> dict[str, Any]:
        """Returns what `metrics.json` says of it."""
        return {
            "sealed": self.sealed,
            "exploratory": bool(self.changes),
            "statement": statement(self.record, self.changes, self.first),
            "changes": [change._asdict() for change in self.changes],
            "first": self.first,
            **{key: self.record[key] for key in ("time", "digest", "declared")},
        }


def statement(
    record: dict[str, Any],
    changes: tuple[Change, ...] = (),
    first: dict[str, Any] | None = None,
) -> str:
    """Says what was declared and when, what was changed since, and the first verdict.

    Args:
      record: The content of `declaration.json`.
      changes: What is asked otherwise.
      first: The first verdict under it; told where something was changed.
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
        return base
    listed = "; ".join(map(str, changes))
    reached = (
        f" The first verdict under the declaration, {_when(first['time'])}, of "
        f"{_value(first['headline'])}, {_value(first['comparison'])}: "
        f"{printable(first['statement'], _SENTENCE)}"
        if first
        else ""
    )
    return f"{CHANGED} {listed}. {base}{reached}"


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


def _value(value: Any) -> str:
    """Returns a declared value for a sentence."""
    if value is None or value == "":
        return "none"
    if isinstance(value, dict):
        roles = (f"{count} {printable(x, _LONGEST)}" for x, count in value.items())
        return f"of {sum(value.values())} rows ({', '.join(roles)})"
    if isinstance(value, list):
        return f"({', '.join(map(_value, value))})"
    return f"{value:g}" if is_number(value) else printable(value, _LONGEST)
