"""`vidsme COMMAND`: a module a command, and the parsing of flags that they share."""

import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from vidsme_jax import __version__, exits, progress, settings, terminal
from vidsme_jax.addresses import no_folder
from vidsme_jax.base import AuditError
from vidsme_jax.settings import overrides, reference, shipped
from vidsme_jax.settings.overrides import Given
from vidsme_jax.settings.reference import Keys
from vidsme_jax.settings.rules import Rule
from vidsme_jax.wording import nearest, printable

_HELP = frozenset(("-h", "-help", "--help", "-?"))
_VERSION = frozenset(("-version", "--version"))
# The short form: flags and the keys that they set.
SHORT = {
    "model": "model.checkpoint",
    "members": "corpus.members",
    "nonmembers": "corpus.nonmembers",
    "suspects": "corpus.suspects",
    "calibration": "corpus.calibration",
    "reference": "reference.checkpoint",
}
CORPUS = tuple(SHORT)[1:5]


def start(
    main: Callable[[list[str]], int], parser: Callable[[list[str]], list[str]]
) -> NoReturn:
    """Parses the flags, runs a command and exits with its status.

    What neither of them expects, an interrupt before the work begins or a host without
    memory, ends with a sentence too.
    """
    progress.stage("starting")
    try:
        app.run(main, flags_parser=parser)
    except KeyboardInterrupt:
        terminal.show_error("interrupted")
        sys.exit(exits.INTERRUPTED)
    except MemoryError as error:
        cause = f"the memory of the host does not suffice ({error or 'MemoryError'})"
        terminal.show_error(f"the run stopped: {cause}; what was stored is kept")
        sys.exit(exits.WRONG)
    raise AssertionError("app.run exits")


def define_config() -> flags.FlagHolder:
    """Defines --config; `parse` sees to the flags that set its keys."""
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "The configuration: NAME[:variant] of one that is shipped, or FILE[:variant]; "
        "list prints those that are shipped.",
        sys_argv=[],
    )
    flags.FLAGS["config"].parser = _ConfigParser("config")
    return holder


class _ConfigParser(ConfigFileFlagParser):
    """Finds a configuration that is shipped by its name."""

    def parse(self, path: str) -> Any:
        """Returns what the file gives, or `shipped.LIST` if that is asked for."""
        if path == shipped.LIST:
            return path
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:  # A configuration is read: Python writes no __pycache__.
            return super().parse(shipped.resolve(path))
        finally:
            sys.dont_write_bytecode = writes


def define_short(*names: str) -> None:
    """Defines flags of `SHORT`, which `parse` turns into keys."""
    for name in names:
        rule = settings.RULES[SHORT[name]]
        flags.DEFINE_multi_string(name, None, "")
        # In place of absl's remark on flags that may be repeated.
        flags.FLAGS[name].help = f"{rule.help} Short for --config.{SHORT[name]}."


def define_check() -> flags.FlagHolder[bool]:
    """Defines --check."""
    return flags.DEFINE_bool(
        "check",
        False,
        "Checks all that can be checked, prints what was found, and runs nothing; "
        "nothing is written.",
    )


def help_wanted(doc: str | None, *names: str, keys: Keys | None = None) -> None:
    """Prints help or the version, and exits, if --help, -h or --version is given.

    Args:
      doc: Of the command's module: what it does, examples, exit statuses.
      names: Of its flags.
      keys: That it reads; None: it has no configuration.
    """
    given = set(sys.argv[1:])
    if given & _VERSION:
        terminal.show(f"vidsme_jax {__version__}")
        sys.exit(exits.OK)
    if not given & _HELP:
        return
    lines = {f"--{name}": flags.FLAGS[name].help or "" for name in names}
    if keys is not None:
        lines["--config.KEY=VALUE"] = "Sets a key, such as --config.workers=2."
    lines["--help"] = "Shows this, as -h; --helpfull also the flags of the libraries."
    lines["--version"] = "Shows the version."
    width = max(map(len, lines))
    table = (f"  {name:<{width}}  {' '.join(x.split())}" for name, x in lines.items())
    text = [(doc or "").strip(), "", "flags:", *table]
    if keys is not None:
        text += [
            "",
            "keys, each with its default (a tuple is a list with commas, such as a,b; "
            "() is an empty one):",
            "",
            reference.as_text(keys),
        ]
    terminal.show("\n".join(text))
    sys.exit(exits.OK)


