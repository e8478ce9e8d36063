"""Checks the gate of an audit: the limits that its configuration sets on results."""

from collections.abc import Sequence
from typing import Any

from vidsme_jax.base import Item
from vidsme_jax.evaluation import gates
from vidsme_jax.run import corpus_rows
from vidsme_jax.settings import views
from vidsme_jax.wording import nearest, printable


def judge(
    given: views.Settings, headline: str, evaluation: dict[str, Any]
) -> dict[str, Any] | None:
    """Compares what was found with the limits; see `gates.judge`.

    Args:
      given: A configuration.
      headline: A result of `scores.headline`.
      evaluation: The result of `metrics.evaluate`.
    """
    its = given.gate
    limits = gates.Limits(its.score or headline, its.max_auc, its.max_tpr, its.fpr)
    found = gates.judge(evaluation["comparisons"], given.report.comparison, limits)
    if found is not None and limits.score != headline:
        said = f" The headline, {headline}, was not compared with it."
        found["statement"] += said
    return found


def problems(
    given: views.Settings, names: Sequence[str], items: Sequence[Item]
) -> list[str]:
    """Returns why a gate could not be judged, whatever a model shows.

    Args:
      given: A configuration.
      names: The scores that are computed, the headline among them.
      items: The rows of the corpus; empty if it could not be read.
    """
    its = given.gate
    found: list[str] = []
    if its.max_auc is None and its.max_tpr is None:
        if its.score:
            found.append("config.gate.score: give config.gate.max_auc or max_tpr, too")
        return found
    if its.score and its.score not in names:
        hint = nearest(its.score, list(names))
        found.append(
            f"config.gate.score is {printable(its.score, 100)!r}, a score that is not "
            f"computed; take one of config.scores, or the headline{hint}"
        )
    if its.max_tpr is not None and its.fpr not in given.report.fprs:
        rates = ", ".join(f"{rate:g}" for rate in given.report.fprs)
        found.append(
            f"config.gate.fpr is {its.fpr:g}, and no TPR is estimated there: take one "
            f"of config.report.fprs ({rates}), or add it to them"
        )
    if given.study:
        found.append("config.gate: a study has no gate; leave it out, or make an audit")
    elif items and not corpus_rows.comparisons(items):
        found.append(
            "config.gate: a gate compares members with nonmembers: give corpus.members "
            "and corpus.nonmembers"
        )
    return found
