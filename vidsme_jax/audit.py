"""The audit, top to bottom: corpus, runs, scores, metrics, validity, report."""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import report, scores, settings
from vidsme_jax.base import Failure, ScoreTable
from vidsme_jax.evaluation import metrics, suspects, validity
from vidsme_jax.report import curves
from vidsme_jax.report.audit_report import AuditReport
from vidsme_jax.run import (
    asking,
    checks,
    contents,
    declaration,
    digests,
    gate,
    processes,
    provenance,
    scoring,
    shares,
    stored,
)
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.shares import ShareReport
from vidsme_jax.run.stopping import Stop
from vidsme_jax.scores.kept import Kept
from vidsme_jax.store.lock import locked
from vidsme_jax.store.signals import Signals
from vidsme_jax.store.workdirs import Workdir


def run(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    stop: Stop | None = None,
    asked: Asked | None = None,
) -> AuditReport | ShareReport | None:
    """Audits a model.

    Args:
      config: See `settings.RULES`.
      workdir: Receives signals, scores, metrics and the report: a folder, or the URL of
        one in an object store. Signals of an earlier run with equal settings are kept.
      stop: Checked between batches.
      asked: The result of `asking.ask`, if the configuration was checked before.

    Returns:
      The report; with config.share the report of the share; None on all but the first
      of several processes.

    Raises:
      AuditError: Nothing could be computed; lists every problem.
      RunStopped: The devices, or another process, failed; what was scored is kept.
      KeyboardInterrupt: A process was asked to stop; what was scored is kept.
      OSError: The work directory cannot be written; what is there is kept.
    """
    setup, stop = checks.check(config, asked), stop or Stop()
    share = setup.settings.share
    with processes.together(workdir, share) as team:
        runs = checks.open_runs(setup, team)  # The model, and the reference if any.
        samples = shares.part(setup.samples, share)
        scored = scoring.score(
            runs, samples, setup.reader, setup.devices, team=team, stop=stop
        )
        if not team.is_first:
            return None
        flat, place, failures = settings.flatten(config), team.place, scored.failures
        if share:
            record = provenance.describe(flat, runs, setup.devices, None, scored)
            missing = failures, scored.lacking
            return shares.finish(place, setup, scored.parts(), *missing, record)
        place.fetch(parts=True)
        shares.remove(place)
        folder = place.path
        stores = [run.store for run in scored.runs]
        kept = stored.kept(setup, folder, provenance.code())
        table, warnings = stored.score_table(setup, failures, *stores, kept=kept)
        record = provenance.describe(flat, runs, setup.devices, table, scored)
        if scored.utilisation is None:
            record |= provenance.earlier_utilisation(folder / "config.json")
        finished = evaluate(
            setup, stores[0], kept, table, failures, warnings, record, folder
        )
        place.publish()
        return finished


def report_again(
    workdir: str | pathlib.Path,
    config: ConfigDict,
    record: dict[str, Any],
    asked: Asked | None = None,
) -> AuditReport:
    """Makes scores, metrics and report of a finished run again, without its model.

    Args:
      workdir: Of the run; its shares are gathered.
      config: Of the run; only what its signals do not depend on may be changed.
      record: The content of the run's `config.json`.
      asked: The result of `asking.ask`, if the configuration was checked before.

    Raises:
      AuditError: The signals do not suffice; lists every problem.
    """
    folder = pathlib.Path(workdir)
    asked = asked or asking.ask(config, model=False)
    with locked(folder):
        gathered = shares.gathered(Workdir.at(folder), asked.samples)
        if gathered is None or (folder / "config.json").exists():
            provenance.check_current(folder / "config.json", record)
        stores = stored.open_signals(asked, folder)
        failures = gathered.failures if gathered else report.failures(folder)
        asked, failures = contents.remaining(asked, failures, stores[0], folder)
        stored.check_held(asked, stores[0], folder)
        kept = stored.kept(asked, folder, provenance.code())
        table, warnings = stored.score_table(asked, failures, *stores, kept=kept)
        causes, more = (gathered.causes, gathered.notes) if gathered else ({}, ())
        failures += contents.not_stored(asked.items, table.id, causes)
        record |= gathered.facts if gathered else {}
        record, notes = provenance.updated(record, settings.flatten(config), table)
        asked = dataclasses.replace(asked, notes=(*asked.notes, *notes, *more))
        return evaluate(
            asked, stores[0], kept, table, failures, warnings, record, folder
        )


def evaluate(
    asked: Asked,
    store: Signals,
    kept: Kept,
    table: ScoreTable,
    failures: list[Failure],
    warnings: dict[str, list[str]],
    record: dict[str, Any],
    folder: pathlib.Path,
) -> AuditReport:
    """Turns scores into metrics, verdicts and the report, and writes all of them."""
    if not asked.settings.overwrite:
        digests.check_results(folder)
    declared = declaration.opened(asked, folder, table)
    digests.withdraw(folder)
    kept.write()
    provenance.write(folder / "config.json", record)
    profile = asked.settings.profile
    written, figures = report.write(
        folder,
        results(asked, table, failures, warnings, record),
        curves=curves.extreme_curves(
            asked.items, store, table, asked.headline, profile, asked.reader
        ),
        declared=declared,
        descriptions={name: scores.description(name, profile) for name in asked.scores},
    )
    return AuditReport(
        workdir=folder,
        table=table,
        metrics=written,
        failures=tuple(failures),
        figures=figures,
        digest=digests.write(folder, kept.hashes.of),
    )


def results(
    asked: Asked,
    table: ScoreTable,
    failures: list[Failure],
    warnings: dict[str, list[str]],
    record: dict[str, Any],
) -> report.Results:
    """Computes metrics, verdicts, suspects and gate; writes nothing."""
    given, headline = asked.settings, asked.headline
    tests = validity.Procedure.of(given.report)
    greedy, names = asking.is_greedy(given), table.scores
    further = scores.beside(headline, names, given.profile, greedy=greedy)
    declared = headline, scores.uncalibrated(headline), given.gate.score
    declared += (further.score,) if further else ()
    how = given.report.fprs, tests.number, tests.seed, declared
    evaluation = metrics.evaluate(table, *how)
    return report.Results(
        table=table,
        evaluation=evaluation,
        judged=validity.judge(table, evaluation, tests, headline),
        suspects=suspects.suspects(table, headline, given.report.fdr, tests),
        run=record,
        failures=failures,
        warnings=warnings,
        left_out=asked.left_out,
        notes=asked.notes,
        comparison=given.report.comparison,
        headline=headline,
        beside=further,
        control=asked.control,
        published=asked.published,
        gate=gate.judge(given, headline, evaluation),
    )
