"""Computes signals in Python, from a loaded model, frames and texts."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from vidsme_jax import arguments
from vidsme_jax.arguments import require
from vidsme_jax.base import Asked, ClipError, ScoredText, TokenSignals, text_key
from vidsme_jax.models.interface import LoadedModel
from vidsme_jax.models.rows import Shown
from vidsme_jax.parallel import make_devices
from vidsme_jax.run.pipeline import Pipeline
from vidsme_jax.run.stacking import Input, Tokenised, check_positions, seen
from vidsme_jax.settings import rules

_SLICES = ("video", "instruction", "response")


class Computed(NamedTuple):
    """The signals of one clip.

    Attributes:
      signals: Signals of the video's rows; arrays are (2, rows, ...).
      texts: Signals of each text that was asked about it, in order.
    """

    signals: TokenSignals
    texts: tuple[ScoredText, ...]


def compute(
    model: LoadedModel,
    frames: UInt8[np.ndarray, "frames height width 3"],
    *,
    against: str = "reversed",
    texts: Sequence[tuple[str, str]] = (),
    rate: float | None = None,
) -> Computed:
    """Returns all signals of one clip and of the texts about it.

    Of a model that leaves out rows (`Model.prune`) both directions are the natural one.

    Example:
      >>> from vidsme_jax import models
      >>> model = models.load("random:llava_qwen-tiny", dtype="float32")
      >>> frames = np.zeros((4, 64, 64, 3), np.uint8)
      >>> found = compute(model, frames, texts=[("describe the video", "the cross")])
      >>> found.signals.renyi.shape[::2]
      (2, 15)
      >>> (text,) = found.texts
      >>> text.signals.log_prob.shape == (2, len(text.tokens))
      True

    Args:
      model: The result of `models.load`.
      frames: RGB, of any size.
      against: The order of the second direction, "reversed" or "shuffled:SEED"; see
        `second_order`.
      texts: Questions about the clip, each with its answer.
      rate: How many of these frames a second has; for models that read times as text.

    Raises:
      ClipError: These are no frames, the model's positions do not hold them, a
        statistic is not finite, or the device fails.
      AuditError: An argument is not what it must be, the device lacks memory, or a text
        cannot be tokenised.
    """
    arguments.frames("preprocess", frames)
    _check(model, against, texts)
    if rate is not None:
        arguments.number("rate", rate, 0, open="(")
    require(
        rate is not None or not model.model.timed,
        "the model reads the times of frames: give rate, how many of these frames a "
        "second has",
    )
    count = len(frames)
    asked = [
        Asked(key=text_key(question, (), answer), question=question, answer=answer)
        for question, answer in texts
    ]
    tokenised = tuple(Tokenised(each, model.model.tokenise(each)) for each in asked)
    pipeline = Pipeline(
        model,
        make_devices("pmap", 1, 1),
        batch_size=1,
        num_frames=count,
        second=True,
        text_second=True,
        blank=True,
        slices=_SLICES if texts else _SLICES[:1],
        against=against,
    )
    shown = Shown(count)
    if rate:
        shown = Shown(count, tuple(k / rate for k in range(count)), count / rate)
    pixels = model.model.prepare(frames)
    shown = seen(model.model, pixels, shown)
    height, width = frames.shape[1:3]
    check_positions(model.model, shown, f"{width}x{height}")
    pipeline.add(Input(None, pixels, tokenised, True, shown))
    (group,) = pipeline.take(full=False)
    results = pipeline.settle(pipeline.send(group))
    if pipeline.failure is not None:
        raise pipeline.failure
    (found,) = results
    if isinstance(found.signals, ClipError):
        raise found.signals
    assert found.signals is not None
    return Computed(found.signals, found.texts)


def _check(model: Any, against: Any, texts: Any) -> None:
    require(
        isinstance(model, LoadedModel),
        f"model is a {type(model).__name__}; give what models.load returns",
    )
    require(
        rules.ORDER.test(against),
        f"against is {against!r}; it must be {rules.ORDER.words}",
    )
    require(
        isinstance(texts, Iterable),
        f"texts is {texts!r}; it must be a list of pairs (question, answer)",
    )
    for text in (texts,) if isinstance(texts, str) else texts:
        parts: Sequence[Any] = text
        pair = isinstance(text, tuple | list) and len(parts) == 2
        require(
            pair and all(isinstance(part, str) for part in parts),
            f"texts holds {text!r}; it must be a list of pairs (question, answer)",
        )
