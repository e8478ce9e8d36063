"""The command line: `python -m vidsme_jax.prepare --config configs/llava.py --out DIR`.

Decodes the clips of the corpus once; an audit with `--config.corpus.prepared=DIR` then
reads them there. Only what is missing is prepared: the same command, again, adds clips
that are new in the corpus; another sampling or number of frames is stored alongside.

Exit status: 0 all clips are prepared; 2 nothing was done, one message lists every
problem found; 3 finished, with failures, which are stored too; 130 interrupted, and the
same command goes on where it stopped.
"""

import sys
from typing import NoReturn

from absl import app, flags
from ml_collections import ConfigDict

from vidsme_jax import commands, settings
from vidsme_jax.base import AuditError
from vidsme_jax.data import corpora
from vidsme_jax.settings import views

_KEYS = ("config.corpus.", "config.video.", "config.workers")  # That are read.


def main(argv: list[str]) -> int:
    """Prepares the corpus and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return commands.wrong([problem])
    config = flags.FLAGS.config
    root = flags.FLAGS.out or config.get("corpus", {}).get("prepared")
    if not root:
        return commands.wrong(["--out is missing: the folder that receives the clips"])
    commands.begin()
    try:
        given = checked(config)
        items = corpora.load(given.corpus).items
        from vidsme_jax.prepared import preparation

        done = preparation.run(given, root, items)
    except AuditError as error:
        return commands.wrong(error.problems)
    except KeyboardInterrupt:
        print(
            f"interrupted: what was prepared is in {root}; the same command continues",
            file=sys.stderr,
        )
        return commands.INTERRUPTED
    commands.tell(done.summary())
    return commands.FAILURES if done.failures else commands.OK


def checked(config: ConfigDict) -> views.Settings:
    """Returns the settings, of which the preparation reads a part.

    Raises:
      AuditError: Something is wrong with that part; lists every problem.
    """
    problems = [
        problem
        for problem in settings.problems(config)
        if problem.startswith(_KEYS) or "no such key" in problem
    ]
    if problems:
        raise AuditError(problems)
    return views.Settings.of(config)


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    commands.define_config()
    flags.DEFINE_string(
        "out", None, "Receives the clips; default: config.corpus.prepared."
    )
    commands.help_wanted(__doc__, "config", "out")
    app.run(main, flags_parser=commands.parse)


if __name__ == "__main__":
    run()
