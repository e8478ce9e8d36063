"""The runs of a study that varies what signals depend on, one folder each.

A run is what an audit with its settings would have stored, so that either goes on where
the other stopped.
"""

import dataclasses
import pathlib
from typing import Any

from vidsme_jax.run import checks
from vidsme_jax.run.runs import Run
from vidsme_jax.store.writers import Writer

SEVERAL = ("frames", "against")  # Studies of several runs.


def values(setup: checks.Setup) -> tuple[Any, ...]:
    """Returns the values of `video.num_frames` or `video.against`, one a run."""
    given = setup.settings
    return getattr(given.studies, given.study)


def open_runs(setup: checks.Setup, workdir: pathlib.Path, writer: Writer) -> list[Run]:
    """Opens a run for each value that the study goes through, or the one it needs.

    Raises:
      AuditError: A folder holds signals of other settings.
    """
    if setup.settings.study not in SEVERAL:
        return [checks.open_run(setup, workdir, writer=writer)]
    runs = []
    for value in values(setup):
        if setup.settings.study == "frames":
            name = f"{value} frame{'s' if value > 1 else ''}"
            folder, changes = f"frames-{value:03}", {"num_frames": value}
        else:
            name, folder = value, value.replace(":", "-")
            changes = {"against": value}
        video = dataclasses.replace(setup.settings.video, **changes)
        runs.append(checks.open_run(setup, workdir / folder, video, name, writer))
    return runs
