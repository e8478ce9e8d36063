"""Processes that tests start, and how long a test waits: all of them end with it.

Waiting is for events, so that a test on a busy machine is slower and no more than that.
The limits here are safety nets, many times what is needed on an idle machine.
"""

import contextlib
import importlib.metadata
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

PATIENCE = 900.0  # Seconds for a process to do all that it does.
MOMENT = 120.0  # Seconds for what is due at once.
# Programs are compiled in a sixth of the time, to slower code. `OPTIMISED=1 pytest`
# compiles them as users do. The second flag is of jaxlib 0.10; XLA aborts at others.
_QUICK = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")
QUICK = "" if os.environ.get("OPTIMISED") else " ".join(_QUICK)
# The devices of a CPU are threads, which wait for one another: XLA would abort.
XLA_FLAGS = " ".join(
    [QUICK]
    + [
        f"--xla_cpu_collective_{name}_seconds={PATIENCE:.0f}"
        for name in ("call_warn_stuck_timeout", "call_terminate_timeout", "timeout")
    ]
)
_PAUSE = 0.002  # Seconds from a look to the next.
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2).
# They serve every test of this process, and end with it.
_SHARED = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")
_SHARED += (b"vidsme_jax.data.decoding",)
_started: list[subprocess.Popen] = []


@contextlib.contextmanager
def started(command: Sequence[str | os.PathLike], **options: Any) -> Iterator[Any]:
    """Starts a process in a group of its own; the group ends with the block.

    Args:
      command: With its arguments.
      **options: Of `subprocess.Popen`; its pipes carry text.
    """
    options = {"text": True, "start_new_session": True} | options
    process = subprocess.Popen(list(command), **options)
    _started.append(process)
    try:
        yield process
    finally:
        _end(process)
        _started.remove(process)


def run(
    command: Sequence[str | os.PathLike], **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a process to its end; what it has left running ends too."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, **(pipes | options)) as process:
        out, error = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, out, error)


def together(
    commands: Sequence[Sequence[str | os.PathLike]],
    folder: pathlib.Path,
    *,
    each: bool = False,
    **options: Any,
) -> list[subprocess.CompletedProcess[str]]:
    """Runs processes side by side; if one of them fails, the others end at once.

    Args:
      commands: One a process.
      folder: Receives what they print.
      each: Whether each runs to its own end, though another fails.
      **options: Of `subprocess.Popen`.
    """
    with contextlib.ExitStack() as held:
        files = [
            [held.enter_context((folder / f"{k}.{name}").open("w+")) for name in "oe"]
            for k in range(len(commands))
        ]
        running = [
            held.enter_context(started(command, stdout=out, stderr=error, **options))
            for command, (out, error) in zip(commands, files, strict=True)
        ]
        over = _ended if each else _over
        wait_for(lambda: over([process.poll() for process in running]), PATIENCE)
        for process in running:
            _end(process)
        done = []
        for process, pair in zip(running, files, strict=True):
            texts = []
            for file in pair:
                file.seek(0)
                texts.append(file.read())
            status = process.returncode
            done.append(subprocess.CompletedProcess(process.args, status, *texts))
    return done


def _ended(statuses: list[int | None]) -> bool:
    return None not in statuses


def _over(statuses: list[int | None]) -> bool:
    return _ended(statuses) or any(statuses)


def wait_for(there: Callable[[], Any], seconds: float = MOMENT) -> None:
    """Waits until something is so.

    Raises:
      AssertionError: It never came.
    """
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"waited for {seconds:g} s in vain"
        time.sleep(_PAUSE)


@contextlib.contextmanager
def port() -> Iterator[int]:
    """Reserves a port of this machine, for processes that bind it with SO_REUSEPORT.

    As servers of gRPC do. No other gets this number as a free one before the block
    ends, be it in another test or another run.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("", 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """Ends every process that a block has left running, with what those have started.

    Where there is no /proc, only those of this module and their groups.
    """
    before, known = descendants(), [*_started]
    try:
        yield
    finally:
        for process in [x for x in _started if x not in known]:
            _end(process)
        while left := descendants() - before:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in left:  # Those whose parents are gone are ours by now.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def adopt() -> None:
    """Makes this process the parent of every descendant whose own parent ends."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # Linux has it.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def descendants() -> set[int]:
    """Returns the processes that this one has started, and what those have."""
    parents: dict[int, int] = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It has ended.
            state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            awaited = state == "Z" and int(parent) != os.getpid()  # By its parent.
            command = (entry / "cmdline").read_bytes()
            if not awaited and not any(name in command for name in _SHARED):
                parents[int(entry.name)] = int(parent)
    found, last = set(), {os.getpid()}
    while last:
        last = {pid for pid, parent in parents.items() if parent in last}
        found |= last
    return found


def _end(process: subprocess.Popen) -> None:
    """Kills the group of a process, and closes its pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
