"""The command line: `vidsme finetune --config selftrain`.

The model of `model.checkpoint` learns the answers of `corpus.members`, each behind its
video and its question; `corpus.nonmembers` are measured and never trained on. With
`train.member_share` below 1, `corpus.members` is a pool of which so large a part is
drawn, by source; `members.jsonl` and `nonmembers.jsonl` say which. The folder
`--workdir` receives a checkpoint in the Hugging Face format, or an adapter in PEFT's,
and `training.json`, which says how it was made. What is stopped, or killed, goes on
with the same command.

With --check all is checked that needs neither decoding nor weights, and nothing is
written.

Exit status: 0 done, or nothing wrong with what --check looks at; 2 nothing was written,
one message lists every problem found; 130 interrupted, the same command continues.
"""

import functools
import pathlib
from typing import Any, NoReturn

from absl import flags

from vidsme_jax import commands, exits, terminal
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import options
from vidsme_jax.run import rehearsal
from vidsme_jax.wording import printable

_SHOWN = 20  # Losses of groups; training.json has all.
_NAME = 60  # Characters of a group.


def main(argv: list[str]) -> int:
    """Trains and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return exits.wrong([problem])
    commands.begin()
    try:
        pool = options.ask(flags.FLAGS.config, flags.FLAGS.workdir or None)
        if flags.FLAGS.check:
            unseen = rehearsal.DECODING, rehearsal.MEMORY, rehearsal.MODEL
            terminal.show("\n".join(rehearsal.of_rows(pool.items, unseen)))
            return exits.OK
        workdir = pathlib.Path(flags.FLAGS.workdir)  # Or a problem was raised.
        from vidsme_jax.finetune import training
        from vidsme_jax.run.stopping import Stop

        stop = Stop()
        stop.listen()
        record = training.run(flags.FLAGS.config, workdir, stop)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:  # A full disk, a folder that cannot be written.
        terminal.show_error(
            f"the training stopped: {exits.os_cause(error)}; fix the cause, and the "
            "same command continues"
        )
        return exits.WRONG
    except KeyboardInterrupt:
        terminal.show_error("interrupted: the same command continues")
        return exits.INTERRUPTED
    terminal.show(summary(record, workdir))
    return exits.OK


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
    commands.define_short(*options.SHORT)
    commands.define_check()
    names = "config", *options.SHORT, "workdir", "check"
    commands.help_wanted(__doc__, *names, keys=options.KEYS)
    parse = functools.partial(commands.parse, rules=options.RULES, short=options.SHORT)
    commands.start(main, parse)


if __name__ == "__main__":
    run()
