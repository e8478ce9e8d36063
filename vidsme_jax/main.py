"""The command line: `python -m vidsme_jax.main --config llava`.

`vidsme audit` is the same:

    vidsme audit --config llava
    vidsme audit --config llava:7b --members members.json --nonmembers nonmembers.json
    vidsme audit --model CHECKPOINT --members DIR --nonmembers DIR
    vidsme audit --config list

The first is the demo; the last prints the configurations that are shipped. A
configuration of your own is given by its path: --config ./mine.py. Without --config all
keys have their defaults. --check, with any of them, checks all that needs neither
decoding nor weights, and runs and writes nothing.

Exit status: 0 all clips scored, or --check found nothing wrong; 2 nothing
computed, or no report made because near-duplicates were found in two roles, one message
lists every problem found; or the run stopped, because the work directory cannot be
written, the devices fail or another process failed, which loses nothing that was
scored; 3 finished, with failures listed in failures.jsonl; 4 a limit of config.gate was
exceeded, or could not be compared; 130 interrupted. After 2 and 130 the same command
continues where the run stopped. A second signal ends the process at once, with the
signal's own status.
"""

import functools
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict

from vidsme_jax import commands, exits, progress, terminal
from vidsme_jax.base import AuditError
from vidsme_jax.settings import views
from vidsme_jax.wording import printable

_CONFIG = commands.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder that receives signals, scores, metrics and report; default: a folder under "
    "runs/ named after the configuration or, without one, after the model.",
)
commands.define_short(*commands.SHORT)
_CHECK = commands.define_check()
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the first of several processes, or auto; default: "
    "JAX_COORDINATOR_ADDRESS. Not needed under SLURM's srun and on TPU slices.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes; default: JAX_NUM_PROCESSES."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Index of this process, from 0; default: JAX_PROCESS_ID."
)


parse = functools.partial(commands.parse, short=tuple(commands.SHORT))


def main(argv: list[str]) -> int:
    """Runs the audit, or the study, and returns the exit status."""
    if problem := commands.usage_problem(argv):
        return exits.wrong([problem])
    config = _CONFIG.value
    if config.get("scores") in ("list", ("list",), ["list"]):
        return _list_scores(config.get("profile"))
    workdir = _WORKDIR.value or f"runs/{commands.run_name(config)}"
    if _CHECK.value:
        return _check(config, workdir)
    commands.begin()
    progress.stage("reading the corpus")
    from vidsme_jax.run import asking, joining, stopping

    stop = stopping.Stop()
    stop.listen()
    place = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    try:
        # Several processes may see different files: they check together, later.
        alone = joining.arguments(place) is None
        asked = asking.ask(config, workdir=workdir) if alone else None
        progress.stage("starting JAX")
        from vidsme_jax import audit, parallel, studies
        from vidsme_jax.run import processes

        if processes.start(*place):
            stop.listen()  # JAX has replaced the handler of SIGTERM.
        parallel.keep_programs(config.get("compile_cache", ""))
        run = studies.run if config.get("study") else audit.run
        report = run(config, workdir, stop, asked)
    except AuditError as error:
        return exits.refused(error)
    except OSError as error:  # A full disk, a folder that cannot be written.
        return exits.stopped(exits.os_cause(error), workdir)
    except stopping.RunStopped as error:
        return exits.stopped(str(error), workdir)
    except KeyboardInterrupt:
        return exits.interrupted(workdir)
    if report is None:
        terminal.show(
            f"done; the first process writes the report to {printable(workdir)}"
        )
        return exits.OK
    terminal.show(report.summary())
    audited = isinstance(report, audit.AuditReport)
    gate = report.metrics["gate"] if audited else None
    return exits.ended(failures=bool(report.failures), gate=gate)


def _check(config: ConfigDict, workdir: str) -> int:
    """Checks all that needs no run, and returns the exit status."""
    commands.begin()
    progress.stage("checking")
    from vidsme_jax.run import rehearsal

    try:
        with terminal.quiet():
            lines = rehearsal.of_audit(config, workdir)
        terminal.show("\n".join(lines))
    except AuditError as error:
        return exits.refused(error)
    except OSError as error:
        return exits.wrong([exits.os_cause(error)])
    except KeyboardInterrupt:
        terminal.show_error("interrupted")
        return exits.INTERRUPTED
    return exits.OK


def _list_scores(profile: Any) -> int:
    """Prints the scores of a profile, and returns the exit status."""
    from vidsme_jax import scores

    try:
        terminal.show(scores.describe(profile))
    except AuditError as error:
        return exits.refused(error)
    return exits.OK


def run() -> NoReturn:
    """Parses the flags, which are those of `vidsme audit`, and runs `main`."""
    names = "config", *commands.SHORT, "workdir", "check"
    places = "coordinator", "num_processes", "process_id"
    commands.help_wanted(__doc__, *names, *places, keys=views.KEYS)
    commands.start(main, parse)


if __name__ == "__main__":
    run()
