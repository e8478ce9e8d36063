"""Measures how a run used its devices: clips a second, share of the peak, waiting."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from absl import logging

from vidsme_jax.data.loader import num_cores
from vidsme_jax.data.stages import DECODE, Stages
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Shown
from vidsme_jax.parallel import Devices
from vidsme_jax.run import rates, timeline
from vidsme_jax.run.timeline import Timeline

_ENOUGH = 0.9  # Devices that compute for this part of the time are the bottleneck.
_FEW = 4  # With fewer batches nothing can be said of a bottleneck.
_SMALL = 0.01  # Shares of the time below it are left out.
_OTHER = "fetching results"
_AGAIN = (
    " (`vidsme prepare` does it once for all runs of these clips, motion as OpenCV "
    "measures it)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Utilisation:
    """How a run used its devices, of the clips that this process scored.

    Attributes:
      clips: The clips that went through the devices.
      batches: The batches of these clips.
      seconds: From the first batch sent to the last one computed, without compiling.
      busy: Seconds of these in which the devices computed.
      waited: Seconds of these in which they waited, by what for.
      compiling: Seconds of compiling, outside `seconds`.
      operations: The least that the clips need; copies that fill a batch do not count.
      devices: This process's share of the grid.
      peak: The peak of one device; None where there is none (see `rates.peak`).
      core_seconds: Core seconds of host threads a clip, by stage.
      workers: Host threads that prepare clips.
      cores: The cores that this process may use.
      on_cpu: Whether the devices compute on these cores, too.
    """

    clips: int
    batches: int
    seconds: float
    busy: float
    waited: dict[str, float]
    compiling: float
    operations: float
    devices: float
    peak: rates.Peak | None
    core_seconds: dict[str, float]
    workers: int
    cores: int
    on_cpu: bool

    @property
    def rate(self) -> float:
        """Clips a second."""
        return self.clips / self.seconds

    @property
    def few(self) -> bool:
        """Whether there were too few batches to show a bottleneck."""
        return self.batches < _FEW

    def share(self, seconds: float) -> float | None:
        """Returns the share of the peak rate at which `operations` took `seconds`."""
        if self.peak is None:
            return None
        return self.operations / (seconds * self.devices * self.peak.rate)

    def log(self) -> None:
        """Logs clips a second, share of the peak, waiting and what lacks."""
        if self.peak is not None and not self.peak.known:
            logging.info(
                "the peak of this kind of device is not known: a matrix product was "
                "measured, %.4g TFLOP/s",
                self.peak.rate / 1e12,
            )
        logging.info("devices: %s", self._few() if self.few else self._overlap())
        if not self.few and self._lacking() == timeline.CLIPS:
            # What is prepared is not decoded again.
            again = _AGAIN if DECODE in self.core_seconds else ""
            logging.info("%s%s: %s", timeline.CLIPS, again, self._host())

    def facts(self) -> dict[str, Any]:
        """Returns what `config.json` records; JSON-ready."""
        facts: dict[str, Any] = {"clips": self.clips, "batches": self.batches}
        if self.peak is not None:
            facts["peak of a device"] = self._peak()
            facts["share of the peak while computing"] = _rounded(self.share(self.busy))
        facts["computing seconds"] = _rounded(self.busy)
        facts["compiling seconds"] = _rounded(self.compiling)
        if not self.few:
            facts["clips a second"] = _rounded(self.rate)
            if self.peak is not None:
                facts["share of the peak"] = _rounded(self.share(self.seconds))
            facts["share waited"] = _rounded(1 - self.busy / self.seconds)
            waited = self._waited().items()
            facts["waited for"] = {cause: _rounded(part) for cause, part in waited}
        facts["host core seconds a clip"] = {
            stage: _rounded(seconds) for stage, seconds in self.core_seconds.items()
        }
        return facts

    def _few(self) -> str:
        batches = "1 batch" if self.batches == 1 else f"{self.batches} batches"
        return (
            f"{batches} of {self.clips} clips computed in {self.busy:.2f} s"
            f"{self._of_peak(self.busy)}; compiling took {self.compiling:.1f} s; "
            f"{batches} cannot show what limits a longer run"
        )

    def _overlap(self) -> str:
        waited, lacking = self._waited(), self._lacking()
        parts = ", ".join(f"{_percent(v)} for {k}" for k, v in waited.items())
        limit = f"the bottleneck is {lacking}" if lacking else "they are the bottleneck"
        return (
            f"{self.rate:.2f} clips a second{self._of_peak(self.seconds)}; they "
            f"computed for {self.busy:.1f} s of {self.seconds:.1f} s and waited "
            f"{_percent(1 - self.busy / self.seconds)} of the time"
            f"{f' ({parts})' if parts else ''}: {limit}; compiling took "
            f"{self.compiling:.1f} s, which is not counted"
        )

    def _host(self) -> str:
        """Returns what the host spends on a clip, and how many cores would do."""
        spent = sum(self.core_seconds.values())
        stages = sorted(self.core_seconds.items(), key=lambda item: -item[1])
        shown = [f"{k} {v:.2g}" for k, v in stages if v >= _SMALL * spent]
        text = (
            f"mostly {stages[0][0]}; {', '.join(shown)} core seconds a clip with "
            f"{self.workers} workers on {self.cores} cores"
        )
        if self.on_cpu:
            return f"{text}, on which the model computes, too"
        needed = math.ceil(spent * self.clips / self.busy)
        if (more := needed - self.cores) > 0:
            return f"{text}; {more} more core{'s'[: more > 1]} would be needed"
        if needed > self.workers:
            return f"{text}; config.workers = {needed} would be needed"
        return (
            f"{text}, which would suffice if no thread waited for files, the optical "
            "flow or another thread"
        )

    def _waited(self) -> dict[str, float]:
        """Returns which shares of the time were waited for what, the largest first."""
        waited = dict(self.waited)
        waited[_OTHER] = self.seconds - self.busy - sum(waited.values())
        shares = {k: seconds / self.seconds for k, seconds in waited.items()}
        found = sorted(shares.items(), key=lambda item: -item[1])
        return {k: share for k, share in found if share >= _SMALL}

    def _lacking(self) -> str | None:
        """Returns what limits the run; None: the devices."""
        if self.busy >= _ENOUGH * self.seconds:
            return None
        return next(iter(self._waited()))

    def _of_peak(self, seconds: float) -> str:
        share = self.share(seconds)
        return (
            "" if share is None else f", {_percent(share)} of the peak ({self._peak()})"
        )

    def _peak(self) -> str:
        assert self.peak is not None
        source = "known" if self.peak.known else "measured"
        return f"{self.peak.rate / 1e12:.4g} TFLOP/s a device, {source}"


class Meter:
    """Counts what a driver sends through the devices, until it is left.

    Attributes:
      timeline: For `signals.stream`.
      stages: Receives the times of the threads that prepare clips.
      clips: The clips whose signals are there.
    """

    def __init__(self, model: Model):
        self.timeline, self.stages = Timeline(), Stages()
        self.clips = 0
        self._model, self._operations = model, 0.0

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *error: object) -> None:
        self.timeline.close()

    def computed(
        self,
        clip: Shown | int,
        model: Model | None = None,
        *,
        video: bool = True,
        texts: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Counts a clip whose signals are there.

        A grey video and the generation of answers are not counted.

        Args:
          clip: See `Model.flops`.
          model: The model; by default that of the meter.
          video: Whether the video's rows have signals.
          texts: See `Model.flops`.
        """
        self.clips += 1
        model = model or self._model
        flops = model.flops(clip, texts=texts)
        flops = flops if video else flops._replace(head=0.0)
        self._operations += flops.single if model.prune else flops.pair

    def result(self, devices: Devices, workers: int) -> Utilisation | None:
        """Returns what was measured, once the meter is closed; None without a clip.

        Args:
          devices: That computed. The peak of an accelerator that is not known is
            measured on them.
          workers: See `config.workers`.
        """
        timeline, clips = self.timeline, self.clips
        if not clips or not timeline.seconds:
            return None
        first, cores = devices.mesh.local_devices[0], num_cores()
        seconds = self.stages.seconds
        return Utilisation(
            clips=clips,
            batches=timeline.batches,
            seconds=timeline.seconds,
            busy=timeline.busy,
            waited=timeline.waited,
            compiling=timeline.compiling,
            operations=self._operations,
            devices=devices.mesh.size / devices.num_processes,
            peak=rates.peak(first, self._model.dtype),
            core_seconds={k: spent / clips for k, spent in seconds.items()},
            workers=workers or cores,
            cores=cores,
            on_cpu=first.platform == "cpu",
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
