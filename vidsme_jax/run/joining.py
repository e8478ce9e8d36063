"""Finds out whether several processes work together, and how they connect.

Nothing here imports JAX.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vidsme_jax.base import AuditError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def arguments(
    given: Sequence[str | int | None], environment: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`; None for one process.

    What is not given is read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. Without those, a SLURM step of several tasks and a TPU slice of
    several hosts are found out by JAX, as they are with the coordinator "auto".

    Args:
      given: Coordinator, number of processes, and place of this one.
      environment: The environment variables of the process.

    Raises:
      AuditError: What is given does not suffice.
    """
    read = [environment.get(name) or None for name in _VARIABLES]
    found = [a if a is not None else b for a, b in zip(given, read, strict=True)]
    if not any(x is not None for x in found) and _is_cluster(environment):
        found[0] = "auto"
    if all(x is None for x in found):
        return None
    return {} if found[0] == "auto" else _checked(found)


def _is_cluster(environment: Mapping[str, str]) -> bool:
    """Returns whether a scheduler has started several processes."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    return tasks not in ("", "1") or "," in hosts


def _checked(found: Sequence[str | int | None]) -> dict[str, Any]:
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
            problems.append(f"{flag} is {value!r}; it must be an integer")
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
