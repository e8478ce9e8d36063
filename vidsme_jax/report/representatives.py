"""Families of scores, which average the same statistic of the same rows.

Each is represented by one score, by a rule that does not depend on results: the
headline, else the further score reported with it, else the mean over all rows, else the
first.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vidsme_jax.base import AuditError
from vidsme_jax.names import is_calibrated
from vidsme_jax.scores import PROFILES


class Family(NamedTuple):
    """A family of scores.

    Attributes:
      score: The name of the representative.
      others: The names of the others, in the order of the table.
    """

    score: str
    others: tuple[str, ...]


def of_scores(
    names: Iterable[str], larger_is_member: bool, declared: Sequence[str] = ()
) -> list[Family]:
    """Returns the families of scores, those of the declared scores first.

    Args:
      names: In the order of the table. A name that the profile does not have is a
        family of its own.
      larger_is_member: Identifies the profile.
      declared: The headline, and the further score if there is one.

    Example:
      >>> names = ["vid_sme", "vid_sme_max_0", "perplexity", "min_k_prob_30"]
      >>> [family.score for family in of_scores(names, True, ["min_k_prob_30"])]
      ['min_k_prob_30', 'vid_sme']
    """
    profile = next(
        each for each in PROFILES.values() if each.larger_is_member == larger_is_member
    )
    found: dict[object, list[str]] = {}
    means: set[str] = set()
    for name in names:
        try:
            score = profile.score(name)
        except AuditError:
            found[name] = [name]
            continue
        key = score.slice, score.statistic, is_calibrated(name)
        found.setdefault(key, []).append(name)
        if score.tail == "mean":
            means.add(name)
    families = [_family(group, declared, means) for group in found.values()]
    order = {name: k for k, name in enumerate(declared)}
    return sorted(families, key=lambda each: order.get(each.score, len(order)))


def _family(names: list[str], declared: Sequence[str], means: set[str]) -> Family:
    chosen = [name for name in declared if name in names]
    chosen += [name for name in names if name in means]
    first = (chosen or names)[0]
    return Family(first, tuple(name for name in names if name != first))
