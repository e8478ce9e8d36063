"""Decoding in separate processes, so that a hostile video fails its own clip only.

FFmpeg is a large C program that parses untrusted input. A video that makes it crash, or
on a file system that does not answer a read, costs one process and one line of
`failures.jsonl`. A request waits for the time limit of the video and some seconds more;
then the process is killed, and abandoned if the kernel does not end it.

Each requesting thread has its own process while it waits; idle processes are reused.
"""

import atexit
import contextlib
import dataclasses
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Generator, Iterable
from typing import Any

from absl import logging

from vidsme_jax.base import ClipError
from vidsme_jax.data import channel, stages
from vidsme_jax.data.limits import Content, Limits
from vidsme_jax.wording import printable

_GRACE = 10.0  # Seconds over the limit in which a process may report the timeout.
_START = 300.0  # Seconds in which one must start; half a second is usual.
_END = 2.0  # Seconds in which a killed one must end.
_PROGRAM = "vidsme_jax.data.decoding"
_LAST = 4096  # Bytes read from the end of a process's output.
_QUOTED = 200  # Characters of the output in a message.


class Abandoned(BaseException):
    """The run is stopping: the clip did not fail, and nothing is recorded for it."""


def ask(
    request: str, content: Content, limits: Limits, **arguments: Any
) -> tuple[dict[str, Any], memoryview]:
    """Runs a request on a video in another process.

    Args:
      request: A key of `decoding.REQUESTS`.
      content: The video.
      limits: Its limits.
      **arguments: Of the request, JSON-ready.

    Returns:
      The result of the request; an array as its bytes.

    Raises:
      ClipError: That of the request; or of the stage "process", if the process ended or
        did not answer.
      Abandoned: This thread was abandoned; see `abandon`.
    """
    data = content if isinstance(content, bytes) else b""
    about = {
        "request": request,
        "path": "" if isinstance(content, bytes) else str(content),
        "limits": dataclasses.asdict(limits),
        "arguments": arguments,
    }
    with _pool().process() as process:
        found, pixels = process.ask(about, data, limits.max_seconds + _GRACE)
    if "failed" in found:
        raise ClipError(*found["failed"])
    stages.add(found.pop("seconds"))
    return found, pixels


def abandon(threads: Iterable[threading.Thread]) -> None:
    """Kills the processes of threads; all their requests raise `Abandoned` from now."""
    _pool().abandon(threads)


class _Process:
    """A decoding process, and the socket to it."""

    def __init__(self):
        self._socket, theirs = socket.socketpair()
        self._printed = tempfile.TemporaryFile()
        path = os.pathsep.join(os.path.abspath(each) for each in sys.path)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._printed,
                env=os.environ | {"PYTHONPATH": path},
                # Signals of the terminal must reach the parent only.
                start_new_session=True,
            )
        self._abandoned = self._started = False

    def ask(
        self, about: dict[str, Any], data: bytes, seconds: float
    ) -> tuple[dict[str, Any], memoryview]:
        """Sends a request and waits for the answer; see `ask`."""
        try:
            self._await_start()
            self._socket.settimeout(seconds)
            channel.send(self._socket, about, data)
            return channel.receive(self._socket)
        except TimeoutError as error:
            cause = (
                f"not decoded within {seconds - _GRACE:g} s (config.video.max_seconds),"
                f" and its process did not answer for {_GRACE:g} s more: it is stuck in"
                " a decoder, or in a read that the file system does not answer"
            )
            raise ClipError("process", cause) from error
        except (EOFError, ConnectionError) as error:
            if self._abandoned:
                raise Abandoned from error
            raise ClipError("process", self._ending()) from error

    def _await_start(self) -> None:
        if self._started:
            return
        self._socket.settimeout(_START)
        try:
            channel.receive(self._socket)
        except TimeoutError as error:
            cause = f"the decoding process has not started within {_START:g} s"
            raise ClipError("process", cause) from error
        self._started = True

    def runs(self) -> bool:
        """Returns whether it has not ended."""
        return self._child.poll() is None

    def close(self) -> None:
        """Closes the socket, at which an idle process exits; kills a busy one."""
        self._socket.close()
        if not self._wait(_END):
            self.kill()
            if not self._wait(_END):
                logging.warning(
                    "the decoding process %d does not end when killed and is left "
                    "behind; end it by hand",
                    self._child.pid,
                )
        self._printed.close()

    def kill(self) -> None:
        """Kills the process, from any thread; its request raises `Abandoned`."""
        self._abandoned = True
        self._child.kill()
        with contextlib.suppress(OSError):  # Already closed.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _wait(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)
        return self._child.returncode is not None

    def _ending(self) -> str:
        """Returns why a process has ended without an answer."""
        self._wait(_END)
        status = self._child.returncode
        if status == -signal.SIGKILL:
            return "the process that decoded it was killed, probably for lack of memory"
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-status).name
                return f"the decoder crashed on it ({name})"
        self._printed.seek(max(0, self._printed.seek(0, os.SEEK_END) - _LAST))
        text = self._printed.read().decode(errors="replace").strip()
        last = printable(text.rpartition("\n")[2], _QUOTED)
        return f"the process that decoded it ended with status {status}: {last}"


class _Pool:
    """The decoding processes of this process."""

    def __init__(self):
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: dict[threading.Thread, _Process] = {}
        self._given_up: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    @contextlib.contextmanager
    def process(self) -> Generator[_Process, None, None]:
        """Lends a process to this thread; one that fails is killed."""
        me = threading.current_thread()
        process = self._take_idle() or _Process()
        with self._lock:
            self._busy[me] = process
            given_up = me in self._given_up
        try:
            if given_up:
                raise Abandoned
            yield process
        except BaseException:
            process.kill()
            process.close()
            raise
        else:
            with self._lock:
                self._idle.append(process)
        finally:
            with self._lock:
                del self._busy[me]

    def _take_idle(self) -> _Process | None:
        """Takes an idle process that has not ended, if there is one."""
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None or process.runs():
                return process
            process.close()

    def abandon(self, threads: Iterable[threading.Thread]) -> None:
        """Kills the processes lent to threads, and lends them no others."""
        with self._lock:
            self._given_up.update(threads)
            lent = [self._busy[each] for each in threads if each in self._busy]
        for process in lent:
            process.kill()

    def close(self) -> None:
        """Ends the idle processes, unless this is a fork of their parent."""
        if self.owner == os.getpid():
            with self._lock:
                idle, self._idle = self._idle, []
            for process in idle:
                process.close()


def _pool() -> _Pool:
    """Returns the pool of this process, which may be a fork."""
    return _pool_of(os.getpid())


@functools.cache
def _pool_of(pid: int) -> _Pool:
    pool = _Pool()
    atexit.register(pool.close)
    return pool
