"""Samples: each clip with the distinct texts of its rows.

Two rows share a text if question, candidates and answer are equal. If the answer is not
scored, or is generated, rows that differ only in the answer share it: the question's
tokens are predicted from preceding tokens only.
"""

from collections.abc import Iterable, Sequence

from vidsme_jax.base import Asked, Clip, Item, Sample, text_key


def samples(
    clips: Iterable[Clip], slices: Sequence[str], response: str
) -> tuple[Sample, ...]:
    """Returns every clip with its distinct texts, in order of first appearance.

    Args:
      clips: Of the corpus.
      slices: The scored slices (`base.SLICES`).
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
    """Returns the key of a row's text; "" if no text is scored."""
    text = asked(item, slices, response)
    return "" if text is None else text.key


def asked(item: Item, slices: Sequence[str], response: str) -> Asked | None:
    """Returns the text of a row; None if no text is scored.

    See `samples` for the arguments. `answer` and `ended` are empty unless the
    manifest's answer is scored.
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
