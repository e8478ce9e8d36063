"""Progress of long work: one line on a terminal, plain log lines elsewhere.

The line says what is going on, from the start of a command to its end. It is drawn
again every second, so that a stage without steps, such as compiling, shows its time;
whatever is printed or logged takes its place.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Generator

from absl import logging

from vidsme_jax import terminal
from vidsme_jax.wording import counted

_SECONDS = 10.0  # Between two log lines.
_REDRAWN = 1.0  # Seconds after which the line is drawn again.
_MOMENT = 0.1  # Seconds in which it is drawn once, however much is counted.
_CELLS = 20  # Of a bar.


def stage(what: str) -> None:
    """Shows what is going on, and for how long, until another takes its place.

    Elsewhere than on a terminal nothing is shown.

    Args:
      what: In a few words, such as "reading the corpus".
    """
    since = time.monotonic()

    def text() -> str:
        seconds = time.monotonic() - since
        return f"{what} ..." + (f" {_clock(seconds)}" if seconds >= 1 else "")

    _LINE.take(text)


def over() -> None:
    """Takes the line away."""
    _LINE.take(None)


class _Line:
    """The line of the terminal: whose it is, drawn again by a thread."""

    def __init__(self):
        self._text: Callable[[], str] | None = None
        self._drawn = -math.inf
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()

    def take(self, text: Callable[[], str] | None) -> None:
        """Draws what a function returns from now on; None ends it."""
        if text is None and self._text is None:
            return
        if text is not None and not terminal.is_terminal(sys.stderr):
            return
        with self._lock:
            self._text = text
            if text is None:
                terminal.clear_line()
                return
            self.draw()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._redraw, daemon=True)
                self._thread.start()

    def draw(self) -> None:
        """Draws it now."""
        with self._lock:
            if self._text is not None:
                self._drawn = time.monotonic()
                terminal.show_line(self._text())

    def update(self) -> None:
        """Draws it now unless that was done a moment ago."""
        if time.monotonic() - self._drawn > _MOMENT:
            self.draw()

    def _redraw(self) -> None:
        while True:
            time.sleep(_REDRAWN)
            with self._lock:
                if self._text is None:
                    self._thread = None
                    return
                self.draw()


_LINE = _Line()
terminal.before_printing.append(over)


class Bar:
    """Counts units on the terminal's line; elsewhere it shows nothing.

    Attributes:
      total: How many units there are.
      finished: So far.
      note: Shown after the count.
    """

    def __init__(self, total: int, what: str, unit: str, note: str = ""):
        """Shows the bar.

        Args:
          total: How many units there are.
          what: The work, such as "decoding".
          unit: One of them.
          note: Shown after the count.
        """
        self.total, self.finished, self.note = total, 0, note
        self._what, self._unit, self._since = what, unit, time.monotonic()
        _LINE.take(self._text)

    @property
    def shown(self) -> bool:
        """Whether there is a terminal to show it."""
        return terminal.is_terminal(sys.stderr)

    def update(self, number: int = 1, note: str | None = None) -> None:
        """Adds to the count, and replaces the note if one is given."""
        self.finished += number
        self.note = self.note if note is None else note
        _LINE.update()

    def close(self) -> None:
        """Ends the bar."""
        over()

    def _text(self) -> str:
        done = self.finished / max(self.total, 1)
        cells = "#" * math.floor(_CELLS * min(done, 1))
        count = f"{self.finished} of {counted(self.total, self._unit)}"
        passed = _clock(time.monotonic() - self._since)
        note = f", {self.note}" if self.note else ""
        # A narrow terminal cuts off the end.
        return f"{self._what}: {count}{note} [{cells:.<{_CELLS}}] {passed}"


class Progress:
    """Counts finished clips and shows rate, remaining time and failures.

    Rate and remaining time are of what follows the first clips that do not fail, which
    wait for the compiler; before, none is shown. What was finished by an earlier run is
    no part of the total. Clips that fail may take no time at all: where some have, the
    time is given from what it is if as many go on to fail to what it is if none does.
    """

    def __init__(
        self,
        total: int,
        what: str,
        first: str = "",
        compiling: Callable[[], float] = lambda: 0.0,
    ):
        """Begins.

        Args:
          total: How many clips there are.
          what: The work, such as "decoding".
          first: What the first clips wait for, shown until they are finished.
          compiling: Returns the seconds of compiling so far, which are no part of a
            rate.
        """
        self.total, self.what = total, what
        self.finished = self.failed = 0
        self._compiling, self._waiting = compiling, first
        self._logged = time.monotonic()
        # Of the first clips that did not fail: how many were finished and failed then.
        self._first, self._begun = (0, 0), self._now()
        self._bar = Bar(total, what, "clip", first)

    def add(self, finished: int, failed: int = 0) -> None:
        """Adds to the numbers of finished and failed clips."""
        none = self.finished == self.failed
        self.finished += finished
        self.failed += failed
        if none:
            self._first, self._begun = (self.finished, self.failed), self._now()
        waiting = self._waiting if self.finished == self.failed else ""
        lost = f"{self.failed} failed" if self.failed else ""
        notes = filter(None, (waiting, *self._pace(), lost))
        self._bar.update(finished, ", ".join(notes))
        now = time.monotonic()
        over = self.finished >= self.total
        if not self._bar.shown and (now - self._logged > _SECONDS or over):
            self._logged = now
            done = f"{self.what}: {self.finished} of {self.total} clips"
            said = [done, *self._pace(), f"{self.failed} failed"]
            logging.info("%s", ", ".join(said))

    def close(self) -> None:
        """Ends the line."""
        self._bar.close()

    def _now(self) -> float:
        return time.monotonic() - self._compiling()

    def _pace(self) -> list[str]:
        """Returns rate and time left, as far as they can be known."""
        seconds, later = self._now() - self._begun, self.finished - self._first[0]
        good = later - (self.failed - self._first[1])
        left = self.total - self.finished
        if good <= 0 or seconds <= 0:
            return []
        rate = f"{good / seconds:.2f} a second"
        if left <= 0:
            return [rate]
        least, most = (left * seconds / number for number in (later, good))
        shortest, longest = in_words(least), in_words(most)
        about = longest if shortest == longest else f"{shortest} to {longest}"
        return [rate, f"about {about} left"]


def in_words(seconds: float) -> str:
    """Returns a time with two digits or so.

    Example:
      >>> in_words(80.0), in_words(600.0), in_words(9000.0)
      ('80 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _clock(seconds: float) -> str:
    """Returns such as 0:07 or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def loading(total: int) -> Generator[Callable[[int], None], None, None]:
    """Shows how many bytes of weights are read.

    Args:
      total: Bytes.

    Yields:
      What is called with the bytes of each part that was read.
    """
    done, (unit, name) = 0, (2**30, "GiB") if total >= 2**30 else (2**20, "MiB")

    def text() -> str:
        return f"loading weights: {done / unit:.1f} of {total / unit:.1f} {name}"

    def add(number: int) -> None:
        nonlocal done
        done += number
        _LINE.update()

    _LINE.take(text)
    try:
        yield add
    finally:
        over()
