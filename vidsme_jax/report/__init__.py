"""Writes the results of an audit: tables, JSON, figures and an HTML page."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidsme_jax.base import SLICES, Failure, ScoreTable
from vidsme_jax.data import warning_groups
from vidsme_jax.data.left_out import LeftOut
from vidsme_jax.evaluation import control_statement, verdicts
from vidsme_jax.names import uncalibrated
from vidsme_jax.report import cards, figures, files, page, scope
from vidsme_jax.report.notebook import Picture
from vidsme_jax.report.plots import ClipCurve
from vidsme_jax.run import declaration
from vidsme_jax.run.control_record import Control
from vidsme_jax.run.declaration_text import Declared
from vidsme_jax.scores import Beside, units
from vidsme_jax.wording import printable


def failures(workdir: pathlib.Path) -> list[Failure]:
    """Reads the failures that an earlier call of `write` listed.

    Raises:
      AuditError: The file is damaged; lists its first problems.
    """
    return files.read_failures(workdir / "failures.jsonl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """The results of an audit, from which `metrics.json` and the report are made.

    Attributes:
      table: The scores.
      evaluation: The result of `metrics.evaluate`.
      judged: The result of `validity.judge`.
      suspects: The result of `suspects.suspects`.
      run: The content of `config.json`: settings, versions, devices with their kernels,
        utilisation and fingerprints; nested, shown unchanged.
      failures: One per item without scores.
      warnings: Warnings about a video, by its path.
      comparison: The declared comparison, which the verdict is about.
      headline: The score that the verdict is about; a key of `table.scores`.
      left_out: Rows and files of the sources that are not in the corpus.
      notes: About the corpus as a whole, such as that videos are in two roles.
      beside: The further score that is reported; see `scores.beside`.
      control: The positive control, if there is one.
      gate: The result of `gate.judge`.
      published: The result of a look-up in published lists, if there is one.
    """

    table: ScoreTable
    evaluation: dict[str, Any]
    judged: dict[str, Any]
    suspects: dict[str, Any]
    run: dict[str, Any]
    failures: list[Failure]
    warnings: dict[str, list[str]]
    comparison: str
    headline: str
    left_out: Sequence[LeftOut] = ()
    notes: Sequence[str] = ()
    beside: Beside | None = None
    control: Control | None = None
    gate: dict[str, Any] | None = None
    published: dict[str, Any] | None = None


def write(
    workdir: str | pathlib.Path,
    results: Results,
    *,
    curves: list[ClipCurve],
    descriptions: dict[str, str],
    declared: Declared | None = None,
) -> tuple[dict[str, Any], tuple[Picture, ...]]:
    """Writes scores, metrics, failures, figures and `report.html`, each atomically.

    Warnings are logged, one line per kind.

    Args:
      workdir: Created if absent.
      results: The results.
      curves: The clips to show frame by frame.
      descriptions: One line for each score.
      declared: The declaration of the audit, if there is one; the first verdict under
        it is stored in `verdict.json`.

    Returns:
      The content of `metrics.json`, and the figures.

    Raises:
      ValueError: A number of `metrics.json` is not finite.
      OSError: A file cannot be written.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    warning_groups.log(results.warnings)
    if declared is not None:
        declared = declaration.reached(declared, workdir, **_declared_result(results))
    found = content(results, declared)
    table = results.table
    files.write_scores(workdir, table)
    files.write_json(workdir / "metrics.json", found)
    files.write_failures(workdir / "failures.jsonl", results.failures)
    shown = results.headline, results.beside.score if results.beside else ""
    shown += (results.suspects,)
    drawn = figures.draw(table, found["comparisons"], curves, *shown)
    written = figures.write(workdir / "figures", drawn)
    html = page.render(
        found,
        workdir,
        figures=written,
        cards=cards.of_curves(curves, table, *shown),
        run=results.run,
        failures=results.failures,
        descriptions=descriptions,
    )
    files.write_text(workdir / "report.html", html)
    return found, figures.pictures(workdir / "figures", written)


