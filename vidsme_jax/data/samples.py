"""Samples: each clip with the distinct texts that the rows of the corpus ask about it.

Two rows ask the same if question, candidates and answer are equal. Where the answer is
not scored, or is generated, rows that differ in it alone ask the same: a row of the
question is predicted from what stands in front of it.
"""

from collections.abc import Iterable, Sequence

from vidsme_jax.base import Asked, Clip, Item, Sample, text_key


def samples(
    clips: Iterable[Clip], slices: Sequence[str], response: str
) -> tuple[Sample, ...]:
    """Returns every clip with its texts, each once, in order of first appearance.

    Args:
      clips: Of the corpus.
      slices: Whose rows are scored (`base.SLICES`).
      response: "given", the answers of the manifests, or "greedy", the model's own.

    Example:
      >>> about = {"video": "a", "clip": "a", "role": "members", "question": "what"}
      >>> clip = Clip("a", tuple(Item(id=x, answer=x, **about) for x in ("cat", "dog")))
      >>> (sample,) = samples([clip], ("response",), "given")
      >>> [text.answer for text in sample.texts]
      ['cat', 'dog']
      >>> len(samples([clip], ("instruction",), "given")[0].texts)
      1
    """
    found = []
    for clip in clips:
        texts: dict[str, Asked] = {}
        for item in clip.items:
            if text := asked(item, slices, response):
                texts.setdefault(text.key, text)
        found.append(Sample(clip, tuple(texts.values())))
    return tuple(found)


def text_of(item: Item, slices: Sequence[str], response: str) -> str:
    """Returns the key of the text that a row asks; "" if no text is scored."""
    text = asked(item, slices, response)
    return "" if text is None else text.key


def asked(item: Item, slices: Sequence[str], response: str) -> Asked | None:
    """Returns the text that a row asks; None if no text is scored.

    See `samples` for the arguments. Its answer is empty and not ended if it is not the
    manifest's.
    """
    if set(slices) <= {"video"}:
        return None
    answers = "response" in slices
    given = answers and response == "given"
    answer = item.answer if given else None
    generated = answers and not given
    return Asked(
        key=text_key(item.question, item.candidates, answer, generated=generated),
        question=item.question,
        candidates=item.candidates,
        answer=item.answer if given else "",
        ended="given" if given else "",
    )
