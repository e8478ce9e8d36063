"""A run: a model, its settings and the store of its signals, as a value."""

import dataclasses
from collections.abc import Iterable

from vidsme_jax.models.interface import Model
from vidsme_jax.settings.views import Settings
from vidsme_jax.store.signals import Signals


def with_two(counts: Iterable[int]) -> set[int]:
    """Returns the numbers of frames to read: one frame's motion is that of two."""
    counts = set(counts)
    return counts | ({2} if 1 in counts else set())


@dataclasses.dataclass(frozen=True)
class Run:
    """What is computed of every clip, and where it is kept.

    Attributes:
      name: Names the run in messages where there are several.
      model: The checked checkpoint; its tensors are read if there is anything to do.
      settings: The whole configuration.
      store: Receives the signals.
      second: Whether the head's second pass runs.
    """

    name: str
    model: Model
    settings: Settings
    store: Signals
    second: bool

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self.settings.video.num_frames

    def reopened(self) -> "Run":
        """Returns the run with what other processes have stored."""
        return dataclasses.replace(self, store=self.store.reopened())
