"""Clips to stored signals: decode ahead on threads, score on devices, write shards."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vidsme_jax.base import (
    Clip,
    ClipError,
    Failure,
    Frames,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
    printable,
)
from vidsme_jax.data import loader, stages, video
from vidsme_jax.data.reading import ABSENT, Reader, stamp
from vidsme_jax.data.stages import Stages
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Shown
from vidsme_jax.motion import backends, statistics
from vidsme_jax.parallel import Devices
from vidsme_jax.progress import Progress
from vidsme_jax.run import memory, pipeline, processes
from vidsme_jax.run.stopping import Stop
from vidsme_jax.run.timeline import CLIPS, FLOW, STORING
from vidsme_jax.run.utilisation import Meter, Utilisation
from vidsme_jax.store.signals import Signals


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is kept of a clip while its frames are on the device."""

    clip: Clip
    frames: Frames  # Without its pixels.
    motion: Callable[[], MotionStatistics]  # Waits for the optical flow.
    stamp: tuple[int, int]
    frame: np.ndarray  # As in `ScoredClip`.


class Scored(NamedTuple):
    """How scoring ended.

    Attributes:
      failures: What could not be scored, once per row of a manifest that names it.
      utilisation: Of the devices; None where no clip was computed.
    """

    failures: list[Failure]
    utilisation: Utilisation | None = None


def score_clips(
    clips: Sequence[Clip],
    reader: Reader,
    model: Model,
    devices: Devices,
    store: Signals,
    config: ConfigDict,
    *,
    second: bool,
    stop: Stop,
) -> Scored:
    """Scores the clips that have no signals yet, a shard a batch.

    Of several processes each scores its share. At the end the log says what the devices
    were used for.

    Args:
      clips: Of the corpus.
      reader: Of the clips' frames.
      model: The checked checkpoint; its tensors are read if there is anything to do.
      devices: Where to run.
      store: Receives the signals.
      config: The whole configuration.
      second: Whether to run the head's second pass.
      stop: Looked at between batches, as is whether another process ended early.

    Raises:
      AuditError: The devices have too little memory for the parameters or the first
        batch.
      KeyboardInterrupt: It was asked to stop; all that was sent is in `store`.
    """
    todo = [clip for clip in clips if not is_finished(clip, store)]
    logging.info("%d clips, %d scored before", len(clips), len(clips) - len(todo))
    for remark in model.remarks:
        logging.warning("checkpoint: %s", printable(remark))
    failures: list[Failure] = []
    todo, most = processes.share(todo, [clip.key for clip in todo])
    steps, spanning = 0, devices.num_processes > 1
    if spanning:
        steps = -(-most // devices.batch_size(config.batch_size))
    if not todo and not steps:
        return Scored(failures)
    flow = backends.make(config.motion.flow, devices.mesh.devices.flat)
    progress, meter = Progress(len(todo), "scoring"), Meter(model)
    timeline = meter.timeline

    def fail(clip: Clip, error: ClipError) -> None:
        logging.warning("%s", printable(f"{clip.key}: {error}"))
        failures.extend(
            Failure(id=i.id, video=i.video, stage=error.stage, cause=error.cause)
            for i in clip.items
        )
        progress.add(1, failed=1)

    def readable() -> Iterator[pipeline.Prepared]:
        prepare = functools.partial(
            _prepare,
            reader=reader,
            model=model,
            flow=flow,
            counted=meter.stages,
            num_frames=config.video.num_frames,
        )
        for clip, result in loader.load_ahead(todo, prepare, workers=config.workers):
            if stop.asked and not spanning:
                return
            if isinstance(result, ClipError):
                fail(clip, result)
            else:
                yield result

    begin = memory.enough_to_begin(
        model,
        devices,
        batch_size=config.batch_size,
        num_frames=config.video.num_frames,
        begun=lambda: meter.clips > 0,
    )
    with meter:
        with memory.enough_to_load(model, devices):
            loaded = model.load(devices.shardings(model.split))
        batches = pipeline.stream(
            loaded,
            timeline.awaiting(readable(), CLIPS),
            devices,
            batch_size=config.batch_size,
            num_frames=config.video.num_frames,
            second=second,
            against=config.video.against,
            steps=steps,
            stopped=lambda: stop.asked or processes.has_ended(store.folder),
            timeline=timeline,
        )
        with begin:
            for batch in stop.between(batches):
                good = []
                with timeline.spending(FLOW):
                    for measured, result in batch:
                        meter.computed(len(measured.frames.indices))
                        try:
                            good.append(scored_clip(measured, result))
                        except ClipError as error:
                            fail(measured.clip, error)
                if good:
                    with timeline.spending(STORING):
                        store.write(good)
                    progress.add(len(good))
    progress.close()
    used = meter.result(devices, config.workers)
    if used is not None:
        used.log()
    return Scored(failures, used)


def is_finished(clip: Clip, store: Signals) -> bool:
    """Whether the clip has signals, and they are those of the file as it is now."""
    known = store.finished.get(clip.key)
    if known is None:
        return False
    if stamp(clip.key) in (known.stamp, ABSENT):
        return True  # Where it is gone by now, what was computed of it stands.
    same = video.content_hash(pathlib.Path(clip.key)) == known.content_hash
    if not same:
        name = printable(clip.key)
        logging.warning("%s: changed since it was scored, so scored again", name)
    return same


def _prepare(
    clip: Clip,
    *,
    reader: Reader,
    model: Model,
    flow: statistics.FlowVariances,
    counted: Stages,
    num_frames: int,
) -> pipeline.Prepared:
    """Decodes, measures and resizes one clip."""
    before = stamp(clip.key)
    with counted.spending(stages.DECODE):
        frames, known = reader.read(clip.key, {num_frames})(num_frames)
    with counted.spending(stages.MOTION):
        motion = statistics.begin(frames.pixels, flow, known)
    with counted.spending(stages.PREPROCESS):
        prepared = model.prepare(frames.pixels)
    about = dataclasses.replace(frames, pixels=frames.pixels[:0].copy())
    frame = shown(model, len(frames.indices))
    return pipeline.Prepared(Measured(clip, about, motion, before, frame), prepared)


def shown(model: Model, num_frames: int) -> np.ndarray:
    """Returns the frame that each stored row shows in natural order."""
    order = np.arange(num_frames, dtype=np.int32)
    rows = model.lay_out(Shown(num_frames), model.tokenise(), order)
    return rows.frame[rows.slice >= 0]


def scored_clip(measured: Measured, result: TokenSignals | ClipError) -> ScoredClip:
    """Joins a clip and its signals, once its motion is known.

    Raises:
      ClipError: The result is one, or the optical flow failed.
    """
    if isinstance(result, ClipError):
        raise result
    frames = measured.frames
    return ScoredClip(
        key=measured.clip.key,
        content_hash=frames.content_hash,
        signals=result,
        frame=measured.frame,
        frame_indices=frames.indices,
        motion=measured.motion(),
        warnings=frames.warnings,
        stamp=measured.stamp,
    )
