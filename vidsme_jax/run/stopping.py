"""Stops a run on a signal, after the batch in flight was computed and stored."""

import signal
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class RunStopped(Exception):
    """A run that cannot go on; what was stored before is kept."""


class Stop:
    """A request to stop, noticed between two batches.

    Where no batch is in flight, so that there is nothing to keep, a signal interrupts
    at once, or before the next batch where Python drops the interrupt, as in a callback
    of its garbage collector.
    """

    def __init__(self):
        self.asked = False
        self._in_flight = False

    def listen(self) -> None:
        """Takes SIGINT and SIGTERM as requests; a second one ends the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def between(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields batches, whose source looks at `asked` and ends when it is true.

        Raises:
          KeyboardInterrupt: After the last batch, or before the first, if it was asked
            to stop.
        """
        if self.asked:
            raise KeyboardInterrupt
        self._in_flight = True
        try:
            yield from batches
        finally:
            self._in_flight = False
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # A second signal takes the default action, which also ends long calls.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        self.asked = True
        if not self._in_flight:
            raise KeyboardInterrupt
        print(
            "Stopping after this batch; interrupt again to stop now.", file=sys.stderr
        )
