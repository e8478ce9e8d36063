"""Statements about the positive control: what an audit finds of memorised clips.

A small model is trained on half of the clips until it has memorised them, and audited
in the same way. What is not found there, the audit could not have found either. The
reverse does not hold: a large model that has seen a clip once has memorised far less.

A record is the content of `control.json`, which `control.run` writes.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vidsme_jax.evaluation import intervals

FILE = "control.json"
MEMORISED = 0.1  # The mean loss of the members' answers, in nats a token, at most.
_USEFUL = 0.7  # An interval that reaches this AUC does not rule out a useful score.
_GAP = 0.1  # Between the losses of the halves, at least; else nothing is memorised.


def memorised(losses: Mapping[str, float]) -> bool:
    """Returns whether a model has memorised one half and not the other.

    Args:
      losses: Mean losses of the answers, in nats a token, of `members` and
        `nonmembers`.

    Example:
      >>> memorised({"members": 0.05, "nonmembers": 2.0})
      True
    """
    members, others = losses["members"], losses["nonmembers"]
    return members <= MEMORISED and others - members >= _GAP


def statement(record: Mapping[str, Any], clips: str = "") -> str:
    """Returns one sentence on what a positive control has shown.

    Args:
      record: The content of `control.json`.
      clips: A name for its clips; "": their number.

    Raises:
      LookupError, TypeError, ValueError: `record` is not a record of a control.
    """
    clips = clips or f"{record['clips']:d} clips"
    losses = {role: float(record["losses"][role]) for role in ("members", "nonmembers")}
    own, others = (f"{loss:.2f}" for loss in losses.values())
    if losses["members"] > MEMORISED:
        return (
            "Positive control: it shows nothing, because in "
            f"{record['epochs']:d} epochs a small model had not memorised half of "
            f"{clips} (answer loss {own} against {others} of the other half, in nats a "
            f"token; at most {MEMORISED:g} is needed)."
        )
    if not memorised(losses):
        return (
            "Positive control: it shows nothing, because a small model trained on half "
            f"of {clips} predicted the answers of the other half as well (answer loss "
            f"{own} against {others}, in nats a token): there was nothing to memorise."
        )
    headline, results = record["headline"], record["scores"]
    sentence = (
        f"Positive control: a small model that had memorised half of {clips} (answer "
        f"loss {own} against {others}, in nats a token) was audited in the same way: "
        f"the headline {headline} {_ranked(results[headline]['auc'])}"
    )
    auc = results[headline]["auc"]
    missed = auc["value"] is not None and not _ranks_above(auc)
    if missed and (auc["high"] is None or auc["high"] >= _USEFUL):
        sentence += (
            ", and the clips are too few to show whether this audit could have found "
            "membership at all"
        )
    elif not _ranks_above(auc):
        sentence += (
            ", so that this audit could not have found membership even of memorised "
            "clips"
        )
    rest = [
        f"{name} {_ranked(result['auc'], short=True)}"
        for name, result in results.items()
        if name != headline
    ]
    return "; ".join([sentence, *rest]) + "."


def _ranks_above(auc: Mapping[str, Any]) -> bool:
    """Returns whether the interval is above 0.5, so that members rank above."""
    return auc["value"] is not None and auc["low"] is not None and auc["low"] > 0.5


def shown_with(
    folder: str,
    record: Mapping[str, Any],
    differences: Sequence[str],
    clusters: Collection[str],
) -> dict[str, Any]:
    """Returns the positive control as a report shows it with the verdict.

    Args:
      folder: The folder of the control.
      record: The content of its `control.json`.
      differences: One text per setting that differs from the audit's.
      clusters: The content hashes of the clips that the audit scored.

    Returns:
      JSON-ready: `statement`, `folder`, `memorised`, `losses`, `headline`, `scores`,
      `clips` (numbers of `control`, `audit` and `shared`) and `differences`.
    """
    controlled = set(record["content"])
    count, shared = len(set(clusters)), len(controlled & set(clusters))
    same = count == shared == len(controlled)
    remarks = [] if same else [_overlap(shared, count)]
    if differences:
        remarks.append(
            f"Its settings differ from this audit's: {'; '.join(differences)}."
        )
    text = statement(record, f"these {count} clips" if same else "")
    return {
        "statement": " ".join([text, *remarks]),
        "folder": folder,
        "memorised": memorised(record["losses"]),
        "losses": record["losses"],
        "headline": record["headline"],
        "scores": record["scores"],
        "clips": {"control": len(controlled), "audit": count, "shared": shared},
        "differences": list(differences),
    }


def _overlap(shared: int, count: int) -> str:
    """Returns a sentence on how many of the audit's clips the control saw."""
    if not shared:
        return (
            f"It saw none of the {count} clips of this audit and shows only what such "
            "an audit finds on other clips."
        )
    return f"It saw {shared} of the {count} clips of this audit ({shared / count:.0%})."


def _ranked(auc: Mapping[str, Any], *, short: bool = False) -> str:
    """Returns a phrase on how a score ranked the memorised clips."""
    if auc["value"] is None:
        return f"had no result ({auc['reason']})"
    numbers = f"(AUC {intervals.in_words(auc)})"
    if _ranks_above(auc):
        return f"{'did' if short else 'ranked its members above'} {numbers}"
    if auc["low"] is not None and auc["high"] < 0.5:
        return f"ranked them below, against its sign {numbers}"
    return f"{'did not' if short else 'did not rank its members above'} {numbers}"
