"""The command line: `python -m vidsme_jax.main --config configs/llava.py`.

Exit status: 0 all clips scored; 2 nothing computed, one message lists every problem
found, or the work directory cannot be written, which loses nothing; 3 finished, with
failures listed in failures.jsonl; 130 interrupted, and the same command goes on where
it stopped. A second signal ends the process at once, with the signal's own status.
"""

import logging as python_logging
import pathlib
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from vidsme_jax.base import AuditError, printable

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The configuration, FILE[:variant].", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Receives signals, scores, metrics and the report; default: a folder under runs/ "
    "named after the configuration.",
)

_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the first of several processes, or auto; else of "
    "JAX_COORDINATOR_ADDRESS. Not needed under SLURM's srun and on TPU slices.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are; else of JAX_NUM_PROCESSES."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "The place of this one, from 0; else of JAX_PROCESS_ID."
)

_LONGEST = 10_000  # Characters of one problem.

OK, WRONG, FAILURES, INTERRUPTED = 0, 2, 3, 130


def main(argv: list[str]) -> int:
    """Runs the audit, or the study, and returns the exit status."""
    if len(argv) > 1:
        return _wrong([f"argument {argv[1]!r}: only flags are understood"])
    if _CONFIG.value is None:
        return _wrong(["--config is missing, such as --config configs/llava.py"])
    from vidsme_jax import audit, hosts, parallel, scores, stopping, studies

    config = _CONFIG.value
    if config.get("scores") == "list":
        print(scores.describe(config.profile))
        return OK
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    # Which backends are not installed is of no interest.
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    stop = stopping.Stop()
    stop.listen()
    workdir = pathlib.Path(_WORKDIR.value or _default_workdir())
    try:
        several = hosts.start(
            _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
        )
        if several:
            stop.listen()  # JAX, too, has taken SIGTERM.
        if several and config.get("study"):
            return _wrong(
                [
                    "a study runs in one process: let several make the audit, then one "
                    "the study in the same --workdir"
                ]
            )
        parallel.keep_programs(config.get("compile_cache", ""))
        run = studies.run if config.get("study") else audit.run
        report = run(config, workdir, stop)
    except AuditError as error:
        return _wrong(error.problems)
    except OSError as error:  # A full disk, a folder that cannot be written.
        print(
            f"the run broke off: {printable(_cause(error))}\nwhat was scored before is "
            f"kept in {workdir}; once this is mended, the same command continues",
            file=sys.stderr,
        )
        return WRONG
    except KeyboardInterrupt:
        print(
            f"interrupted: what was scored is in {workdir}; the same command continues",
            file=sys.stderr,
        )
        return INTERRUPTED
    if report is None:
        print(f"done; the first process writes the report to {workdir}")
        return OK
    print(report.summary())
    return FAILURES if report.failures else OK


def run() -> NoReturn:
    """The console script."""
    app.run(main, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; what is wrong with them or the configuration is told plainly."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.keys()  # A file that could not be loaded raises only here.
        return rest
    except flags.UnrecognizedFlagError as error:
        sys.exit(_wrong([str(error)]))
    except Exception as error:  # A configuration is a program and may raise anything.
        if error.args and isinstance(error.args[0], KeyError):  # An unknown key.
            said = " ".join(str(error.args[0].args[0]).split())
            sys.exit(_wrong([f"the configuration has no key {said}"]))
        # The last line is the cause; what stands before it is a traceback.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        sys.exit(_wrong([f"the configuration cannot be used: {lines[-1].strip()}"]))


def _default_workdir() -> str:
    """Returns runs/NAME or runs/NAME-VARIANT."""
    given = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, variant = given.partition(":")
    name = pathlib.Path(file).stem
    return f"runs/{name}-{variant}" if variant else f"runs/{name}"


def _cause(error: OSError) -> str:
    named = error.filename is not None and error.strerror
    return f"{error.filename}: {error.strerror}" if named else str(error)


def _wrong(problems: list[str]) -> int:
    listed = "\n".join(f"  - {printable(problem, _LONGEST)}" for problem in problems)
    plural = "s" if len(problems) > 1 else ""
    print(
        f"nothing was computed, {len(problems)} problem{plural}:\n{listed}",
        file=sys.stderr,
    )
    return WRONG


if __name__ == "__main__":
    run()
