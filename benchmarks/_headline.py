"""Which score may be recommended as the headline: the rule, and what came of it.

A setting (pool, method, snapshot) counts if the AUC of any candidate, or of a ceiling,
lies above chance, interval and all. A candidate is recommended if in every such setting
its TPR (at 1 % FPR on the drawn pool, at 5 % on the others) exceeds that of Vid-SME's
score of the video, the paired interval over seeds and sources above 0; of several the
first in the order below, which was written down before the results. A weighted sum of
scores (`_combination`) is judged on the seeds that it was not fitted on, those of odd
number, and recommended only if every such setting has one. Beside the rule the other
candidates are judged on these seeds too: fewer seeds make wider intervals, so that only
counts of the same seeds compare.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import _combination
import _evidence

# With the answers that were trained on, and with the model's own alone.
GIVEN = (
    "response_min_k_plus_plus_100",
    "response_loss",
    "response_loss_ref",
    "response_min_k_plus_plus_100_ref",
    "response_wbc",
    "response_mean_renyi_1",
)
GREEDY = (
    "vid_sme_mean",
    "mean_renyi_1",
    "min_k_plus_plus_100",
    "response_mean_renyi_1",
    "response_loss",
    "response_vid_sme",
    "response_vid_sme_max_30",
)
_CHANCE = 0.5
TITLES = {
    "given": "With the answers that were trained on",
    "greedy": "Without: the video, and the model's own answers",
}
_KINDS = {"given": ("", GIVEN), "greedy": ("-greedy", GREEDY)}


def judged(
    settings: Sequence[_evidence.Setting],
    found: Sequence[Mapping[str, Any]],
    sources: Mapping[str, dict[str, str]],
) -> dict[str, Any]:
    """Applies the rule.

    Args:
      settings: All of them.
      found: `_evidence.evaluated` of each.
      sources: Of the clips, by pool.

    Returns:
      `given` and `greedy`: `recommended` (a name or None), `settings` in which anything
      beats chance and the number of `seeds` of each, `lost` (those in which a candidate
      is not above Vid-SME, by name), `lost_on_odd` (likewise, on the seeds on which the
      combination is judged), and `combination`, with its coefficients and what it and
      the candidates reached there.
    """
    alive = {_training(x) for x in found if not x["kind"] and _is_alive(x)}
    out = {}
    for name, (kind, candidates) in _KINDS.items():
        own = [x for x in found if x["kind"] == kind and _training(x) in alive]
        lost = {c: [_title(x) for x in own if not _is_above(x, c)] for c in candidates}
        its = [x for x in settings if x.kind == kind and _training(vars(x)) in alive]
        features = {"given": _combination.GIVEN, "greedy": _combination.GREEDY}[name]
        summed, what = _summed(its, candidates, features, sources), _combination.NAME
        rows = summed["judged"] if summed else []
        on_odd = {
            c: [_title(x) for x in rows if not _is_above(x, c)]
            for c in (*candidates, what)
        }
        if summed:
            lost[what] = on_odd[what]
        held = [c for c, where in lost.items() if own and not where]
        if what in held and len(rows) < len(own):
            held.remove(what)
        out[name] = {
            "recommended": held[0] if held else None,
            "settings": [_title(x) for x in own],
            "seeds": [x["seeds"] for x in own],
            "lost": lost,
            "lost_on_odd": on_odd,
            "combination": summed,
        }
    return out


def _summed(
    its: Sequence[_evidence.Setting],
    candidates: Sequence[str],
    features: Sequence[str],
    sources: Mapping[str, dict[str, str]],
) -> dict[str, Any] | None:
    """Fits the sum on one half of the seeds, and judges it on the other.

    On that other half the candidates are judged too.
    """
    its = [x for x in its if len(x.seeds) > 1]
    if not its:
        return None
    fitted = _combination.fit(its, features)
    shown = tuple(dict.fromkeys((*features, *candidates, _combination.NAME)))
    others = (_combination.judged(x, fitted) for x in its)
    rows = [_evidence.evaluated(x, sources[x.pool], shown) for x in others if x]
    return fitted | {"judged": rows}


def _training(x: Mapping[str, Any]) -> tuple[str, str, str]:
    return x["pool"], x["method"], x["snapshot"]


def _title(x: Mapping[str, Any]) -> str:
    return " ".join(_training(x))


def _is_alive(x: Mapping[str, Any]) -> bool:
    names = [name for name in (*GIVEN, "lira", "rmia") if name in x["scores"]]
    return any(x["scores"][name]["auc"]["low"] > _CHANCE for name in names)


def _is_above(x: Mapping[str, Any], name: str) -> bool:
    return x["scores"].get(name, {}).get("tpr_less_vid_sme", {}).get("low", 0) > 0


def lines(found: Mapping[str, Any]) -> list[str]:
    """Returns what came of the rule as lines of Markdown."""
    out = ["", "## Which headline is recommended", ""]
    out += [(__doc__ or "").split("\n\n", 1)[1].strip().replace("\n", " ")]
    for name, its in found.items():
        out += ["", f"### {TITLES[name]}", ""]
        out += [f"Recommended: {its['recommended'] or 'none'}.", ""]
        summed = its["combination"]
        odd = [x["seeds"] for x in summed["judged"]] if summed else []
        if odd:
            out += [
                f"In all {len(its['settings'])} settings, of {_range(its['seeds'])} "
                f"seeds each, and on the {_range(odd)} odd seeds of {len(odd)} "
                "settings, where the combination is compared:",
                "",
            ]
        for candidate, lost in its["lost"].items():
            number, of = len(its["settings"]), "settings"
            if candidate == _combination.NAME:
                number, of = len(odd), "settings on odd seeds"
            text = f"- `{candidate}`: not above Vid-SME in {len(lost)} of {number} {of}"
            if odd and candidate != _combination.NAME:
                again = len(its["lost_on_odd"][candidate])
                text += f", on odd seeds in {again} of {len(odd)}"
            out.append(f"{text} ({', '.join(lost) or 'none'})")
        if summed:
            weights = summed["weights"].items()
            out += ["", "Weights of the combination, of scores in deviations: "]
            out[-1] += ", ".join(f"`{k}` {v:.2f}" for k, v in weights) + "."
    return out


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
