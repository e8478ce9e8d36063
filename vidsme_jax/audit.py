"""The audit, top to bottom: corpus, motion, model, signals, scores, report."""

import dataclasses
import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import (
    __version__,
    inference,
    metrics,
    models,
    parallel,
    provenance,
    report,
    scores,
    scoring,
    settings,
    shards,
    tables,
    validity,
)
from vidsme_jax.base import AuditError, Clip, Failure, Item, ScoreTable
from vidsme_jax.data import corpora
from vidsme_jax.models.interface import ModelPlan
from vidsme_jax.stopping import Stop

_SEED = 0  # Of bootstrap and cross-fitting.
_SAMPLING = ("num_frames", "sampling", "fps")  # Of config.video: they change signals.


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
                between = f"[{auc['low']:.2f}, {auc['high']:.2f}]"
                lines.append(f"{headline}, {name}: AUC {auc['value']:.2f} {between}")
        if self.failures:
            lines.append(f"not scored: {len(self.failures)} rows, see failures.jsonl")
        return "\n".join([*lines, f"report: {self.workdir / 'report.html'}"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """A configuration that has been checked against the world."""

    config: ConfigDict
    items: tuple[Item, ...]
    clips: tuple[Clip, ...]
    plan: ModelPlan
    devices: parallel.Devices
    scores: tuple[str, ...]
    headline: str


def run(
    config: ConfigDict, workdir: str | pathlib.Path, stop: Stop | None = None
) -> AuditReport:
    """Audits a model.

    Args:
      config: See `settings.RULES`.
      workdir: Receives signals, scores, metrics and the report. Signals that an earlier
        run with the same settings left there are not computed again.
      stop: Where to notice that the run shall end after the batch in flight.

    Raises:
      AuditError: Nothing could be computed; lists every problem.
      OSError: The work directory cannot be written; what is there is kept.
    """
    workdir = pathlib.Path(workdir)
    setup = check(config)
    with shards.locked(workdir):
        store, second = open_shards(setup, workdir)
        failures = scoring.score_clips(
            setup.clips,
            setup.plan,
            setup.devices,
            store,
            config,
            second=second,
            stop=stop or Stop(),
        )
        try:
            table, warnings = tables.score_table(
                setup.items, store, setup.scores, config
            )
        except AuditError as error:
            causes = sorted({f"{f.video}: {f.stage}: {f.cause}" for f in failures})
            raise AuditError(error.problems + causes[:20]) from error
        found = evaluate(setup, store, table, failures, warnings, workdir)
    return AuditReport(
        workdir=workdir, table=table, metrics=found, failures=tuple(failures)
    )


def check(config: ConfigDict) -> Setup:
    """Checks config, corpus, checkpoint and devices; tells all problems at once."""
    problems = settings.problems(config)
    faulty = {problem.split()[0].rstrip(":") for problem in problems}
    model: Any = config.get("model", {})
    parts: dict[str, Any] = {}
    for name, keys, make in (
        ("items", "corpus.", lambda: corpora.load(config.corpus)),
        (
            "plan",
            "model.",
            lambda: models.inspect(
                model.checkpoint, dtype=model.dtype, prompt=model.prompt
            ),
        ),
        ("scores", "", lambda: scores.resolve(config.scores, config.profile)),
        ("headline", "", lambda: scores.headline(config.headline, config.profile)),
        ("devices", "parallel.", lambda: parallel.make_devices(**config.parallel)),
    ):
        keys = (f"config.{keys}",) if keys else ("config.scores", "config.profile")
        if any(key.startswith(keys) for key in faulty):
            continue  # It would stumble over what is told already.
        try:
            parts[name] = make()
        except AuditError as error:
            problems += error.problems
    clips = corpora.unique_clips(parts.get("items", ()))
    if len(clips) == 1 and config.motion.bounds is None:
        problems.append(
            "the corpus has one clip, but q and r are scaled by the range over a "
            "corpus: add clips, or give config.motion.bounds = (phi_min, phi_max, "
            "b_min, b_max)"
        )
    if "plan" in parts and config.video.num_frames > parts["plan"].max_frames:
        problems.append(
            f"config.video.num_frames is {config.video.num_frames}; the model's "
            f"positions hold {parts['plan'].max_frames} frames"
        )
    if problems:
        raise AuditError(problems)
    if parts["headline"] not in parts["scores"]:
        parts["scores"] = (parts["headline"], *parts["scores"])
    return Setup(config=config, clips=clips, **parts)


def open_shards(setup: Setup, workdir: pathlib.Path) -> tuple[shards.Shards, bool]:
    """Opens the signals of a work directory; a run that would mix them is refused.

    Also tells whether the head's second pass runs: a score needs it, or the signals
    that are there already have it.
    """
    config, folder = setup.config, workdir / "signals"
    if config.overwrite:
        shards.clear(workdir)
    second = scores.needs_second_pass(setup.scores, config.profile)
    second = second or shards.recorded(folder).get("second_pass", False)
    depends = {
        "model": setup.plan.fingerprint,
        "model.dtype": config.model.dtype,
        "model.prompt": setup.plan.prompt,
        "second_pass": second,
        "slices": config.slices,
        "version": __version__,
        **{f"video.{key}": config.video[key] for key in _SAMPLING},
    }
    return shards.Shards(folder, depends), second


def evaluate(
    setup: Setup,
    store: shards.Shards,
    table: ScoreTable,
    failures: list[Failure],
    warnings: dict[str, list[str]],
    workdir: pathlib.Path,
) -> dict[str, Any]:
    """Turns scores into metrics and the report; returns the content of metrics.json."""
    config, headline = setup.config, setup.headline
    num_bootstrap = config.report.num_bootstrap
    about = provenance.describe(config, setup.plan, setup.devices, table)
    text = json.dumps(about, indent=2, default=str)
    shards.write_atomically(workdir / "config.json", text.encode())
    return report.write(
        workdir,
        table,
        evaluation=metrics.evaluate(table, config.report.fprs, num_bootstrap, _SEED),
        blind=validity.blind_baseline(table, num_bootstrap, _SEED, headline),
        suspects=inference.suspects(table, headline, config.report.fdr),
        curves=tables.extreme_curves(
            setup.items, store, table, headline, config.profile
        ),
        run=about,
        failures=failures,
        warnings=warnings,
        headline=headline,
        descriptions={
            name: scores.TABLES[config.profile][name].description
            for name in setup.scores
        },
    )
