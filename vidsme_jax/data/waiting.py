"""Log lines during work of unknown length, such as reading millions of rows."""

import contextlib
import gc
import threading
import time
from collections.abc import Iterator

from absl import logging

from vidsme_jax.wording import printable

_SECONDS = 8.0  # Between two log lines.


class Wait:
    """What is being done, which `announced` logs now and then.

    Attributes:
      stage: In a few words.
    """

    def __init__(self, stage: str):
        """Takes the first stage."""
        self.stage = stage


@contextlib.contextmanager
def announced(stage: str) -> Iterator[Wait]:
    """Logs what is being done for as long as a block takes, if that is long."""
    wait, begun, over = Wait(stage), time.monotonic(), threading.Event()

    def announce() -> None:
        while not over.wait(_SECONDS):
            seconds = time.monotonic() - begun
            logging.info("%s; %.0f s so far", printable(wait.stage), seconds)

    thread = threading.Thread(target=announce, daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def collecting_later() -> Iterator[None]:
    """Keeps Python from looking for cycles in a block that makes none.

    It would go through millions of rows again and again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