def parse(
    argv: list[str],
    rules: dict[str, Rule] = settings.RULES,
    default: ConfigDict | None = None,
    short: Sequence[str] = (),
) -> list[str]:
    """Parses flags; prints what is wrong with them or the configuration, and exits.

    Values of keys, `--config.KEY=VALUE`, are only set here, whatever they are: what is
    wrong with them `settings.problems` says, together with all else.

    Args:
      argv: The command line.
      rules: Of the keys.
      default: Whose keys are set where --config is not given; it may be left out then.
        None: where keys are set, or flags of the short form, all others have their
        defaults.
      short: Flags of `SHORT` that the command has.
    """
    try:
        argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        rest, given = overrides.split(argv, rules)
        rest = flags.FLAGS(rest)
        config: Any = flags.FLAGS.config
        if config == shipped.LIST:
            terminal.show(shipped.listing())
            sys.exit(exits.OK)
        given = _with_short(given, rules, short)
        if config is None and not flags.FLAGS["config"].present:
            if default is None and not given:
                return rest  # `usage_problem` says that it is missing.
            config = default
            if default is None:
                config = flags.FLAGS.config = settings.default(rules)
        if config is not None:
            config.keys()  # A file that could not be loaded raises here.
        if not isinstance(config, ConfigDict):
            kind = type(config).__name__
            wanted = "a ConfigDict, such as settings.default() makes"
            raise TypeError(f"get_config() must return {wanted}; it returned {kind}")
        overrides.apply(config, given, rules)
        return rest
    except flags.UnrecognizedFlagError as error:
        sys.exit(exits.wrong([_of_flag(error)]))
    except AuditError as error:
        sys.exit(exits.refused(error))
    except Exception as error:  # A configuration is a program and may raise anything.
        illegal = isinstance(error, flags.IllegalFlagValueError)
        if illegal and not str(error).startswith("flag --config="):
            sys.exit(exits.wrong([_of_flag(error)]))
        cause = _cause(error)
        if isinstance(error, AttributeError) and "get_config" in cause:
            cause = "it has no function get_config(variant=''), which returns what "
            cause += "settings.default() makes, with values of its own"
        sys.exit(exits.wrong([f"the configuration cannot be used: {cause}"]))


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags of a command without keys; prints what is wrong, and exits."""
    try:
        return list(flags.FLAGS(argv))
    except flags.Error as error:
        sys.exit(exits.wrong([_of_flag(error)]))


def _with_short(
    given: list[Given], rules: dict[str, Rule], short: Sequence[str]
) -> list[Given]:
    """Returns what is given, with that of the short form.

    Raises:
      AuditError: A flag and its key are given differently; names each.
    """
    problems, more = [], []
    for name in short:
        key, texts = SHORT[name], flags.FLAGS[name].value
        if texts is None:
            continue
        others = [text for other, text in given if other == key]
        rule = rules.get(key)
        if others and overrides.read(others, rule) != overrides.read(texts, rule):
            problems.append(
                f"--{name}={','.join(texts)} and --config.{key}={','.join(others)}: "
                "these are the same key, and say different things; give one of them"
            )
        given = [each for each in given if each.key != key]
        more += [Given(key, text) for text in texts]
    if problems:
        raise AuditError(problems)
    return [*given, *more]


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


def _of_flag(error: flags.Error) -> str:
    """Returns what is wrong with a flag: one that is unknown, or its value."""
    known = [f"--{name}" for name in flags.FLAGS if len(name) > 1]
    if isinstance(error, flags.UnrecognizedFlagError):
        name = f"--{error.flagname}"
        return f"{name}: no such flag{nearest(name, known)}; --help shows all flags"
    if found := re.match(r"Missing value for flag (--\S*)", str(error)):
        return f"{found[1]} has no value; give {found[1]}=VALUE"
    found = re.match("flag (--[^=]*)=(.*?): ", str(error), re.DOTALL)
    if found and found[1] in known:
        if kind := flags.FLAGS[found[1][2:]].parser.syntactic_help:
            return f"{found[1]} is {found[2]!r}; it must be {kind}"
    return str(error)


def unexpected(argument: str) -> str:
    """Returns the problem of an argument that is no flag."""
    remedy = "; --help shows the flags"
    if "workdir" in flags.FLAGS and flags.FLAGS["workdir"].value is None:
        remedy = f"; give a work directory as --workdir={printable(argument)}"
    return f"argument {argument!r}: only flags are understood{remedy}"


def usage_problem(argv: list[str]) -> str:
    """Returns what is wrong with a parsed command line, or ""."""
    if len(argv) > 1:
        return unexpected(argv[1])
    if flags.FLAGS.config is None:
        short = [f"--{name}" for name in ("model", "members") if name in flags.FLAGS]
        instead = f"; or give {' and '.join(short)}" if short else ""
        return (
            "--config is missing, such as --config llava (--config list prints all)"
            f"{instead}"
        )
    return ""


def new_file(name: str | None, flag: str) -> list[str]:
    """Returns the problem, if any, of a flag that must name a file not yet there.

    Args:
      name: The value; None or "" is no problem.
      flag: Such as "--out".
    """
    if name and os.path.lexists(name):
        return [f"{flag}={printable(name)}: it is there already; take another"]
    return no_folder(name, flag, "a file")


def begin() -> None:
    """Sets up logging; SIGTERM raises KeyboardInterrupt."""
    terminal.start_logging()
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def run_name(config: ConfigDict) -> str:
    """Returns the default name of a run, which names its work directory.

    Args:
      config: Of the run.

    Returns:
      NAME or NAME-VARIANT of a configuration; the model's name where --model is given
      or there is no --config, after that of the configuration.
    """
    parts, given = [], flags.FLAGS["config"]
    if given.present:
        file, _, variant = config_flags.get_config_filename(given).partition(":")
        parts = [pathlib.Path(file).name.removesuffix(".py"), variant]
    if not given.present or flags.FLAGS["model"].value:
        model = str(config.get("model", {}).get("checkpoint", ""))
        path = pathlib.Path(model.removeprefix("random:"))
        if path.name in ("", ".."):
            path = path.resolve()
        parts.append(re.sub(r"[^\w.@-]", "_", path.name))
    return "-".join(filter(None, parts)) or "audit"
