"""The command line: `vidsme finetune`, with the positive control of an audit.

    vidsme finetune --config selftrain --workdir DIR
    vidsme finetune --config finetune:lora --model CHECKPOINT --members MANIFEST \\
        --workdir DIR
    vidsme finetune --control MANIFEST --workdir DIR [--config AUDIT.py]

The first two train a model whose members are known: the model of `model.checkpoint`
learns the answers of `corpus.members`, each after its video and its question;
`corpus.nonmembers` are measured and never trained on. With `train.member_share` below
1, `corpus.members` is a pool of which a share of this size is drawn, by source;
`members.jsonl` and `nonmembers.jsonl` list both parts. DIR receives a checkpoint in the
Hugging Face format, or an adapter in PEFT's, and `training.json`, the record of the
training.

The third shows what an audit of these clips can detect at all. MANIFEST is a source of
clips with answers, as `corpus.members` of an audit; `corpus:` takes all clips of
--config, in every role. A small model is trained on half of them, drawn by source,
until it has memorised their answers, and is audited as --config says, the configuration
of the audit (without one, the defaults; keys can be set by --config.KEY=VALUE in any
case, and are those of `vidsme audit --help`). The result is in DIR/control.json;
--config.report.control=DIR shows it next to the verdict of an audit or, by `vidsme
report`, of one that is finished.

--check checks all that needs neither decoding nor weights, and writes nothing.

Exit status: 0 done, or --check found nothing wrong; 2 nothing was written, and one
message lists every problem found, or the run stopped, which loses nothing; 3 done, with
failures; 130 interrupted. After 2 and 130 the same command continues (with
config.overwrite=true a control starts from the beginning).
"""

import pathlib
import sys
from typing import NoReturn

from absl import flags
from ml_collections.config_flags.config_flags import DEFINE_config_dict

from vidsme_jax import commands, exits, settings, terminal
from vidsme_jax.base import AuditError
from vidsme_jax.finetune import options
from vidsme_jax.run import rehearsal


def main(argv: list[str]) -> int:
    """Trains a model, or makes the control, and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return exits.wrong([problem])
    workdir = flags.FLAGS.workdir or None
    commands.begin()
    from vidsme_jax.run.stopping import RunStopped

    try:
        return _train(workdir) if flags.FLAGS.control is None else _control(workdir)
    except AuditError as error:
        return exits.wrong(error.problems)
    except OSError as error:  # A full disk, a folder that cannot be written.
        return exits.stopped(exits.os_cause(error), str(workdir))
    except RunStopped as error:
        return exits.stopped(str(error), str(workdir))
    except KeyboardInterrupt:
        terminal.show_error("interrupted: the same command continues")
        return exits.INTERRUPTED


def _train(workdir: str | None) -> int:
    from vidsme_jax.finetune import pool

    found = pool.check(flags.FLAGS.config, workdir)
    if flags.FLAGS.check:
        unseen = rehearsal.DECODING, rehearsal.MEMORY, rehearsal.MODEL
        terminal.show("\n".join(rehearsal.of_rows(found.items, unseen)))
        return exits.OK
    from vidsme_jax.finetune import record, training
    from vidsme_jax.run.stopping import Stop

    stop = Stop()
    stop.listen()
    folder = pathlib.Path(str(workdir))  # `pool.check` refuses None.
    terminal.show(
        record.summary(training.run(flags.FLAGS.config, folder, stop), folder)
    )
    return exits.OK


def _control(workdir: str | None) -> int:
    from vidsme_jax.control import plan

    chosen = plan.make(flags.FLAGS.config, flags.FLAGS.control, workdir)
    if flags.FLAGS.check:
        unseen = rehearsal.DECODING, rehearsal.MEMORY
        terminal.show("\n".join(rehearsal.of_rows(chosen.items, unseen)))
        return exits.OK
    from vidsme_jax.control import making
    from vidsme_jax.run.stopping import Stop

    stop = Stop()
    stop.listen()
    record = making.run(chosen, stop)
    terminal.show(making.summary(record, chosen.workdir))
    return exits.FAILURES if record["failures"] else exits.OK


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    commands.define_config()
    flags.DEFINE_string(
        "workdir", None, "Folder that receives the checkpoint, or the control."
    )
    flags.DEFINE_string(
        "control",
        None,
        "Clips with answers, half of which a small model memorises; corpus: takes "
        "those of --config.",
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
