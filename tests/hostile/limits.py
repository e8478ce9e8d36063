"""Limits of time and memory for what a test calls in its own process."""

import contextlib
import pathlib
import resource
import signal
import time
from collections.abc import Iterator
from typing import Any


class TooLate(BaseException):
    """Time is up; nothing that is caught as an error catches it."""


class Used:
    """What a block took.

    Attributes:
      core_seconds: Of this process.
      gigabytes: By which the peak of the process grew.
    """

    core_seconds = gigabytes = 0.0


@contextlib.contextmanager
def within(seconds: float, gigabytes: float = 1.0) -> Iterator[Used]:
    """Ends a block that takes too long, and refuses it more memory.

    In the main thread alone. A call that the kernel does not answer is interrupted too.

    Raises:
      TooLate: It has taken so many seconds.
      MemoryError: It asked for more, in most cases.
    """

    def late(*_: Any) -> None:
        raise TooLate(f"over {seconds:g} s")

    used = Used()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(gigabytes * 1e9)
    begun = time.process_time()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield used
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
        used.core_seconds = time.process_time() - begun
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used.gigabytes = (now - peak) / 1e6
