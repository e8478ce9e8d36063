"""Computes features of questions and answers, which need neither model nor video.

The typicality of a text is by a model of the texts of all other units, so that no clip
is scored by a model of its own answer. Labels are not used, so that columns need not be
recomputed for permuted labels.

Words are separated by spaces and marks. In scripts written without spaces (Han, kana,
Thai, Lao, Khmer, Myanmar, Tibetan) each letter is one word.

Axes: `items`, rows of both roles.
"""

import collections
import itertools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

# Letters of scripts without spaces, with their combining signs.
_LONE = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u0f00\u0f40-\u0fbc"
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\uaa60-\uaa7f"
    "\u1780-\u17d3\u3005-\u3007\u3041-\u309a\u309d-\u309f\u30a1-\u30fa"
    "\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_WORD = rf"[{_LONE}]|[^\W{_LONE}]+"
_TOKEN = re.compile(rf"{_WORD}|[^\w\s]")
_COMPONENTS = 8  # Of the bag of words and pairs of words.
_MOST_TERMS = 20_000
_NEXT = 0.4  # Weight of a word's own frequency against that after the previous word.


def columns(
    question: Shaped[np.ndarray, " items"],
    answer: Shaped[np.ndarray, " items"],
    motion: Float[np.ndarray, " items"],
    unit: Int[np.ndarray, " items"],
) -> dict[str, Float[np.ndarray, " items"]]:
    """Returns the columns of the family `text`, by name.

    Args:
      question: The question of each item, "" where there is none.
      answer: The answer of each item, "" where there is none.
      motion: The motion of each clip, such as log1p of its flow variance; NaN is
        replaced by the median.
      unit: The unit of each item, from 0.
    """
    found: dict[str, np.ndarray] = {}
    for name, texts in (("question", question), ("answer", answer)):
        if not any(map(str.strip, texts)):
            continue
        split = [tokens(text) for text in texts]
        words = np.array([len(each) for each in split], np.float64)
        letters = np.array([sum(map(len, each)) for each in split])
        found[f"{name} words"] = words
        found[f"{name} letters a word"] = letters / np.maximum(words, 1)
        for kind, is_kind in (
            ("capitals", str.isupper),
            ("digits", str.isdigit),
            ("marks", _is_mark),
        ):
            counts = [sum(map(is_kind, text)) for text in texts]
            found[f"{name} {kind}"] = np.array(counts) / np.maximum(letters, 1)
        found[f"{name} log p"] = typicality(split, unit)
        found |= _bags(name, texts)
    crossed = [name for name in found if name.endswith((" words", " log p"))]
    known = np.isfinite(motion)
    median = np.median(motion[known]) if known.any() else 0.0
    moving = _standard(np.where(known, motion, median))
    for name in crossed:
        found[f"{name} x motion"] = _standard(found[name]) * moving
    return found


def tokens(text: str) -> list[str]:
    """Returns the words and the marks of a text.

    Example:
      >>> tokens("two cats, 30匹の猫")
      ['two', 'cats', ',', '30', '匹', 'の', '猫']
    """
    return _TOKEN.findall(text)


def typicality(
    tokens: Sequence[Sequence[str]], unit: Int[np.ndarray, " items"]
) -> Float[np.ndarray, " items"]:
    """Returns the mean log p of each text's words by the texts of all other units.

    The model interpolates the frequencies of words and of pairs of words, in lower
    case, and counts one unseen word; 0 for a text without words.

    Example:
      >>> texts = [["a", "cat"], ["a", "cat"], ["blue", "whale"]]
      >>> found = typicality(texts, np.arange(3))
      >>> bool(found[0] == found[1] > found[2])
      True
    """
    lowered = [["", *(word.lower() for word in text)] for text in tokens]
    total = _Counts(lowered)
    of_unit: dict[int, list[int]] = collections.defaultdict(list)
    for place, each in enumerate(unit.tolist()):
        of_unit[each].append(place)
    found = np.zeros(len(lowered))
    for places in of_unit.values():
        own = _Counts([lowered[k] for k in places])
        for k in places:
            found[k] = total.without(own).log_p(lowered[k])
    return found


def _is_mark(character: str) -> bool:
    return not (character.isalnum() or character.isspace())


class _Counts:
    """The numbers of words, pairs of words and first words of pairs of texts."""

    def __init__(self, texts: Sequence[Sequence[str]] = ()):
        self.words = collections.Counter[str]()
        self.pairs = collections.Counter[tuple[str, str]]()
        self.firsts = collections.Counter[str]()
        for text in texts:
            self.words.update(text[1:])
            self.pairs.update(itertools.pairwise(text))
            self.firsts.update(text[:-1])
        self.total, self.distinct = self.words.total(), len(self.words)
        self._less: _Counts | None = None

    def without(self, own: "_Counts") -> "_Counts":
        """Returns these counts less others, subtracted on look-up."""
        less = _Counts()
        less.words, less.pairs, less.firsts = self.words, self.pairs, self.firsts
        less.total, less.distinct = self.total - own.total, self.distinct
        less._less = own
        return less

    def log_p(self, text: Sequence[str]) -> float:
        """Returns the mean log p of the words after the first."""
        own = self._less or _Counts()
        logs: list[float] = []
        for before, word in itertools.pairwise(text):
            alone = self.words[word] - own.words[word] + 1
            alone = alone / (self.total + self.distinct + 1)
            followed = self.firsts[before] - own.firsts[before]
            pair = self.pairs[before, word] - own.pairs[before, word]
            together = pair / followed if followed else alone
            logs.append(np.log(_NEXT * alone + (1 - _NEXT) * together))
        return float(np.mean(logs)) if logs else 0.0


def _bags(
    name: str, texts: Shaped[np.ndarray, " items"]
) -> dict[str, Float[np.ndarray, " items"]]:
    """Returns principal components of the bags of words and pairs of words."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, max_features=_MOST_TERMS, token_pattern=_WORD
    )
    try:
        bags = vectors.fit_transform(map(str, texts))
    except ValueError:  # No term is in two texts.
        return {}
    most = min(_COMPONENTS, min(bags.shape) - 1)
    if most < 1:
        return {}
    means = np.asarray(bags.mean(axis=0))
    if np.ptp(np.asarray(bags.multiply(bags).mean(axis=0)) - means**2) < 1e-12:
        return {}  # All texts are equal.
    found = TruncatedSVD(most, random_state=0).fit_transform(bags)
    return {f"{name} terms {k + 1}": found[:, k] for k in range(most)}


def _standard(values: Float[np.ndarray, " items"]) -> Float[np.ndarray, " items"]:
    spread = values.std()
    return (values - values.mean()) / spread if spread else np.zeros(len(values))
