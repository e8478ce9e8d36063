"""Saves and restores the newest state of a training, with orbax."""

import json
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp

from vidsme_jax import terminal
from vidsme_jax.base import AuditError
from vidsme_jax.finetune.steps import State
from vidsme_jax.store.files import write_atomically
from vidsme_jax.wording import printable

_RUN = "run.json"
_SHOWN = 200  # Characters of a value in a message.
_WRONG = (OSError, ValueError, RuntimeError)  # What orbax and tensorstore raise.


class States:
    """The folder of one training's states."""

    def __init__(self, folder: pathlib.Path, run: dict[str, Any], *, restart: bool):
        """Opens the folder, or makes it.

        Args:
          folder: Made if need be.
          run: What a state depends on, from `record.depends`.
          restart: Whether states of another training are deleted.

        Raises:
          AuditError: The folder has states of another training; lists the differences.
        """
        self._folder = folder
        run = json.loads(json.dumps(run))
        found = _read(folder)
        if found is not None and found != run:
            if not restart:
                raise AuditError(_differences(folder, found, run))
            if folder.is_dir():
                shutil.rmtree(folder)
            else:
                folder.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _RUN, json.dumps(run, indent=1).encode())
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False
        )
        with terminal.quiet():
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def latest(self) -> int | None:
        """The step of the newest state; None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: State, record: dict[str, Any]) -> None:
        """Saves a state and deletes the previous one.

        Args:
          step: Steps made so far.
          state: Without copies for devices; see `Programs.gathered`.
          record: A `record.Log` as a dictionary; JSON-ready.

        Raises:
          OSError: It cannot be written, such as to a full disk; the previous state is
            kept.
        """
        if self.latest == step:
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()),
            record=ocp.args.JsonSave(record),
        )
        try:
            with terminal.quiet():
                self._manager.save(step, args=args, force=True)
        except _WRONG as error:
            raise OSError(f"{self._folder}: {_cause(error)}") from error

    def restore(self, like: State) -> tuple[State, dict[str, Any]]:
        """Returns the newest state and its record.

        Args:
          like: A state with the same shapes and shardings.

        Raises:
          AuditError: It cannot be read, or has other shapes.
        """
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            like._asdict(),
        )
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(wanted), record=ocp.args.JsonRestore()
        )
        try:
            with terminal.quiet():
                found = self._manager.restore(self.latest, args=args)
        except (*_WRONG, KeyError, TypeError) as error:
            raise AuditError(
                [
                    f"the state in {self._folder} cannot be read: {_cause(error)}; "
                    "delete the folder to start again"
                ]
            ) from error
        return State(**found["state"]), self._checked(found["record"])

    def _checked(self, record: Any) -> dict[str, Any]:
        """Returns the newest state's record; raises an `AuditError` if it is none."""
        curve = record.get("curve") if isinstance(record, dict) else None
        if not isinstance(curve, list) or len(curve) != self.latest:
            raise AuditError(
                [
                    f"the state in {self._folder} is damaged: its record has not the "
                    f"losses of {self.latest} steps; delete the folder to start again"
                ]
            )
        return record

    def close(self, *, done: bool) -> None:
        """Closes the folder, and deletes it if the training is done."""
        with terminal.quiet():
            self._manager.close()
        if done:
            shutil.rmtree(self._folder, ignore_errors=True)


def _read(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the content of `run.json`, {} if unreadable; None for an empty folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        found = json.loads((folder / _RUN).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(
    folder: pathlib.Path, found: dict[str, Any], run: dict[str, Any]
) -> list[str]:
    """Returns the differences of a run from that of the saved states."""
    if not found:
        return [
            f"{folder}: {_RUN}, which identifies the training of the state, is missing "
            "or cannot be read: --config.overwrite=true starts again"
        ]
    lines = []
    for key in sorted({*found, *run}):
        if found.get(key) != run.get(key):
            before, now = (
                printable(json.dumps(x.get(key)), _SHOWN) for x in (found, run)
            )
            lines.append(f"{key} was {before}, and is {now}")
    return [
        f"{folder} holds the state of another training: {line}" for line in lines
    ] + ["--config.overwrite=true starts again; another --workdir keeps both"]


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0], _SHOWN)
