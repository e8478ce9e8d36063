"""What the end of a run prints: a few lines, whatever names and numbers there are."""

import pathlib
from collections.abc import Sequence
from typing import Any

from vidsme_jax.evaluation import intervals
from vidsme_jax.wording import printable

_LINES = 20  # Of one kind; the files have all.
_NAME = 100  # Characters of a group.


def of_audit(found: dict[str, Any], num_failures: int, workdir: pathlib.Path) -> str:
    """Returns the result of an audit.

    Args:
      found: The content of `metrics.json`.
      num_failures: Rows without scores.
      workdir: Where the report is.
    """
    beside = found["beside"]
    names = [found["headline"], *([beside["score"]] if beside else [])]
    lines = [found["verdict"]]
    for more in (found["declaration"], beside, found["reference"], found["control"]):
        lines += [more["statement"]] if more and more["statement"] else []
    aucs = [
        f"{score}, {named(name)}: AUC {intervals.in_words(auc)}"
        for name, comparison in found["comparisons"].items()
        for score in names
        if (auc := comparison["scores"][score]["auc"])["value"] is not None
    ]
    lines += shortened(aucs, "metrics.json")
    if found["groups"]["left_out"]:
        lines.append(found["groups"]["statement"])
    if num_failures:
        lines.append(f"not scored: {num_failures} rows, see failures.jsonl")
    page = printable(str(workdir / "report.html"))
    return "\n".join([*lines, f"report: {page}"])


def named(name: str) -> str:
    """Returns the name of a group for one line."""
    return printable(name, _NAME)


def shortened(lines: Sequence[str], file: str) -> list[str]:
    """Returns the first lines of one kind, and how many more a file has."""
    more = len(lines) - _LINES
    last = [f"and {more} more lines like these in {file}"] if more > 0 else []
    return [*lines[:_LINES], *last]
