"""Checks the texts of a corpus against a model, before its tensors are read."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vidsme_jax.base import Asked, AuditError, Sample
from vidsme_jax.data.corpora import some
from vidsme_jax.data.samples import text_of
from vidsme_jax.models.interface import Model
from vidsme_jax.models.rows import Shown, Text

_REASONS = 20  # For which rows are named; of the rest the rows are counted.


class Tokenised(NamedTuple):
    """Texts as a model reads them.

    Attributes:
      texts: Tokens by `Asked.key`.
      refused: What is wrong with the texts that the model cannot score, by key.
      long: Tokens of those that are too long for the model's positions, by key; they
        are in `refused` too.
    """

    texts: Mapping[str, Text]
    refused: Mapping[str, tuple[str, ...]]
    long: Mapping[str, int]


def tokenise(
    asked: Iterable[Asked],
    model: Model,
    shown: Shown,
    slices: Sequence[str],
    room: int = 0,
) -> Tokenised:
    """Tokenises texts, each once, and finds those that a model cannot score.

    Args:
      asked: Texts of any number of clips.
      model: The audited model, or a reference.
      shown: The clip; before it is known, one as long.
      slices: The slices whose rows are scored.
      room: Tokens of an answer that is still to be generated.
    """
    texts: dict[str, Text] = {}
    refused: dict[str, tuple[str, ...]] = {}
    long: dict[str, int] = {}
    shared = _shared(model, shown)
    for one in asked:
        if one.key in texts or one.key in refused:
            continue
        if one.ended == "given" and not one.answer.strip() and "response" in slices:
            refused[one.key] = ("the answer is empty",)
            continue
        try:
            text = model.tokenise(one)
        except AuditError as error:
            refused[one.key] = tuple(error.problems)
            continue
        tokens = len(text.after) + len(text.answer) + (0 if one.ended else room)
        if shared + tokens > model.max_rows:
            long[one.key] = tokens
            refused[one.key] = (f"{tokens} tokens of text; {_fits(model, shared)}",)
        elif "instruction" in slices and not text.after:
            refused[one.key] = (
                "there is no text between the video and the answer: give it a "
                "question, or leave 'instruction' out of config.slices",
            )
        else:
            texts[one.key] = text
    return Tokenised(texts, refused, long)


def _fits(model: Model, shared: int) -> str:
    """Says how long a text may be."""
    left = max(0, model.max_rows - shared)
    return (
        f"at most {left} fit after the {shared} rows of the video and what precedes "
        f"it: the model has {model.max_rows} positions"
    )


def check_texts(
    samples: Sequence[Sample],
    model: Model,
    num_frames: int,
    slices: Sequence[str],
    *,
    response: str = "given",
    room: int = 0,
) -> tuple[Tokenised, list[str]]:
    """Tokenises the texts of a corpus for the audited model.

    Args:
      samples: The result of `data.samples`.
      model: The audited model.
      num_frames: The number of frames of a clip.
      slices: The slices whose rows are scored.
      response: "given" or "greedy".
      room: The tokens that a greedy answer may have.

    Returns:
      The texts, and what is wrong, with the rows that it is wrong with. Rows without an
      answer are left to `asking.answers_missing`.
    """
    if "response" not in slices or response != "greedy":
        room = 0
    asked = [
        text
        for sample in samples
        for text in sample.texts
        if text.ended != "given" or text.answer.strip()
    ]
    shown = model.smallest(num_frames)
    found = tokenise(asked, model, shown, slices, room)
    problems: list[str] = []
    if room:
        problems += _same_answer(samples, found)
    rows: dict[str, list[str]] = collections.defaultdict(list)
    long: dict[str, int] = {}
    for sample in samples:
        for item in sample.clip.items:
            key = text_of(item, slices, response)
            if key in found.long:
                long[item.id] = found.long[key]
                continue
            for reason in found.refused.get(key, ()):
                rows[reason].append(item.id)
    named = list(rows.items())[:_REASONS]
    problems += [f"{some(ids)}: {reason}" for reason, ids in named]
    if rest := sum(map(len, rows.values())) - sum(len(ids) for _, ids in named):
        problems.append(f"and {rest} more rows whose texts cannot be scored")
    if long:
        longest = sorted(long, key=lambda id: -long[id])
        ids = some(f"{id} ({long[id]} tokens)" for id in longest)
        with_room = f", {room} of them config.response_tokens" if room else ""
        fits = _fits(model, _shared(model, shown))
        problems.append(
            f"too long are the texts of {ids}{with_room}; {fits}; shorten them, or "
            "take fewer frames (config.video.num_frames)"
        )
    return found, problems


def _same_answer(samples: Sequence[Sample], found: Tokenised) -> list[str]:
    """Lists clips with several texts of which the prompt shows nothing."""
    bare = [
        sample.clip.items[0].id
        for sample in samples
        if len(sample.texts) > 1
        and any(
            text.key in found.texts and not found.texts[text.key].after
            for text in sample.texts
        )
    ]
    if not bare:
        return []
    return [
        f"{some(bare)}: several questions about one clip, but config.model.prompt has "
        "nothing between the video and the answer: give it {question}, or ask one "
        "question a clip"
    ]


def _shared(model: Model, shown: Shown) -> int:
    """Returns the rows of the video and of what precedes it."""
    order = np.arange(shown.num_frames, dtype=np.int32)
    return model.lay_out(shown, model.tokenise(None, shown), order).shared
