"""A run: a model, its settings and the store of its signals, as a value."""

import dataclasses
from collections.abc import Iterable

from vidsme_jax import scores
from vidsme_jax.base import SLICES, Asked, Sample
from vidsme_jax.models.interface import Model
from vidsme_jax.settings.views import Settings
from vidsme_jax.store.answers import Answers
from vidsme_jax.store.signals import BLANK, SECOND, Finished, Held, Signals


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What scores need of the rows of a clip; see `store.signals.Held`.

    Attributes:
      video: Signals of the video's rows; None if they are not scored.
      text: Signals of the rows of a text; None if none is scored.
    """

    video: frozenset[str] | None = frozenset()
    text: frozenset[str] | None = None

    @classmethod
    def by(cls, names: Iterable[str], profile: str, slices: Iterable[str]) -> "Wanted":
        """Returns what the named scores need of some slices."""
        names, slices = tuple(names), set(slices)
        second = [SECOND] if scores.needs_second_pass(names, profile) else []
        video = frozenset(second) if "video" in slices else None
        if slices <= {"video"}:
            return cls(video)
        text = slices - {"video"}
        if scores.needs_text_second_pass(names, profile):
            text.add(SECOND)
        if scores.needs_blank(names, profile):
            text.add(BLANK)
        return cls(video, frozenset(text))

    @property
    def slices(self) -> tuple[str, ...]:
        """Returns the slices whose rows are kept."""
        text = self.text or frozenset()
        return tuple(
            name
            for name in SLICES
            if (self.video is not None if name == "video" else name in text)
        )

    def within(self, held: "Wanted") -> bool:
        """Returns whether rows that hold so much have what is wanted."""
        pairs = ((self.video, held.video), (self.text, held.text))
        return all(a is None or (b is not None and a <= b) for a, b in pairs)

    def with_stored(self, store: Signals) -> "Wanted":
        """Returns what is computed, so that new rows hold all that stored ones do."""
        video, text = self.video, self.text
        if video is not None:
            video |= store.holds(video=True)
        if text is not None:
            text |= store.holds(video=False)
        return Wanted(video, text)


@dataclasses.dataclass(frozen=True)
class Missing:
    """What a sample lacks in a run.

    Attributes:
      video: Whether its video's rows are to be computed.
      texts: Those whose rows are.
    """

    video: bool = False
    texts: tuple[Asked, ...] = ()

    def __bool__(self) -> bool:
        return self.video or bool(self.texts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What is computed of every sample, and where it is kept.

    Attributes:
      name: Names the run in messages where there are several.
      model: The checked checkpoint; its tensors are read if there is anything to do.
      settings: The whole configuration.
      store: Receives the signals.
      wanted: What scores need; decides what is missing.
      computed: What is computed of what is missing.
      answers: Those that the audited model generates; None if the manifest's are
        scored.
      is_reference: Whether it is the reference model's, which generates no answers.
    """

    name: str = ""
    model: Model
    settings: Settings
    store: Signals
    wanted: Wanted
    computed: Wanted
    answers: Answers | None = None
    is_reference: bool = False

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self.settings.video.num_frames

    def missing(self, sample: Sample, known: Finished | None) -> Missing:
        """Returns what a sample lacks of what is `wanted`.

        Args:
          sample: The clip, with all texts that are asked about it.
          known: What is stored of its file as it is now.
        """
        video = self.wanted.video is not None
        if known is None:
            return Missing(video, sample.texts)

        def is_there(text: Asked) -> bool:
            """Signals of an answer that is no longer kept are those of another one."""
            answers, about = self.answers, (sample.clip.key, text.key)
            held = answers is None or answers.find(*about, known.content_hash)
            if not held:
                return False
            return _suffices(known.texts.get(text.key), self.wanted.text)

        return Missing(
            video and not _suffices(known.video, self.wanted.video),
            tuple(text for text in sample.texts if not is_there(text)),
        )

    def reopened(self) -> "Run":
        """Returns the run with what all processes have stored."""
        answers = None if self.answers is None else self.answers.reopened()
        return dataclasses.replace(self, store=self.store.reopened(), answers=answers)


def _suffices(held: Held | None, wanted: frozenset[str] | None) -> bool:
    return held is not None and (wanted or frozenset()) <= held.holds
