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
from typing import Any, NoReturn

from absl import flags

from vidsme_jax import commands, terminal
from vidsme_jax.base import AuditError, printable
from vidsme_jax.finetune import options

_SHOWN = 20  # Losses of groups; training.json has all.
_NAME = 60  # Characters of a group.


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
    except OSError as error:  # A full disk, a folder that cannot be written.
        terminal.show_error(f"no checkpoint was written: {commands.os_cause(error)}")
        return commands.WRONG
    except KeyboardInterrupt:
        terminal.show_error("interrupted: no checkpoint was written")
        return commands.INTERRUPTED
    terminal.show(summary(record, workdir))
    return commands.OK


def summary(record: dict[str, Any], workdir: pathlib.Path) -> str:
    """Returns the result in a few lines.

    Args:
      record: The content of `training.json`.
      workdir: Where it is.
    """
    groups = list(record["losses"].items())
    losses = [f"{printable(name, _NAME)} {loss:.4f}" for name, loss in groups[:_SHOWN]]
    if len(groups) > _SHOWN:
        losses.append(f"and {len(groups) - _SHOWN} more in training.json")
    return (
        f"{record['steps']} steps in {record['seconds']} s; mean loss of the answers "
        f"in nats a token: {', '.join(losses)}\n"
        f"checkpoint: {printable(str(workdir))}"
    )


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    commands.define_config()
    flags.DEFINE_string("workdir", None, "Receives the checkpoint.")
    commands.help_wanted(__doc__, "config", "workdir")
    commands.start(main, functools.partial(commands.parse, rules=options.RULES))


if __name__ == "__main__":
    run()
