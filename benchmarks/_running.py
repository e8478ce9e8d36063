"""Runs one command after another so that none can harm the next.

A command is a process of its own in a group of its own. Its lines of JSON are handed on
as they come, whatever becomes of it; it is stopped at its limit; and while it says
nothing, a line says that it still runs.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import queue
import re
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from typing import IO, Any

BEAT = 20.0  # Seconds of silence after which a sign of life is given.
_GRACE = 5.0  # Seconds from the wish to end to the end, and for the last lines.
_KEPT = 20  # Lines of stderr in the record of a command.
_WIDTH = 240  # Characters of a line of stderr on the screen.


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
      status: Its exit status, negative for a signal; None if it was stopped.
      seconds: How long it ran.
      errors: The last lines of its stderr.
      lines: The lines of JSON that it printed.
    """

    status: int | None
    seconds: float
    errors: tuple[str, ...]
    lines: tuple[dict[str, Any], ...]


def run(
    command: Sequence[str],
    env: dict[str, str],
    *,
    seconds: float,
    emit: Callable[[str], None],
    say: Callable[[str], None],
) -> Ending:
    """Runs a command for so many seconds at most.

    Args:
      command: With its arguments.
      env: Its whole environment.
      seconds: After which it is stopped.
      emit: Is given each line of JSON at once.
      say: Is given what is for the screen.
    """
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # It is stopped with what it has started.
    )
    texts: queue.Queue[tuple[str, str]] = queue.Queue()
    readers = [
        threading.Thread(target=_read, args=(stream, name, texts), daemon=True)
        for name, stream in (("out", process.stdout), ("err", process.stderr))
    ]
    for reader in readers:
        reader.start()
    lines, errors = [], []
    said = last = begun
    over, stopped = math.inf, False  # When it was found to have ended.
    try:
        while any(reader.is_alive() for reader in readers) or not texts.empty():
            now = time.monotonic()
            if now - begun > seconds and not stopped:
                stopped = True
                end(process)
            if process.poll() is not None:
                over = min(over, now)
            if now - max(over, last) > _GRACE:
                break  # What it has started keeps its pipes open.
            if now - said > BEAT:
                said = now
                say(f"  ... {now - begun:.0f} s, still running")
            with contextlib.suppress(queue.Empty):
                name, text = texts.get(timeout=0.2)
                last = time.monotonic()
                if name == "out" and (found := _json(text)) is not None:
                    lines.append(found)
                    emit(text)
                    say(f"  {shown(found)}")
                else:
                    errors = [*errors, text][-_KEPT:]
                    say(f"  {text[:_WIDTH]}")
                said = time.monotonic()
    finally:
        if process.poll() is None or any(reader.is_alive() for reader in readers):
            end(process)
    status = None if stopped else process.poll()
    return Ending(status, time.monotonic() - begun, tuple(errors), tuple(lines))


def end(process: subprocess.Popen[str]) -> None:
    """Ends a process and what it has started; a hung one is left after a while."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def _read(stream: IO[str], name: str, texts: queue.Queue[tuple[str, str]]) -> None:
    with stream:
        for text in stream:
            texts.put((name, text.rstrip("\n")))


def _json(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        return json.loads(text)
    except ValueError:  # The last line of a command that was stopped.
        return None


def shown(line: dict[str, Any]) -> str:
    """A result in a few words."""
    told = f"{line.get('name')}"
    sizes = [
        f"{key} {line[key]}" for key in ("frames", "batch", "tokens") if key in line
    ]
    if sizes:
        told += f" ({', '.join(sizes)})"
    value, ratio = line.get("value"), line.get("ratio")
    told += f": {value if value is not None else 'not decided'} {line.get('unit')}"
    if ratio is not None:
        told += f", {ratio}x {line.get('peer')}"
    if line.get("undecided"):
        told += f" [not decided: {line['undecided']}]"
    return told


def carried(
    wheels: pathlib.Path, target: pathlib.Path, say: Callable[[str], None]
) -> list[str]:
    """Unpacks the wheels of packages that this machine lacks; returns their names.

    Args:
      wheels: The folder they lie in.
      target: Where to unpack; to be put on the path.
      say: Is given what is for the screen.
    """
    names = []
    for wheel in sorted(wheels.glob("*.whl")):
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            try:
                with zipfile.ZipFile(wheel) as packed:
                    packed.extractall(target)
            except (OSError, zipfile.BadZipFile) as error:
                say(f"{wheel.name}: cannot be unpacked ({error})")
            else:
                names.append(name)
        else:
            say(f"{wheel.name} is not needed: {name} {version} is here")
    return names
