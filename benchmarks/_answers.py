"""What answers say without a network: equal strings, n-grams, words in common."""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

_ADDED = 0.1  # To every count of an n-gram.
_Gram = tuple[str, ...]


def shared(members: Iterable[str], nonmembers: Iterable[str]) -> float:
    """Returns the share of non-members whose answer is, word for word, a member's."""
    known, others = set(members), list(nonmembers)
    return sum(answer in known for answer in others) / max(len(others), 1)


def ngram_scores(
    answers: Sequence[str],
    member: Sequence[bool],
    order: int,
    *,
    left_out: bool = False,
) -> Float[np.ndarray, " clips"]:
    """Returns mean log p of the words of each answer under the members' n-grams.

    A model of the training answers alone, without video and network: what it finds is
    memory of words, not of clips. A member's answer is among those that it is ranked
    by, and likely for that alone.

    Args:
      answers: Of all clips.
      member: Whether a clip was trained on.
      order: 1 or 2.
      left_out: Whether a member's own answer is taken out of the counts, once, while it
        is ranked; while a non-member is, that of a member drawn by lot, since fewer
        answers alone would tell members.
    """
    sentences = [["<s>", *answer.split(), "</s>"] for answer in answers]
    vocabulary = {word for sentence in sentences for word in sentence}
    grams = [_grams(sentence, order) for sentence in sentences]
    counts: collections.Counter[_Gram] = collections.Counter()
    for its, known in zip(grams, member, strict=True):
        if known:
            counts.update(its)
    contexts = _contexts(counts)
    drawn = np.random.default_rng(0).choice(np.flatnonzero(member), len(grams))
    out = []
    for place, (its, known) in enumerate(zip(grams, member, strict=True)):
        taken = grams[place if known else drawn[place]]
        own = collections.Counter(taken if left_out else ())
        before, total = _contexts(own), 0.0
        for gram in its:
            above = counts[gram] - own[gram] + _ADDED
            below = contexts[gram[:-1]] - before[gram[:-1]]
            total += math.log(above / (below + _ADDED * len(vocabulary)))
        out.append(total / len(its))
    return np.array(out)


def _grams(sentence: Sequence[str], order: int) -> list[_Gram]:
    """Returns the n-gram that ends at each word but the first."""
    return [tuple(sentence[k - order + 1 : k + 1]) for k in range(1, len(sentence))]


def _contexts(counts: Mapping[_Gram, int]) -> collections.Counter[_Gram]:
    """Returns how often each context, an n-gram without its last word, was counted."""
    found: collections.Counter[_Gram] = collections.Counter()
    for gram, count in counts.items():
        found[gram[:-1]] += count
    return found


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
