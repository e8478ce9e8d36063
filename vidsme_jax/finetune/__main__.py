"""The command line: `python -m vidsme_jax.finetune --config configs/selftrain.py`.

The whole model learns the answers to "USER: <video>\\n{question} ASSISTANT: {answer}"
of `corpus.members`; `corpus.nonmembers` are measured at the end and never trained on.
The folder `--workdir` receives a checkpoint in the Hugging Face format, and
`training.json`, which says how it was made.

Exit status: 0 done; 2 nothing was computed, one message lists every problem found; 130
interrupted, nothing was written.
"""

import functools
import pathlib
import sys
from typing import NoReturn

from absl import app, flags

from vidsme_jax import commands
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import options


def main(argv: list[str]) -> int:
    """Trains and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return commands.wrong([problem])
    workdir = pathlib.Path(flags.FLAGS.workdir) if flags.FLAGS.workdir else None
    commands.begin()
    try:
        options.ask(flags.FLAGS.config, workdir)
        assert workdir is not None  # Or a problem was raised.
        from vidsme_jax.finetune import training

        record = training.run(flags.FLAGS.config, workdir)
    except AuditError as error:
        return commands.wrong(error.problems)
    except KeyboardInterrupt:
        print("interrupted: no checkpoint was written", file=sys.stderr)
        return commands.INTERRUPTED
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in record["losses"].items())
    print(
        f"{record['steps']} steps in {record['seconds']} s; mean loss of the answers "
        f"in nats a token: {losses}\ncheckpoint: {workdir}"
    )
    return commands.OK


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    commands.define_config()
    flags.DEFINE_string("workdir", None, "Receives the checkpoint.")
    commands.help_wanted(__doc__, "config", "workdir")
    app.run(main, flags_parser=functools.partial(commands.parse, rules=options.RULES))


if __name__ == "__main__":
    run()
