"""Prepares what models read of a sample: decoded once, measured, resized, tokenised.

Runs on the host's threads, ahead of the devices.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vidsme_jax.base import (
    Asked,
    ClipError,
    Frames,
    MotionStatistics,
    Sample,
    ScoredClip,
    ScoredText,
    TokenSignals,
    Traits,
)
from vidsme_jax.data import stages
from vidsme_jax.data.reading import Reader, stamp
from vidsme_jax.data.stages import Stages
from vidsme_jax.models.rows import Shown
from vidsme_jax.motion import statistics
from vidsme_jax.run import texts
from vidsme_jax.run.asking import with_two
from vidsme_jax.run.pipeline import Result
from vidsme_jax.run.runs import Missing, Run
from vidsme_jax.run.stacking import Input, Tokenised, check_positions, seen
from vidsme_jax.wording import printable

_DRIFT = 0.1  # Seconds that a frame may be off its time by an even rate.
_QUOTED = 60  # Characters of a question in a message.


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What one run needs of a sample, apart from its tokens.

    Attributes:
      place: The place of the run.
      sample: With all its texts.
      content_hash: The hash of the clip's file.
      frames: At the model's input size.
      missing: What is to be computed.
      scored: Makes the clip's record of what is not yet known.
      motion: Waits for the optical flow.
      shown: What the model is shown of the clip.
    """

    place: int
    sample: Sample
    content_hash: str
    frames: np.ndarray
    missing: Missing
    scored: Callable[..., ScoredClip]
    motion: Callable[[], MotionStatistics]
    shown: Shown

    def input(self, texts: tuple[Tokenised, ...], video: bool = True) -> Input:
        """Returns the input of the run, with some texts."""
        return Input(self, self.frames, texts, video, self.shown)

    @property
    def awaiting(self) -> tuple[Asked, ...]:
        """Returns the texts whose answers are to be generated."""
        return tuple(text for text in self.missing.texts if not text.ended)

    def completed(self, texts: Mapping[str, Asked]) -> "Prepared":
        """Returns it with texts that have their answers, by key."""
        whole = tuple(texts.get(text.key, text) for text in self.missing.texts)
        missing = dataclasses.replace(self.missing, texts=whole)
        return dataclasses.replace(self, missing=missing)


