"""Studies: what a result owes to a setting, one command each.

    python -m vidsme_jax.main --config configs/studies.py:scales

`k`, `scales`, `orders` and `natural` need one run's stored signals and read each clip
once for the whole grid; `frames` and `against` make a run for each value, decoding
each clip once for all of them. Every study writes a table, a figure and a page.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from vidsme_jax import scores, settings
from vidsme_jax.base import AuditError, Failure, ScoredClip
from vidsme_jax.run import checks, provenance, scoring
from vidsme_jax.run.stopping import Stop
from vidsme_jax.scores import tables
from vidsme_jax.settings import rules
from vidsme_jax.store.lock import locked
from vidsme_jax.studies import findings, points, runs, writing
from vidsme_jax.studies.points import Point, Sheet

_RUNS = ("frames", "against")  # Studies of several runs.
_MAX_CAUSES = 20
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
            lines.append(f"not scored: {len(self.failures)} rows, see failures.jsonl")
        return "\n".join([*lines, f"study: {self.workdir / 'study.html'}"])


def run(
    config: ConfigDict, workdir: str | pathlib.Path, stop: Stop | None = None
) -> StudyReport:
    """Makes the study that `config.study` names.

    Args:
      config: See `settings.RULES`.
      workdir: Receives signals, tables, figure and page. Signals that an audit or a
        study with the same settings left there are not computed again.
      stop: Where to notice that the study shall end after the batches in flight.

    Raises:
      AuditError: Nothing could be computed; lists every problem.
      KeyboardInterrupt: It was asked to stop; what was scored is kept.
      OSError: The work directory cannot be written; what is there is kept.
    """
    workdir = pathlib.Path(workdir)
    setup = check(config)
    make = _several_runs if config.study in _RUNS else _one_run
    with locked(workdir):
        sheets, failures = make(setup, workdir, stop or Stop())
        found = findings.evaluate(sheets, config)
        about = provenance.describe(config, setup.model, setup.devices, sheets[0].table)
        writing.write(
            workdir,
            found,
            sheets,
            run=about,
            failures=failures,
            headline=setup.headline,
        )
    return StudyReport(
        workdir=workdir, sheets=tuple(sheets), found=found, failures=tuple(failures)
    )


def check(config: ConfigDict) -> checks.Setup:
    """Checks as an audit does, and that the study can be made."""
    problems = []
    if config.get("study") not in rules.STUDIES:
        known = ", ".join(rules.STUDIES)
        problems.append(f"config.study is {config.get('study')!r}; studies: {known}")
    setup = None
    try:
        setup = checks.check(config)
    except AuditError as error:
        problems += [p for p in error.problems if not p.startswith("config.study is")]
    if setup is not None and config.study == "frames":
        counts, most = config.studies.frames, setup.model.max_frames
        beyond = [count for count in counts if count > most]
        if beyond:
            fitting = tuple(count for count in counts if count <= most)
            problems.append(
                f"config.studies.frames: {', '.join(map(str, beyond))} frames are more "
                f"than the {most} that the model's positions hold; --config.studies."
                f'frames="{fitting}" would fit'
            )
    if problems or setup is None:
        raise AuditError(problems)
    return setup


def _one_run(
    setup: checks.Setup, workdir: pathlib.Path, stop: Stop
) -> tuple[list[Sheet], list[Failure]]:
    """The ordinary scoring, then a grid over what it stored."""
    store, second = checks.open_shards(setup, workdir)
    parts = (setup.clips, setup.reader, setup.model, setup.devices, store)
    scored = scoring.score_clips(*parts, setup.config, second=second, stop=stop)
    make = functools.partial(
        points.sheet, setup.items, store, setup.scores, setup.headline, setup.config
    )
    return [_with_causes(make, scored.failures)], scored.failures


def _several_runs(
    setup: checks.Setup, workdir: pathlib.Path, stop: Stop
) -> tuple[list[Sheet], list[Failure]]:
    """A run for each value, all scores of each."""
    reader = runs.open_clips(setup)
    its = runs.open_runs(setup, workdir)
    failures = runs.score_clips(setup, reader, its, stop)
    sheets = [
        _with_causes(functools.partial(_sheet, setup, each), failures) for each in its
    ]
    return sheets, failures


def _sheet(setup: checks.Setup, its: runs.Run) -> Sheet:
    """The scores of an audit with the settings of a run."""
    config, study = its.config, its.config.study
    usual = {"frames": "video.num_frames", "against": "video.against"}[study]
    declared = its.value == settings.flatten(setup.config)[usual]
    orders = tables.entropy_orders(tables.measured(setup.items, its.store), config)
    repeating = set()

    def compute(clip: ScoredClip) -> list[float]:
        if len(set(clip.frame_indices)) < clip.num_frames:
            repeating.add(clip.key)
        found = scores.compute(
            clip.signals, *orders[clip.key], setup.scores, profile=config.profile
        )
        return list(found.values())

    columns = [Point(at={study: its.value}, score=name) for name in setup.scores]
    names = [point.name for point in columns]
    table, _ = tables.fill(setup.items, its.store, names, compute, orders, config)
    note = _note(its, len(repeating), len(orders))
    return Sheet(
        tuple(
            dataclasses.replace(
                point, declared=declared and point.score == setup.headline, note=note
            )
            for point in columns
        ),
        table,
    )


def _note(its: runs.Run, repeating: int, clips: int) -> str:
    if its.num_frames == 1:
        return _ONE_FRAME
    if repeating:
        return f"{repeating} of {clips} clips have fewer frames and repeat some"
    return ""


def _with_causes(make: Any, failures: Sequence[Failure]) -> Sheet:
    """Makes a sheet, or says why no clip could be scored."""
    try:
        return make()
    except AuditError as error:
        causes = sorted({f"{f.video}: {f.stage}: {f.cause}" for f in failures})
        raise AuditError(error.problems + causes[:_MAX_CAUSES]) from error
