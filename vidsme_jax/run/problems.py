"""Collects what is wrong with a configuration, so that one error lists all of it."""

import contextlib
from collections.abc import Collection, Generator

from ml_collections import ConfigDict

from vidsme_jax import settings
from vidsme_jax.base import AuditError
from vidsme_jax.settings import views
from vidsme_jax.settings.rules import Rule


class Problems:
    """All problems of a configuration, in the order in which they are found.

    Attributes:
      found: One sentence each.
      settings: The configuration, faulty values replaced by the defaults.
    """

    def __init__(
        self,
        config: ConfigDict,
        rules: dict[str, Rule] = settings.RULES,
        groups: Collection[str] = (),
    ):
        """Starts with the problems of the values.

        Args:
          config: The configuration to check.
          rules: What each key may hold.
          groups: Whose values are read, such as "video", if not those of all; problems
            of others are left out, except keys that do not exist.
        """
        found = {_key(problem): problem for problem in settings.problems(config, rules)}
        self._faulty = list(found)
        self.found = [
            problem
            for key, problem in found.items()
            if not groups or key.split(".")[0] in groups or "no such key" in problem
        ]
        given = settings.without(config, self._faulty)
        self.settings = views.Settings.of(given)

    def none_in(self, *keys: str, but: Collection[str] = ()) -> bool:
        """Returns whether all keys with these prefixes have valid values.

        A check that reads a faulty value would only report it again.
        """
        faulty = (key for key in self._faulty if key not in but)
        return not any(key.startswith(keys) for key in faulty)

    @contextlib.contextmanager
    def collected(self, *keys: str) -> Generator[None, None, None]:
        """Collects the problems that a block raises, and marks keys as faulty."""
        try:
            yield
        except AuditError as error:
            self.found += error.problems
            self._faulty += keys

    def add(self, *problems: str) -> None:
        """Adds problems."""
        self.found += problems

    def close(self) -> None:
        """Raises an `AuditError` if there are problems."""
        if self.found:
            raise AuditError(self.found)


def _key(problem: str) -> str:
    """Returns the key that a sentence of `settings.problems` begins with."""
    return problem.split()[0].rstrip(":").removeprefix("config.")
