"""Several runs over one corpus: each clip is decoded once, the weights are read once.

A run is what an audit with its settings would have stored, in a folder of its own, so
that either goes on where the other stopped.
"""

import collections
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vidsme_jax.base import (
    Clip,
    ClipError,
    Failure,
    ScoredClip,
    TokenSignals,
    printable,
)
from vidsme_jax.data import loader, stages
from vidsme_jax.data.reading import Reader, stamp
from vidsme_jax.data.stages import Stages
from vidsme_jax.models.interface import Model
from vidsme_jax.motion import backends, statistics
from vidsme_jax.prepared.corpus import open_corpus
from vidsme_jax.progress import Progress
from vidsme_jax.run import checks, memory, pipeline, scoring
from vidsme_jax.run.stopping import Stop
from vidsme_jax.run.timeline import CLIPS, FLOW, STORING
from vidsme_jax.run.utilisation import Meter
from vidsme_jax.settings import views
from vidsme_jax.store.signals import Signals

_Results = list[pipeline.Prepared | ClipError]


@dataclasses.dataclass(frozen=True)
class Run:
    """One setting of the study.

    Attributes:
      value: Of `video.num_frames` or `video.against`.
      label: The same in words.
      config: The whole configuration with it.
      store: Receives the signals.
      second: Whether the head's second pass runs.
    """

    value: Any
    label: str
    config: ConfigDict
    store: Signals
    second: bool

    @property
    def num_frames(self) -> int:
        """The most frames of a clip."""
        return self.config.video.num_frames


def open_runs(setup: checks.Setup, workdir: pathlib.Path) -> list[Run]:
    """Opens a folder for each value that the study goes through.

    Raises:
      AuditError: A folder holds signals of other settings.
    """
    runs = []
    for value in setup.config.studies[setup.config.study]:
        config = setup.config.copy_and_resolve_references()
        if config.study == "frames":
            config.video.num_frames = value
            label = f"{value} frame{'s' if value > 1 else ''}"
            folder = f"frames-{value:03}"
        else:
            config.video.against = label = value
            folder = value.replace(":", "-")
        its_own = dataclasses.replace(setup, config=config)
        store, second = checks.open_shards(its_own, workdir / folder)
        runs.append(Run(value, label, config, store, second))
    return runs


def open_clips(setup: checks.Setup) -> Reader:
    """Opens the clips for every number of frames that the study looks at.

    Raises:
      AuditError: A prepared corpus lacks one.
    """
    config = setup.config
    counts = [config.video.num_frames]
    if config.study == "frames":
        counts = config.studies.frames
    return open_corpus(views.Settings.of(config), _with_two(counts))[1]


