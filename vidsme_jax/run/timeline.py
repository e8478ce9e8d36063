"""Divides a run's time into computing, waiting by cause, and compiling."""

# Some functions of JAX have no types.
# pyright: reportUnknownMemberType=false

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax

from vidsme_jax.parallel import JaxRuntimeError

T = TypeVar("T")
Span = tuple[float, float]  # From and to, in seconds of `time.perf_counter`.

CLIPS = "decoding and preprocessing"
SENDING = "sending"
FLOW = "optical flow"  # On a device; OpenCV's is part of CLIPS.
STORING = "storing"
_CAUSES = (CLIPS, SENDING, FLOW, STORING)
_COMPILING = "/jax/core/compile/"  # Events: tracing, lowering, compiling or reading.


class _Sent(NamedTuple):
    """A batch, and what the feeding thread did since the one before."""

    time: float
    out: Any
    spent: list[tuple[str, Span]]
    compiled: list[Span]


class Timeline:
    """Measures when batches are sent and when their results are there.

    A thread waits for each result, so that nothing else does. The window is from the
    first batch sent, compiled by then, to the last one computed: the part in which
    feeding and computing can overlap. Time in which devices had nothing to do because
    the feeding thread compiled (a batch of another shape) is not part of it.

    It is a context manager, and closes itself; results are read after that.

    Attributes:
      batches: How many were computed.
      busy: Seconds in which the devices had something to do.
      waited: Seconds in which they had not, by what the feeding thread did meanwhile.
    """

    def __init__(self, *, watching: bool = True):
        """Starts to watch, or ignores everything."""
        self.batches = 0
        self.busy = 0.0
        self.waited: dict[str, float] = dict.fromkeys(_CAUSES, 0.0)
        self._results: queue.SimpleQueue[_Sent | None] = queue.SimpleQueue()
        self._begun = self._done = self._compiled = 0.0
        self._spent: list[tuple[str, Span]] = []
        self._feeding = threading.get_ident()
        self._own: list[Span] = []  # Compiled by the feeding thread.
        self._all: list[Span] = []  # Compiled by any.
        self._watcher: threading.Thread | None = None
        if watching:
            jax.monitoring.register_event_duration_secs_listener(self._event)
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def __enter__(self) -> "Timeline":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def sent(self, out: Any) -> None:
        """Records a result that the devices have begun to compute, or will."""
        if self._watcher is not None:
            now = time.perf_counter()
            self._begun = self._begun or now
            self._results.put(_Sent(now, out, self._spent, self._own))
            self._spent, self._own = [], []

    @contextlib.contextmanager
    def spending(self, cause: str) -> Generator[None, None, None]:
        """Counts a block of the feeding thread for a cause."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._begun:
                self._spent.append((cause, (start, time.perf_counter())))

    def awaiting(self, coming: Iterable[T], cause: str) -> Iterator[T]:
        """Yields what comes, and counts the time until it does for a cause."""
        iterator = iter(coming)
        while True:
            with self.spending(cause):
                item = next(iterator, self)
            if item is self:
                return
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Waits for the last result; nothing is measured after that."""
        if self._watcher is not None:
            jax.monitoring.unregister_event_duration_listener(self._event)
            self._results.put(None)
            self._watcher.join()
            self._watcher = None

    @property
    def seconds(self) -> float:
        """The window; 0 if nothing was sent."""
        return max(self._done - self._begun - self._compiled, 0.0)

    @property
    def idle(self) -> float:
        """Seconds within the window in which the devices had nothing to do."""
        return max(self.seconds - self.busy, 0.0)

    @property
    def compiling(self) -> float:
        """Wall seconds of tracing, lowering and compiling, by any thread.

        Reading a program that an earlier run has left in `compile_cache` is part of it.
        """
        return _covered(self._all, (0.0, float("inf")))

    def _event(self, event: str, duration_secs: float, **_: Any) -> None:
        """Receives, at its end, whatever JAX measures."""
        if event.startswith(_COMPILING):
            now = time.perf_counter()
            span = now - duration_secs, now
            self._all.append(span)
            if threading.get_ident() == self._feeding:
                self._own.append(span)

    def _watch(self) -> None:
        while (batch := self._results.get()) is not None:
            with contextlib.suppress(JaxRuntimeError):
                jax.block_until_ready(batch.out)  # Whoever fetches it gets the error.
            done = time.perf_counter()
            if 0 < self._done < batch.time:
                self._gap(batch, (self._done, batch.time))
            self.busy += done - max(batch.time, self._done)
            self.batches += 1
            self._done = done
            del batch

    def _gap(self, batch: _Sent, gap: Span) -> None:
        """Divides time in which there was nothing to compute among its causes."""
        self._compiled += _covered(batch.compiled, gap)
        for cause, (start, stop) in batch.spent:
            part = max(start, gap[0]), min(stop, gap[1])
            if part[0] < part[1]:
                compiled = _covered(batch.compiled, part)
                self.waited[cause] += part[1] - part[0] - compiled


def _covered(spans: Iterable[Span], part: Span) -> float:
    """Returns how many seconds of a part at least one span covers."""
    total, reached = 0.0, part[0]
    for start, stop in sorted(spans):
        start, stop = max(start, reached), min(stop, part[1])
        total += max(stop - start, 0.0)
        reached = max(reached, stop)
    return total


UNWATCHED = Timeline(watching=False)
