"""The text that a run prints at its end: a few lines and a table."""

import pathlib
from collections.abc import Sequence
from typing import Any

from vidsme_jax.evaluation import intervals
from vidsme_jax.evaluation.verdicts import p_is
from vidsme_jax.wording import counted, printable

_MAX_LINES = 20  # Of one kind; the files have all.
_MAX_CELL = 30  # Characters of the name of a comparison in the table.
# What the blind AUC of a table is of; that of a figure is of all properties together.
BLIND_AUC = "the property, or the family of properties, that separates most"
_HEAD = ("comparison", "rows", "sources", "AUC", "TPR", "blind AUC", "verdict")


def of_audit(
    found: dict[str, Any], num_failures: int, workdir: pathlib.Path, digest: str = ""
) -> str:
    """Returns the result of an audit.

    Args:
      found: The content of `metrics.json`.
      num_failures: The number of rows without scores.
      workdir: The folder of the report.
      digest: Of the work directory, in hex; "" for none.
    """
    suspects = found["suspects"]
    published = found["published"]
    lines = [published["statement"]] if published else []
    lines.append(found["statement"])
    parts = ("gate", "declaration", "beside", "reference", "control")
    for more in (
        *(found[name] for name in parts),
        suspects["set"],
        suspects if suspects["rows"] else None,
    ):
        if more and more["statement"] and more["statement"] not in found["statement"]:
            lines.append(more["statement"])
    declared = found["declaration"]
    mark = ", exploratory" if declared and declared["exploratory"] else ""
    rows = [
        _row(name, comparison, found["headline"], mark)
        for name, comparison in found["comparisons"].items()
    ]
    if suspects["rows"]:
        rows.append(_suspects(suspects))
    lines += shortened(_aligned([_HEAD, *rows]) if rows else [], "metrics.json")
    if any(row[-2] != "none" for row in rows):
        lines.append(f"blind AUC: of {BLIND_AUC}, without the model")
    if found["groups"]["statement"]:
        lines.append(found["groups"]["statement"])
    if num_failures:
        lines.append(f"not scored: {counted(num_failures, 'row')}, see failures.jsonl")
    page = printable(str(workdir / "report.html"))
    lines.append(f"report: {page}")
    if digest:
        lines.append(f"digest: SHA-256 {digest}, of all files there")
    return "\n".join(lines)


def _row(
    name: str, comparison: dict[str, Any], headline: str, mark: str
) -> tuple[str, ...]:
    """Returns the cells of a comparison; `mark` is appended to its verdict."""
    score = comparison["scores"][headline]
    counts, sources = comparison["counts"], comparison["sources"]
    blind = comparison["blind"]
    rates = {f: x for f, x in score["tpr"].items() if x["value"] is not None}
    rate = min(rates, key=float, default=None)
    return (
        printable(name, _MAX_CELL),
        f"{counts['members']['items']} / {counts['nonmembers']['items']}",
        f"{sources['members']} / {sources['nonmembers']}",
        intervals.in_words(score["auc"]),
        _rate(rates[rate], float(rate)) if rate else "none",
        "none" if blind["auc"] is None else f"{blind['auc']:.2f}",
        f"{comparison['verdicts'][headline]['verdict']}{mark}",
    )


def _rate(tpr: dict[str, Any], fpr: float) -> str:
    """Returns a TPR, with the interval that counts the threshold's uncertainty."""
    ends = tpr.get("of_population")
    interval = f" [{ends['low']:.2f}, {ends['high']:.2f}]" if ends else ""
    return f"{tpr['value']:.2f}{interval} at {100 * fpr:g} %"


def _suspects(found: dict[str, Any]) -> tuple[str, ...]:
    """Returns the cells of the suspects: number, p of the set, number listed."""
    alike, calibration = found["exchangeable"], found["calibration"]
    blind = "none" if not alike or alike["auc"] is None else f"{alike['auc']:.2f}"
    verdict = "not_tested"
    sources = f"{found['sources']} / {calibration['sources']}"
    if found["set"]:
        verdict = f"set {p_is(found['set']['p'])}, {found['num_listed']} listed"
    counts = f"{len(found['rows'])} / {calibration['videos']}"
    return ("suspects", counts, sources, "", "", blind, verdict)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def shortened(lines: Sequence[str], file: str) -> list[str]:
    """Returns the first 20 lines, and a line that counts the others.

    Args:
      lines: Lines of one kind.
      file: The name of the file that has all of them.
    """
    more = len(lines) - _MAX_LINES
    last = [f"and {more} more lines like these in {file}"] if more > 0 else []
    return [*lines[:_MAX_LINES], *last]
