"""The audit, top to bottom: corpus, motion, model, signals, scores, report."""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import report, scores
from vidsme_jax.base import AuditError, Failure, ScoreTable
from vidsme_jax.evaluation import metrics, suspects, validity
from vidsme_jax.run import checks, processes, provenance, scoring
from vidsme_jax.run.stopping import Stop
from vidsme_jax.scores import tables
from vidsme_jax.store import files, signals
from vidsme_jax.store.lock import locked

_SEED = 0  # Of bootstrap and cross-fitting.


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What a run found; everything is also in the work directory.

    Attributes:
      workdir: Where it was written.
      table: The scores.
      metrics: The content of `metrics.json`.
      failures: One per row of a manifest whose clip could not be scored.
    """

    workdir: pathlib.Path
    table: ScoreTable
    metrics: dict[str, Any]
    failures: tuple[Failure, ...]

    def summary(self) -> str:
        """Returns the result in a few lines, for the end of a run."""
        headline = self.metrics["headline"]
        lines = [self.metrics["verdict"]]
        for name, comparison in self.metrics["comparisons"].items():
            auc = comparison["scores"][headline]["auc"]
            if auc["value"] is not None:
                line = f"{headline}, {name}: AUC {auc['value']:.2f}"
                if auc["low"] is not None:  # A single video has no interval.
                    line += f" [{auc['low']:.2f}, {auc['high']:.2f}]"
                lines.append(line)
        if self.failures:
            lines.append(f"not scored: {len(self.failures)} rows, see failures.jsonl")
        return "\n".join([*lines, f"report: {self.workdir / 'report.html'}"])


def run(
    config: ConfigDict, workdir: str | pathlib.Path, stop: Stop | None = None
) -> AuditReport | None:
    """Audits a model.

    Args:
      config: See `settings.RULES`.
      workdir: Receives signals, scores, metrics and the report. Signals that an earlier
        run with the same settings left there are not computed again.
      stop: Where to notice that the run shall end after the batch in flight.

    Returns:
      What was found; None on all but the first of several processes.

    Raises:
      AuditError: Nothing could be computed; lists every problem.
      KeyboardInterrupt: This process or another was asked to stop; what was scored is
        kept.
      OSError: The work directory cannot be written; what is there is kept.
    """
    workdir, stop = pathlib.Path(workdir), stop or Stop()
    with contextlib.ExitStack() as held:
        with processes.agreed():
            setup = checks.check(config)
            if processes.index() == 0:  # For all processes of the run.
                held.enter_context(locked(workdir))
        with processes.agreed(), processes.first_alone("signals"):
            store, second = checks.open_shards(setup, workdir)
        with processes.finishing(store.folder) as everyones:
            parts = (setup.clips, setup.reader, setup.model, setup.devices, store)
            scored = scoring.score_clips(*parts, config, second=second, stop=stop)
            failures = everyones(scored.failures)
            store = store.reopened()
        if processes.index() > 0:
            return None
        try:
            table, warnings = tables.score_table(
                setup.items, store, setup.scores, config
            )
        except AuditError as error:
            causes = sorted({f"{f.video}: {f.stage}: {f.cause}" for f in failures})
            raise AuditError(error.problems + causes[:20]) from error
        about = provenance.describe(
            config, setup.model, setup.devices, table, scored.utilisation
        )
        if scored.utilisation is None:
            about |= provenance.earlier_utilisation(workdir / "config.json")
        found = evaluate(setup, store, table, failures, warnings, about, workdir)
    return AuditReport(
        workdir=workdir, table=table, metrics=found, failures=tuple(failures)
    )


def report_again(
    workdir: str | pathlib.Path, config: ConfigDict, about: dict[str, Any]
) -> AuditReport:
    """Makes scores, metrics and report of a finished run anew, without its model.

    Args:
      workdir: Of the run.
      config: Of the run, but for what is asked of its signals.
      about: What `provenance.describe` said of the run.

    Raises:
      AuditError: The signals do not have what is asked for; lists every problem.
    """
    workdir = pathlib.Path(workdir)
    asked = checks.check_stored(config)
    with locked(workdir):
        store = checks.open_stored(asked, workdir)
        table, warnings = tables.score_table(asked.items, store, asked.scores, config)
        known = set(table.id)
        failures = [f for f in report.failures(workdir) if f.id not in known]
        about = provenance.updated(about, config, table)
        found = evaluate(asked, store, table, failures, warnings, about, workdir)
    return AuditReport(
        workdir=workdir, table=table, metrics=found, failures=tuple(failures)
    )


def evaluate(
    asked: checks.Asked,
    store: signals.Signals,
    table: ScoreTable,
    failures: list[Failure],
    warnings: dict[str, list[str]],
    about: dict[str, Any],
    workdir: pathlib.Path,
) -> dict[str, Any]:
    """Turns scores into metrics and the report; returns the content of metrics.json."""
    config, headline = asked.config, asked.headline
    num_bootstrap = config.report.num_bootstrap
    text = json.dumps(about, indent=2, default=str)
    files.write_atomically(workdir / "config.json", text.encode())
    return report.write(
        workdir,
        table,
        evaluation=metrics.evaluate(table, config.report.fprs, num_bootstrap, _SEED),
        blind=validity.blind_baseline(table, num_bootstrap, _SEED, headline),
        suspects=suspects.suspects(table, headline, config.report.fdr),
        curves=tables.extreme_curves(
            asked.items, store, table, headline, config, asked.reader
        ),
        run=about,
        failures=failures,
        warnings=warnings,
        headline=headline,
        descriptions={
            name: scores.TABLES[config.profile][name].description
            for name in asked.scores
        },
    )
