"""One name for every command: `vidsme audit --config llava`."""

import importlib
import sys
from collections.abc import Sequence

from vidsme_jax import __version__, progress, terminal
from vidsme_jax.wording import nearest

# By name: the module whose `run` it is, and what it does.
COMMANDS = {
    "power": ("planning", "says what numbers of clips can show, before a run"),
    "lookup": (
        "looking_up",
        "says which videos are named in published training lists",
    ),
    "audit": ("main", "scores the clips of a corpus, or makes a study, and reports"),
    "prepare": (
        "prepare",
        "decodes and measures a corpus once, for any number of runs",
    ),
    "report": (
        "reporting",
        "makes the report of a finished run anew, without its model",
    ),
    "match": (
        "pairing",
        "writes the subset of a run whose clips are alike as manifests",
    ),
    "verify": (
        "verifying",
        "says whether a finished run is as it was written, and computes it anew",
    ),
    "compare": (
        "comparing",
        "compares two runs of one corpus, such as of two checkpoints",
    ),
    "canary": (
        "canaries",
        "marks clips before they are published, and tests models for them later",
    ),
    "finetune": ("finetuning", "trains a model whose members are known, or a control"),
    "demo": ("remaking", "draws and trains the demo anew"),
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
    importlib.import_module(f"vidsme_jax.{COMMANDS[name][0]}").run()
    return None


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return (
        "Membership-inference audits of video-understanding language models.\n\n"
        "usage: vidsme COMMAND [flags]\n\n" + "\n".join(lines) + "\n\n"
        "vidsme COMMAND --help shows its flags and keys, vidsme audit --config list\n"
        "the configurations that are shipped, vidsme --version the version."
    )


if __name__ == "__main__":
    sys.exit(run())
