"""What could not be scored, once per row of a manifest that it concerns."""

from collections.abc import Mapping, Sequence, Set

from absl import logging

from vidsme_jax.base import ClipError, Failure, Item, Sample, printable
from vidsme_jax.data import samples
from vidsme_jax.run.runs import Missing, Run

_MAX_CAUSES = 20


class Failed:
    """Lists what fails in runs that are scored together.

    Attributes:
      failures: Of the audited model.
      lacking: Of a reference model.
    """

    def __init__(self, runs: Sequence[Run]):
        """Starts with nothing; failures name runs by their places."""
        self.failures: list[Failure] = []
        self.lacking: list[Failure] = []
        self._runs = runs
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
          sample: That failed.
          error: Why.
          lacks: What it lacks in each run that failed, by place.
          keys: Of the texts that failed; by default all that it lacks.
        """
        first = self._runs[next(iter(lacks))]
        cause = error.cause
        if self._several and len(lacks) == 1 and not first.is_reference:
            cause = f"{first.name}: {cause}"
        alone = all(self._runs[place].is_reference for place in lacks)
        whose = "the reference model: " if alone else ""
        said = f"{sample.clip.key}: {whose}{error.stage}: {cause}"
        logging.warning("%s", printable(said))
        for place, missing in lacks.items():
            run = self._runs[place]
            listed = self.lacking if run.is_reference else self.failures
            listed += [
                Failure(id=i.id, video=i.video, stage=error.stage, cause=cause)
                for i in sample.clip.items
                if _concerns(i, run, missing, keys)
            ]


def causes(failures: Sequence[Failure]) -> list[str]:
    """Returns why clips could not be scored, for a message: at most 20 lines."""
    return sorted({f"{f.video}: {f.stage}: {f.cause}" for f in failures})[:_MAX_CAUSES]


def _concerns(item: Item, run: Run, lacks: Missing, keys: Set[str] | None) -> bool:
    """Whether a row of a manifest lacks something of what failed."""
    given = run.settings
    text = samples.text_of(item, given.slices, given.response)
    if keys is not None:
        return text in keys
    return lacks.video or text in {each.key for each in lacks.texts}
