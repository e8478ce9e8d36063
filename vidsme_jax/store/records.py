"""Records of settings: the JSON files that say what a folder's content depends on."""

import dataclasses
import json
import pathlib
from typing import Any

from vidsme_jax.base import AuditError
from vidsme_jax.store import files, regular

_MOST = 1 << 24  # Bytes.
_MOST_LISTED = 20  # Settings that differ.


@dataclasses.dataclass(frozen=True)
class Record:
    """The settings of a folder's content, in a JSON file.

    Attributes:
      path: Of the file.
      difference: The message about a setting that differs: a format string of `where`,
        `key`, `before` and `now`.
      remedy: What to do about a damaged file, or "".
    """

    path: pathlib.Path
    difference: str
    remedy: str = ""

    def read(self) -> dict[str, Any]:
        """Returns the settings, empty if there is no file.

        Raises:
          AuditError: The file is damaged.
        """
        if not self.path.exists():
            return {}
        try:
            with regular.opened(self.path) as file:
                text = file.read(_MOST + 1)
            if len(text) > _MOST:
                raise ValueError(f"it has more than {_MOST >> 20} MiB")
            return object_of(text)
        except (OSError, ValueError) as error:
            raise AuditError([damaged(self.path, error, self.remedy)]) from error

    def write(self, settings: dict[str, Any]) -> None:
        """Writes the settings, which must be JSON-ready."""
        files.write_atomically(self.path, _text(settings))

    def create(self, settings: dict[str, Any]) -> None:
        """Writes the settings where there are none yet.

        Raises:
          FileExistsError: Another process has written some.
        """
        files.create(self.path, _text(settings))

    def differences(
        self, before: dict[str, Any], now: dict[str, Any], where: pathlib.Path | str
    ) -> list[str]:
        """Returns a message for each setting that is not the same, as far as 20."""
        keys = sorted(set(before) | set(now))
        differing = [key for key in keys if before.get(key) != now.get(key)]
        listed = [
            self.difference.format(
                where=where, key=key, before=before.get(key), now=now.get(key)
            )
            for key in differing[:_MOST_LISTED]
        ]
        if more := len(differing) - len(listed):
            listed.append(f"{where}: {more} other settings differ, too")
        return listed


def damaged(path: pathlib.Path | str, cause: Exception | str, remedy: str = "") -> str:
    """Returns the message about a damaged file."""
    text = f"{path}: damaged ({' '.join(str(cause).split())})"
    return f"{text}; {remedy}" if remedy else text


def _text(settings: dict[str, Any]) -> bytes:
    return json.dumps(settings, indent=2).encode()


def object_of(text: bytes) -> dict[str, Any]:
    """Returns what JSON text says, which must be an object."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not an object")
    return found
