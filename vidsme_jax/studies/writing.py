"""Writes the files of a study, and its summary."""

import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vidsme_jax.base import Failure
from vidsme_jax.evaluation import intervals
from vidsme_jax.report import figures, files, page
from vidsme_jax.report import summary as summaries
from vidsme_jax.studies import drawing
from vidsme_jax.studies.points import Sheet
from vidsme_jax.wording import printable

_REAL = ("k", "q_scale", "r_scale")
_MAX_NAME = 100  # Characters of a group.
_OWN = re.compile(r"study\.(png|pdf)(\.tmp)?")  # The files of its figure.


def write(
    workdir: pathlib.Path,
    found: dict[str, Any],
    sheets: Sequence[Sheet],
    *,
    run: dict[str, Any],
    failures: Sequence[Failure],
    headline: str,
) -> None:
    """Writes study.csv, .parquet, .json and .html, the scores and the figure.

    Args:
      workdir: An existing folder.
      found: The result of `findings.evaluate`.
      sheets: The scores of every point.
      run: Settings, versions and fingerprints.
      failures: One per row without scores.
      headline: The score declared in advance.

    Raises:
      OSError: A file cannot be written.
    """
    files.write_text(
        workdir / "config.json", json.dumps(run, indent=2, default=str) + "\n"
    )
    files.write_failures(workdir / "failures.jsonl", failures)
    files.write_json(workdir / "study.json", found)
    rows = pa.Table.from_pylist(_filled(found["points"]))
    files.write_table(workdir / "study", rows, ("comparison",))
    files.write_parquet(workdir / "study-scores.parquet", _scores(sheets))
    drawings = drawing.draw(found, headline)
    comparisons = list(found["comparisons"].items())
    drawn = figures.write(workdir / "figures", drawings, _OWN)
    html = page.fill(
        "study.html",
        lambda limits: {"comparisons": comparisons[: limits.comparisons]},
        found=found,
        title=drawing.KINDS[found["study"]][0],
        axes=list(sheets[0].points[0].at),
        rates=[f"{fpr:g}" for fpr in run["config"]["report.fprs"]],
        point=in_words,
        sentence=_sentence,
        figures=page.embedded(drawn),
        run=run,
        failures=failures,
    )
    files.write_text(workdir / "study.html", html)


def summary(found: dict[str, Any]) -> list[str]:
    """Returns the result in a few lines, for the end of a run."""
    lines, chances = list[str](), list[str]()
    for group, about in found["comparisons"].items():
        name = printable(group, _MAX_NAME)
        for what in ("declared", "best"):
            row = about[what]
            if row is not None and row["auc"] is not None:
                shown = f"{in_words(row)}: AUC {_auc(row)} ({row['verdict']})"
                lines.append(f"{name}, {what}: {shown}")
        if about["by_chance"] is not None:
            chances.append(f"{name}: {_sentence(about['by_chance'])}")
    if found["groups"]["left_out"]:
        chances.append(found["groups"]["statement"])
    shown = [
        line
        for each in (lines, chances)
        for line in summaries.shortened(each, "study.json")
    ]
    return [*shown, found["caution"]]


def in_words(row: dict[str, Any]) -> str:
    """Returns the score and the coordinates of a row of `study.json`."""
    keys = list(row)
    at = keys[keys.index("comparison") + 1 : keys.index("score")]
    return ", ".join([row["score"], *(f"{key} {row[key]}" for key in at)])


def _auc(row: dict[str, Any]) -> str:
    ends = {"low": row["auc_low"], "high": row["auc_high"]}
    return intervals.in_words({"value": row["auc"]} | ends)


def _sentence(chance: dict[str, Any]) -> str:
    points, best, level = chance["points"], chance["best"], chance["level"]
    return (
        f"the best of {points} points exceeds AUC {level:.2f} in 5 % of label "
        f"permutations; this grid's best, {best:.2f}, has permutation p = "
        f"{chance['p_value']:.3g}"
    )


def _filled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows with real coordinates as floats and names in UTF-8."""
    return [
        row
        | {key: float(row[key]) for key in _REAL if key in row}
        | {"comparison": files.encodable(row["comparison"])}
        for row in rows
    ]


def _scores(sheets: Sequence[Sheet]) -> pa.Table:
    """Returns the scores, one row per item, one column per point; null for none."""
    items = {
        table.id[k]: (str(table.role[k]), str(table.group[k]))
        for table in (sheet.table for sheet in sheets)
        for k in range(len(table.id))
    }
    columns: dict[str, Any] = {
        "id": [files.encodable(str(item)) for item in items],
        "role": [role for role, _ in items.values()],
        "group": [files.encodable(group) for _, group in items.values()],
    }
    for sheet in sheets:
        row_of = {item: k for k, item in enumerate(sheet.table.id)}
        rows = [row_of.get(item) for item in items]
        for point in sheet.points:
            values = sheet.table.scores[point.name]
            columns[point.name] = pa.array(
                [None if row is None else float(values[row]) for row in rows],
                pa.float64(),
            )
    return pa.table(columns)
