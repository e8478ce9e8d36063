"""The command line: `python -m vidsme_jax.finetune --config configs/selftrain.py`.

The whole model learns the answers to "USER: <video>\\n{question} ASSISTANT: {answer}"
of `corpus.members`; `corpus.nonmembers` are measured at the end and never trained on.
The folder `--workdir` receives a checkpoint in the Hugging Face format, and
`training.json`, which says how it was made.

Exit status: 0 done; 2 nothing was written, one message lists every problem found; 130
interrupted, nothing was written.
"""

import pathlib
import signal
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from vidsme_jax.base import AuditError
from vidsme_jax.finetune import training


def main(argv: list[str]) -> int:
    """Trains and returns the exit status."""
    if len(argv) > 1:
        return _wrong([f"argument {argv[1]!r}: only flags are understood"])
    if flags.FLAGS.config is None or flags.FLAGS.workdir is None:
        return _wrong(["--config and --workdir must be given"])
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    # A job that is told to stop ends like one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        record = training.run(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir))
    except AuditError as error:
        return _wrong(error.problems)
    except KeyboardInterrupt:
        print("interrupted: no checkpoint was written", file=sys.stderr)
        return 130
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in record["losses"].items())
    print(
        f"{record['steps']} steps in {record['seconds']} s; mean loss of the answers "
        f"in nats a token: {losses}\ncheckpoint: {flags.FLAGS.workdir}"
    )
    return 0


def command_line() -> NoReturn:
    """Defines the flags, which other programs have too, and runs `main`."""
    config_flags.DEFINE_config_file("config", None, "FILE[:variant].", lock_config=True)
    flags.DEFINE_string("workdir", None, "Receives the checkpoint.")
    app.run(main, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; what is wrong with them or the configuration is told plainly."""
    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS.config is not None:
            flags.FLAGS.config.keys()  # What could not be loaded raises only here.
        return rest
    except flags.UnrecognizedFlagError as error:
        cause = str(error)
    except Exception as error:  # A configuration is a program and may raise anything.
        if error.args and isinstance(error.args[0], KeyError):  # An unknown key.
            said = str(error.args[0].args[0]).split()
            sys.exit(_wrong([f"config has no key {' '.join(said)}"]))
        # The last line is the cause; what stands before it is a traceback.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        cause = f"the configuration cannot be used: {lines[-1].strip()}"
    sys.exit(_wrong([cause]))


def _wrong(found: list[str]) -> int:
    listed = "\n".join(f"  - {problem}" for problem in found)
    plural = "s" if len(found) > 1 else ""
    print(
        f"nothing was written, {len(found)} problem{plural}:\n{listed}", file=sys.stderr
    )
    return 2


if __name__ == "__main__":
    command_line()
