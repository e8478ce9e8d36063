"""The command line: `python -m vidsme_jax.main --config configs/llava.py`.

Exit status: 0 all clips scored; 2 nothing computed, one message lists every problem
found; 3 finished, with failures listed in failures.jsonl; 130 interrupted, and the same
command goes on where it stopped.
"""

import pathlib
import sys
from typing import NoReturn

from absl import app, flags
from ml_collections import config_flags

from vidsme_jax import commands
from vidsme_jax.base import AuditError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The configuration, FILE[:variant].", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Receives signals, scores, metrics and the report; default: a folder under runs/ "
    "named after the configuration.",
)


def main(argv: list[str]) -> int:
    """Runs the audit and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return commands.wrong([problem])
    from vidsme_jax import audit, scores

    config = _CONFIG.value
    if config.get("scores") == "list":
        print(scores.describe(config.profile))
        return commands.OK
    commands.begin()
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{commands.config_name()}")
    try:
        report = audit.run(config, workdir)
    except AuditError as error:
        return commands.wrong(error.problems)
    except KeyboardInterrupt:
        print(
            f"interrupted: what was scored is in {workdir}; the same command continues",
            file=sys.stderr,
        )
        return commands.INTERRUPTED
    print(report.summary())
    return commands.FAILURES if report.failures else commands.OK


def run() -> NoReturn:
    """The console script."""
    app.run(main, flags_parser=commands.parse)


if __name__ == "__main__":
    run()
