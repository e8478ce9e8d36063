"""Collects what could not be scored, once per row of a manifest that it concerns."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set

from absl import logging

from vidsme_jax.base import ClipError, Failure, Item, Sample
from vidsme_jax.data import samples
from vidsme_jax.run.runs import Missing, Run
from vidsme_jax.wording import printable

_LINES = 20  # Of a message, and of the log.


class Failed:
    """Lists what fails in runs that are scored together.

    Attributes:
      failures: The failures of the audited models.
      lacking: The failures of a reference model.
    """

    def __init__(self, runs: Sequence[Run]):
        """Starts with nothing; failures name runs by their places."""
        self.failures: list[Failure] = []
        self.lacking: list[Failure] = []
        self._runs = runs
        self._logged = 0
        self._several = sum(not run.is_reference for run in runs) > 1

    def add(
        self,
        sample: Sample,
        error: ClipError,
        lacks: Mapping[int, Missing],
        keys: Set[str] | None = None,
    ) -> None:
        """Lists the rows that a failure concerns.

        Where there are several runs of audited models, the cause names the one that
        failed unless several did.

        Args:
          sample: The sample that failed.
          error: The cause.
          lacks: What it lacks in each run that failed, by place.
          keys: The texts that failed; by default all that it lacks.
        """
        first = self._runs[next(iter(lacks))]
        if self._several and len(lacks) == 1 and not first.is_reference:
            error = ClipError(error.stage, f"{first.name}: {error.cause}")
        alone = all(self._runs[place].is_reference for place in lacks)
        whose = "the reference model: " if alone else ""
        self._logged += 1
        if self._logged <= _LINES:
            logging.warning("%s", printable(f"{sample.clip.key}: {whose}{error}"))
        if self._logged == _LINES:
            logging.warning("further failures are in failures.jsonl alone")
        for place, missing in lacks.items():
            run = self._runs[place]
            listed = self.lacking if run.is_reference else self.failures
            listed += rows(sample, error, run, missing, keys)


def rows(
    sample: Sample,
    error: ClipError,
    run: Run,
    lacks: Missing,
    keys: Set[str] | None = None,
) -> list[Failure]:
    """Returns a failure for each row that lacks something of what failed.

    All rows of a clip need its video's signals, where they are scored; a text is needed
    by the rows that ask it.

    Args:
      sample: The sample that failed.
      error: The cause.
      run: The run in which it failed.
      lacks: What the sample lacks in that run.
      keys: The texts that failed; by default all that it lacks.
    """
    given = run.settings
    texts = {each.key for each in lacks.texts} if keys is None else keys
    return [
        row(item, error)
        for item in sample.clip.items
        if (keys is None and lacks.video)
        or samples.text_of(item, given.slices, given.response) in texts
    ]


def row(item: Item, error: ClipError) -> Failure:
    """Returns the failure of one row."""
    return Failure(id=item.id, video=item.video, stage=error.stage, cause=error.cause)


def merged(failures: Iterable[Failure]) -> list[Failure]:
    """Returns one failure a row, with all its causes and the stage of the first."""
    found: dict[str, Failure] = {}
    for each in dict.fromkeys(failures):
        first = found.setdefault(each.id, each)
        if first is not each:
            cause = f"{first.cause}; {each.cause}"
            found[each.id] = dataclasses.replace(first, cause=cause)
    return list(found.values())


def causes(failures: Sequence[Failure]) -> list[str]:
    """Returns why clips could not be scored, for a message: at most 20 lines."""
    return sorted({f"{f.video}: {f.stage}: {f.cause}" for f in failures})[:_LINES]
