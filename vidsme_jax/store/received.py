"""Work directories that were received: what is damaged in one is a message, no error.

A part has checksums, which say that it is as it was written, and not that a run of this
package has written it. What is read here is checked so far that whatever follows finds
the types and shapes that it counts on.
"""

import contextlib
import pathlib
from collections.abc import Collection, Generator, Iterator
from typing import Any

import numpy as np

from vidsme_jax.base import SLICES, AuditError, ScoredClip, ScoredText, TokenSignals
from vidsme_jax.store import regular
from vidsme_jax.store.records import damaged
from vidsme_jax.store.signals import Signals
from vidsme_jax.store.writers import ALONE, Writer

_WRONG = (TypeError, ValueError, LookupError, OverflowError, RuntimeError)
_REMEDY = "delete it, and the audit computes it again"


def content(path: pathlib.Path, most: int) -> bytes:
    """Reads a file; one that is no regular file is not opened.

    Args:
      path: Of the file.
      most: Bytes that it may have.

    Raises:
      FileNotFoundError: It is not there.
      OSError: It cannot be read.
      ValueError: It is too large.
    """
    with regular.opened(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise ValueError(f"it has more than {most} bytes")
    return found


@contextlib.contextmanager
def refused(path: pathlib.Path) -> Generator[None, None, None]:
    """Raises an `AuditError` in place of what reading damaged content raises."""
    try:
        yield
    except _WRONG as error:
        cause = f"{type(error).__name__}: {error}"
        raise AuditError([damaged(path, cause, _REMEDY)]) from error


def opened(
    folder: pathlib.Path,
    settings: dict[str, Any],
    writer: Writer = ALONE,
    *,
    indexed: bool = True,
) -> Signals:
    """Opens signals; see `Signals`, and what is remembered of each clip is checked.

    Raises:
      AuditError: As `Signals`, or something of it has another type.
    """
    read = [folder / "run.json", *sorted(folder.glob("part-*.parquet"))]
    if problem := regular.problem(read):
        raise AuditError([f"{folder}: {problem}"])
    with refused(folder):
        store = Signals(folder, settings, writer, indexed=indexed)
        for key, known in store.finished.items():
            motion = vars(known.motion).values()
            if not isinstance(key, str) or not isinstance(known.content_hash, str):
                raise TypeError("a clip has no key or no hash")
            if not all(isinstance(value, float) for value in motion):
                raise TypeError(f"{key}: its motion is no number")
            if not all(isinstance(value, int) for value in known.stamp):
                raise TypeError(f"{key}: it has no size or no time")
    return store


def read(store: Signals, keys: Collection[str]) -> Iterator[ScoredClip]:
    """Yields clips as `Signals.read` does; types, shapes and numbers are checked.

    Raises:
      AuditError: A part is damaged, or a clip is not as a run has written it.
    """
    with refused(store.folder):
        for clip in store.read(keys):
            if problem := _problem(clip):
                raise ValueError(f"{clip.key}: {problem}")
            yield clip


def _problem(clip: ScoredClip) -> str:
    """Returns what is wrong with a clip, or ""."""
    if not clip.frame_indices or not _all(int, clip.frame_indices):
        return "it has no frames"
    if not _all(str, clip.warnings):
        return "a warning is no text"
    frame = clip.frame
    if clip.signals is not None:
        inside = (frame >= -1) & (frame < clip.num_frames)
        if frame.dtype != np.int16 or not len(frame) or not inside.all():
            return "its rows show no frames"
        if problem := _of_signals(clip.signals, len(frame), means=True):
            return problem
    return next(filter(None, map(_of_text, clip.texts)), "")


def _of_text(text: ScoredText) -> str:
    asked, rows = text.asked, text.tokens
    words = (asked.key, asked.question, asked.answer, asked.ended, *asked.candidates)
    if not _all(str, words) or not _all(int, asked.ids):
        return "its text is none"
    if rows is None or text.slice is None or len(rows) != len(text.slice):
        return "its text has no rows"
    kinds = rows.dtype == np.int32 and text.slice.dtype == np.int8
    if not kinds or not np.isin(text.slice, range(len(SLICES))).all():
        return "its text has rows of no slice"
    if text.blank is not None and not _is_sound(text.blank, (len(rows),)):
        return "its text has a damaged array, blank"
    return _of_signals(text.signals, len(rows), means=False)


def _of_signals(signals: TokenSignals, rows: int, *, means: bool) -> str:
    """Returns which array is damaged; means over no row of a text are NaN."""
    for name, value in signals._asdict().items():
        if name == "mean_renyi":
            if value is not None and means and not np.isfinite(value).all():
                return f"a damaged array, {name}"
        elif value is None:
            if name in ("renyi", "varentropy", "gap", "log_prob"):
                return f"an array is missing, {name}"
        elif not _is_sound(value, (2, rows, *value.shape[2:])):
            return f"a damaged array, {name}"
    return ""


def _is_sound(value: np.ndarray, shape: tuple[int, ...]) -> bool:
    kind = value.dtype == np.float32 and value.shape == shape
    return bool(kind and np.isfinite(value).all())


def _all(kind: type, values: Collection[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)
