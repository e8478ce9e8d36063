"""Writes what an audit found: for programs, for eyes, for a sceptical reader."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidsme_jax.base import Failure, LeftOut, ScoreTable
from vidsme_jax.data import noticed
from vidsme_jax.evaluation import controls, verdicts
from vidsme_jax.report import figures, files, page
from vidsme_jax.report.plots import ClipCurve
from vidsme_jax.run import declaration
from vidsme_jax.run.controls import Control
from vidsme_jax.run.declared import Declared
from vidsme_jax.scores import Beside
from vidsme_jax.scores.profile import uncalibrated


def failures(workdir: pathlib.Path) -> list[Failure]:
    """Returns what `write` has listed in a work directory, by an earlier call."""
    return files.read_failures(workdir / "failures.jsonl")


def write(
    workdir: str | pathlib.Path,
    table: ScoreTable,
    *,
    evaluation: dict[str, Any],
    blind: dict[str, Any],
    suspects: dict[str, Any],
    curves: list[ClipCurve],
    run: dict[str, Any],
    failures: list[Failure],
    warnings: dict[str, list[str]],
    headline: str,
    descriptions: dict[str, str],
    left_out: Sequence[LeftOut] = (),
    notes: Sequence[str] = (),
    beside: Beside | None = None,
    control: Control | None = None,
    declared: Declared | None = None,
) -> dict[str, Any]:
    """Writes scores, metrics, failures, figures and `report.html`; each file whole.

    Args:
      workdir: Made if absent.
      table: The scores.
      evaluation: Of `metrics.evaluate`.
      blind: Of `validity.blind_baseline`.
      suspects: Of `inference.suspects`.
      curves: The clips to show frame by frame.
      run: Settings, versions, devices with their kernels, utilisation and
        fingerprints; nested, printed as it is.
      failures: One per item that has no scores.
      warnings: What was noticed about a video, by its path; logged, a line a kind.
      headline: The score that the verdict is of; a key of `table.scores`.
      descriptions: One line for each score.
      left_out: What the sources hold and the corpus does not take.
      notes: On the corpus as a whole, such as that videos are in two roles.
      beside: The score that is stated beside the headline, of `scores.beside`.
      control: The positive control, if there is one.
      declared: The declaration that the result stands under; None where there is none.
        The first verdict under it is kept, in `verdict.json`.

    Returns:
      The content of `metrics.json`.

    Raises:
      ValueError: A number that is not finite would have gone into `metrics.json`.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    noticed.log(warnings)
    verdict = verdicts.of_headline(evaluation, blind, headline)
    if declared is not None:
        named = _named(blind, declared.record["declared"]["comparison"], headline)
        declared = declaration.reached(declared, workdir, named, verdict)
        verdict = f"{declared.mark}{verdict}"
    found = {
        "headline": headline,
        "verdict": verdict,
        "declaration": declared and declared.facts(),
        "beside": beside
        and beside._asdict()
        | {"statement": verdicts.of_beside(evaluation, blind, *beside)},
        "reference": _reference(table, evaluation, headline, run),
        "control": control
        and controls.beside(
            *(control.folder, control.record, control.differences),
            clusters=set(table.cluster.tolist()),
        ),
        "larger_is_member": table.larger_is_member,
        "intervals": evaluation["intervals"],
        "blind_baseline": blind,
        "groups": evaluation["groups"],
        "counts": evaluation["counts"] | {"failures": len(failures)},
        "comparisons": evaluation["comparisons"],
        "suspects": suspects,
        "warnings": warnings,
        "left_out": [dataclasses.asdict(one) for one in left_out],
        "notes": list(notes),
        "kernels": run.get("device", {}).get("kernels", {}),
    }
    files.write_scores(workdir, table)
    files.write_json(workdir / "metrics.json", found)
    files.write_failures(workdir / "failures.jsonl", failures)
    drawings = figures.draw(
        table, blind, curves, headline, beside.score if beside else ""
    )
    html = page.render(
        found,
        figures=figures.write(workdir / "figures", drawings),
        run=run,
        failures=failures,
        descriptions=descriptions,
    )
    files.write_text(workdir / "report.html", html)
    return found


def _named(blind: dict[str, Any], comparison: str, headline: str) -> str | None:
    """Returns the name of the headline's verdict, None where nothing is compared."""
    found = blind["comparisons"].get(comparison)
    return found and found["verdicts"][headline]["verdict"]


def _reference(
    table: ScoreTable,
    evaluation: dict[str, Any],
    headline: str,
    run: dict[str, Any],
) -> dict[str, Any] | None:
    """Says what the reference model shows alone, and which rows it has not scored."""
    if not table.reference:
        return None
    values = np.stack(list(table.reference.values()))
    lacking = np.array(np.isnan(values).any(axis=0))
    score = uncalibrated(headline)
    return {
        "score": score,
        "statement": verdicts.of_reference(evaluation, score),
        "rows": len(lacking),
        "lacking": int(lacking.sum()),
        "causes": run.get("reference", {}).get("causes", []),
    }
