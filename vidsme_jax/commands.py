"""Flag parsing, exit statuses and error output shared by the commands."""

import logging as python_logging
import pathlib
import signal
import sys
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from vidsme_jax import settings
from vidsme_jax.base import printable
from vidsme_jax.settings import overrides
from vidsme_jax.settings.rules import Rule

OK, WRONG, FAILURES, INTERRUPTED = 0, 2, 3, 130
_LONGEST = 10_000  # Characters of one problem.


def define_config() -> flags.FlagHolder:
    """Defines --config; `parse` sees to the flags that set its keys."""
    return config_flags.DEFINE_config_file(
        "config", None, "The configuration, FILE[:variant].", sys_argv=[]
    )


def parse(argv: list[str], rules: dict[str, Rule] = settings.RULES) -> list[str]:
    """Parses flags; prints what is wrong with them or the configuration, and exits.

    Values of keys, `--config.KEY=VALUE`, are only set here, whatever they are: what is
    wrong with them `settings.problems` says, together with all else.
    """
    try:
        argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        rest, given = overrides.split(argv, rules)
        rest = flags.FLAGS(rest)
        config: Any = flags.FLAGS.config
        if config is None and not flags.FLAGS["config"].present:
            return rest  # `usage_problem` says that it is missing.
        if config is not None:
            config.keys()  # A file that could not be loaded raises here.
        if not isinstance(config, ConfigDict):
            kind = type(config).__name__
            wanted = "a ConfigDict, such as settings.default() makes"
            raise TypeError(f"get_config() must return {wanted}; it returned {kind}")
        overrides.apply(config, given, rules)
        return rest
    except flags.UnrecognizedFlagError as error:
        sys.exit(wrong([str(error)]))
    except Exception as error:  # A configuration is a program and may raise anything.
        sys.exit(wrong([f"the configuration cannot be used: {_cause(error)}"]))


def _cause(error: Exception) -> str:
    """Returns what an error says in one line, without the traceback before it."""
    kind = type(error).__name__
    named = isinstance(error, flags.Error | OSError) or "Traceback" in str(error)
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = (
        str(error.args[0]) if isinstance(error, KeyError) and error.args else f"{error}"
    )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1] if lines else ""
    if said.startswith("Did you mean"):  # Of ml_collections.
        said = " ".join(["no key", *lines])
    return said if named and said else f"{kind}: {said}" if said else kind


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
