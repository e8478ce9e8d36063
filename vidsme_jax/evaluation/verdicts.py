"""Gives verdicts on what a score shows of membership, by rules checked by simulation.

For one declared comparison and score, with alpha the level of every test and A* the
smallest AUC of interest:

- p_s: the score ranks members above non-members (`ranking`).
- p_b: the two sets differ without any model (`blind`), with AUC A_b.
- p_r: the score ranks members above beyond what the blind features explain
  (`adjusted`).
- p_d: the larger of p_s and p_r of the score's rank less the reference model's rank.
  Adjusting alone rejects 5 to 9 % of null differences at 5 %.
- p_c: the reference model ranks non-members as the score does (`placebo`).

| verdict | where |
|---|---|
| `not_tested` | a role has fewer than 20 sources, or blind features are missing |
| `chance` | p_s > alpha, and the interval of the AUC ends below A* |
| `underpowered` | p_s > alpha and it does not; or p_s <= alpha, p_b, p_r > alpha |
| `shift` | p_s, p_b <= alpha, and p_r > alpha or A_b > 0.70; or p_d > alpha >= p_c |
| `ranks_above_no_placebo` | p_s, p_r <= alpha, p_b > alpha or A_b <= 0.70 |
| `supported` | the same with a reference model, p_c <= alpha, and p_d <= alpha |

Blind features alone are not enough: differences that they do not measure make a score
of a model that has seen nothing rank members above, in up to all corpora. With a
reference model at most one in twenty is called supported (`benchmarks/validity.py`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vidsme_jax.evaluation import intervals
from vidsme_jax.wording import counted

MIN_SOURCES = 20  # Of each role; in simulations the rules were valid from there on.
CAP = 0.70  # Of the blind AUC; above it nothing is supported.
BLIND_ALPHA = 0.05  # The least level of p_b: a strict alpha must not hide differences.
NOT_KNOWN = "what the clips show without a model is not known"
NAMES = (
    *("supported", "ranks_above_no_placebo", "chance", "shift"),
    *("underpowered", "not_tested"),
)
_VALUES = ("p_s", "p_b", "p_r", "p_d", "p_c", "blind_auc")  # Of the evidence.


class Evidence(NamedTuple):
    """The evidence for a verdict; p-values are defined in the module's docstring.

    Attributes:
      auc: The AUC with its interval, as in `metrics.evaluate`.
      p_s: None if the score was not tested.
      p_b: None if the blind features could not be tested.
      p_r: None if the blind features could not be tested.
      p_d: None without a reference model's score.
      p_c: None without a reference model's score.
      blind_auc: A_b; None if the blind features could not be tested.
      blind: The feature that separates the sets best, in words.
      sources: The numbers of sources of members and of non-members.
    """

    auc: Mapping[str, Any]
    p_s: float | None = None
    p_b: float | None = None
    p_r: float | None = None
    p_d: float | None = None
    p_c: float | None = None
    blind_auc: float | None = None
    blind: str = ""
    sources: tuple[int, int] = (0, 0)


def of_score(
    found: Evidence, alpha: float, smallest: float, reason: str = "", files: str = ""
) -> dict[str, Any]:
    """Returns the verdict on one score and comparison.

    Args:
      found: The evidence.
      alpha: The level of every test.
      smallest: A*, the smallest AUC of interest.
      reason: Why nothing is tested; "" if it is.
      files: The difference of the files that cannot reach the model; "" if none.

    Returns:
      `verdict`, one of `NAMES`; `statement`, one sentence without its subject; and the
      p-values with `blind_auc`.

    Example, without a reference model and with one that ranks the sets equally:

    >>> auc = {"value": 0.7, "low": 0.62, "high": 0.78}
    >>> found = Evidence(auc, 0.001, 0.4, 0.002, blind_auc=0.52, sources=(50, 50))
    >>> of_score(found, 0.05, 0.6)["verdict"]
    'ranks_above_no_placebo'
    >>> of_score(found._replace(p_d=0.01, p_c=0.02), 0.05, 0.6)["verdict"]
    'supported'
    >>> of_score(found._replace(p_b=0.01, blind_auc=0.8), 0.05, 0.6)["verdict"]
    'shift'
    """
    verdict, statement = _ruled(found, alpha, smallest, reason)
    if files and verdict in ("supported", "ranks_above_no_placebo"):
        statement += (
            f"; the files of the two differ, too ({files}): the sets were probably not "
            "drawn from one collection, and a matched subset should be compared"
        )
    values = {name: getattr(found, name) for name in _VALUES}
    return {"verdict": verdict, "statement": statement} | values


def _ruled(
    found: Evidence, alpha: float, smallest: float, reason: str
) -> tuple[str, str]:
    """Returns the verdict and its statement by the rules of the module."""
    if reason:
        return "not_tested", f"is not tested: {reason}"
    if found.auc["value"] is None:
        return "not_tested", f"is not tested: {found.auc['reason']}"
    if min(found.sources) < MIN_SOURCES:
        return "not_tested", (
            f"is not tested: {counted(found.sources[0], 'source')} of members and "
            f"{found.sources[1]} of non-members; the rules need {MIN_SOURCES} of each"
        )
    if (
        found.p_s is None
        or found.p_b is None
        or found.p_r is None
        or found.blind_auc is None
    ):
        return "not_tested", (f"is not tested: {NOT_KNOWN}")
    numbers = f"AUC {intervals.in_words(found.auc)}, {p_is(found.p_s)}"
    blind = f"{found.blind} (AUC {found.blind_auc:.2f}, {p_is(found.p_b)})"
    if found.p_s > alpha:
        high = found.auc["high"]
        if high is not None and high < smallest:
            ruled_out = f"an AUC of {smallest:g} or more is ruled out"
            if high < 0.5:
                return "chance", (
                    f"ranks members below non-members, against its sign ({numbers}); "
                    f"that is no sign of membership, and {ruled_out}"
                )
            return "chance", (
                f"is not distinguishable from chance ({numbers}; {ruled_out})"
            )
        return "underpowered", (
            f"does not rank members above non-members ({numbers}), and the sources are "
            f"too few to rule out an AUC of {smallest:g}"
        )
    if found.p_b <= max(alpha, BLIND_ALPHA) and (
        found.p_r > alpha or found.blind_auc > CAP
    ):
        if found.p_r > alpha:
            return "shift", (
                f"ranks members above non-members ({numbers}), which is explained by "
                f"distribution shift: without any model the sets differ in {blind}, "
                f"and nothing more was shown ({p_is(found.p_r)})"
            )
        return "shift", (
            f"ranks members above non-members ({numbers}), which cannot be separated "
            f"from distribution shift: without any model the sets differ in {blind}"
        )
    if found.p_r > alpha:
        return "underpowered", (
            f"ranks members above non-members ({numbers}), but not beyond what the "
            f"blind features explain ({p_is(found.p_r)}), and whether the sets "
            f"differ without any model is not shown ({p_is(found.p_b)})"
        )
    beyond = f"beyond what the blind features explain ({p_is(found.p_r)})"
    if found.p_d is None or found.p_c is None:
        return "ranks_above_no_placebo", (
            f"ranks members above non-members ({numbers}), {beyond}; without a "
            "reference model that has not seen them, a difference between the sets "
            "that was not measured cannot be distinguished from membership"
        )
    if found.p_c > alpha:
        return "ranks_above_no_placebo", (
            f"ranks members above non-members ({numbers}), {beyond}; the reference "
            "model does not rank non-members as the audited one does "
            f"({p_is(found.p_c)}), so that a difference between the sets that was not "
            "measured cannot be distinguished from membership"
        )
    if found.p_d <= alpha:
        return "supported", (
            f"ranks members above non-members ({numbers}), {beyond} and beyond what "
            f"the reference model shows ({p_is(found.p_d)}): membership is "
            "supported, if the reference model has seen neither and ranks by other "
            "differences as strongly"
        )
    return "shift", (
        f"ranks members above non-members ({numbers}), and so, or nearly so, does the "
        f"reference model ({p_is(found.p_d)} that it ranks them less): the sets "
        "differ in more than membership"
    )


def sentence(name: str, found: Mapping[str, Any]) -> str:
    """Returns the statement of a verdict as a sentence about a score.

    Example:
      >>> sentence("The score x", {"statement": "is not tested: no reason"})
      'The score x is not tested: no reason.'
    """
    return f"{name} {found['statement']}."


def p_words(p: float) -> str:
    """Formats a p-value with two or three digits, or four decimals below 0.01.

    Example:
      >>> p_words(0.0123), p_words(0.000999)
      ('0.012', '0.0010')
    """
    return f"{p:.2g}" if p >= 0.1 else f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"


def p_is(p: float) -> str:
    """Returns 'p = ...', or an upper bound where its digits would show 0.

    Example:
      >>> p_is(0.0123), p_is(1.2e-7)
      ('p = 0.012', 'p < 0.0001')
    """
    return "p < 0.0001" if p < 0.0001 else f"p = {p_words(p)}"


def of_reference(evaluation: Mapping[str, Any], comparison: str, score: str) -> str:
    """Returns one sentence on what the reference model alone shows by a score.

    It has seen no members, so that its AUC is a placebo's: anything but 0.5 comes from
    another difference between the two sets.
    """
    compared = evaluation["comparisons"].get(comparison, {})
    found = compared.get("reference", {}).get(score)
    if found is None:
        return ""
    auc, name = found["auc"], f"The reference model's own {score}"
    if auc["value"] is None:
        return f"{name} has no result: {auc['reason']}."
    numbers = f"AUC {intervals.in_words(auc)}"
    if auc["low"] is None or auc["low"] <= 0.5 <= auc["high"]:
        return (
            f"{name} does not separate members from non-members at this number of "
            f"sources ({numbers}), as is expected of a model that has seen neither."
        )
    return (
        f"{name} separates members from non-members ({numbers}): the two sets differ "
        "in more than whether the audited model was trained on them, or the reference "
        "model has seen one of them."
    )
