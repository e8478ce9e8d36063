"""Flag parsing, exit statuses and error output shared by the commands."""

import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from vidsme_jax import settings, terminal
from vidsme_jax.base import AuditError
from vidsme_jax.settings import overrides
from vidsme_jax.settings.rules import Rule
from vidsme_jax.wording import nearest, printable

OK, WRONG, FAILURES, EXCEEDED, INTERRUPTED = 0, 2, 3, 4, 130
_LONGEST = 10_000  # Characters of one problem.
_MOST = 200  # Problems that are shown.
_SHIPPED = pathlib.Path(__file__).parents[1] / "configs"  # In a clone.
_HELP = frozenset(("-h", "-help", "--help", "-?"))


def start(
    main: Callable[[list[str]], int], parser: Callable[[list[str]], list[str]]
) -> NoReturn:
    """Parses the flags, runs a command and exits with its status.

    What neither of them expects, an interrupt before the work begins or a host without
    memory, ends with a sentence too.
    """
    try:
        app.run(main, flags_parser=parser)
    except KeyboardInterrupt:
        terminal.show_error("interrupted")
        sys.exit(INTERRUPTED)
    except MemoryError as error:
        cause = f"the memory of the host does not suffice ({error or 'MemoryError'})"
        terminal.show_error(f"the run stopped: {cause}; what was stored is kept")
        sys.exit(WRONG)
    raise AssertionError("app.run exits")


def define_config() -> flags.FlagHolder:
    """Defines --config; `parse` sees to the flags that set its keys."""
    return config_flags.DEFINE_config_file(
        "config", None, "The configuration, FILE[:variant].", sys_argv=[]
    )


def help_wanted(doc: str | None, *names: str, keys: bool = True) -> None:
    """Prints what a command does and its flags, and exits, if --help is given.

    Args:
      doc: Of the command's module.
      names: Of its flags.
      keys: Whether it has keys to set.
    """
    if not _HELP & set(sys.argv[1:]):
        return
    lines = {f"--{name}": flags.FLAGS[name].help for name in names}
    if keys:
        lines["--config.KEY=VALUE"] = "Sets a key, such as --config.workers=2."
    lines["--help"] = "Shows this; --helpfull also the flags of the libraries."
    width = max(map(len, lines))
    table = (f"  {name:<{width}}  {' '.join(x.split())}" for name, x in lines.items())
    terminal.show("\n".join([(doc or "").strip(), "", "flags:", *table]))
    sys.exit(OK)


def ended(*, failures: bool, gate: dict[str, Any] | None) -> int:
    """Returns the exit status of a report that was made; the gate comes first.

    Args:
      failures: Whether rows have no scores.
      gate: Of `metrics.json`.
    """
    if gate is not None and not gate["passed"]:
        return EXCEEDED
    return FAILURES if failures else OK


def stopped(cause: str, workdir: str | pathlib.Path) -> int:
    """Prints that a run stopped and nothing is lost, and returns the exit status."""
    terminal.show_error(
        f"the run stopped: {printable(cause, _LONGEST)}; results so far are in "
        f"{printable(str(workdir))}; fix the cause and run the same command to continue"
    )
    return WRONG


def interrupted(workdir: str | pathlib.Path) -> int:
    """Prints that a run was interrupted, and returns the exit status."""
    terminal.show_error(
        f"interrupted: what was scored is in {printable(str(workdir))}; the same "
        "command continues"
    )
    return INTERRUPTED


def parse(
    argv: list[str],
    rules: dict[str, Rule] = settings.RULES,
    default: ConfigDict | None = None,
) -> list[str]:
    """Parses flags; prints what is wrong with them or the configuration, and exits.

    Values of keys, `--config.KEY=VALUE`, are only set here, whatever they are: what is
    wrong with them `settings.problems` says, together with all else.

    Args:
      argv: The command line.
      rules: Of the keys.
      default: Whose keys are set where --config is not given; it may be left out then.
    """
    try:
        argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        rest, given = overrides.split(argv, rules)
        rest = flags.FLAGS(rest)
        config: Any = flags.FLAGS.config
        if config is None and not flags.FLAGS["config"].present:
            if default is None:
                return rest  # `usage_problem` says that it is missing.
            config = default
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
        if problem := _no_such_file():
            sys.exit(wrong([problem]))
        sys.exit(wrong([f"the configuration cannot be used: {_cause(error)}"]))


def _no_such_file() -> str:
    """Returns that the file of --config is not there, or ""."""
    given = flags.FLAGS["config"]
    name = config_flags.get_config_filename(given) if given.present else ""
    path = pathlib.Path(name.partition(":")[0])
    if not name or path.exists():
        return ""
    known = {p.name: p for at in (_SHIPPED, path.parent) for p in at.glob("*.py")}
    close = nearest(path.name, list(known))
    for file, there in known.items():
        if repr(file) in close:
            close = close.replace(file, str(there))
    return (
        f"--config={path}: no such config file; run in the clone or give its full "
        f"path{close}"
    )


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
    said = said if named and said else f"{kind}: {said}" if said else kind
    # What a configuration raises itself, such as for a variant, is a sentence.
    return said.removeprefix("ValueError: ")


def os_cause(error: OSError) -> str:
    """Returns which file an error is of, and what it is."""
    named = error.filename is not None and error.strerror
    return f"{error.filename}: {error.strerror}" if named else str(error)


def usage_problem(argv: list[str]) -> str:
    """Returns what is wrong with a parsed command line, or ""."""
    if len(argv) > 1:
        return f"argument {argv[1]!r}: only flags are understood"
    if flags.FLAGS.config is None:
        return "--config is missing, such as --config configs/llava.py"
    return ""


def begin() -> None:
    """Sets up logging; SIGTERM raises KeyboardInterrupt."""
    terminal.start_logging()
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def config_name() -> str:
    """Returns NAME or NAME-VARIANT of the configuration."""
    given = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, variant = given.partition(":")
    name = pathlib.Path(file).stem
    return f"{name}-{variant}" if variant else name


def refused(error: AuditError) -> int:
    """Prints why there is no result, and returns the exit status."""
    return wrong(error.problems, scored=error.scored)


def wrong(problems: list[str], *, scored: bool = False) -> int:
    """Prints why nothing was computed, and returns the exit status.

    Args:
      problems: All of them.
      scored: Whether clips may have been scored: there is no report then.
    """
    lines = [f"  - {printable(problem, _LONGEST)}" for problem in problems[:_MOST]]
    if len(problems) > _MOST:
        lines.append(f"  - and {len(problems) - _MOST} more")
    plural = "s" if len(problems) > 1 else ""
    head = "no report was made" if scored else "nothing was computed"
    count = f"{head}, {len(problems)} problem{plural}:"
    terminal.show_error("\n".join([count, *lines]))
    return WRONG
