"""Flag parsing, exit statuses and error output shared by the commands."""

import logging as python_logging
import pathlib
import signal
import sys

from absl import flags, logging
from ml_collections import config_flags

from vidsme_jax.base import printable

OK, WRONG, FAILURES, INTERRUPTED = 0, 2, 3, 130
_LONGEST = 10_000  # Characters of one problem.


def parse(argv: list[str]) -> list[str]:
    """Parses flags; prints what is wrong with them or the configuration, and exits."""
    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS.config is not None:
            flags.FLAGS.config.keys()  # A file that could not be loaded raises here.
        return rest
    except flags.UnrecognizedFlagError as error:
        sys.exit(wrong([str(error)]))
    except Exception as error:  # A configuration is a program and may raise anything.
        if error.args and isinstance(error.args[0], KeyError):  # An unknown key.
            said = " ".join(str(error.args[0].args[0]).split())
            sys.exit(wrong([f"the configuration has no key {said}"]))
        # The last line is the cause; what stands before it is a traceback.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        sys.exit(wrong([f"the configuration cannot be used: {lines[-1].strip()}"]))


def usage_problem(argv: list[str]) -> str:
    """Returns what is wrong with a parsed command line, or ""."""
    if len(argv) > 1:
        return f"argument {argv[1]!r}: only flags are understood"
    if flags.FLAGS.config is None:
        return "--config is missing, such as --config configs/llava.py"
    return ""


def begin() -> None:
    """Sets up logging; SIGTERM raises KeyboardInterrupt."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    # Which backends are not installed is of no interest.
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def config_name() -> str:
    """Returns NAME or NAME-VARIANT of the configuration."""
    given = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, variant = given.partition(":")
    name = pathlib.Path(file).stem
    return f"{name}-{variant}" if variant else name


def wrong(problems: list[str]) -> int:
    """Prints why nothing was computed, and returns the exit status."""
    listed = "\n".join(f"  - {printable(problem, _LONGEST)}" for problem in problems)
    plural = "s" if len(problems) > 1 else ""
    print(
        f"nothing was computed, {len(problems)} problem{plural}:\n{listed}",
        file=sys.stderr,
    )
    return WRONG
