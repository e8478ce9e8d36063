"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import sys
import time

from absl import logging
from tqdm import tqdm

from vidsme_jax import terminal
from vidsme_jax.wording import printable

_SECONDS = 10.0  # Between two log lines.


def bar(total: int, what: str, unit: str) -> tqdm:
    """Returns a bar for a terminal; elsewhere it is disabled and shows nothing.

    Args:
      total: How many units there are.
      what: Is done.
      unit: One of them.
    """
    quiet = not terminal.is_terminal(sys.stderr)
    return tqdm(total=total, desc=printable(what), unit=unit, disable=quiet)


class Progress:
    """Counts finished clips and shows rate, remaining time and failures.

    The rate in the log is of what follows the first clips that do not fail, which wait
    for the compiler.
    """

    def __init__(self, total: int, what: str):
        self.total, self.what = total, what
        self.finished = self.failed = 0
        self.logged, self.first = time.monotonic(), (0, 0.0)
        self.bar = bar(total, what, "clip")

    def add(self, finished: int, failed: int = 0) -> None:
        """Reports so many more clips as finished, of which `failed` failed."""
        self.finished += finished
        self.failed += failed
        self.bar.update(finished)
        if self.failed:
            self.bar.set_postfix(failed=self.failed)
        now, left = time.monotonic(), self.total - self.finished
        if self.finished - finished <= self.failed - failed:
            self.first = self.finished, now
        if self.bar.disable and (now - self.logged > _SECONDS or not left):
            self.logged = now
            done, pace = f"{self.what}: {self.finished} of {self.total} clips", ""
            if (later := self.finished - self.first[0]) and now > self.first[1]:
                rate = later / (now - self.first[1])
                pace = f", {rate:.2f} a second, about {left / rate:.0f} s left"
            logging.info("%s%s, %d failed", done, pace, self.failed)

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()
