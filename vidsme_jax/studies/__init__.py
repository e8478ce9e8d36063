"""Studies: what a result owes to a setting, one command each.

    python -m vidsme_jax.main --config configs/studies.py:scales

`k`, `scales`, `orders` and `natural` need one run's stored signals and read each clip
once for the whole grid; `frames` and `against` make a run for each value, decoding
each clip once for all of them. Every study writes a table, a figure and a page.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import scores, settings
from vidsme_jax.base import AuditError, Failure, ScoredClip
from vidsme_jax.evaluation import groups, metrics
from vidsme_jax.run import checks, failing, processes, provenance, scoring
from vidsme_jax.run.asking import Asked
from vidsme_jax.run.runs import Run
from vidsme_jax.run.stopping import Stop
from vidsme_jax.scores import tables
from vidsme_jax.settings import rules
from vidsme_jax.studies import findings, points, runs, writing
from vidsme_jax.studies.points import Point, Sheet
from vidsme_jax.wording import counted, printable

_ONE_FRAME = (
    "one frame: natural and reversed are the same, so differences of the two are 0 by "
    "construction; q and r are those of two frames"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyReport:
    """What a study found; everything is also in the work directory.

    Attributes:
      workdir: Where it was written.
      sheets: The scores at every point, one sheet a run.
      found: The content of `study.json`.
      failures: One per row of a manifest whose clip could not be scored.
    """

    workdir: pathlib.Path
    sheets: tuple[Sheet, ...]
    found: dict[str, Any]
    failures: tuple[Failure, ...]

    def summary(self) -> str:
        """Returns the result in a few lines, for the end of a run."""
        lines = writing.summary(self.found)
        if self.failures:
            rows = counted(len(self.failures), "row")
            lines.append(f"not scored: {rows}, see failures.jsonl")
        page = printable(str(self.workdir / "study.html"))
        return "\n".join([*lines, f"study: {page}"])


def run(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    stop: Stop | None = None,
    asked: Asked | None = None,
) -> StudyReport | None:
    """Makes the study that `config.study` names.

    Args:
      config: See `settings.RULES`.
      workdir: Receives signals, tables, figure and page. Signals that an audit or a
        study with the same settings left there are not computed again.
      stop: Looked at between batches.
      asked: What `asking.ask` has found of the configuration, if it was asked.

    Returns:
      What was found; None on all but the first of several processes.

    Raises:
      AuditError: Nothing could be computed; lists every problem.
      RunStopped: The devices, or another process, failed; what was scored is kept.
      KeyboardInterrupt: This process or another was asked to stop; what was scored is
        kept.
      OSError: The work directory cannot be written; what is there is kept.
    """
    workdir, stop = pathlib.Path(workdir), stop or Stop()
    setup = check(config, asked)
    with processes.together(workdir) as team:
        its = runs.open_runs(setup, workdir, team.writer)
        scored = scoring.score(
            its, setup.samples, setup.reader, setup.devices, team=team, stop=stop
        )
        if not team.is_first:
            return None
        make = _of_runs if setup.settings.study in runs.SEVERAL else _of_signals
        try:
            sheets = make(setup, scored.runs)
            _comparing(sheets)
        except AuditError as error:
            causes = failing.causes(scored.failures)
            raise AuditError(error.problems + causes) from error
        found = findings.evaluate(sheets, setup.settings.study, setup.settings.report)
        about = provenance.describe(
            settings.flatten(config), its[:1], setup.devices, sheets[0].table
        )
        writing.write(
            workdir,
            found,
            sheets,
            run=about,
            failures=scored.failures,
            headline=setup.headline,
        )
    return StudyReport(
        workdir=workdir,
        sheets=tuple(sheets),
        found=found,
        failures=tuple(scored.failures),
    )


@processes.agreed()
def check(config: ConfigDict, asked: Asked | None = None) -> checks.Setup:
    """Checks as an audit does, and that the study can be made."""
    problems = []
    if config.get("study") not in rules.STUDIES:
        known = ", ".join(rules.STUDIES)
        problems.append(f"config.study is {config.get('study')!r}; studies: {known}")
    setup = None
    try:
        setup = checks.check(config, asked)
    except AuditError as error:
        problems += [p for p in error.problems if not p.startswith("config.study is")]
    if setup is not None and config.study == "frames":
        counts, model = config.studies.frames, setup.model
        beyond = [count for count in counts if not model.holds(count)]
        if beyond:
            fitting = tuple(count for count in counts if count not in beyond)
            problems.append(
                f"config.studies.frames: {', '.join(map(str, beyond))} frames are more "
                f"than the {model.max_frames} that the model's positions hold; "
                f'--config.studies.frames="{fitting}" would fit'
            )
    if problems or setup is None:
        raise AuditError(problems)
    return setup


def _comparing(sheets: Sequence[Sheet]) -> None:
    """Raises an `AuditError` where no sheet has both members and non-members."""
    if any(groups.comparisons(sheet.table) for sheet in sheets):
        return
    table = sheets[0].table
    members, others = (
        metrics.num_units(table.cluster[table.role == role])
        for role in ("members", "nonmembers")
    )
    raise AuditError(
        [
            f"nothing is left to compare: of the members {members} videos could be "
            f"scored, of the nonmembers {others}"
        ]
    )


def _of_signals(setup: checks.Setup, its: Sequence[Run]) -> list[Sheet]:
    """Returns a grid over the signals of one run."""
    return [
        points.sheet(
            setup.items, its[0].store, setup.scores, setup.headline, setup.settings
        )
    ]


def _of_runs(setup: checks.Setup, its: Sequence[Run]) -> list[Sheet]:
    """Returns all scores of each run."""
    return [
        _sheet(setup, run, value)
        for run, value in zip(its, runs.values(setup), strict=True)
    ]


def _sheet(setup: checks.Setup, run: Run, value: Any) -> Sheet:
    """Returns the scores of an audit with the settings of a run."""
    declared = run.settings.video == setup.settings.video
    profile = setup.settings.profile
    motion = tables.measured(setup.items, run.store)
    orders = tables.entropy_orders(motion, setup.settings.motion)
    repeating = set()

    def compute(clip: ScoredClip) -> list[float]:
        if len(set(clip.frame_indices)) < clip.num_frames:
            repeating.add(clip.key)
        found = scores.compute(
            clip.signals, *orders[clip.key], setup.scores, profile=profile
        )
        return list(found.values())

    at = {setup.settings.study: value}
    columns = [Point(at=at, score=name) for name in setup.scores]
    names = [point.name for point in columns]
    table, _ = tables.fill(setup.items, run.store, names, compute, orders, profile)
    note = _note(run, len(repeating), len(orders))
    return Sheet(
        tuple(
            dataclasses.replace(
                point, declared=declared and point.score == setup.headline, note=note
            )
            for point in columns
        ),
        table,
    )


def _note(run: Run, repeating: int, clips: int) -> str:
    if run.num_frames == 1:
        return _ONE_FRAME
    if repeating:
        return f"{repeating} of {clips} clips have fewer frames and repeat some"
    return ""
