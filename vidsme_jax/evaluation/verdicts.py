"""Verdicts: what the AUC of a score is worth next to the blind baseline's."""

from typing import Any, NamedTuple

from vidsme_jax.evaluation import intervals


class _Verdict(NamedTuple):
    """A verdict: its name, what it says of any score, and of the headline."""

    name: str
    statement: str  # {shown}: both AUCs.
    ending: str  # {blind}: the blind AUC, and where it comes from.


_NO_SHIFT = _Verdict(
    "not shown to be confounded",
    "Not shown to be confounded by motion or brightness: {shown}. Other differences "
    "between the two sets were not tested.",
    "; no shift in motion or brightness was found at this sample size, and other "
    "differences between the two sets were not tested",
)
_INVALID = _Verdict(
    "invalid: shift",
    "Invalid as evidence of membership: {shown}. The two sets differ in their content, "
    "and that alone explains as much.",
    ", but {blind}, without any model, at least as much: this is not evidence of "
    "membership",
)
_CONFOUNDED = _Verdict(
    "confounded: shift",
    "Confounded: {shown}. The two sets differ in their content; the score's AUC is "
    "higher than that alone gives here, but how much of it, if any, is membership "
    "cannot be determined by this comparison.",
    ", but {blind}, without any model: how much of it, if any, is membership cannot be "
    "determined",
)
_ENDINGS = {each.name: each.ending for each in (_NO_SHIFT, _INVALID, _CONFOUNDED)}
_NO_RANK = (
    "; {blind}, without any model, so a higher AUC of the score would not have been "
    "evidence of membership either"
)


def of_score(blind: dict[str, Any], auc: float | None) -> dict[str, Any]:
    """Compares a score's AUC with the strongest blind result that separates.

    Args:
      blind: One comparison of `validity.blind_baseline`.
      auc: The score's, larger = member; None if it has none.

    Returns:
      `verdict`, `statement` and `blind`, the result that it was compared with.
    """
    if auc is None:
        none = "The score has no AUC here."
        return {"verdict": "no result", "statement": none, "blind": None}
    if blind["separates"] is None:
        statement = blind["statement"]
        return {"verdict": "not tested", "statement": statement, "blind": None}
    results = [blind[key] for key in ("cross_fitted", "motion", "brightness")]
    found = [result for result in results if result["low"] > 0.5]
    strongest = max(found, key=lambda r: r["value"]) if found else results[0]
    verdict = _CONFOUNDED if found else _NO_SHIFT
    if found and strongest["value"] >= auc:
        verdict = _INVALID
    numbers = f"AUC {intervals.in_words(strongest)} from {strongest['name']} alone"
    shown = f"AUC {auc:.2f}, and {numbers}"
    statement = verdict.statement.format(shown=shown)
    return {"verdict": verdict.name, "statement": statement, "blind": strongest}


def of_headline(
    evaluation: dict[str, Any], blind: dict[str, Any], headline: str
) -> str:
    """Says in one sentence what the headline score shows, and what it is worth."""
    if "all" not in evaluation["comparisons"]:
        return (
            "Without both members and non-members this report cannot say how well "
            f"the headline score {headline} separates them."
        )
    return _sentence(evaluation, blind, headline, "The headline score")


def of_beside(
    evaluation: dict[str, Any], blind: dict[str, Any], score: str, role: str
) -> str:
    """Says likewise what a score shows that is reported beside the headline.

    Args:
      evaluation: Of `metrics.evaluate`.
      blind: Of `validity.blind_baseline`.
      score: Its name.
      role: What it is declared as.

    Returns:
      One sentence; "" where nothing is compared.
    """
    if "all" not in evaluation["comparisons"]:
        return ""
    name = f"Declared as {role}, not chosen after the results: the score"
    return _sentence(evaluation, blind, score, name)


def of_reference(evaluation: dict[str, Any], score: str) -> str:
    """Says in one sentence what the reference model alone shows by a score.

    It has seen no members, so that its AUC is that of a placebo: anything but 0.5 comes
    from what else tells the two sets apart.
    """
    found = evaluation["comparisons"].get("all", {}).get("reference", {}).get(score)
    if found is None:
        return ""
    auc, name = found["auc"], f"The reference model's own {score}"
    if auc["value"] is None:
        return f"{name} has no result: {auc['reason']}."
    numbers = f"AUC {intervals.in_words(auc)}"
    if auc["low"] is None or auc["low"] <= 0.5 <= auc["high"]:
        return (
            f"{name} does not separate members from non-members at this sample size "
            f"({numbers}), as is expected of a model that has seen neither."
        )
    return (
        f"{name} separates members from non-members ({numbers}): the two sets differ "
        "in more than whether the audited model was trained on them, or the reference "
        "model has seen one of them, and the AUC of the headline score may be that."
    )


def _sentence(
    evaluation: dict[str, Any], blind: dict[str, Any], score: str, name: str
) -> str:
    auc = evaluation["comparisons"]["all"]["scores"][score]["auc"]
    if auc["value"] is None:
        return f"{name} {score} has no result: {auc['reason']}."
    found = blind["comparisons"]["all"]["verdicts"][score]
    return f"{name} {score} {_rank(auc)}{_ending(found, auc)}."


def _rank(auc: dict[str, Any]) -> str:
    numbers = f"AUC {intervals.in_words(auc)}"
    if auc["low"] is None or auc["low"] <= 0.5 <= auc["high"]:
        return (
            "does not separate members from non-members at this sample size "
            f"({numbers})"
        )
    if auc["high"] < 0.5:
        return f"ranks members below non-members, against its sign ({numbers})"
    return f"ranks members above non-members ({numbers})"


def _ending(found: dict[str, Any], auc: dict[str, Any]) -> str:
    if found["blind"] is None:
        return "; whether the two sets differ without any model was not tested"
    numbers = intervals.in_words(found["blind"])
    shift = found["verdict"] != _NO_SHIFT.name
    above = auc["low"] is not None and auc["low"] > 0.5
    ending = _NO_RANK if shift and not above else _ENDINGS[found["verdict"]]
    name = found["blind"]["name"]
    return ending.format(blind=f"AUC {numbers} comes from {name} alone")
