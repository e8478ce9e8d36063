"""The command line: `vidsme finetune`, with the positive control of an audit.

    vidsme finetune --config selftrain --workdir DIR
    vidsme finetune --config finetune:lora --model CHECKPOINT --members MANIFEST \\
        --workdir DIR
    vidsme finetune --control MANIFEST --workdir DIR [--config AUDIT.py]

The first two train a model whose members are known.

The third asks what an audit of these clips could find at all. MANIFEST is a source of
clips with answers, as `corpus.members` of an audit; `corpus:` takes all clips of
--config, in every role. A small model is trained on a half of them, drawn by source,
until it has memorised their answers, and is audited as --config says, the configuration
of the audit (without one, the defaults; keys can be set by --config.KEY=VALUE in any
case, and are those of `vidsme audit --help`). The result is in DIR/control.json;
--config.report.control=DIR shows it beside the verdict of an audit or, by `vidsme
report`, of one that is finished.

With --check all is checked that needs neither decoding nor weights, and nothing is
written.

Exit status: 0 done, or nothing wrong with what --check looks at; 2 nothing was written,
one message lists every problem found, or the run stopped, which loses nothing; 3 done,
with failures; 130 interrupted. After 2 and 130 the same command continues (with
config.overwrite=true a control begins anew).
"""

import pathlib
import sys
from typing import NoReturn

from absl import flags
from ml_collections.config_flags.config_flags import DEFINE_config_dict

from vidsme_jax import commands, exits, settings, terminal
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import __main__ as training
from vidsme_jax.finetune import options


def main(argv: list[str]) -> int:
    """Trains, or makes the control, and returns the exit status."""
    if flags.FLAGS.control is None:
        return training.main(argv)
    if problem := commands.usage_problem(argv):
        return exits.wrong([problem])
    workdir = flags.FLAGS.workdir or None
    commands.begin()
    from vidsme_jax.control import plan
    from vidsme_jax.run import rehearsal
    from vidsme_jax.run.stopping import RunStopped, Stop

    try:
        chosen = plan.ask(flags.FLAGS.config, flags.FLAGS.control, workdir)
        if flags.FLAGS.check:
            unseen = rehearsal.DECODING, rehearsal.MEMORY
            terminal.show("\n".join(rehearsal.of_rows(chosen.items, unseen)))
            return exits.OK
        from vidsme_jax.control import making

        stop = Stop()
        stop.listen()
        record = making.run(chosen, stop)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:  # A full disk, a folder that cannot be written.
        return _stopped(exits.os_cause(error))
    except RunStopped as error:
        return _stopped(str(error))
    except KeyboardInterrupt:
        terminal.show_error("interrupted: the same command continues")
        return exits.INTERRUPTED
    terminal.show(making.summary(record, chosen.workdir))
    return exits.FAILURES if record["failures"] else exits.OK


def _stopped(cause: str) -> int:
    return exits.stopped(cause, pathlib.Path(flags.FLAGS.workdir))


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    commands.define_config()
    flags.DEFINE_string("workdir", None, "Receives the checkpoint, or the control.")
    flags.DEFINE_string(
        "control",
        None,
        "Clips with answers, whose half a small model memorises; corpus: takes those "
        "of --config.",
    )
    commands.define_short(*options.SHORT)
    commands.define_check()
    names = "config", *options.SHORT, "workdir", "control", "check"
    commands.help_wanted(__doc__, *names, keys=options.KEYS)
    commands.start(main, _parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; with --control the keys are an audit's, and may all be missing."""
    try:
        given = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    except flags.Error as error:
        sys.exit(exits.wrong([str(error)]))
    names = {each.lstrip("-").partition("=")[0] for each in given if each[:1] == "-"}
    if "control" not in names:
        return commands.parse(argv, options.RULES, short=options.SHORT)
    if "config" not in names:
        del flags.FLAGS.config
        DEFINE_config_dict("config", settings.default(), sys_argv=[])
    return commands.parse(argv, short=options.SHORT)


if __name__ == "__main__":
    run()
