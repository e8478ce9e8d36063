"""A run: a model, its settings and the store of its signals, as a value."""

import dataclasses

from vidsme_jax.models.interface import Model
from vidsme_jax.settings.views import Settings
from vidsme_jax.store.shards import Shards


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
    store: Shards
    second: bool

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self.settings.video.num_frames

    def reopened(self) -> "Run":
        """Returns the run with what other processes have stored."""
        return dataclasses.replace(self, store=self.store.reopened())
