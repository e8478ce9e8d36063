"""Clips to stored signals: decode ahead on threads, score on devices, write shards."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence

from absl import logging
from ml_collections import ConfigDict

from vidsme_jax import hosts, overlap, signals
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
from vidsme_jax.data import loader, video
from vidsme_jax.data.reading import Reader
from vidsme_jax.models.interface import ModelPlan
from vidsme_jax.motion import backends, statistics
from vidsme_jax.parallel import Devices
from vidsme_jax.progress import Progress
from vidsme_jax.shards import Shards
from vidsme_jax.stopping import Stop

_ABSENT = -1, -1


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is kept of a clip while its frames are on the device."""

    clip: Clip
    frames: Frames  # Without its pixels.
    motion: Callable[[], MotionStatistics]  # Waits for the optical flow.
    stamp: tuple[int, int]


def score_clips(
    clips: Sequence[Clip],
    reader: Reader,
    plan: ModelPlan,
    devices: Devices,
    store: Shards,
    config: ConfigDict,
    *,
    second: bool,
    stop: Stop,
) -> list[Failure]:
    """Scores the clips that have no signals yet, a shard a batch.

    Of several processes each scores its share.

    Args:
      clips: Of the corpus.
      reader: Of the clips' frames.
      plan: The checked checkpoint; its tensors are read if there is anything to do.
      devices: Where to run.
      store: Receives the signals.
      config: The whole configuration.
      second: Whether to run the head's second pass.
      stop: Looked at between batches, as is the word that another process ended early.

    Returns:
      What could not be scored, once per row of a manifest that names it.

    Raises:
      KeyboardInterrupt: It was asked to stop; all that was sent is in `store`.
    """
    todo = [clip for clip in clips if not is_finished(clip, store)]
    logging.info("%d clips, %d scored before", len(clips), len(clips) - len(todo))
    for remark in plan.remarks:
        logging.warning("checkpoint: %s", printable(remark))
    failures: list[Failure] = []
    todo, most = hosts.share(todo, [str(clip.path) for clip in todo])
    steps, spanning = 0, devices.num_processes > 1
    if spanning:
        steps = -(-most // devices.batch_size(config.batch_size))
    if not todo and not steps:
        return failures
    progress, timeline = Progress(len(todo), "scoring"), overlap.Timeline()

    def fail(clip: Clip, error: ClipError) -> None:
        logging.warning("%s", printable(f"{clip.path}: {error}"))
        failures.extend(
            Failure(id=i.id, video=i.video, stage=error.stage, cause=error.cause)
            for i in clip.items
        )
        progress.add(1, failed=1)

    flow = backends.make(config.motion.flow, devices.mesh.devices.flat)

    def readable() -> Iterator[signals.Prepared]:
        prepare = functools.partial(_prepare, reader=reader, plan=plan, flow=flow)
        for clip, result in loader.load_ahead(todo, prepare, workers=config.workers):
            if stop.asked and not spanning:
                return
            if isinstance(result, ClipError):
                fail(clip, result)
            else:
                yield result

    batches = signals.stream(
        plan.load(devices.sharding),
        timeline.awaiting(readable(), overlap.CLIPS),
        devices,
        batch_size=config.batch_size,
        num_frames=config.video.num_frames,
        second=second,
        against=config.video.against,
        steps=steps,
        stopped=lambda: stop.asked or hosts.has_ended(store.folder),
        timeline=timeline,
    )
    for batch in stop.between(batches):
        good = []
        with timeline.spending(overlap.STORING):
            for measured, result in batch:
                try:
                    good.append(scored_clip(measured, result))
                except ClipError as error:
                    fail(measured.clip, error)
            if good:
                store.write(good)
                progress.add(len(good))
    progress.close()
    timeline.close()
    timeline.tell()
    return failures


def is_finished(clip: Clip, store: Shards) -> bool:
    """Whether the clip has signals, and they are those of the file as it is now."""
    known = store.finished.get(str(clip.path))
    if known is None:
        return False
    if stamp(clip.path) in (known.stamp, _ABSENT):
        return True  # Where it is gone by now, what was computed of it stands.
    same = video.content_hash(clip.path) == known.content_hash
    if not same:
        name = printable(str(clip.path))
        logging.warning("%s: changed since it was scored, so scored again", name)
    return same


def stamp(path: pathlib.Path) -> tuple[int, int]:
    """Size and time of the last change: cheap signs that a file is the same."""
    try:
        found = path.stat()
    except OSError:
        return _ABSENT
    return found.st_size, found.st_mtime_ns


def _prepare(
    clip: Clip, *, reader: Reader, plan: ModelPlan, flow: statistics.FlowVariances
) -> signals.Prepared:
    """Decodes, measures and resizes one clip."""
    before = stamp(clip.path)
    frames, known = reader.read(clip.path)
    motion = statistics.begin(frames.pixels, flow, known)
    prepared = plan.prepare(frames.pixels)
    about = dataclasses.replace(frames, pixels=frames.pixels[:0].copy())
    return signals.Prepared(Measured(clip, about, motion, before), prepared)


def scored_clip(measured: Measured, result: TokenSignals | ClipError) -> ScoredClip:
    """Joins a clip and its signals, once its motion is known.

    Raises:
      ClipError: The result is one, or the optical flow failed.
    """
    if isinstance(result, ClipError):
        raise result
    frames = measured.frames
    return ScoredClip(
        path=str(measured.clip.path),
        content_hash=frames.content_hash,
        signals=result,
        num_rows=result.gap.shape[-1],
        num_frames=len(frames.indices),
        frame_indices=frames.indices,
        motion=measured.motion(),
        warnings=frames.warnings,
        stamp=measured.stamp,
    )
