"""The gate of a release: limits on what a score finds, for a pipeline to stop at.

A limit is compared with the lower end of a 95 % interval: what exceeds it does so
beyond the luck of these clips. What is within it may still leak: the upper end says how
much. A gate that cannot be judged is not passed.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

PASSED, EXCEEDED, OPEN = "passed", "exceeded", "not evaluable"


class Limits(NamedTuple):
    """What may be found at most; None: no limit.

    Attributes:
      score: Whose figures are compared.
      auc: The largest lower end of its AUC, in (0.5, 1).
      tpr: The largest lower end of its TPR, in (0, 1), at the threshold found.
      fpr: The false-positive rate of that TPR.
    """

    score: str
    auc: float | None = None
    tpr: float | None = None
    fpr: float = 0.01


def judge(
    comparisons: Mapping[str, Any], comparison: str, limits: Limits
) -> dict[str, Any] | None:
    """Compares what was found with limits.

    Args:
      comparisons: Of `metrics.evaluate`.
      comparison: The one that counts.
      limits: Of what is found there.

    Returns:
      None without limits; else, JSON-ready, `passed`; `result`, which is passed,
      exceeded or not evaluable; `statement`, one line; `score`; and `checks`, of each
      limit its `name`, `limit`, `result`, `found`, the lower end, or None, and
      `statement`.

    Example:
      >>> auc = {"value": 0.9, "low": 0.8, "high": 0.95}
      >>> found = {"all": {"scores": {"s": {"auc": auc, "tpr": {}}}}}
      >>> judge(found, "all", Limits("s", auc=0.7))["statement"][:42]
      'Gate exceeded: the AUC of s (all) is 0.90 '
    """
    wanted = {
        "gate.max_auc": (limits.auc, "AUC"),
        "gate.max_tpr": (limits.tpr, f"TPR at an FPR of {100 * limits.fpr:g} %"),
    }
    its = comparisons.get(comparison, {}).get("scores", {}).get(limits.score, {})
    checks: list[dict[str, Any]] = []
    for name, (limit, what) in wanted.items():
        if limit is None:
            continue
        found = (
            its.get("auc")
            if what == "AUC"
            else its.get("tpr", {}).get(f"{limits.fpr:g}")
        )
        of = f"the {what} of {limits.score} ({comparison})"
        checks.append(_check(name, limit, found, of))
    if not checks:
        return None
    results = {check["result"] for check in checks}
    worst = next(x for x in (EXCEEDED, OPEN, PASSED) if x in results)
    said = "; ".join(check["statement"] for check in checks)
    return {
        "passed": worst == PASSED,
        "result": worst,
        "statement": f"Gate {worst}: {said}.",
        "score": limits.score,
        "checks": checks,
    }


def _check(
    name: str, limit: float, found: Mapping[str, Any] | None, of: str
) -> dict[str, Any]:
    """Compares one figure with its limit."""
    low = high = None
    if found is not None:
        low, high = found["low"], found["high"]
    if found is None or low is None or high is None or not math.isfinite(low + high):
        why = "it was not estimated" if found is None else found.get("reason", "none")
        result, said = OPEN, f"{of} has no interval ({why}), so that {name} is open"
    else:
        value = f"{of} is {found['value']:.2f} [{low:.3f}, {high:.3f}]"
        result = EXCEEDED if low > limit else PASSED
        than = "above" if result == EXCEEDED else "not above"
        said = f"{value}, its lower end {than} {name} = {limit:g}"
        if of.startswith("the AUC") and high < 0.5:
            said += " (against its sign: members rank below)"
    return {
        "name": name,
        "limit": limit,
        "result": result,
        "found": low,
        "statement": said,
    }
