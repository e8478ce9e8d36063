"""The positive control in words: what an audit finds of clips that were memorised.

A small model is trained on half of the clips until it has memorised them, and audited
in the same way. What the control does not find, the audit could not have found either.
The reverse does not hold: a large model that has seen a clip once has memorised far
less.

A record is the content of `control.json`; `control.run` writes it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vidsme_jax.evaluation import intervals

FILE = "control.json"
MEMORISED = 0.1  # Mean loss of the members' answers, in nats a token, at most.
_MUCH = 0.7  # An AUC that would be of use: an interval up to it rules out nothing.
_GAP = 0.1  # Between the two halves, at least: else nothing was there to memorise.


def memorised(losses: Mapping[str, float]) -> bool:
    """Returns whether a model has memorised one half and not the other.

    Args:
      losses: Mean losses of the answers, in nats a token, by role.
    """
    members, others = losses["members"], losses["nonmembers"]
    return members <= MEMORISED and others - members >= _GAP


def statement(record: Mapping[str, Any], clips: str = "") -> str:
    """Says in one sentence what a positive control has shown.

    Args:
      record: Of the control.
      clips: What to call them; "": by their number.

    Raises:
      LookupError, TypeError, ValueError: It is no record of a control.
    """
    clips = clips or f"{record['clips']:d} clips"
    losses = {role: float(record["losses"][role]) for role in ("members", "nonmembers")}
    own, others = (f"{loss:.2f}" for loss in losses.values())
    if losses["members"] > MEMORISED:
        return (
            f"Positive control: it shows nothing, for in {record['epochs']:d} epochs a "
            f"small model had not memorised half of {clips} (answer loss {own} against "
            f"{others} of the other half, in nats a token; {MEMORISED:g} was needed)."
        )
    if not memorised(losses):
        return (
            "Positive control: it shows nothing, for a small model that was trained on "
            f"half of {clips} knew the answers of the other half as well (answer loss "
            f"{own} against {others}, in nats a token): there was nothing to memorise."
        )
    headline, results = record["headline"], record["scores"]
    sentence = (
        f"Positive control: a small model that had memorised half of {clips} (answer "
        f"loss {own} against {others}, in nats a token) was audited in the same way: "
        f"the headline {headline} {_ranked(results[headline]['auc'])}"
    )
    auc = results[headline]["auc"]
    missed = auc["value"] is not None and not found(auc)
    if missed and (auc["high"] is None or auc["high"] >= _MUCH):
        sentence += (
            ", and the clips are too few to show whether this audit could have found "
            "membership at all"
        )
    elif not found(auc):
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


def found(auc: Mapping[str, Any]) -> bool:
    """Returns whether members rank above non-members: the interval is above 0.5."""
    return auc["value"] is not None and auc["low"] is not None and auc["low"] > 0.5


def shown_with(
    folder: str,
    record: Mapping[str, Any],
    differences: Sequence[str],
    clusters: Collection[str],
) -> dict[str, Any]:
    """Returns what a report shows of a positive control with the verdict.

    Args:
      folder: Of the control.
      record: What it found.
      differences: Settings that the audit has otherwise, one text each.
      clusters: The content hashes of the clips that the audit scored.
    """
    theirs = set(record["content"])
    count, shared = len(set(clusters)), len(theirs & set(clusters))
    same = count == shared == len(theirs)
    remarks = [] if same else [_overlap(shared, count)]
    if differences:
        remarks.append(
            f"It was made otherwise than this audit: {'; '.join(differences)}."
        )
    said = statement(record, f"these {count} clips" if same else "")
    return {
        "statement": " ".join([said, *remarks]),
        "folder": folder,
        "memorised": memorised(record["losses"]),
        "losses": record["losses"],
        "headline": record["headline"],
        "scores": record["scores"],
        "clips": {"control": len(theirs), "audit": count, "shared": shared},
        "differences": list(differences),
    }


def _overlap(shared: int, count: int) -> str:
    if not shared:
        return (
            f"It saw none of the {count} clips of this audit, and says only what an "
            "audit like this finds of other ones."
        )
    return f"It saw {shared} of the {count} clips of this audit ({shared / count:.0%})."


def _ranked(auc: Mapping[str, Any], *, short: bool = False) -> str:
    """Says how a score ranked the clips that were memorised."""
    if auc["value"] is None:
        return f"had no result ({auc['reason']})"
    numbers = f"(AUC {intervals.in_words(dict(auc))})"
    if found(auc):
        return f"{'did' if short else 'ranked its members above'} {numbers}"
    if auc["low"] is not None and auc["high"] < 0.5:
        return f"ranked them below, against its sign {numbers}"
    return f"{'did not' if short else 'did not rank its members above'} {numbers}"
