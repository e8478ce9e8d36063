"""What a table takes of clips and of the texts about them, before it has rows.

Axes: `units`, a clip and a text about it, or no text; `columns` of numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from vidsme_jax.base import SLICES, ScoredClip, ScoredText, Traits
from vidsme_jax.scores import blind_columns

Unit = tuple[str, str]  # A clip and a text about it, by their keys; "" for no text.
_RESPONSE = SLICES.index("response")


class About(NamedTuple):
    """What is taken of a clip, whatever is asked about it.

    Attributes:
      num_rows: Of the video, of one direction.
      warnings: As `ScoredClip.warnings`.
      traits: What `blind_columns.kept` keeps.
    """

    num_rows: int
    warnings: tuple[str, ...]
    traits: Traits | None


class Gathered:
    """Units and what is known of them so far.

    Attributes:
      texts: The distinct texts that are asked about each clip, by key.
      places: Of each unit, in the arrays.
      about: Of each clip that is known, by key.
      values: Of the scores.
      lengths: Rows of the answer, of one direction.
      answers: Of the manifest; "" where it is not scored.
      there: Which units are known.
    """

    texts: dict[str, list[str]]
    places: dict[Unit, int]
    about: dict[str, About]
    values: Float[np.ndarray, "columns units"]
    lengths: Int[np.ndarray, " units"]
    answers: list[str]
    there: Bool[np.ndarray, " units"]

    def __init__(self, units: Iterable[Unit], columns: int):
        """Knows nothing yet of the units, each of which is given once."""
        self.places = {unit: k for k, unit in enumerate(units)}
        self.texts = {}
        for clip, text in self.places:
            self.texts.setdefault(clip, []).append(text)
        count = len(self.places)
        self.about = {}
        self.values = np.full((columns, count), np.nan)
        self.lengths = np.zeros(count, np.int64)
        self.answers = [""] * count
        self.there = np.zeros(count, bool)

    def texts_of(self, clip: ScoredClip) -> dict[str, ScoredText | None]:
        """Returns the texts that have signals; "" means no text."""
        return texts_of(clip, self.texts.get(clip.key, []))

    def add(
        self,
        clip: ScoredClip,
        texts: Mapping[str, ScoredText | None],
        rows: Sequence[Sequence[float]],
    ) -> None:
        """Adds a clip, and the values of every column for each of its texts."""
        its = blind_columns.kept(clip.traits)
        self.about[clip.key] = About(clip.num_rows, clip.warnings, its)
        for (key, text), row in zip(texts.items(), rows, strict=True):
            place = self.places[clip.key, key]
            self.values[:, place] = row
            # A generated answer is the model's: no blind feature may be of it.
            if text is not None and text.asked.ended == "given":
                self.answers[place] = text.asked.answer
            if text is not None:
                self.lengths[place] = int((text.slice == _RESPONSE).sum())
            self.there[place] = True


def texts_of(clip: ScoredClip, keys: Sequence[str]) -> dict[str, ScoredText | None]:
    """Returns the texts of a clip that have signals; "" means no text."""
    have = {text.asked.key: text for text in clip.texts}
    return {key: have.get(key) for key in keys if key == "" or key in have}