def content(results: Results, declared: Declared | None) -> dict[str, Any]:
    """Returns the content of `metrics.json`; writes nothing."""
    table, evaluation, run = results.table, results.evaluation, results.run
    result, control = _declared_result(results), results.control
    config = run.get("config", {})
    if declared is not None:
        result["statement"] = f"{declared.mark}{result['statement']}"
    return {
        "headline": results.headline,
        "comparison": results.comparison,
        **result,
        "published": results.published,
        "gate": results.gate,
        "declaration": declared and declared.facts(),
        "beside": results.beside and _beside(results, results.beside, declared),
        "reference": _reference(results),
        "control": control
        and control_statement.shown_with(
            *(control.folder, control.record, control.differences),
            clusters=set(table.cluster.tolist()),
        ),
        "scope": scope.scope(
            list(table.scores),
            [name for name in SLICES if name in config.get("slices", SLICES[:1])],
            headline=results.headline,
            reference=bool(table.reference),
            suspects=results.suspects,
            greedy=config.get("response") == "greedy",
        ),
        "larger_is_member": table.larger_is_member,
        "intervals": evaluation["intervals"],
        "units": str(units.made(table)),
        "groups": evaluation["groups"],
        "counts": evaluation["counts"] | {"failures": len(results.failures)},
        "comparisons": {
            name: compared | results.judged[name]
            for name, compared in evaluation["comparisons"].items()
        },
        "suspects": results.suspects,
        "warnings": results.warnings,
        "left_out": [dataclasses.asdict(each) for each in results.left_out],
        "notes": list(results.notes),
        "kernels": run.get("device", {}).get("kernels", {}),
    }


def _declared_result(results: Results) -> dict[str, Any]:
    """Returns verdict and statement of the declared comparison, else of suspects."""
    judged, suspects = results.judged, results.suspects
    comparison, headline = results.comparison, results.headline
    if comparison in judged:
        found = judged[comparison]["verdicts"][headline]
        name = f"The headline score {headline}"
        if comparison != "all":
            name += f" (comparison {printable(comparison, 100)})"
        statement = verdicts.sentence(name, found)
        return {"verdict": found["verdict"], "statement": statement}
    if judged:
        statement = (
            f"The declared comparison {printable(comparison, 100)} has no rows left: "
            f"this report says nothing about the headline score {headline} there. The "
            "results below are of other comparisons, which were not declared."
        )
        return {"verdict": "not_tested", "statement": statement}
    if suspects["set"] is not None:
        return {"verdict": None, "statement": suspects["set"]["statement"]}
    if suspects["rows"]:
        return {"verdict": "not_tested", "statement": suspects["statement"]}
    statement = (
        "Without both members and non-members this report cannot say how well the "
        f"headline score {headline} separates them."
    )
    return {"verdict": "not_tested", "statement": statement}


def _beside(
    results: Results, beside: Beside, declared: Declared | None
) -> dict[str, Any]:
    """Returns the further score, its role and its statement."""
    judged, comparison = results.judged, results.comparison
    role, statement = f"As {beside.role}", ""
    if declared is not None:
        role = declared.role_of(beside.score, beside.role)
    if comparison in judged:
        found = judged[comparison]["verdicts"][beside.score]
        statement = verdicts.sentence(f"{role}: the score {beside.score}", found)
    exploratory = declared is not None and declared.is_exploratory(beside.score)
    return {**beside._asdict(), "exploratory": exploratory, "statement": statement}


def _reference(results: Results) -> dict[str, Any] | None:
    """Returns the AUC of the reference model alone, and the rows without its scores."""
    table = results.table
    if not table.reference:
        return None
    values = np.stack(list(table.reference.values()))
    lacking = np.array(np.isnan(values).any(axis=0))
    score = uncalibrated(results.headline)
    return {
        "score": score,
        "statement": verdicts.of_reference(
            results.evaluation, results.comparison, score
        ),
        "rows": len(lacking),
        "lacking": int(lacking.sum()),
        "causes": results.run.get("reference", {}).get("causes", []),
    }
