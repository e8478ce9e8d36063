"""Clips to stored signals: decode ahead on threads, score on devices, write shards."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from absl import logging
from ml_collections import ConfigDict

from vidsme_jax import signals
from vidsme_jax.base import (
    Clip,
    ClipError,
    Failure,
    Frames,
    MotionStatistics,
    ScoredClip,
    TokenSignals,
)
from vidsme_jax.data import loader
from vidsme_jax.data.reading import Reader
from vidsme_jax.models.interface import ModelPlan
from vidsme_jax.motion import statistics
from vidsme_jax.parallel import Devices
from vidsme_jax.progress import Progress
from vidsme_jax.shards import Shards


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What is kept of a clip while its frames are on the device."""

    clip: Clip
    frames: Frames  # Without its pixels.
    motion: MotionStatistics


def score_clips(
    clips: Sequence[Clip],
    reader: Reader,
    plan: ModelPlan,
    devices: Devices,
    store: Shards,
    config: ConfigDict,
    *,
    second: bool,
) -> list[Failure]:
    """Scores the clips that have no signals yet, a shard a batch.

    Args:
      clips: Of the corpus.
      reader: Of the clips' frames.
      plan: The checked checkpoint; its tensors are read if there is anything to do.
      devices: Where to run.
      store: Receives the signals.
      config: The whole configuration.
      second: Whether to run the head's second pass.

    Returns:
      What could not be scored, once per row of a manifest that names it.
    """
    finished = store.statistics()
    todo = [clip for clip in clips if str(clip.path) not in finished]
    logging.info("%d clips, %d scored before", len(clips), len(clips) - len(todo))
    failures: list[Failure] = []
    if not todo:
        return failures
    progress = Progress(len(todo), "scoring")

    def fail(clip: Clip, error: ClipError) -> None:
        logging.warning("%s: %s", clip.path, error)
        failures.extend(
            Failure(id=i.id, video=i.video, stage=error.stage, cause=error.cause)
            for i in clip.items
        )
        progress.add(1, failed=1)

    def readable() -> Iterator[signals.Prepared]:
        prepare = functools.partial(_prepare, reader=reader, plan=plan)
        for clip, result in loader.load_ahead(todo, prepare, workers=config.workers):
            if isinstance(result, ClipError):
                fail(clip, result)
            else:
                yield result

    batches = signals.stream(
        plan.load(devices.sharding),
        readable(),
        devices,
        batch_size=config.batch_size,
        num_frames=config.video.num_frames,
        second=second,
    )
    for batch in batches:
        good = []
        for measured, result in batch:
            if isinstance(result, ClipError):
                fail(measured.clip, result)
            else:
                good.append(_scored(measured, result))
        if good:
            store.write(good)
            progress.add(len(good))
    progress.close()
    return failures


def _prepare(clip: Clip, *, reader: Reader, plan: ModelPlan) -> signals.Prepared:
    """Decodes, measures and resizes one clip."""
    frames, motion = reader.read(clip.path)
    if motion is None:
        motion = statistics.measure(frames.pixels)
    prepared = plan.prepare(frames.pixels)
    about = dataclasses.replace(frames, pixels=frames.pixels[:0])
    return signals.Prepared(_Measured(clip, about, motion), prepared)


def _scored(measured: _Measured, result: TokenSignals) -> ScoredClip:
    frames = measured.frames
    return ScoredClip(
        path=str(measured.clip.path),
        content_hash=frames.content_hash,
        signals=result,
        num_rows=result.gap.shape[-1],
        num_frames=len(frames.indices),
        frame_indices=frames.indices,
        motion=measured.motion,
        warnings=frames.warnings,
    )
