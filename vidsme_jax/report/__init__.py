"""Writes what an audit found: for programs, for eyes, for a sceptical reader."""

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
from vidsme_jax.run.declared import Declared
from vidsme_jax.scores import Beside, units
from vidsme_jax.wording import printable


def failures(workdir: pathlib.Path) -> list[Failure]:
    """Returns what `write` has listed in a work directory, by an earlier call."""
    return files.read_failures(workdir / "failures.jsonl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What an audit found, of which `metrics.json` and the report are made.

    Attributes:
      table: The scores.
      evaluation: Of `metrics.evaluate`.
      judged: Of `validity.judge`.
      suspects: Of `suspects.suspects`.
      run: Settings, versions, devices with their kernels, utilisation and
        fingerprints; nested, printed as it is.
      failures: One per item that has no scores.
      warnings: What was noticed about a video, by its path.
      comparison: That the verdict is of.
      headline: The score that the verdict is of; a key of `table.scores`.
      left_out: What the sources hold and the corpus does not take.
      notes: On the corpus as a whole, such as that videos are in two roles.
      beside: The further score that is reported, of `scores.beside`.
      control: The positive control, if there is one.
      gate: Of `gates.judge`.
      published: Of `lookups.opened`.
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
    """Writes scores, metrics, failures, figures and `report.html`; each file whole.

    Warnings are logged, a line a kind.

    Args:
      workdir: Made if absent.
      results: What was found.
      curves: The clips to show frame by frame.
      descriptions: One line for each score.
      declared: The declaration of the result; None without one.
        The first verdict under it is kept, in `verdict.json`.

    Returns:
      The content of `metrics.json`, and the figures.

    Raises:
      ValueError: A number that is not finite would have gone into `metrics.json`.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    warning_groups.log(results.warnings)
    if declared is not None:
        declared = declaration.reached(declared, workdir, **_declared_result(results))
    found = content(results, declared)
    table, suspects = results.table, results.suspects
    files.write_scores(workdir, table)
    files.write_json(workdir / "metrics.json", found)
    files.write_failures(workdir / "failures.jsonl", results.failures)
    shown = results.headline, results.beside.score if results.beside else ""
    drawn = figures.draw(table, found["comparisons"], curves, *shown, suspects)
    written = figures.write(workdir / "figures", drawn)
    html = page.render(
        found,
        workdir,
        figures=written,
        cards=cards.of_curves(curves, table, *shown, suspects),
        run=results.run,
        failures=results.failures,
        descriptions=descriptions,
    )
    files.write_text(workdir / "report.html", html)
    return found, figures.pictures(workdir / "figures", written)


def content(results: Results, declared: Declared | None) -> dict[str, Any]:
    """Returns the content of `metrics.json`, and writes nothing; see `write`."""
    table, evaluation, run = results.table, results.evaluation, results.run
    result, control = _declared_result(results), results.control
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
            _slices(run),
            headline=results.headline,
            reference=bool(table.reference),
            suspects=results.suspects,
            greedy=run.get("config", {}).get("response") == "greedy",
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
        "left_out": [dataclasses.asdict(one) for one in results.left_out],
        "notes": list(results.notes),
        "kernels": run.get("device", {}).get("kernels", {}),
    }


def _slices(run: dict[str, Any]) -> list[str]:
    """Returns whose tokens a run has scored."""
    slices = run.get("config", {}).get("slices", SLICES[:1])
    return [name for name in SLICES if name in slices]


def _declared_result(results: Results) -> dict[str, Any]:
    """Returns verdict and statement of what was declared; of suspects alone theirs."""
    judged, suspects = results.judged, results.suspects
    comparison, headline = results.comparison, results.headline
    if comparison in judged:
        found = judged[comparison]["verdicts"][headline]
        of = (
            "" if comparison == "all" else f" (comparison {printable(comparison, 100)})"
        )
        name = f"The headline score {headline}{of}"
        statement = verdicts.sentence(name, found)
        return {"verdict": found["verdict"], "statement": statement}
    if judged:
        statement = (
            f"The declared comparison {printable(comparison, 100)} has no rows left: "
            f"this report says nothing of the headline score {headline} there. What "
            "is below is of other comparisons, which were not declared."
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
    """Returns the statement on the further score that is reported."""
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
    """Says what the reference model shows alone, and which rows it has not scored."""
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
