"""Isolates clips at which the devices fail: halves batches until a clip is alone.

A batch that raises an error of the devices is computed again in halves, filled up with
copies to the shape that is compiled already. A clip that fails alone twice is that
clip's failure; what fails with every clip ends the run.

Where memory lacks for the first batch of a shape, halves would need as much, so that
this ends the run at once; a program that was compiled is tried once more before that.
"""

from collections.abc import Callable
from typing import Any

from absl import logging

from vidsme_jax.base import AuditError, ClipError
from vidsme_jax.run import memory
from vidsme_jax.run.stacking import Group, Padded
from vidsme_jax.run.stopping import RunStopped

_IN_A_ROW = 3  # Clips that fail alone, one after another, that end a run.


class Isolation:
    """Counts what fails on the devices, and finds the clip that causes it.

    Attributes:
      failure: The error that ends the run; None until there is one.
    """

    def __init__(
        self,
        lacking: Callable[[Exception, Padded | None], AuditError],
        *,
        batch_size: int,
        stored: Callable[[], bool],
        alone: bool = True,
    ):
        """Starts with nothing computed.

        Args:
          lacking: Returns what to say if memory lacks for the first batch, or, given
            its shape, for the first batch of a shape.
          batch_size: See `config.batch_size`.
          stored: Whether any clip of the run was computed before.
          alone: Whether batches may be halved; not on a grid of several processes.
        """
        self.failure: Exception | None = None
        self._computed: set[Padded] = set()  # Shapes of batches that were.
        self._again: Any = None  # The clip, or shape, that was sent a second time.
        self._lacking, self._stored = lacking, stored
        self._batch_size, self._alone = batch_size, alone
        self._errors: list[str] = []  # Of clips alone since the last success.

    def succeeded(self, group: Group) -> None:
        """Notes that a batch has been computed."""
        self._computed.add(group.shape)
        self._errors = []

    def failed(
        self,
        group: Group,
        error: Exception,
        *,
        compiled: bool,
        again: Callable[[Group], list[Any]],
        result: Callable[[Any, ClipError], Any],
    ) -> list[Any]:
        """Returns the results of a batch at which the devices failed.

        After an error that is not a clip's, `failure` is set and what is left of the
        batch has no results.

        Args:
          group: The batch.
          error: The error of the devices.
          compiled: Whether its program is known to be.
          again: Computes part of the batch; returns its results.
          result: Makes the result of a clip that fails alone.
        """
        cause, clips = memory.one_line(error), group.clips
        if self.failure is not None:
            return []
        first = group.shape not in self._computed and memory.is_lacking(error)
        if not first and not self._alone:
            self.failure = RunStopped(f"a batch failed on the devices: {cause}")
        elif first and not (compiled and self._alone and self._chance(group.shape)):
            self.failure = self._no_memory(error, group.shape)
        elif first:
            logging.warning("a batch failed, sent again: %s", cause)
            return again(group)
        elif len(clips) > 1:
            logging.warning("a batch of %d clips failed, halved: %s", len(clips), cause)
            half = len(clips) // 2
            halves = (group._replace(clips=x) for x in (clips[:half], clips[half:]))
            return [
                found
                for part in halves
                if self.failure is None
                for found in again(part)
            ]
        elif self._chance(clips[0]):
            logging.warning("a clip alone in its batch failed, sent again: %s", cause)
            return again(group)
        else:
            self._errors.append(cause)
            if len(self._errors) < _IN_A_ROW:
                return [result(clips[0], ClipError("signals", cause))]
            self.failure = (
                self._too_many() if self._any_success() else self._nothing_works()
            )
        return []

    def close(self, *, complete: bool) -> None:
        """Ends the run.

        Args:
          complete: Whether all its clips were sent.

        Raises:
          AuditError: The devices have too little memory for the first batch, or every
            clip failed, alone in its batch.
          RunStopped: The devices failed too often.
        """
        if complete and self._errors and not self._any_success():
            self.failure = self.failure or self._nothing_works()
        if self.failure is not None:
            raise self.failure

    def _chance(self, what: Any) -> bool:
        """Returns whether something may be tried once more: it has not been yet."""
        given, self._again = self._again is what, what
        return not given

    def _any_success(self) -> bool:
        return bool(self._computed) or self._stored()

    def _no_memory(self, error: Exception, shape: Padded) -> Exception:
        if not self._computed:
            return self._lacking(error, None)
        (problem,) = self._lacking(error, shape).problems
        return RunStopped(problem)

    def _too_many(self) -> RunStopped:
        return RunStopped(
            f"{len(self._errors)} clips in a row failed on the devices, each alone in "
            f"its batch; the last error is {self._errors[-1]}"
        )

    def _nothing_works(self) -> AuditError:
        return AuditError(
            [
                "every clip fails on the devices, also alone in a batch that is filled "
                f"up with copies to config.batch_size = {self._batch_size}: "
                f"{self._errors[-1]}. Set a smaller config.batch_size, or look whether "
                "the devices work"
            ]
        )
