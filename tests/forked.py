"""Runs commands in forks of one process, which has the light imports of all of them."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

HEAVY = (
    *("jax", "flax", "transformers", "tensorflow_datasets", "tensorflow", "optax"),
    *("matplotlib", "scipy", "sklearn", "cv2", "av", "datasets", "huggingface_hub"),
)

# Runs commands, each in a child that starts with the same few modules; tells of each
# its status, what it said, and what it has imported.
_SCRIPT = """
import contextlib, importlib, io, json, os, sys
import vidsme_jax.commands, vidsme_jax.finetune.options
from vidsme_jax import __main__ as command

for name, given in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if os.fork():
        os.wait()
        continue
    said, status, sys.argv = io.StringIO(), None, ["vidsme", *given]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            if name != "vidsme":
                command = importlib.import_module(command.module(name))
            status = command.run()
        except SystemExit as end:
            status = end.code
        except BaseException as error:
            said.write(f"{type(error).__name__}: {error}")
    heavy = [name for name in HEAVY if name in sys.modules]
    print(json.dumps([status, said.getvalue(), heavy]), flush=True)
    os._exit(0)
"""


def all_of(commands: Sequence[Any], cwd: pathlib.Path) -> list[Any]:
    """Runs commands, each a name, or vidsme, and its arguments.

    Returns:
      Of each: its exit status, what it said, and the heavy modules it has imported.
    """
    script = _SCRIPT.replace("HEAVY", repr(HEAVY))
    # As most users have it: Python may write bytecode.
    written = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=written,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_refused(said: Sequence[Any], parts: Sequence[str]) -> None:
    """Checks that a command was refused without heavy imports, in some words in order.

    Args:
      said: Of `all_of`.
      parts: Of the message.
    """
    status, text, heavy = said
    assert status == 2 and not heavy
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places), text
