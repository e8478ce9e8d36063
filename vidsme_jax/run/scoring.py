"""The driver: clips to stored signals, for one run or several.

Clips are decoded ahead on host threads, once for all runs of a model; batches go
through the devices, and each is written to its run's store.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from vidsme_jax.base import (
    Clip,
    ClipError,
    Failure,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
    printable,
)
from vidsme_jax.data import loader, stages, video
from vidsme_jax.data.reading import ABSENT, Reader, stamp
from vidsme_jax.data.stages import Stages
from vidsme_jax.motion import backends, statistics
from vidsme_jax.parallel import Devices
from vidsme_jax.progress import Progress
from vidsme_jax.run import memory, pipeline, processes
from vidsme_jax.run.pipeline import Input, Pipeline, Result
from vidsme_jax.run.processes import Team
from vidsme_jax.run.runs import Run, with_two
from vidsme_jax.run.stopping import RunStopped, Stop
from vidsme_jax.run.timeline import CLIPS, FLOW, STORING
from vidsme_jax.run.utilisation import Meter, Utilisation
from vidsme_jax.store.signals import Signals

_MAX_CAUSES = 20
_Prepared = list[tuple[int, Input | ClipError]]  # Of one clip, by place of the run.


class Scored(NamedTuple):
    """How scoring ended.

    Attributes:
      runs: With what all processes have stored.
      failures: What could not be scored, by any process, once per row of a manifest
        that names it; with several runs the cause names the run unless it is all.
      utilisation: Of the devices for the first model of which this process computed
        a clip; None where it computed none.
    """

    runs: list[Run]
    failures: list[Failure]
    utilisation: Utilisation | None


class _Measured(NamedTuple):
    """What is kept of a clip while its frames are on the device."""

    clip: Clip
    scored: Callable[..., ScoredClip]  # Takes what is not known yet.
    motion: Callable[[], MotionStatistics]  # Waits for the optical flow.


def score(
    runs: Sequence[Run],
    clips: Sequence[Clip],
    reader: Reader,
    devices: Devices,
    *,
    team: Team,
    stop: Stop,
) -> Scored:
    """Scores, for every run, the clips that have no signals there yet.

    Runs of one model share its weights and the decoded clips; the weights of a model
    are freed before those of the next are read. Of several processes each scores its
    share, and all wait for one another at the end.

    Args:
      runs: Those of one model follow one another; batch size, workers and optical flow
        are those of the first.
      clips: Of the corpus.
      reader: Of the clips' frames.
      devices: Where to run.
      team: The processes of this audit or study.
      stop: Looked at between batches, as is whether another process ended early.

    Raises:
      AuditError: Nothing can be computed, such as for lack of memory.
      RunStopped: The devices, or another process, failed; what was scored is stored.
      KeyboardInterrupt: This process or another was asked to stop; what was sent is
        stored.
    """
    failures: list[Failure] = []
    used = None
    for _, same in itertools.groupby(runs, lambda run: id(run.model)):
        driver = _Driver(list(same), reader, devices, team, stop)
        try:
            used = driver.score(clips) or used
        except jax.errors.JaxRuntimeError as error:
            raise RunStopped(memory.one_line(error)) from error
        failures += driver.failures
    everyones = team.everyones(list(dict.fromkeys(failures)))
    return Scored([run.reopened() for run in runs], everyones, used)


class _Driver:
    """Scores the clips of the runs of one model.

    Attributes:
      failures: So far.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        reader: Reader,
        devices: Devices,
        team: Team,
        stop: Stop,
    ):
        self.failures: list[Failure] = []
        # What needs most memory goes first, so that a lack of it is found early.
        self._runs = sorted(runs, key=lambda run: -run.num_frames)
        self._reader, self._devices = reader, devices
        self._team, self._stop = team, stop
        self._model, self._settings = runs[0].model, runs[0].settings
        self._meter = Meter(self._model)

    def score(self, clips: Sequence[Clip]) -> Utilisation | None:
        """Scores what is missing; returns how the devices were used."""
        missing = {clip.key: self._missing(clip) for clip in clips}
        todo = [clip for clip in clips if missing[clip.key]]
        logging.info("%d clips, %d scored before", len(clips), len(clips) - len(todo))
        for remark in self._model.remarks:
            logging.warning("checkpoint: %s", printable(remark))
        todo, most = processes.share(todo, [clip.key for clip in todo])
        rounds, batch_size = 0, self._settings.batch_size
        if self._devices.num_processes > 1:
            rounds = -(-most // self._devices.batch_size(batch_size))
        if not todo and not rounds:
            return None
        total = sum(len(missing[clip.key]) for clip in todo)
        self._progress = Progress(total, "scoring")
        timeline = self._meter.timeline
        with self._meter:
            with memory.enough_to_load(self._model, self._devices):
                loaded = self._model.load(self._devices.shardings(self._model.split))
            pipelines = [
                Pipeline(
                    loaded,
                    self._devices,
                    batch_size=batch_size,
                    num_frames=run.num_frames,
                    second=run.second,
                    against=run.settings.video.against,
                    stored=functools.partial(_any_stored, run),
                    timeline=timeline,
                )
                for run in self._runs
            ]
            batches = pipeline.stream(
                timeline.awaiting(self._inputs(todo, missing), CLIPS),
                pipelines,
                rounds=rounds,
                stopped=lambda: self._stop.asked or self._team.has_ended(),
            )
            for place, results in self._stop.between(batches):
                self._store(self._runs[place], results)
        self._progress.close()
        used = self._meter.result(self._devices, self._settings.workers)
        if used is not None:
            used.log()
        return used

    def _missing(self, clip: Clip) -> tuple[int, ...]:
        runs = enumerate(self._runs)
        return tuple(k for k, run in runs if not is_finished(clip, run.store))

    def _inputs(
        self, todo: Sequence[Clip], missing: dict[str, tuple[int, ...]]
    ) -> Iterator[list[tuple[int, Input]]]:
        """Yields the inputs of every clip, for each run that lacks it."""
        where = self._devices.mesh.devices.flat
        flow = backends.make(self._settings.motion.flow, where)
        spanning = self._devices.num_processes > 1

        def prepare(clip: Clip) -> _Prepared:
            return self._prepare(clip, missing[clip.key], flow, self._meter.stages)

        workers = self._settings.workers
        for clip, found in loader.load_ahead(todo, prepare, workers=workers):
            if self._stop.asked and not spanning:
                return
            if isinstance(found, ClipError):
                self._fail(clip, found, None, len(missing[clip.key]))
                continue
            for place, each in found:
                if isinstance(each, ClipError):
                    self._fail(clip, each, self._runs[place], 1)
            yield [(k, x) for k, x in found if not isinstance(x, ClipError)]

    def _prepare(
        self,
        clip: Clip,
        places: Sequence[int],
        flow: statistics.FlowVariances,
        counted: Stages,
    ) -> _Prepared:
        """Decodes a clip once; measures and resizes it for each number of frames."""
        counts = {self._runs[place].num_frames for place in places}
        before = stamp(clip.key)
        with counted.spending(stages.DECODE):
            read = self._reader.read(clip.key, with_two(counts))

        def prepare(count: int) -> Input | ClipError:
            try:
                with counted.spending(stages.DECODE):
                    frames, known = read(count)
                    moving = frames.pixels
                    if count == 1:
                        two, known = read(2)
                        moving = two.pixels
                with counted.spending(stages.MOTION):
                    motion = statistics.begin(moving, flow, known)
                with counted.spending(stages.PREPROCESS):
                    shown = self._model.prepare(frames.pixels)
            except ClipError as error:
                return error
            scored = functools.partial(
                ScoredClip,
                key=clip.key,
                content_hash=frames.content_hash,
                frame_indices=frames.indices,
                warnings=frames.warnings,
                stamp=before,
            )
            return Input(_Measured(clip, scored, motion), shown)

        prepared = {count: prepare(count) for count in counts}
        return [(place, prepared[self._runs[place].num_frames]) for place in places]

    def _store(self, run: Run, results: Sequence[Result]) -> None:
        good = []
        with self._meter.timeline.spending(FLOW):
            for result in results:
                try:
                    good.append(_scored(result))
                except ClipError as error:
                    self._fail(result.key.clip, error, run, 1)
                else:
                    self._meter.computed(good[-1].num_frames)
        if good:
            with self._meter.timeline.spending(STORING):
                run.store.write(good)
            self._progress.add(len(good))

    def _fail(self, clip: Clip, error: ClipError, run: Run | None, times: int) -> None:
        """Lists a clip: of one run, or of all (None), which are so many."""
        cause = error.cause
        if run is not None and len(self._runs) > 1:
            cause = f"{run.name}: {cause}"
        logging.warning("%s", printable(f"{clip.key}: {error.stage}: {cause}"))
        self.failures.extend(
            Failure(id=i.id, video=i.video, stage=error.stage, cause=cause)
            for i in clip.items
        )
        self._progress.add(times, failed=times)


def causes(failures: Sequence[Failure]) -> list[str]:
    """Returns why clips could not be scored, for a message: at most 20 lines."""
    return sorted({f"{f.video}: {f.stage}: {f.cause}" for f in failures})[:_MAX_CAUSES]


def is_finished(clip: Clip, store: Signals) -> bool:
    """Whether the clip has signals, and they are those of the file as it is now."""
    known = store.finished.get(clip.key)
    if known is None:
        return False
    if stamp(clip.key) in (known.stamp, ABSENT):
        return True  # Where it is gone by now, what was computed of it stands.
    try:
        same = video.content_hash(pathlib.Path(clip.key)) == known.content_hash
    except ClipError:  # Decoding it will say why it cannot be read.
        return False
    if not same:
        name = printable(clip.key)
        logging.warning("%s: changed since it was scored, so scored again", name)
    return same


def _any_stored(run: Run) -> bool:
    return any(run.store.folder.glob("part-*.parquet"))


def _scored(result: Result) -> ScoredClip:
    """Joins a clip and its signals, once its motion is known.

    Raises:
      ClipError: The result is one, or the optical flow failed.
    """
    measured, signals = result.key, result.signals
    if isinstance(signals, ClipError):
        raise signals
    clip = measured.scored(
        signals=signals, frame=result.frame, motion=measured.motion()
    )
    return clip if clip.num_frames > 1 else _one_way(clip)


def _one_way(clip: ScoredClip) -> ScoredClip:
    """One frame has one order: rounding must not make directions differ."""
    natural = (None if x is None else np.stack([x[0], x[0]]) for x in clip.signals)
    return dataclasses.replace(clip, signals=TokenSignals(*natural))
