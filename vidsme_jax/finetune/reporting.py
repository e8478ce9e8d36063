"""Shows the progress of a training: loss, tokens a second, MFU, time left."""

import functools
import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging

from vidsme_jax import progress
from vidsme_jax.finetune.examples import Cut, Example
from vidsme_jax.finetune.preparing import Prepared
from vidsme_jax.models.rows import Shown
from vidsme_jax.run import rates

_SECONDS = 10.0  # Between two log lines.
_FIRST = 3  # Steps that compile, or wait for those that do.


class Reporter:
    """Shows a training's progress: a bar on a terminal, else log lines."""

    def __init__(self, prepared: Prepared, total: int, per_epoch: int, done: int):
        """Logs the numbers of steps.

        Args:
          prepared: The training.
          total: Steps of the whole training.
          per_epoch: Steps of an epoch.
          done: Steps of earlier runs.
        """
        self._total, self._per_epoch, self._done = total, per_epoch, done
        self._resumed = done
        self._model = prepared.trainee.source.model
        self._passes = _passes(prepared)
        devices = prepared.devices.mesh
        peak = rates.peak(jax.local_devices()[0], prepared.train.dtype)
        self._peak = peak and peak.rate * devices.size
        self._counted = functools.lru_cache(maxsize=4096)(self._operations)
        self._since, self._tokens, self._flops = 0.0, 0, 0.0
        self._logged = time.monotonic()
        logging.info(
            "%d steps, %d an epoch, %d of them done by earlier runs",
            *(total, per_epoch, done),
        )

    def __enter__(self) -> "Reporter":
        self._bar = progress.Bar(self._total, "training", "step", "compiling")
        self._bar.update(self._done)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def step(self, cuts: Sequence[Cut], loss: float) -> None:
        """Counts a finished step and shows the progress.

        Args:
          cuts: The batches of the step.
          loss: In nats a token.
        """
        now = time.monotonic()
        self._done += 1
        if self._done - self._resumed == _FIRST:
            self._since = now
        elif self._done - self._resumed > _FIRST:
            for example in (x for cut in cuts for x in cut.examples):
                self._tokens += len(example.rows.feature)
                self._flops += self._flops_of(example)
        self._bar.update(note=f"loss {loss:.4f}{self._pace(now)}")
        last = self._done == self._total
        if not self._bar.shown and (now - self._logged > _SECONDS or last):
            self._logged = now
            logging.info(
                "step %d of %d (epoch %.1f), loss %.4f%s",
                *(self._done, self._total, self._done / self._per_epoch, loss),
                self._pace(now),
            )

    def _pace(self, now: float) -> str:
        seconds = now - self._since
        if not self._tokens or seconds <= 0:
            return ""
        rate = self._flops / seconds
        timed = self._done - self._resumed - _FIRST
        left = (self._total - self._done) * seconds / timed
        share = f", MFU {rate / self._peak:.1%}" if self._peak else ""
        return (
            f", {self._tokens / seconds:,.0f} tokens a second, "
            f"{rate / 1e12:.3g} TFLOP/s{share}, about {progress.in_words(left)} left"
        )

    def _flops_of(self, example: Example) -> float:
        text = int((example.rows.feature < 0).sum())
        return self._counted(example.shown, text, len(example.rows.kept))

    def _operations(self, shown: Shown, text: int, kept: int) -> float:
        """Returns the fewest operations that one example needs.

        Args:
          shown: What the model is shown of the clip.
          text: Number of rows of text.
          kept: Number of rows that predict the answer.
        """
        model, (tower, decoder) = self._model, self._passes
        counted = model.flops(shown, text=text, texts=[(0, kept)])
        views = len(model.views(np.arange(shown.num_frames)))
        return tower * counted.vision / views + decoder * (
            counted.prefill + counted.texts
        )


def _passes(prepared: Prepared) -> tuple[float, float]:
    """Returns how often the products of tower and decoder are needed.

    Once for the forward pass, once for the gradient of the inputs if an earlier
    parameter is trained, and once for that of the weights if they are trained.
    Rematerialised products do not count.
    """
    train, model = prepared.train, prepared.trainee.source.model
    roots = {path.split("/")[0] for path in prepared.trainee.form.trained}
    tower = bool(roots & set(model.towers))
    if train.method == "lora":
        return (2.0 if tower else 1.0), 2.0
    if train.method == "projector":
        return 1.0, 2.0
    return (3.0 if tower else 1.0), 3.0
