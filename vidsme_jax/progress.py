"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import sys
import time

from absl import logging
from tqdm import tqdm

_SECONDS = 10.0  # Between two log lines.


class Progress:
    """Counts finished clips and shows rate, remaining time and failures."""

    def __init__(self, total: int, what: str):
        self.total, self.what = total, what
        self.finished = self.failed = 0
        self.started = self.logged = time.monotonic()
        self.bar = tqdm(
            total=total, desc=what, unit="clip", disable=not sys.stderr.isatty()
        )

    def add(self, finished: int, failed: int = 0) -> None:
        """Reports so many more clips as finished, of which `failed` failed."""
        self.finished += finished
        self.failed += failed
        self.bar.update(finished)
        if self.failed:
            self.bar.set_postfix(failed=self.failed)
        now, left = time.monotonic(), self.total - self.finished
        if self.bar.disable and (now - self.logged > _SECONDS or not left):
            self.logged = now
            rate = max(self.finished / max(now - self.started, 1e-9), 1e-9)
            done = f"{self.what}: {self.finished} of {self.total} clips"
            pace = f"{rate:.2f} a second, about {left / rate:.0f} s left"
            logging.info("%s, %s, %d failed", done, pace, self.failed)

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()
