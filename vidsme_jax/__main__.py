"""One name for every command: `vidsme audit --config llava`."""

import importlib
import sys
from collections.abc import Sequence

from vidsme_jax import __version__, progress, terminal
from vidsme_jax.wording import nearest

# By name: what it does. The module is `main` for the audit, else `commands.NAME`.
COMMANDS = {
    "power": "computes what a number of clips can show, before a run",
    "lookup": "finds the videos that published training lists name",
    "audit": "scores the clips of a corpus, or makes a study, and reports",
    "prepare": "decodes and measures a corpus once, for any number of runs",
    "report": "makes another report of a finished run, without its model",
    "match": "writes the subset of a run whose clips are alike as manifests",
    "verify": "checks that a finished run is unchanged, and recomputes it",
    "compare": "compares two runs of one corpus, such as of two checkpoints",
    "canary": "marks clips before they are published, and tests models for them later",
    "finetune": "trains a model whose members are known, or a control",
    "demo": "draws and trains the demo again",
}
_HELP = ("", "-h", "-help", "--help", "--helpfull", "-?", "help")


def run(argv: Sequence[str] | None = None) -> int | None:
    """Runs the command that the first argument names."""
    given = list(sys.argv if argv is None else argv)
    name = given[1] if len(given) > 1 else ""
    if name in _HELP:
        terminal.show(_usage())
        return 0
    if name == "--version":
        terminal.show(f"vidsme_jax {__version__}")
        return 0
    if name not in COMMANDS:
        hint = nearest(name, list(COMMANDS))
        terminal.show_error(f"vidsme: no command {name!r}{hint}\n\n{_usage()}")
        return 2
    sys.argv = [f"{given[0]} {name}", *given[2:]]
    progress.stage("starting")
    importlib.import_module(module(name)).run()
    return None


def module(name: str) -> str:
    """Returns the module whose `run` a command is.

    >>> module("audit"), module("report")
    ('vidsme_jax.main', 'vidsme_jax.commands.report')
    """
    return "vidsme_jax.main" if name == "audit" else f"vidsme_jax.commands.{name}"


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return (
        "Membership-inference audits of video-understanding language models.\n\n"
        "usage: vidsme COMMAND [flags]\n\n" + "\n".join(lines) + "\n\n"
        "vidsme COMMAND --help shows its flags and keys, vidsme audit --config list\n"
        "the configurations that are shipped, vidsme --version the version."
    )


if __name__ == "__main__":
    sys.exit(run())
