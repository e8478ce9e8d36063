"""Runs commands as a user would, within limits, and says what must hold of each.

    python asked.py '{"folder": ..., "commands": [...]}'

All imports are done once; each command is then run in a fork, as `python -m MODULE`
would, with a limit of its address space and of its time. A line of JSON says how each
ended. Nothing of JAX has started before a fork.
"""

import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import pathlib
import resource
import runpy
import signal
import sys
import time
import traceback
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2).
STATUSES = (0, 2, 3, 130)
_MARKS_OF_DIRECTION = (
    "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


@dataclasses.dataclass(frozen=True)
class Command:
    """What is asked.

    Attributes:
      module: As `python -m` has it.
      flags: Its arguments.
      seconds: It is killed after, and has failed.
      gigabytes: Of its memory, at its peak.
      address_space: Of its address space in gigabytes, most of which is never used.
    """

    module: str
    flags: tuple[str, ...]
    seconds: float = 120.0
    gigabytes: float = 2.5
    address_space: float = 24.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, negative for a signal; what it printed."""

    status: int
    seconds: float
    gigabytes: float
    out: str
    error: str


def run(commands: Sequence[Command], folder: pathlib.Path) -> list[Ended]:
    """Runs commands one after another.

    Args:
      commands: What is asked.
      folder: Receives what they print.
    """
    import children

    root = pathlib.Path(__file__).parents[2]
    asked = [dataclasses.asdict(command) for command in commands]
    given = json.dumps({"folder": str(folder), "commands": asked})
    search = [str(root), os.environ.get("PYTHONPATH", "")]
    quiet = {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "XLA_FLAGS": children.QUICK}
    env = os.environ | quiet | {"PYTHONPATH": os.pathsep.join(filter(None, search))}
    done = children.run([sys.executable, __file__, given], env=env, cwd=root)
    assert done.returncode == 0, done.stderr
    found = []
    for number, line in enumerate(done.stdout.splitlines()):
        texts = (
            (folder / f"{number}.{name}")
            .read_bytes()
            .decode("utf-8", "surrogateescape")
            for name in ("out", "error")
        )
        found.append(Ended(*json.loads(line), *texts))
    return found


# ---------------------------------------------------------------- what must hold


def check(ended: Ended, command: Command, expected: Iterable[int]) -> None:
    """Asserts what holds of every command, whatever it was given.

    Args:
      ended: How it ended.
      command: Its limits.
      expected: Exit statuses.
    """
    assert "Traceback (most" not in ended.error, ended.error
    assert ended.seconds < command.seconds, f"{ended.seconds:.1f} s"
    assert ended.status in STATUSES, (ended.status, ended.error)
    assert ended.status in tuple(expected), (ended.status, ended.error)
    assert ended.gigabytes < command.gigabytes, f"{ended.gigabytes:.2f} GB"
    for text in (ended.out, ended.error):
        found = controls(text)
        assert not found, (found, text)


def controls(text: str) -> list[str]:
    """Returns what of a text would steer a terminal, or cannot be printed."""
    return sorted(
        {
            character
            for character in text
            if character in _MARKS_OF_DIRECTION
            or (
                unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
                and character not in "\n\t"
            )
        }
    )


def scores(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the columns of numbers of each row of a run, by its id."""
    import pyarrow.parquet as pq

    table = pq.read_table(workdir / "scores.parquet")
    kept = [f.name for f in table.schema if str(f.type) in ("double", "float", "int64")]
    return {row["id"]: {name: row[name] for name in kept} for row in table.to_pylist()}


def failures(workdir: pathlib.Path) -> dict[str, dict[str, str]]:
    """Returns the lines of failures.jsonl by their ids, each with stage and cause."""
    lines = (workdir / "failures.jsonl").read_text("utf-8").splitlines()
    found = {row["id"]: row for row in map(json.loads, lines)}
    for row in found.values():
        assert row["stage"] and row["cause"] and "video" in row, row
    return found


def assert_same_scores(found: pathlib.Path, wanted: pathlib.Path) -> None:
    """Asserts that each row of one run has the same bits in another.

    Args:
      found: The work directory of the run that may have more rows.
      wanted: Of the other.
    """
    more, less = scores(found), scores(wanted)
    assert less
    for id, numbers in less.items():
        assert id in more, f"{id} has no scores"
        for name, number in numbers.items():
            bits = [_bits(x) for x in (number, more[id][name])]
            assert bits[0] == bits[1], f"{id}: {name} was {number}, is {more[id][name]}"


def _bits(number: Any) -> str:
    return number.hex() if isinstance(number, float) else repr(number)


# ------------------------------------------------------------------------ the forks


# What commands import late; the forks share it.
_IMPORTED = ("cv2", "matplotlib.pyplot", "tensorflow_datasets", "vidsme_jax.audit")
_IMPORTED += ("transformers.models.auto.tokenization_auto", "vidsme_jax.studies")
_IMPORTED += ("vidsme_jax.prepared.preparation", "vidsme_jax.report.figures")


def main(folder: str, commands: list[dict[str, Any]]) -> None:
    """Runs commands, and prints how each ended."""
    import jax

    from vidsme_jax.models import tokenizer_files

    tokenizer_files.hide_broken_torchvision()  # transformers remembers what is there.
    for module in _IMPORTED:
        importlib.import_module(module)
    # What is cached in a run is the programs of all of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    for number, each in enumerate(commands):
        command = Command(**each | {"flags": tuple(each["flags"])})
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become(command, pathlib.Path(folder), number)
        used = _wait(pid, begun + command.seconds)
        seconds = time.monotonic() - begun
        status = os.waitstatus_to_exitcode(used[1])
        print(json.dumps([status, seconds, used[2].ru_maxrss / 1e6]), flush=True)


def _become(command: Command, folder: pathlib.Path, number: int) -> None:
    """Becomes the command; never returns."""
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        most = int(command.address_space * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for fd, name in ((1, "out"), (2, "error")):
            opened = os.open(folder / f"{number}.{name}", os.O_CREAT | os.O_WRONLY)
            os.dup2(opened, fd)
        sys.argv = [command.module, *command.flags]
        runpy.run_module(command.module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        code = error.code
        status = code if isinstance(code, int) else int(code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _wait(pid: int, end: float) -> tuple[int, int, Any]:
    """Waits for a process, which is killed with all of its own at a time."""
    while True:
        used = os.wait4(pid, os.WNOHANG)
        if used[0]:
            return used
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            return os.wait4(pid, 0)
        time.sleep(0.01)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
