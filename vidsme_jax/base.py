"""The records that cross module borders.

Axes: `frames` T, `height`, `width`; `rows` n, the rows of a slice (one a video token);
`orders` 15, the orders of `PROFILE_ORDERS`; `clips`, unique videos; `items`, the rows
of the manifests (several may share a clip).
"""

import dataclasses
import difflib
import math
import pathlib
import unicodedata
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

ROLES = ("members", "nonmembers", "suspects", "calibration")

# Chebyshev-Lobatto nodes of [1, 2]: the first is Shannon, the last Renyi-2.
NODES = tuple(1.5 - 0.5 * math.cos(math.pi * k / 12) for k in range(13))
PROFILE_ORDERS = (0.5, *NODES, math.inf)


# Marks that turn the direction of the text round them, and breaks of lines.
_UNSEEN = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2028\u2029"
_UNSEEN += "\u2066\u2067\u2068\u2069"


def printable(text: str, most: int | None = None) -> str:
    """Text of unknown origin for a terminal or a page.

    Control characters, lone surrogates and marks of direction become escapes such as
    `\\x1b`; of more than `most` characters the rest is left out, and that is said.
    """
    if most is not None and len(text) > most:
        return f"{printable(text[:most])}... ({len(text)} characters)"
    return "".join(
        c.encode("unicode_escape").decode()
        if c in _UNSEEN or unicodedata.category(c) in ("Cc", "Cs")
        else c
        for c in text
    )


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Returns '; did you mean X?', or '' where no known name is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class AuditError(Exception):
    """A run that cannot start: lists every problem found; the exit status is 2."""

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        super().__init__("\n".join(f"- {problem}" for problem in self.problems))


class ClipError(Exception):
    """A clip that cannot be scored; the run goes on and reports it."""

    def __init__(self, stage: str, cause: str):
        self.stage = stage  # "open", "decode", "motion", "preprocess" or "signals".
        self.cause = cause
        super().__init__(f"{stage}: {cause}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One row of a manifest.

    Attributes:
      id: Unique in the corpus.
      video: The video as the manifest names it.
      path: The video as a resolved absolute path; the key of its `Clip`.
      role: One of `ROLES`.
      group: A label for breakdowns ("" for none).
      question: Text, "" if absent.
      answer: Text, "" if absent.
      candidates: The options of a multiple-choice question, empty if absent.
      date: As the manifest gives it, "" if absent.
    """

    id: str
    video: str
    path: pathlib.Path
    role: str
    group: str = ""
    question: str = ""
    answer: str = ""
    candidates: tuple[str, ...] = ()
    date: str = ""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video file and the rows of the manifests that name it."""

    path: pathlib.Path
    items: tuple[Item, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frames:
    """The sampled frames of one clip, and what was learnt while decoding it.

    Attributes:
      pixels: RGB, upright (the rotation flag is applied), full resolution.
      indices: Of the sampled frames among the decodable ones, in display order.
      num_decodable: Frames of the file that can be decoded.
      duration: Seconds between the first and the last frame (0 if unknown).
      fps: Mean frame rate (0 if unknown).
      codec: Short name, such as "h264".
      content_hash: SHA-256 of the file's bytes, in hex.
      warnings: What a reader of the report should know, such as a truncated file.
    """

    pixels: UInt8[np.ndarray, "frames height width 3"]
    indices: tuple[int, ...]
    num_decodable: int
    duration: float
    fps: float
    codec: str
    content_hash: str
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class MotionStatistics:
    """The two numbers of a clip from which its entropy orders follow.

    Attributes:
      flow_variance: phi, in squared pixels.
      brightness_std: b, in grey levels (0 to 255).
    """

    flow_variance: float
    brightness_std: float


class TokenSignals(NamedTuple):
    """What the model reveals, per direction and row; float32, entropies in nats.

    All arrays share their leading axes: on the device (clips, 2), on the host (2,)
    for one clip, natural order first, then the reversed (or shuffled) one. An array
    that no chosen score needs is None.

    Attributes:
      renyi: Shape (..., rows, 15): the Renyi profile at `PROFILE_ORDERS`.
      varentropy: Shape (..., rows): the variance of log p under p.
      gap: Shape (..., rows): log p of the largest less that of the next value below.
      log_prob: Shape (..., rows): log p of the target (the row's own argmax).
      modified: Shape (..., rows, 3): modified entropies: Shannon-like, 1/2, 2.
      renyi_half_clamped: Shape (..., rows): Renyi-1/2 of probabilities clamped at
        1e-10, as in the release.
      mean_renyi: Shape (..., 2, 15): the Renyi profile of the mean distribution over
        the video rows, and over the rows that the release averages: one text row more
        where the tokenizer puts no token in front of a text.
    """

    renyi: Any
    varentropy: Any
    gap: Any
    log_prob: Any
    modified: Any = None
    renyi_half_clamped: Any = None
    mean_renyi: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredClip:
    """The signals of one clip with everything a score or a report needs of it."""

    path: str
    content_hash: str
    signals: TokenSignals
    num_rows: int  # Per direction.
    num_frames: int
    frame_indices: tuple[int, ...]
    motion: MotionStatistics
    warnings: tuple[str, ...] = ()
    stamp: tuple[int, int] = (-1, -1)  # Size and mtime in ns of the file that it was.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """One entry per scored item; all arrays have shape (items,).

    Attributes:
      cluster: The content hash of the item's video: the unit of the bootstrap.
      num_rows: Video rows per direction behind each score.
      scores: Name to float64 values, in the order of the columns on disk.
      larger_is_member: The sign of the scores; False in profile `official`.
    """

    id: np.ndarray
    video: np.ndarray
    role: np.ndarray
    group: np.ndarray
    cluster: np.ndarray
    num_rows: np.ndarray
    flow_variance: Float[np.ndarray, " items"]
    brightness_std: Float[np.ndarray, " items"]
    q: Float[np.ndarray, " items"]
    r: Float[np.ndarray, " items"]
    scores: dict[str, Float[np.ndarray, " items"]]
    larger_is_member: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipCurve:
    """The Sharma-Mittal entropy of one clip, frame by frame, for the report.

    Attributes:
      label: Such as "most member-like"; the headline score ranks the clips.
      natural: Mean SME of each frame's rows, natural order.
      reversed: The same at the same positions of the reversed clip.
      thumbnails: The sampled frames, small, or None if the file is gone.
    """

    label: str
    id: str
    role: str
    score: float
    frame_indices: tuple[int, ...]
    natural: Float[np.ndarray, " frames"]
    reversed: Float[np.ndarray, " frames"]
    thumbnails: UInt8[np.ndarray, "frames height width 3"] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that could not be scored, once per item that names it."""

    id: str
    video: str
    stage: str
    cause: str