def score_clips(
    setup: checks.Setup, reader: Reader, runs: Sequence[Run], stop: Stop
) -> list[Failure]:
    """Scores, for every run, the clips that have no signals there yet.

    Args:
      setup: Of the study.
      reader: From `open_clips`.
      runs: From `open_runs`.
      stop: Looked at between batches.

    Returns:
      What could not be scored, once per row of a manifest that names it; in every run
      unless the cause begins with the run's label.

    Raises:
      AuditError: The devices have too little memory for the parameters or the first
        batch.
      KeyboardInterrupt: It was asked to stop; all that was sent is in the stores.
    """
    groups: dict[tuple[int, ...], list[Clip]] = collections.defaultdict(list)
    for clip in setup.clips:
        missing = (
            k for k, run in enumerate(runs) if not scoring.is_finished(clip, run.store)
        )
        groups[tuple(missing)].append(clip)
    before = len(groups.pop((), []))
    logging.info("%d clips, %d scored before", len(setup.clips), before)
    failures: list[Failure] = []
    if not groups:
        return failures
    for remark in setup.model.remarks:
        logging.warning("checkpoint: %s", printable(remark))
    where = setup.devices.mesh.devices.flat
    flow = backends.make(setup.config.motion.flow, where)
    total = sum(len(which) * len(clips) for which, clips in groups.items())
    progress, meter = Progress(total, "scoring"), Meter(setup.model)
    timeline = meter.timeline

    def fail(clip: Clip, error: ClipError, run: Run | None, times: int) -> None:
        cause = error.cause if run is None else f"{run.label}: {error.cause}"
        logging.warning("%s", printable(f"{clip.key}: {error.stage}: {cause}"))
        failures.extend(
            Failure(id=i.id, video=i.video, stage=error.stage, cause=cause)
            for i in clip.items
        )
        progress.add(times, failed=times)

    def readable(clips: list[Clip], its: list[Run]) -> Iterator[tuple[Clip, _Results]]:
        prepare = functools.partial(
            _prepare,
            runs=its,
            reader=reader,
            model=setup.model,
            flow=flow,
            counted=meter.stages,
        )
        workers = setup.config.workers
        for clip, results in loader.load_ahead(clips, prepare, workers=workers):
            if stop.asked:
                return
            if isinstance(results, ClipError):
                fail(clip, results, None, len(its))
            else:
                yield clip, results

    def of_run(feed: Iterator[tuple[Clip, _Results]], place: int, run: Run):
        for clip, results in feed:
            result = results[place]
            if isinstance(result, ClipError):
                fail(clip, result, run, 1)
            else:
                yield result

    def store(run: Run, batch: Sequence[tuple[scoring.Measured, Any]]) -> None:
        good = []
        with timeline.spending(FLOW):
            for measured, result in batch:
                meter.computed(len(measured.frames.indices))
                try:
                    scored = scoring.scored_clip(measured, result)
                except ClipError as error:
                    fail(measured.clip, error, run, 1)
                else:
                    good.append(_one_way(scored))
        if good:
            with timeline.spending(STORING):
                run.store.write(good)
            progress.add(len(good))

    begin = memory.enough_to_begin(
        setup.model,
        setup.devices,
        batch_size=setup.config.batch_size,
        num_frames=max(run.num_frames for run in runs),
        begun=lambda: meter.clips > 0,
    )
    with meter:
        with memory.enough_to_load(setup.model, setup.devices):
            shardings = setup.devices.shardings(setup.model.split)
            loaded = setup.model.load(shardings)

        def stream(run: Run, prepared: Iterator[pipeline.Prepared]):
            return pipeline.stream(
                loaded,
                prepared,
                setup.devices,
                batch_size=run.config.batch_size,
                num_frames=run.num_frames,
                second=run.second,
                against=run.config.video.against,
                stopped=lambda: stop.asked,
                timeline=timeline,
            )

        # Within a group every clip is for every run, so that no run falls far behind
        # and few decoded clips wait.
        with begin:
            for which, clips in groups.items():
                its = [runs[k] for k in which]
                coming = timeline.awaiting(readable(clips, its), CLIPS)
                feeds = itertools.tee(coming, len(its))
                streams = [
                    stream(run, of_run(feed, place, run))
                    for place, (feed, run) in enumerate(zip(feeds, its, strict=True))
                ]
                del feeds, coming  # What nobody reads would keep every clip.
                for turn in stop.between(itertools.zip_longest(*streams, fillvalue=())):
                    for run, batch in zip(its, turn, strict=True):
                        store(run, batch)
    progress.close()
    used = meter.result(setup.devices, setup.config.workers)
    if used is not None:
        used.log()
    return failures


def _with_two(counts: Collection[int]) -> set[int]:
    """Returns the numbers of frames to read: one frame's motion is that of two."""
    return {*counts, *(max(count, 2) for count in counts)}


def _one_way(clip: ScoredClip) -> ScoredClip:
    """One frame has one order: rounding must not make directions differ."""
    if clip.num_frames > 1:
        return clip
    natural = (None if x is None else np.stack([x[0], x[0]]) for x in clip.signals)
    return dataclasses.replace(clip, signals=TokenSignals(*natural))


def _prepare(
    clip: Clip,
    *,
    runs: Sequence[Run],
    reader: Reader,
    model: Model,
    flow: statistics.FlowVariances,
    counted: Stages,
) -> _Results:
    """Decodes a clip once; measures and resizes it for each number of frames."""
    counts = {run.num_frames for run in runs}
    # One frame has no motion: its clip's is that of two.
    before = stamp(clip.key)
    with counted.spending(stages.DECODE):
        read = reader.read(clip.key, _with_two(counts))

    def prepare(count: int) -> pipeline.Prepared | ClipError:
        try:
            frames, known = read(count)
            moving = frames.pixels
            if count == 1:
                two, known = read(2)
                moving = two.pixels
            with counted.spending(stages.MOTION):
                motion = statistics.begin(moving, flow, known)
            with counted.spending(stages.PREPROCESS):
                prepared = model.prepare(frames.pixels)
        except ClipError as error:
            return error
        about = dataclasses.replace(frames, pixels=frames.pixels[:0].copy())
        return pipeline.Prepared(
            scoring.Measured(
                clip, about, motion, before, scoring.shown(model, len(frames.indices))
            ),
            prepared,
        )

    prepared = {count: prepare(count) for count in counts}
    return [prepared[run.num_frames] for run in runs]
