"""Studies: how a result depends on a setting, one command each.

    python -m vidsme_jax.main --config configs/studies.py:scales

`k`, `scales`, `orders` and `natural` need the signals of one run and read each clip
once for the whole grid; `frames` and `against` make a run for each value, and decode
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
from vidsme_jax.wording import counted, nearest, printable

_ONE_FRAME = (
    "one frame: natural and reversed are the same, so differences of the two are 0 by "
    "construction; q and r are those of two frames"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyReport:
    """The results of a study; everything is also in the work directory.

    Attributes:
      workdir: The work directory.
      sheets: The scores at every point, one sheet per run.
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
    """Runs the study `config.study`.

    Args:
      config: See `settings.RULES`.
      workdir: Receives signals, tables, figure and page. Signals of an earlier audit or
        study with equal settings are kept.
      stop: Checked between batches.
      asked: The result of `asking.ask`, if the configuration was checked before.

    Returns:
      The report; None on all but the first of several processes.

    Raises:
      AuditError: Nothing could be computed; lists every problem.
      RunStopped: The devices, or another process, failed; what was scored is kept.
      KeyboardInterrupt: A process was asked to stop; what was scored is kept.
      OSError: The work directory cannot be written; what is there is kept.
    """
    workdir, stop = pathlib.Path(workdir), stop or Stop()
    setup = check(config, asked)
    with processes.together(workdir) as team:
        opened = runs.open_runs(setup, workdir, team.writer)
        scored = scoring.score(
            opened, setup.samples, setup.reader, setup.devices, team=team, stop=stop
        )
        if not team.is_first:
            return None
        make = _of_runs if setup.settings.study in runs.SEVERAL else _of_signals
        try:
            sheets = make(setup, scored.runs)
            _check_comparable(sheets)
        except AuditError as error:
            causes = failing.causes(scored.failures)
            raise AuditError(error.problems + causes) from error
        found = findings.evaluate(sheets, setup.settings.study, setup.settings.report)
        record = provenance.describe(
            settings.flatten(config), opened[:1], setup.devices, sheets[0].table
        )
        writing.write(
            workdir,
            found,
            sheets,
            run=record,
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
    """Checks a configuration as an audit does, and that its study is possible.

    Raises:
      AuditError: Lists every problem.
    """
    problems, name = list[str](), config.get("study")
    if name not in rules.STUDIES:
        known = ", ".join(rules.STUDIES)
        near = nearest(str(name), rules.STUDIES)
        problems.append(f"config.study is {name!r}; studies: {known}{near}")
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


def _check_comparable(sheets: Sequence[Sheet]) -> None:
    """Checks that some sheet has both members and non-members.

    Raises:
      AuditError: None has.
    """
    if any(groups.comparisons(sheet.table) for sheet in sheets):
        return
    table = sheets[0].table
    members, others = (
        metrics.num_units(table.cluster[table.role == role])
        for role in ("members", "nonmembers")
    )
    raise AuditError(
        [
            f"nothing is left to compare: {members} videos of config.corpus.members "
            f"and {others} of config.corpus.nonmembers were scored; both need some"
        ]
    )


def _of_signals(setup: checks.Setup, opened: Sequence[Run]) -> list[Sheet]:
    """Returns a grid over the signals of one run."""
    store, names = opened[0].store, setup.scores
    return [points.sheet(setup.items, store, names, setup.headline, setup.settings)]


def _of_runs(setup: checks.Setup, opened: Sequence[Run]) -> list[Sheet]:
    """Returns all scores of each run."""
    values = runs.values(setup)
    return [_sheet(setup, *each) for each in zip(opened, values, strict=True)]


def _sheet(setup: checks.Setup, run: Run, value: int | str) -> Sheet:
    """Returns the scores of an audit with the settings of a run, which has `value`."""
    declared = run.settings.video == setup.settings.video
    profile = setup.settings.profile
    motion = tables.measured(setup.items, run.store)
    orders = tables.entropy_orders(motion, setup.settings.motion)
    repeating = set[str]()

    def compute(clip: ScoredClip) -> list[float]:
        if len(set(clip.frame_indices)) < clip.num_frames:
            repeating.add(clip.key)
        found = scores.compute(
            clip.signals, *orders[clip.key], setup.scores, profile=profile
        )
        return list(found.values())

    columns = [
        Point(
            at={setup.settings.study: value},
            score=name,
            declared=declared and name == setup.headline,
        )
        for name in setup.scores
    ]
    names = [point.name for point in columns]
    table, _ = tables.fill(setup.items, run.store, names, compute, orders, profile)
    note = ""
    if run.num_frames == 1:
        note = _ONE_FRAME
    elif repeating:
        number = f"{len(repeating)} of {len(orders)}"
        note = f"{number} clips have fewer frames and repeat some"
    return Sheet(tuple(dataclasses.replace(x, note=note) for x in columns), table)
