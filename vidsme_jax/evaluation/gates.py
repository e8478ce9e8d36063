"""Compares scores with the limits of a release gate, at which a pipeline stops.

A limit is compared with the lower end of a 95 % interval: a figure that exceeds it does
so by more than sampling error. A model within the limits may still leak: the upper end
bounds how much. A gate that cannot be evaluated is not passed.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

PASSED, EXCEEDED, OPEN = "passed", "exceeded", "not evaluable"


class Limits(NamedTuple):
    """The limits of a gate; None: no limit.

    Attributes:
      score: The name of the score.
      auc: The largest lower end allowed for its AUC, in (0.5, 1).
      tpr: The largest lower end allowed for its TPR at `fpr`, in (0, 1).
      fpr: The false-positive rate of that TPR.
    """

    score: str
    auc: float | None = None
    tpr: float | None = None
    fpr: float = 0.01


def judge(
    comparisons: Mapping[str, Any], comparison: str, limits: Limits
) -> dict[str, Any] | None:
    """Compares the results of one score with limits.

    Args:
      comparisons: `comparisons` of `metrics.evaluate`.
      comparison: The name of the comparison that is judged.
      limits: The limits.

    Returns:
      None without limits; else, JSON-ready, `passed`; `result`, which is passed,
      exceeded or not evaluable; `statement`, one line; `score`; and `checks`, per
      limit `name`, `limit`, `result`, `found` (the lower end, or None) and
      `statement`.

    Example:
      >>> auc = {"value": 0.9, "low": 0.8, "high": 0.95}
      >>> found = {"all": {"scores": {"s": {"auc": auc, "tpr": {}}}}}
      >>> judge(found, "all", Limits("s", auc=0.7))["statement"][:42]
      'Gate exceeded: the AUC of s (all) is 0.90 '
    """
    results = comparisons.get(comparison, {}).get("scores", {}).get(limits.score, {})
    tpr = results.get("tpr", {}).get(f"{limits.fpr:g}")
    checks: list[dict[str, Any]] = []
    for name, limit, what, found in (
        ("gate.max_auc", limits.auc, "AUC", results.get("auc")),
        ("gate.max_tpr", limits.tpr, f"TPR at an FPR of {100 * limits.fpr:g} %", tpr),
    ):
        if limit is not None:
            figure = f"the {what} of {limits.score} ({comparison})"
            checks.append(_check(name, limit, found, figure))
    if not checks:
        return None
    seen = {check["result"] for check in checks}
    worst = next(x for x in (EXCEEDED, OPEN, PASSED) if x in seen)
    text = "; ".join(check["statement"] for check in checks)
    return {
        "passed": worst == PASSED,
        "result": worst,
        "statement": f"Gate {worst}: {text}.",
        "score": limits.score,
        "checks": checks,
    }


def _check(
    name: str, limit: float, found: Mapping[str, Any] | None, figure: str
) -> dict[str, Any]:
    """Compares one figure with its limit."""
    low = high = None
    if found is not None:
        low, high = found["low"], found["high"]
    if found is None or low is None or high is None or not math.isfinite(low + high):
        why = "it was not estimated" if found is None else found.get("reason", "none")
        result = OPEN
        text = f"{figure} has no interval ({why}) to compare with {name} = {limit:g}"
    else:
        value = f"{figure} is {found['value']:.2f} [{low:.3f}, {high:.3f}]"
        result = EXCEEDED if low > limit else PASSED
        where = "above" if result == EXCEEDED else "not above"
        text = f"{value}, its lower end {where} {name} = {limit:g}"
        if figure.startswith("the AUC") and high < 0.5:
            text += " (against its sign: members rank below)"
    return {
        "name": name,
        "limit": limit,
        "result": result,
        "found": low,
        "statement": text,
    }
