"""The records that cross module borders.

Axes: `frames` T, `height`, `width`; `rows` n, the rows of a slice (one a video token,
or one a token of text that is predicted); `orders` 15, the orders of `PROFILE_ORDERS`;
`clips`, unique videos; `items`, the rows of the manifests (several may share a clip).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, Int8, Int16, Int32, UInt8, UInt64

from vidsme_jax.clock import Clock

if TYPE_CHECKING:
    from jax import Array as DeviceArray

    AnyArray: TypeAlias = np.ndarray | DeviceArray
else:  # This module imports no JAX; dtypes and shapes are checked all the same.
    AnyArray: TypeAlias = Any

ROLES = ("members", "nonmembers", "suspects", "calibration")
SLICES = ("video", "instruction", "response")

# Chebyshev-Lobatto nodes of [1, 2]: the first is Shannon, the last Renyi-2.
NODES = tuple(1.5 - 0.5 * math.cos(math.pi * k / 12) for k in range(13))
PROFILE_ORDERS = (0.5, *NODES, math.inf)


class AuditError(Exception):
    """A run that has no result: lists every problem found; the exit status is 2.

    Attributes:
      problems: Each in a sentence or two.
      scored: Whether clips may have been scored before it was found.
    """

    def __init__(self, problems: list[str], *, scored: bool = False):
        self.problems = list(problems)
        self.scored = scored
        super().__init__("\n".join(f"- {problem}" for problem in self.problems))


class ClipError(Exception):
    """A clip that cannot be scored; the run goes on and reports it."""

    def __init__(self, stage: str, cause: str):
        # "open", "decode", "process" (that which decoded it ended or did not answer),
        # "motion", "preprocess" or "signals".
        self.stage = stage
        self.cause = cause
        super().__init__(f"{stage}: {cause}")


class Item(NamedTuple):
    """One row of a manifest; a tuple, as a corpus may have a million.

    Attributes:
      id: Unique in the corpus.
      video: As the manifest names it; of a segment with its seconds, `a.mp4#t=3,7.5`.
      clip: The key of its `Clip`.
      role: One of `ROLES`.
      group: A label for breakdowns ("" for none).
      question: Text, "" if absent.
      answer: Text, "" if absent.
      candidates: The options of the question, in their order.
      source: What the clip was cut from, such as a film ("" if unknown).
      date: When it was published, as ISO 8601 has it ("" if unknown).
    """

    id: str
    video: str
    clip: str
    role: str
    group: str = ""
    question: str = ""
    answer: str = ""
    candidates: tuple[str, ...] = ()
    source: str = ""
    date: str = ""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video and the rows of the manifests that name it.

    Attributes:
      key: The resolved absolute path of a file, or the `tfds:` or `hf:` address of an
        example, each followed by the seconds of a segment (see `data.segments`); made
        in `corpora`, and the clip's identity from there on.
      items: At least one row; none where a clip is only a file.
    """

    key: str
    items: tuple[Item, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A question about a clip and its answer; several rows of a manifest may share it.

    Attributes:
      key: Of question, candidates and, where it is given, answer: see `text_key`.
      question: As the manifest has it.
      candidates: Its options.
      answer: As the manifest has it, or as the audited model generated it; "" while
        that is not known.
      ended: What ended the answer: "given", that of the manifest; "end", the model's
        own end-of-turn token; "length", the limit of tokens; "" while it is not known.
      ids: The tokens of a generated answer, with that which ended it; empty where the
        answer is tokenised from its text.
    """

    key: str
    question: str = ""
    candidates: tuple[str, ...] = ()
    answer: str = ""
    ended: str = "given"
    ids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip and the distinct texts asked about it: the unit of scoring.

    `texts` is empty where only the video's rows are scored.
    """

    clip: Clip
    texts: tuple[Asked, ...] = ()


def text_key(
    question: str,
    candidates: tuple[str, ...],
    answer: str | None,
    *,
    generated: bool = False,
) -> str:
    """Returns 16 hex digits that name a text.

    Args:
      question: As the manifest has it.
      candidates: Its options.
      answer: None where the manifest's is not scored.
      generated: Whether the model's own answer is scored in its place.

    Example:
      >>> text_key("what is seen", (), "a cat") == text_key("what is seen", (), None)
      False
    """
    of_answer = {"generated": True} if generated else answer
    content = json.dumps([question, list(candidates), of_answer])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frames:
    """The sampled frames of one clip.

    Attributes:
      pixels: RGB, upright (the rotation flag is applied), full resolution.
      indices: Of the sampled frames among the decodable ones, in display order.
      content_hash: SHA-256 of the file's bytes, in hex.
      clock: When they are shown; None where no rate of frames is known.
      warnings: What a reader of the report should know, such as a truncated file.
      container: What the file says of itself, by name; empty where there is no file.
    """

    pixels: UInt8[np.ndarray, "frames height width 3"]
    indices: tuple[int, ...]
    content_hash: str
    clock: Clock | None = None
    warnings: tuple[str, ...] = ()
    container: Mapping[str, str | float] = dataclasses.field(
        default_factory=dict[str, str | float]
    )


class Fingerprint(NamedTuple):
    """What near-duplicates are known by; see `data.similar`.

    Attributes:
      hashes: The bits of each frame and window: along rows, along columns.
      valid: Whether it has enough texture to be known by them.
    """

    hashes: UInt64[np.ndarray, "frames windows 2"]
    valid: Bool[np.ndarray, "frames windows"]


class Traits(NamedTuple):
    """What a clip shows and what its file says of itself, without any model.

    Attributes:
      pixels: Of the sampled frames, by the names of `data.appearance`.
      container: As of `Frames`.
      prints: Of the sampled frames.
    """

    pixels: Float32[np.ndarray, " traits"]
    container: Mapping[str, str | float]
    prints: Fingerprint


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

    All arrays share their leading axes `batch`: on the device, as JAX arrays, (clips,
    2); on the host, as NumPy arrays, (2,) for one clip: natural order first, then the
    reversed (or shuffled) one. An array that no chosen score needs is None.

    Attributes:
      renyi: The Renyi profile at `PROFILE_ORDERS`.
      varentropy: The variance of log p under p.
      gap: log p of the largest less that of the next value below.
      log_prob: log p of the target: of a row of text the true token, of a row of the
        video the row's own argmax.
      rank: Of the target among the classes, from 1, ties counted half; None of the
        video's rows.
      modified: Modified entropies: Shannon-like, 1/2, 2.
      renyi_half_clamped: Renyi-1/2 of probabilities clamped at 1e-10, as in the
        release.
      mean_renyi: The Renyi profile of mean distributions. Of the video: over its rows,
        and over the rows that the release averages, one text row more if the tokenizer
        adds no BOS token. Of a text: over its instruction, and over its response.
    """

    renyi: Float32[AnyArray, "*batch rows orders"]
    varentropy: Float32[AnyArray, "*batch rows"]
    gap: Float32[AnyArray, "*batch rows"]
    log_prob: Float32[AnyArray, "*batch rows"]
    modified: Float32[AnyArray, "*batch rows 3"] | None = None
    renyi_half_clamped: Float32[AnyArray, "*batch rows"] | None = None
    mean_renyi: Float32[AnyArray, "*batch means orders"] | None = None
    rank: Float32[AnyArray, "*batch rows"] | None = None

    def map(self, function: Callable[[str, AnyArray], AnyArray]) -> "TokenSignals":
        """Returns the signals with each array replaced; what is None stays None.

        Args:
          function: Of an array's name and the array.

        Example:
          >>> one = np.zeros((2, 5), np.float32)
          >>> signals = TokenSignals(one[..., None], one, one, one)
          >>> signals.map(lambda name, x: x[:, :3]).gap.shape
          (2, 3)
        """
        replaced = {
            name: function(name, x)
            for name, x in self._asdict().items()
            if x is not None
        }
        return self._replace(**replaced)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredText:
    """The signals of one text about a clip.

    Attributes:
      asked: The text; of a generated answer with its tokens.
      tokens: The targets: the token that each row predicts.
      slice: Of each row: its index in `SLICES`.
      signals: (2, rows, ...) each; `mean_renyi` is over instruction and response.
      blank: log p of the targets where a grey video stands in place of the clip, in
        nats; None if no score needs it.
    """

    asked: Asked
    tokens: Int32[np.ndarray, " rows"]
    slice: Int8[np.ndarray, " rows"]
    signals: TokenSignals
    blank: Float32[np.ndarray, " rows"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredClip:
    """The signals of one clip with everything a score or a report needs of it.

    Attributes:
      key: Of its `Clip`.
      content_hash: As in `Frames`.
      signals: Of the video's rows, (2, rows, ...) each; None if they were not asked
        for.
      frame: The frame that each row shows in natural order, -1 for none.
      frame_indices: `Frames.indices`.
      motion: The statistics of its frames.
      warnings: As in `Frames`.
      stamp: Size and time of change in ns of the file that was scored.
      texts: Those that were asked about it.
      traits: Its features that need no model; None if they are not known.
    """

    key: str
    content_hash: str
    signals: TokenSignals | None
    frame: Int16[np.ndarray, " rows"]
    frame_indices: tuple[int, ...]
    motion: MotionStatistics
    warnings: tuple[str, ...] = ()
    stamp: tuple[int, int] = (-1, -1)
    texts: tuple[ScoredText, ...] = ()
    traits: Traits | None = None

    @property
    def num_rows(self) -> int:
        """Returns the stored rows of one direction."""
        return len(self.frame)

    @property
    def num_frames(self) -> int:
        """Returns the number of sampled frames."""
        return len(self.frame_indices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """One entry per scored item; all arrays have shape (items,).

    Items that ask different questions about a video are items of one cluster.

    Attributes:
      cluster: The content hash of the item's video.
      num_rows: Video rows per direction of each score.
      num_response_rows: Likewise of the answer; None where no text is scored.
      scores: Name to float64 values, in the order of the columns on disk; NaN where a
        score needs a reference model's and there is none of the item.
      reference: The reference model's own scores, by the name of the score; NaN where
        it has none. Empty without a reference model.
      larger_is_member: The sign of the scores; False in profile `official`.
      unit: What the item is an observation of, as far as statistics go: of equal units
        none is independent of the others. None: the video.
      source: What the clip was cut from, as the manifest names it, "" if it does not;
        None if it is not known.
      question: The text that is asked about the video, with its options; None where
        no text is scored.
      answer: Of the manifest, "" where it is not scored; None where no text is scored.
      traits: Features of the clips that need no model, by family and name: float64,
        NaN where it is not known, or texts as objects.
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
    reference: dict[str, Float[np.ndarray, " items"]] = dataclasses.field(
        default_factory=dict[str, np.ndarray]
    )
    num_response_rows: np.ndarray | None = None
    larger_is_member: bool = True
    unit: np.ndarray | None = None
    source: np.ndarray | None = None
    question: np.ndarray | None = None
    answer: np.ndarray | None = None
    traits: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, np.ndarray]]
    )

    @property
    def units(self) -> np.ndarray:
        """Returns the unit of each item."""
        return self.cluster if self.unit is None else self.unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that could not be scored, once per item that names it."""

    id: str
    video: str
    stage: str
    cause: str
