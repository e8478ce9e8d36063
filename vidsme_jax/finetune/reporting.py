"""Progress of a training: loss, tokens a second, share of the peak, time left."""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from vidsme_jax import progress
from vidsme_jax.finetune.examples import Cut, Example
from vidsme_jax.run import rates

_SECONDS = 10.0  # Between two log lines.
_FIRST = 3  # Steps that compile, or wait for those that do.


class Reporter:
    """Shows how a training goes, on a terminal as a bar, elsewhere in log lines."""

    def __init__(self, prepared: Any, total: int, per_epoch: int, done: int):
        """Begins.

        Args:
          prepared: See `preparing.Prepared`.
          total: Steps of the whole training.
          per_epoch: Steps of an epoch.
          done: Steps that were made before.
        """
        self._total, self._per_epoch, self._done = total, per_epoch, done
        self._begun = done
        self._model = prepared.trainee.source.model
        self._passes = _passes(prepared)
        devices = prepared.devices.mesh
        peak = rates.peak(jax.local_devices()[0], prepared.train.dtype)
        self._peak = peak and peak.rate * devices.size
        self._counted = functools.lru_cache(maxsize=4096)(self._operations)
        self._since, self._tokens, self._flops = 0.0, 0, 0.0
        self._told = time.monotonic()
        logging.info(
            "%d steps, %d an epoch, %d of them made before", total, per_epoch, done
        )

    def __enter__(self) -> "Reporter":
        self._bar = progress.Bar(self._total, "training", "step", "compiling")
        self._bar.update(self._done)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def step(self, cuts: Sequence[Cut], loss: float) -> None:
        """Counts a step that is done."""
        now = time.monotonic()
        self._done += 1
        if self._done - self._begun == _FIRST:
            self._since = now
        elif self._done - self._begun > _FIRST:
            for example in (x for cut in cuts for x in cut.examples):
                self._tokens += len(example.rows.feature)
                self._flops += self._of(example)
        self._bar.update(note=f"loss {loss:.4f}{self._pace(now)}")
        last = self._done == self._total
        if not self._bar.shown and (now - self._told > _SECONDS or last):
            self._told = now
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
        left = (
            (self._total - self._done) * seconds / (self._done - self._begun - _FIRST)
        )
        share = f", MFU {rate / self._peak:.1%}" if self._peak else ""
        return (
            f", {self._tokens / seconds:,.0f} tokens a second, "
            f"{rate / 1e12:.3g} TFLOP/s{share}, about {progress.in_words(left)} left"
        )

    def _of(self, example: Example) -> float:
        text = int((example.rows.feature < 0).sum())
        return self._counted(example.shown, text, len(example.rows.kept))

    def _operations(self, shown: Any, text: int, kept: int) -> float:
        """Returns the operations that one example needs at least."""
        model, (tower, decoder) = self._model, self._passes
        counted = model.flops(shown, text=text, texts=[(0, kept)])
        views = len(model.views(np.arange(shown.num_frames)))
        return tower * counted.vision / views + decoder * (
            counted.prefill + counted.texts
        )


def _passes(prepared: Any) -> tuple[float, float]:
    """Returns how often the products of tower and decoder are needed.

    Once forward, once for the gradient of the inputs where anything before learns, and
    once for that of the weights where these learn; what is computed again to save
    memory does not count.
    """
    train, model = prepared.train, prepared.trainee.source.model
    roots = {path.split("/")[0] for path in prepared.trainee.form.trained}
    tower = bool(roots & set(model.towers))
    if train.method == "lora":
        return (2.0 if tower else 1.0), 2.0
    if train.method == "projector":
        return 1.0, 2.0
    return (3.0 if tower else 1.0), 3.0
