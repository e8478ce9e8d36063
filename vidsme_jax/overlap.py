"""How a run's time divides between the devices and what feeds them."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
from absl import logging

T = TypeVar("T")

CLIPS = "decoding and preprocessing"
SENDING = "compiling and sending"
STORING = "storing"
_ENOUGH = 0.9  # Busy for this part of the time, devices are what limits a run.


class Timeline:
    """Notes when results are asked for and when they are there.

    A thread waits for each result, so that nothing else does. The window is from the
    first batch sent, compiled by then, to the last one computed: the part in which
    feeding and computing can overlap.

    Attributes:
      waited: Seconds that the feeding thread spent on each cause, within the window.
    """

    def __init__(self, *, watching: bool = True):
        """Starts to watch, or ignores everything."""
        causes = (CLIPS, SENDING, STORING)
        self.waited: dict[str, float] = dict.fromkeys(causes, 0.0)
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._begun = self._done = self._busy = 0.0
        self._watcher: threading.Thread | None = None
        if watching:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def sent(self, out: Any) -> None:
        """Takes note of a result that the devices have begun or will."""
        if self._watcher is not None:
            now = time.perf_counter()
            self._begun = self._begun or now
            self._results.put((now, out))

    @contextlib.contextmanager
    def spending(self, cause: str) -> Iterator[None]:
        """Adds the time of a block to a cause."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._begun:
                self.waited[cause] += time.perf_counter() - max(start, self._begun)

    def awaiting(self, coming: Iterable[T], cause: str) -> Iterator[T]:
        """Yields what comes, and adds the time until it does to a cause."""
        iterator = iter(coming)
        while True:
            with self.spending(cause):
                item = next(iterator, self)
            if item is self:
                return
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Waits for the last result."""
        if self._watcher is not None:
            self._results.put(None)
            self._watcher.join()

    @property
    def seconds(self) -> float:
        """The window; 0 if nothing was sent."""
        return max(self._done - self._begun, 0.0)

    @property
    def idle(self) -> float:
        """Seconds within the window in which the devices had nothing to do."""
        return self.seconds - self._busy

    def tell(self) -> None:
        """Logs what limited the run; once closed."""
        if not self.seconds:
            return
        share = self.idle / self.seconds
        limit = "they are the bottleneck"
        if share > 1 - _ENOUGH:
            cause, spent = max(self.waited.items(), key=lambda item: item[1])
            limit = f"the bottleneck is {cause} ({spent:.1f} s)"
        logging.info(
            "devices: busy for %.1f s of %.1f s, they waited %.0f %% of the time; %s",
            self._busy,
            self.seconds,
            100 * share,
            limit,
        )

    def _watch(self) -> None:
        while (entry := self._results.get()) is not None:
            sent, out = entry
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                jax.block_until_ready(out)  # Whoever fetches it is told of an error.
            done = time.perf_counter()
            self._busy += done - max(sent, self._done)
            self._done = done
            del entry, out


UNWATCHED = Timeline(watching=False)
