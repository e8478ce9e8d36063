"""The one way to the terminal: printing, log lines, tracebacks.

Ids, groups, file names and causes are not trusted. Control characters, marks of
direction and characters that the terminal's encoding lacks are printed as escapes, and
a line break inside a name is followed by an indent, so that no name can forge a log
line.
"""

import contextlib
import logging as python_logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from typing import Any

from absl import logging

from vidsme_jax.wording import printable

_COLUMNS = 80  # Of a terminal of unknown width.


def show(text: str) -> None:
    """Prints on stdout; a closed pipe, such as of `head`, is no error."""
    problem = _write(sys.stdout, text)
    if problem is not None and not isinstance(problem, BrokenPipeError):
        show_error(f"the result cannot be printed: {problem.strerror}")


def show_error(text: str) -> None:
    """Prints on stderr."""
    _write(sys.stderr, text)


# Called before anything is printed: ends a line that is being updated.
before_printing: list[Callable[[], None]] = []


class _Line:
    """The terminal's last line, which is written again and again."""

    lock = threading.RLock()
    width = 0


def show_line(text: str) -> None:
    """Writes on the last line of stderr's terminal; the next text takes its place."""
    stream = sys.stderr
    with _Line.lock, contextlib.suppress(OSError, ValueError):
        columns = os.get_terminal_size(stream.fileno()).columns or _COLUMNS
        shown = printable(text).encode(stream.encoding, "backslashreplace")
        shown = shown.decode(stream.encoding)[: columns - 1]
        stream.write(f"\r{shown:<{min(_Line.width, columns - 1)}}")
        stream.flush()
        _Line.width = len(shown)


def clear_line() -> None:
    """Removes what `show_line` has written."""
    with _Line.lock, contextlib.suppress(OSError, ValueError):
        if _Line.width:
            sys.stderr.write(f"\r{'':<{_Line.width}}\r")
            sys.stderr.flush()
            _Line.width = 0


def is_terminal(stream: Any) -> bool:
    """Returns whether a stream is a terminal; one that was closed is none."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def silence(library: str) -> None:
    """Hides the log lines of a library, whose errors are raised as well."""
    python_logging.getLogger(library).setLevel(python_logging.CRITICAL)


def start_logging() -> None:
    """Sends log lines, warnings of Python and tracebacks to stderr, all escaped.

    The record itself escapes its text, so that handlers of other libraries show it
    escaped too.
    """
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    # Which backends are not installed is of no interest.
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    python_logging.setLogRecordFactory(_Record)
    python_logging.captureWarnings(True)
    logging.get_absl_handler().setFormatter(_Formatter())
    logging.get_absl_handler().addFilter(_is_of_interest)
    python_logging.raiseExceptions = False  # It would print arguments as they are.
    sys.excepthook = _show_uncaught
    if sys.unraisablehook is sys.__unraisablehook__:  # Nobody else's.
        sys.unraisablehook = lambda what: _show_uncaught(
            what.exc_type, what.exc_value, what.exc_traceback
        )
    threading.excepthook = lambda what: _show_uncaught(
        what.exc_type, what.exc_value, what.exc_traceback
    )


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Leaves out what libraries log below warnings of their own doings."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _is_of_interest(record: python_logging.LogRecord) -> bool:
    """Leaves out what TFDS says of the descriptions that it reads and writes."""
    inside = "tensorflow_datasets" in record.pathname
    return record.levelno >= python_logging.WARNING or not inside


class _Record(python_logging.LogRecord):
    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.name = printable(self.name)
        if self.exc_info and self.exc_info[0]:
            self.exc_text = _traceback(*self.exc_info)

    def getMessage(self) -> str:
        return _indented(super().getMessage())


class _Formatter(logging.PythonFormatter):
    def format(self, record: python_logging.LogRecord) -> str:
        clear_line()
        return _lines(super().format(record))


def _show_uncaught(kind: Any, error: Any, trace: Any) -> None:
    show_error(_traceback(kind, error, trace))


def _traceback(kind: Any, error: Any, trace: Any) -> str:
    """Returns a traceback whose lines but the first are indented."""
    lines = traceback.format_exception(kind, error, trace)
    return _indented("".join(lines).rstrip("\n"))


def _indented(text: str) -> str:
    return "\n    ".join(map(printable, text.split("\n")))


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _write(stream: Any, text: str) -> OSError | None:
    """Prints lines; returns why they cannot be printed."""
    for end in before_printing:
        end()
    if stream is None:  # It was closed before this process began.
        return None
    encoding = stream.encoding or "utf-8"
    shown = _lines(text).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(shown, file=stream, flush=True)
    except OSError as error:  # Else Python would try again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None
