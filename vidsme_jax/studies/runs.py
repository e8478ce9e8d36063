"""The runs of a study that varies a setting of the signals, one folder each.

A run stores the same as an audit with its settings, so either resumes the other.
"""

import dataclasses
import pathlib

from vidsme_jax.run import checks
from vidsme_jax.run.runs import Run
from vidsme_jax.store.writers import Writer
from vidsme_jax.wording import counted

SEVERAL = ("frames", "against")  # Studies of several runs.


def values(setup: checks.Setup) -> tuple[int | str, ...]:
    """Returns the values of `video.num_frames` or `video.against`, one per run."""
    return getattr(setup.settings.studies, setup.settings.study)


def open_runs(setup: checks.Setup, workdir: pathlib.Path, writer: Writer) -> list[Run]:
    """Opens a run for each value of the study, or the only one that it needs.

    Raises:
      AuditError: A folder holds signals of other settings.
    """
    if setup.settings.study not in SEVERAL:
        return [checks.open_run(setup, workdir, writer=writer)]
    runs: list[Run] = []
    for value in values(setup):
        if isinstance(value, int):
            name = counted(value, "frame")
            folder, changes = f"frames-{value:03}", {"num_frames": value}
        else:
            name, folder = value, value.replace(":", "-")
            changes = {"against": value}
        video = dataclasses.replace(setup.settings.video, **changes)
        runs.append(checks.open_run(setup, workdir / folder, video, name, writer))
    return runs
