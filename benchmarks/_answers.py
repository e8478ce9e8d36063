"""What answers say without a network: equal strings, n-grams, words in common."""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

_ADDED = 0.1  # To every count of an n-gram.


def shared(members: Iterable[str], nonmembers: Iterable[str]) -> float:
    """Returns the share of non-members whose answer is, word for word, a member's."""
    known, others = set(members), list(nonmembers)
    return sum(answer in known for answer in others) / max(len(others), 1)


def ngram_scores(
    answers: Sequence[str], member: Sequence[bool], order: int
) -> Float[np.ndarray, " clips"]:
    """Returns mean log p of the words of each answer under the members' n-grams.

    A model of the training answers alone, without video and network: what it finds is
    memory of words, not of clips.

    Args:
      answers: Of all clips.
      member: Whether a clip was trained on.
      order: 1 or 2.
    """
    sentences = [["<s>", *answer.split(), "</s>"] for answer in answers]
    vocabulary = {word for sentence in sentences for word in sentence}
    counts: collections.Counter[tuple[str, ...]] = collections.Counter()
    contexts: collections.Counter[tuple[str, ...]] = collections.Counter()
    for sentence, known in zip(sentences, member, strict=True):
        if known:
            for k in range(1, len(sentence)):
                context = tuple(sentence[k - order + 1 : k])
                counts[*context, sentence[k]] += 1
                contexts[context] += 1
    out = []
    for sentence in sentences:
        total = 0.0
        for k in range(1, len(sentence)):
            context = tuple(sentence[k - order + 1 : k])
            own = counts[*context, sentence[k]] + _ADDED
            total += math.log(own / (contexts[context] + _ADDED * len(vocabulary)))
        out.append(total / (len(sentence) - 1))
    return np.array(out)


def overlaps(said: Mapping[str, str], answers: Mapping[str, str]) -> dict[str, float]:
    """Returns by clip the F1 of the words of what a model said and of the true answer.

    Args:
      said: Greedy answers.
      answers: The manifest's.
    """
    found = {}
    for key, answer in answers.items():
        one = collections.Counter(said.get(key, "").split())
        other = collections.Counter(answer.split())
        common = (one & other).total()
        found[key] = 2 * common / max(one.total() + other.total(), 1)
    return found