def prepare(
    sample: Sample,
    missing: Mapping[int, Missing],
    runs: Sequence[Run],
    reader: Reader,
    flow: statistics.FlowVariances,
    counted: Stages,
) -> list[tuple[int, Prepared | ClipError]]:
    """Decodes a clip once; measures and resizes it for each model and length.

    Args:
      sample: The sample to prepare.
      missing: What it lacks, by place of the run.
      runs: All that are scored now.
      reader: Reads the clips' frames.
      flow: Computes the variance of the optical flow.
      counted: Receives the time of each stage.

    Raises:
      ClipError: It cannot be decoded.
    """
    counts = {runs[place].num_frames for place in missing}
    key = sample.clip.key
    before = stamp(key)
    with counted.spending(stages.DECODE):
        read = reader.read(key, with_two(counts))

    @functools.cache
    def decoded(count: int) -> Any:
        with counted.spending(stages.DECODE):
            return read(count)

    @functools.cache
    def measured(count: int) -> Any:
        moving, known = decoded(max(count, 2))
        with counted.spending(stages.MOTION):
            return statistics.begin(moving.pixels, flow, known)

    @functools.cache
    def shown(model: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
        pixels = decoded(count)[0].pixels
        with counted.spending(stages.PREPROCESS):
            return model(pixels)

    @functools.cache
    def described(count: int) -> Traits:
        from vidsme_jax.data import appearance, similar  # They import OpenCV.

        frames, _ = decoded(count)
        with counted.spending(stages.DESCRIBE):
            pixels = appearance.describe(frames.pixels)
            prints = similar.fingerprint(frames.pixels)
        return Traits(pixels, frames.container, prints)

    def one(place: int) -> Prepared | ClipError:
        run = runs[place]
        try:
            frames, _ = decoded(run.num_frames)
            pixels = shown(run.model.prepare, run.num_frames)
            known, warnings = _shown(run, frames, pixels)
            motion = measured(run.num_frames)  # Costly: only of clips that are scored.
            scored = functools.partial(
                ScoredClip,
                key=key,
                content_hash=frames.content_hash,
                frame_indices=frames.indices,
                warnings=(*frames.warnings, *_repeated(frames), *warnings),
                stamp=before,
                # Of a reference model they would be the same.
                traits=None if run.is_reference else described(run.num_frames),
            )
            return Prepared(
                place,
                sample,
                frames.content_hash,
                pixels,
                missing[place],
                scored,
                motion,
                known,
            )
        except ClipError as error:
            return error

    return [(place, one(place)) for place in missing]


def _repeated(frames: Frames) -> tuple[str, ...]:
    """Returns the warning about frames that are repeated."""
    distinct, count = len(set(frames.indices)), len(frames.indices)
    if distinct == count:
        return ()
    return (f"{distinct} frames are shown as {count}, some of them several times",)


def _shown(
    run: Run, frames: Frames, pixels: np.ndarray
) -> tuple[Shown, tuple[str, ...]]:
    """Returns what a run's model is shown of a clip, and what the report should say.

    Args:
      run: The run of the model.
      frames: The frames as decoded.
      pixels: What the model's `prepare` made of them.

    Raises:
      ClipError: The model reads the times of frames, and they are not known, or its
        positions do not hold the clip.
    """
    count, model, clock = len(frames.pixels), run.model, frames.clock
    if not model.timed:
        shown = seen(model, pixels)
    elif clock is None:
        cause = (
            "its frames a second are not known, and the model reads the times of "
            "frames: write the video again with a rate, such as ffmpeg -r 30"
        )
        raise ClipError("preprocess", cause)
    else:
        shown = seen(model, pixels, Shown(count, clock.times, clock.duration))
    if model.timed or model.tiling:  # Others are checked before the run.
        height, width = frames.pixels.shape[1:3]
        check_positions(model, shown, f"{width}x{height}")
    if not model.timed or clock is None or clock.drift <= _DRIFT:
        return shown, ()
    return shown, (
        f"the times in the prompt are those of an even rate, as the model's processor "
        f"writes them; frames are shown up to {clock.drift:.1f} s off",
    )


def tokenised(prepared: Prepared, run: Run) -> tuple[Input, dict[str, ClipError]]:
    """Returns the input of a run, and why texts that are not in it have no tokens.

    Of a reference model a text that it cannot tokenise is left out; the tokens of a
    generated answer are those of the answer's text.

    Raises:
      ClipError: A text of the audited model's cannot be tokenised, or has no answer.
    """
    asked, slices = prepared.missing.texts, run.settings.slices
    timed = run.model.timed or run.model.tiling is not None
    shown = prepared.shown if timed else Shown(run.num_frames)
    if run.is_reference:
        own = [dataclasses.replace(each, ids=()) for each in asked]
        found = texts.tokenise(own, run.model, shown, slices)
    else:
        found = texts.tokenise(asked, run.model, shown, slices)
    refused = dict(found.refused)
    if run.answers is not None:
        refused |= {x.key: ("it has no answer",) for x in asked if not x.ended}
    errors: dict[str, ClipError] = {}
    for each in asked:
        if each.key in refused:
            asks = printable(each.question, _QUOTED)
            cause = f"the text {asks!r}: {'; '.join(refused[each.key])}"
            errors[each.key] = ClipError("preprocess", cause)
    if errors and not run.is_reference:
        raise next(iter(errors.values()))
    ready = (x for x in asked if x.key not in errors)
    its = tuple(Tokenised(each, found.texts[each.key]) for each in ready)
    return prepared.input(its, prepared.missing.video), errors


def scored(result: Result) -> ScoredClip:
    """Joins a clip and its signals, once its motion is known.

    Raises:
      ClipError: The result is one, or the optical flow failed.
    """
    prepared, signals = result.key, result.signals
    if isinstance(signals, ClipError):
        raise signals
    frame = np.zeros(0, np.int16) if result.frame is None else result.frame
    clip = prepared.scored(
        signals=signals, frame=frame, motion=prepared.motion(), texts=result.texts
    )
    return clip if clip.num_frames > 1 else _one_way(clip)


def _one_way(clip: ScoredClip) -> ScoredClip:
    """Copies the natural order of a clip of one frame, which differs by rounding."""

    def natural(signals: TokenSignals) -> TokenSignals:
        return signals.map(lambda _, x: np.stack([x[0], x[0]]))

    def text(one: ScoredText) -> ScoredText:
        return dataclasses.replace(one, signals=natural(one.signals))

    return dataclasses.replace(
        clip,
        signals=None if clip.signals is None else natural(clip.signals),
        texts=tuple(map(text, clip.texts)),
    )
