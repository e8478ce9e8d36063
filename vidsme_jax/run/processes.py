"""Several processes that audit one corpus together, one or more on each host.

Each process takes its share of the clips and writes its own shards into the one work
directory, which all hosts must see. Nothing else is exchanged, unless the model spans
hosts: then all take the same steps. The first process waits for the others and writes
scores and report. A process that does not finish leaves word, and the others end too.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from vidsme_jax.base import AuditError, Failure

T = TypeVar("T")

_INTERRUPTED = "interrupted"
_POLL = 0.5  # Seconds between two looks at what the others have left.
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Joins the other processes, before anything else of JAX is used.

    What is not given is read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. Without those, a SLURM step of several tasks and a TPU slice of
    several hosts are found out by JAX, as they are with the coordinator "auto".

    Returns:
      Whether there are others; False for a run of one process.

    Raises:
      AuditError: What is given does not suffice, or the others cannot be reached.
    """
    given = (coordinator, num_processes, process_id)
    read = [environment.get(name) or None for name in _VARIABLES]
    found = [a if a is not None else b for a, b in zip(given, read, strict=True)]
    if not any(x is not None for x in found) and _is_cluster(environment):
        found[0] = "auto"
    if all(x is None for x in found):
        return False
    arguments = {} if found[0] == "auto" else _arguments(found)
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise AuditError(
            [
                f"the processes could not be joined ({cause}); each needs --coordinator"
                " HOST:PORT (of the first), --num_processes and --process_id"
            ]
        ) from error
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("start")
    return jax.process_count() > 1


def index() -> int:
    """Returns the place of this process, 0 for the first."""
    return jax.process_index()


