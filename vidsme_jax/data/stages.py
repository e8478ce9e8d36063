"""Core seconds that host threads spend on each stage of a clip.

The stages are `HASH` (SHA-256 of the file), `SCAN` (opening it and reading its frame
table), `DECODE` (with the conversion to RGB), `MOTION` (grey levels and, with OpenCV,
the flow), `PREPROCESS` and `DESCRIBE` (appearance features and fingerprints).
"""

import contextlib
import threading
import time
from collections.abc import Generator, Mapping

HASH, SCAN, DECODE = "hash", "scan", "decode"
MOTION, PREPROCESS, DESCRIBE = "motion", "preprocess", "describe"


class Stages:
    """Sums the CPU seconds of threads by stage; thread-safe.

    ```
    stages = Stages()
    with stages.spending(DECODE):  # On any thread.
        frames = video.decode_chosen(path, choose)
    stages.seconds  # {"hash": 0.01, "scan": 0.02, "decode": 0.9}
    ```

    CPU seconds of the thread, unlike wall seconds, do not grow with the number of
    threads that compete for a core, and a waiting thread spends none.
    """

    def __init__(self):
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def seconds(self) -> dict[str, float]:
        """CPU seconds so far, by stage, in the order in which stages first ended."""
        with self._lock:
            return dict(self._seconds)

    @contextlib.contextmanager
    def spending(self, stage: str) -> Generator[None, None, None]:
        """Adds the CPU seconds of a block to a stage.

        A nested block, of this method or of `spending` in the module, counts for its
        own stage only.
        """
        outer = _blocks.innermost
        block = _blocks.innermost = _Block(self)
        start = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - start
            _blocks.innermost = outer
            if outer is not None:
                outer.inside += spent
            self.add({stage: spent - block.inside})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds CPU seconds by stage, such as those of another process."""
        with self._lock:
            for stage, spent in seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + spent


def spending(stage: str) -> contextlib.AbstractContextManager[None]:
    """Adds a block to a stage of the innermost `Stages` on this thread, if any."""
    block = _blocks.innermost
    return contextlib.nullcontext() if block is None else block.stages.spending(stage)


def add(seconds: Mapping[str, float]) -> None:
    """Adds CPU seconds by stage to the innermost `Stages` on this thread, if any."""
    if (block := _blocks.innermost) is not None:
        block.stages.add(seconds)


class _Block:
    """An open block, and the CPU seconds of the blocks nested in it."""

    def __init__(self, stages: Stages):
        self.stages, self.inside = stages, 0.0


class _Blocks(threading.local):
    innermost: _Block | None = None


_blocks = _Blocks()
