"""The command line: `vidsme report --workdir runs/llava`.

Makes scores, metrics and report of a finished run again from its stored signals,
without the model: with other scores, false-positive rates, scales or the other profile,
such as `--config.report.fprs="(0.01,)"`. What the signals depend on cannot be changed.

The sources are read again, but no video is decoded, except for pictures in the report:
relative paths must resolve as they did for the audit. Videos that a manifest names may
be missing; of a folder, those that are there count. Log and report say so if other rows
are evaluated than before.

--check checks all that needs no signals, and writes nothing.

Exit status: 0 done, or --check found nothing wrong; 2 nothing was done,
one message lists every problem found; 3 done, and the run had failures, which are
listed in failures.jsonl; 4 done, and a limit of config.gate was exceeded, or could not
be compared.
"""

import sys
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags.config_flags import DEFINE_config_dict

from vidsme_jax import commands, exits, settings, terminal
from vidsme_jax.base import AuditError
from vidsme_jax.commands import finished
from vidsme_jax.run import asking, rehearsal, shares
from vidsme_jax.settings import views
from vidsme_jax.store import workdirs

# What signals depend on, or what decides which clips there are.
_FIXED = ("model.", "video.", "corpus.", "motion.flow", "study", "response")
_FIXED += ("reference.",)


def main(argv: list[str]) -> int:
    """Makes the report and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return exits.wrong([problem])
    workdir = flags.FLAGS.workdir
    if not workdir:
        return exits.wrong(["--workdir is missing: the folder of a finished run"])
    commands.begin()
    config = flags.FLAGS.config
    try:
        check = flags.FLAGS.check
        with workdirs.opened(workdir, parts=True, writes=not check) as place:
            shares.gathered(place)  # Fetches what a listing left out.
            about = finished.run_record(place.path)
            asked = _asked(about["config"], config)
            if check:
                terminal.show("\n".join(rehearsal.of_report(asked, place.path)))
                return exits.OK
            from vidsme_jax import audit

            report = audit.report_again(place.path, config, about, asked)
            place.publish()
    except AuditError as error:
        return exits.refused(error)
    except OSError as error:
        return exits.wrong([f"the report cannot be made: {exits.os_cause(error)}"])
    terminal.show(report.summary())
    gate = report.metrics["gate"]
    return exits.ended(failures=bool(report.failures), gate=gate)


def run() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    flags.DEFINE_string(
        "workdir", None, "Folder of a finished run, whose report is replaced."
    )
    commands.define_check()
    keys = views.KEYS.without(*_FIXED, "workers", "batch_size", "parallel.", "studies.")
    commands.help_wanted(__doc__, "workdir", "check", keys=keys)
    commands.start(main, _parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses twice: the folder is known before its configuration can be changed."""
    try:
        flags.FLAGS(argv, known_only=True)
    except flags.Error as error:
        sys.exit(exits.wrong([str(error)]))
    workdir, config = flags.FLAGS.workdir, settings.default()
    flags.FLAGS.unparse_flags()
    if workdir:
        config = finished.run_config(workdir)
    DEFINE_config_dict("config", config, sys_argv=[])
    return commands.parse(argv)


def _asked(before: dict[str, Any], config: ConfigDict) -> asking.Asked:
    """Checks what is asked; lists changes that need a new audit, and all else."""
    found: list[str] = []
    try:
        _refuse_changes(before, config)
    except AuditError as error:
        found += error.problems
        config = config.copy_and_resolve_references()
        was = settings.restored(before)
        with config.unlocked(), config.ignore_type():
            for key, value in settings.flatten(was).items():
                group, _, name = key.rpartition(".")
                node = config.get(group) if group else config
                if key.startswith(_FIXED) and isinstance(node, ConfigDict):
                    node[name] = value  # What is wrong there is listed already.
    try:
        asked = asking.ask(config, model=False)
    except AuditError as error:
        raise AuditError(found + error.problems) from error
    if found:
        raise AuditError(found)
    return asked


def _refuse_changes(before: dict[str, Any], config: ConfigDict) -> None:
    was = settings.flatten(settings.restored(before))
    now = settings.flatten(config)
    changed = [k for k in now if k.startswith(_FIXED) and now[k] != was.get(k, now[k])]
    if changed:
        raise AuditError(
            [
                f"config.{key} was {was[key]!r} in this run; changing it needs a new "
                "audit"
                for key in changed
            ]
        )


if __name__ == "__main__":
    run()