def count() -> int:
    """Returns how many processes there are."""
    return jax.process_count()


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Ends all processes if one of them finds something wrong in a block.

    Raises:
      AuditError: Something was wrong elsewhere; what is wrong here is raised as it is.
      KeyboardInterrupt: Another process was interrupted.
    """
    error = None
    try:
        yield
    except (Exception, KeyboardInterrupt) as found:
        error = found
    interrupted = isinstance(error, KeyboardInterrupt)
    told = _everyones(2 if interrupted else int(error is not None))
    if error is not None:
        raise error
    if (told == 2).any():
        raise KeyboardInterrupt
    wrong = np.flatnonzero(told)
    if wrong.size:
        which = ", ".join(map(str, wrong))
        raise AuditError([f"process {which} found problems, told in its own output"])


@contextlib.contextmanager
def first_alone(what: str) -> Iterator[None]:
    """Lets the others into a block only after the first process has left it."""
    if index() > 0:
        multihost_utils.sync_global_devices(what)
    try:
        yield
    finally:
        if count() > 1 and index() == 0:
            multihost_utils.sync_global_devices(what)


def share(items: Sequence[T], names: Sequence[str]) -> tuple[Sequence[T], int]:
    """Returns this process's part, and the size of the largest part.

    Args:
      items: The same in all processes.
      names: Of the items; compared between the processes.

    Raises:
      AuditError: The processes do not see the same.
    """
    if count() == 1:
        return items, len(items)
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    everyone = _everyones(int.from_bytes(digest[:3], "big"))
    differing = np.flatnonzero(everyone != everyone[0])
    if differing.size:
        raise AuditError(
            [
                f"process {', '.join(map(str, differing))} sees other clips to score "
                "than process 0: corpus, configuration and work directory must be the "
                "same on all hosts"
            ]
        )
    return items[index() :: count()], -(-len(items) // count())


@contextlib.contextmanager
def finishing(
    folder: pathlib.Path,
) -> Iterator[Callable[[list[Failure]], list[Failure]]]:
    """Runs a block whose results the first process needs whole.

    Args:
      folder: That all processes see; each leaves word there of how it ended.

    Yields:
      A function that takes this process's failures, waits for those of the others and
      returns all.

    Raises:
      AuditError: The processes see different folders, or another one gave up.
      KeyboardInterrupt: Another one was interrupted.
    """
    if count() == 1:
        yield lambda failures: failures
        return
    _word(folder, index()).unlink(missing_ok=True)
    _compare(folder)

    def everyones(failures: list[Failure]) -> list[Failure]:
        _leave(folder, failures)
        return _gather(folder)

    try:
        yield everyones
    except BaseException as error:
        if not _word(folder, index()).exists():
            with contextlib.suppress(OSError):
                said = str(error).strip() or type(error).__name__
                interrupted = isinstance(error, KeyboardInterrupt)
                _leave(folder, [], _INTERRUPTED if interrupted else said)
        raise


def has_ended(folder: pathlib.Path) -> bool:
    """Whether a process has left word that it ended early: the others may, too."""
    if count() == 1:
        return False
    words = folder.glob("done-*.json")
    return any(json.loads(word.read_text())["error"] for word in words)


def _compare(folder: pathlib.Path) -> None:
    """Makes sure that the processes see one folder."""
    # A name that nobody has looked for: network file systems remember absent files.
    mark = folder / f"together-{_everyones(time.time_ns() % 2**31)[0]}"
    with agreed(), first_alone("one folder"):
        if index() == 0:
            mark.touch()
        elif not mark.exists():
            raise AuditError(
                [
                    f"{folder} of process 0 is not seen by process {index()}: all "
                    "hosts need one work directory, on a shared file system"
                ]
            )
    if index() == 0:
        mark.unlink()


def _leave(folder: pathlib.Path, failures: list[Failure], error: str = "") -> None:
    """Tells the others that this process is done, or why it gave up."""
    listed = [dataclasses.asdict(failure) for failure in failures]
    path = _word(folder, index())
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"failures": listed, "error": error}))
    os.replace(temporary, path)


def _gather(folder: pathlib.Path) -> list[Failure]:
    """Waits for every process; returns their failures, in their order."""
    failures: list[Failure] = []
    problems, interrupted = [], False
    for process in range(count()):
        path, said = _word(folder, process), False
        while not path.exists():
            if not said:
                logging.info("waiting for process %d of %d", process, count())
                said = True
            time.sleep(_POLL)
        told = json.loads(path.read_text())
        failures += [Failure(**failure) for failure in told["failures"]]
        if told["error"] == _INTERRUPTED:
            interrupted = True
        elif told["error"]:
            problems.append(f"process {process} gave up: {told['error']}")
    if problems:
        raise AuditError(problems)
    if interrupted:
        raise KeyboardInterrupt
    return failures


def _word(folder: pathlib.Path, process: int) -> pathlib.Path:
    return folder / f"done-{process:05}.json"


def _everyones(number: int) -> np.ndarray:
    """Returns the number that each process has."""
    if count() == 1:
        return np.array([number])
    mine = np.array(number, np.int32)
    return np.asarray(multihost_utils.process_allgather(mine)).reshape(-1)


def _is_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler has started several processes."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    return tasks not in ("", "1") or "," in hosts


def _arguments(found: Sequence[str | int | None]) -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize`."""
    flags = ("--coordinator", "--num_processes", "--process_id")
    problems = [
        f"{flag} (or {variable}) is missing: the processes of a run need all three"
        for flag, variable, value in zip(flags, _VARIABLES, found, strict=True)
        if value is None
    ]
    arguments: dict[str, Any] = {"coordinator_address": str(found[0])}
    names = ("num_processes", "process_id")
    for name, flag, value in zip(names, flags[1:], found[1:], strict=True):
        if value is None:
            continue
        try:
            arguments[name] = int(value)
        except ValueError:
            problems.append(f"{flag} is {value!r}; it must be a number")
    if not problems and int(arguments["process_id"]) not in range(
        arguments["num_processes"]
    ):
        problems.append(
            f"--process_id is {found[2]}; with {found[1]} processes it must be 0 to "
            f"{arguments['num_processes'] - 1}"
        )
    if problems:
        raise AuditError(problems)
    return arguments
