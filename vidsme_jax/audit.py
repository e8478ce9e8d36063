"""The audit, top to bottom: corpus, runs, scores, metrics, validity, report."""

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import report, scores, settings
from vidsme_jax.base import Failure, ScoreTable
from vidsme_jax.evaluation import metrics, suspects, validity
from vidsme_jax.report import curves
from vidsme_jax.report.found import AuditReport
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
        one in an object store. Signals that an earlier run with the same settings left
        there are not computed again.
      stop: Looked at between batches.
      asked: What `asking.ask` found, if it was asked before.

    Returns:
      What was found, or, with config.share, what the share did; None on all but the
      first of several processes.

    Raises:
      AuditError: Nothing could be computed; lists every problem.
      RunStopped: The devices, or another process, failed; what was scored is kept.
      KeyboardInterrupt: A process was asked to stop; what was scored is kept.
      OSError: The work directory cannot be written; what is there is kept.
    """
    setup, stop = checks.check(config, asked), stop or Stop()
    share = setup.settings.share
    with processes.together(workdir, shares.tag(share)) as team:
        runs, mine = checks.open_runs(setup, team), shares.part(setup.samples, share)
        scored = scoring.score(
            runs, mine, setup.reader, setup.devices, team=team, stop=stop
        )
        if not team.is_first:
            return None
        flat, place = settings.flatten(config), team.place
        if share:
            about = provenance.describe(flat, runs, setup.devices, None, scored)
            lists = scored.failures, scored.lacking
            return shares.finish(place, setup, scored.parts(), *lists, about)
        place.fetch(parts=True)
        shares.remove(place)
        workdir = place.path
        stores, failures = [run.store for run in scored.runs], scored.failures
        kept = stored.kept(setup, workdir, provenance.code())
        table, warnings = stored.score_table(setup, failures, *stores, kept=kept)
        about = provenance.describe(flat, runs, setup.devices, table, scored)
        if scored.utilisation is None:
            about |= provenance.earlier_utilisation(workdir / "config.json")
        its = table, failures, warnings, about
        found = evaluate(setup, stores[0], kept, *its, workdir)
        place.publish()
        return found


def report_again(
    workdir: str | pathlib.Path,
    config: ConfigDict,
    about: dict[str, Any],
    asked: Asked | None = None,
) -> AuditReport:
    """Makes scores, metrics and report of a finished run anew, without its model.

    Args:
      workdir: Of the run; shares are gathered.
      config: Of the run, but for what is asked of its signals.
      about: What `provenance.describe` said of the run.
      asked: What `asking.ask` found, if it was asked before.

    Raises:
      AuditError: The signals do not have what is asked for; lists every problem.
    """
    workdir = pathlib.Path(workdir)
    asked = asked or asking.ask(config, model=False)
    with locked(workdir):
        gathered = shares.gathered(Workdir.at(workdir), asked.samples)
        if gathered is None or (workdir / "config.json").exists():
            provenance.check_current(workdir / "config.json", about)
        stores = stored.open_signals(asked, workdir)
        failures = gathered.failures if gathered else report.failures(workdir)
        failures = contents.repaired(failures, asked.items, workdir)
        asked = asked.without({failure.id for failure in failures})
        failures += contents.changed(asked.items, stores[0], asked.reader)
        asked = asked.without({failure.id for failure in failures})
        stored.check_held(asked, stores[0], workdir)
        kept = stored.kept(asked, workdir, provenance.code())
        table, warnings = stored.score_table(asked, failures, *stores, kept=kept)
        causes, more = (gathered.causes, gathered.notes) if gathered else ({}, ())
        failures += contents.not_stored(asked.items, table.id, causes)
        about |= gathered.facts if gathered else {}
        about, notes = provenance.updated(about, settings.flatten(config), table)
        asked = dataclasses.replace(asked, notes=(*asked.notes, *notes, *more))
        its = table, failures, warnings, about
        return evaluate(asked, stores[0], kept, *its, workdir)


def evaluate(
    asked: Asked,
    store: Signals,
    kept: Kept,
    table: ScoreTable,
    failures: list[Failure],
    warnings: dict[str, list[str]],
    about: dict[str, Any],
    workdir: pathlib.Path,
) -> AuditReport:
    """Turns scores into metrics, validity and the report."""
    if not asked.settings.overwrite:
        digests.check_results(workdir)
    sealed = declaration.opened(asked, workdir, table)
    digests.withdraw(workdir)
    kept.write()
    provenance.write(workdir / "config.json", about)
    profile = asked.settings.profile
    found, figures = report.write(
        workdir,
        results(asked, table, failures, warnings, about),
        curves=curves.extreme_curves(
            asked.items, store, table, asked.headline, profile, asked.reader
        ),
        declared=sealed,
        descriptions={name: scores.description(name, profile) for name in asked.scores},
    )
    return AuditReport(
        workdir=workdir,
        table=table,
        metrics=found,
        failures=tuple(failures),
        figures=figures,
        digest=digests.write(workdir, kept.hashes.of),
    )


def results(
    asked: Asked,
    table: ScoreTable,
    failures: list[Failure],
    warnings: dict[str, list[str]],
    about: dict[str, Any],
) -> report.Results:
    """Returns what there is to report; writes nothing."""
    given, headline = asked.settings, asked.headline
    tests = validity.Procedure.of(given.report)
    its = headline, table.scores, given.profile
    beside = scores.beside(*its, greedy=asking.is_greedy(given))
    names = scores.uncalibrated(headline), given.gate.score, *(beside or ())[:1]
    how = given.report.fprs, tests.number, tests.seed, (headline, *names)
    evaluation = metrics.evaluate(table, *how)
    return report.Results(
        table=table,
        evaluation=evaluation,
        judged=validity.judge(table, evaluation, tests, headline),
        suspects=suspects.suspects(table, headline, given.report.fdr, tests),
        run=about,
        failures=failures,
        warnings=warnings,
        left_out=asked.left_out,
        notes=asked.notes,
        comparison=given.report.comparison,
        headline=headline,
        beside=beside,
        control=asked.control,
        published=asked.published,
        gate=gate.judge(given, headline, evaluation),
    )
