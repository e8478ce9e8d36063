"""Logs progress of work of unknown length, such as reading millions of rows."""

import contextlib
import gc
import threading
import time
from collections.abc import Generator

from absl import logging

from vidsme_jax.wording import printable

_SECONDS = 8.0  # Between two log lines.


class Wait:
    """The current stage of a task, which `announced` logs periodically.

    Attributes:
      stage: A short description.
    """

    def __init__(self, stage: str):
        """Takes the first stage."""
        self.stage = stage


@contextlib.contextmanager
def announced(stage: str) -> Generator[Wait, None, None]:
    """Logs the current stage of a block every 8 seconds until it ends."""
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
def collecting_later() -> Generator[None, None, None]:
    """Disables garbage collection in a block that creates no reference cycles.

    Otherwise it would traverse millions of rows repeatedly.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
