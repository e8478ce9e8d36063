"""Profile "official": the release's 85 names, arithmetic and sign, smaller = member.

They are 70 distinct rankings: Min-K% Prob of a row whose target is its own argmax is
Max-K% Renyi-inf, ln ppl is its mean, and K = 100 % is the same from both ends. Names
and order are those of the release of [1] in `scores.statistics`.
"""

import itertools
from typing import Any

from vidsme_jax.entropy import definitions
from vidsme_jax.scores import statistics as rows
from vidsme_jax.scores.profile import Profile, Score

_RATIOS = (0.0, 0.05, 0.1, 0.3, 0.6, 0.9, 1.0)
_ORDERS = {
    "05": rows.renyi_05_clamped,
    "1": rows.renyi_1,
    "2": rows.renyi_2,
    "inf": rows.renyi_inf,
}
_SME = "SME of natural less reversed frames"
_PROB = "Min_0% Prob, Min_5.0% Prob, Min_10.0% Prob, Min_30.0% Prob, Min_60.0% Prob"
_PROB += ", Min_90.0% Prob"
# A line for each K, first of the largest rows; a column for each order.
_RENYI = """
Max_0% renyi_05,    Max_0% renyi_1,    Max_0% renyi_2,    Max_0% renyi_inf
Max_5.0% renyi_05,  Max_5.0% renyi_1,  Max_5.0% renyi_2,  Max_5.0% renyi_inf
Max_10.0% renyi_05, Max_10.0% renyi_1, Max_10.0% renyi_2, Max_10.0% renyi_inf
Max_30.0% renyi_05, Max_30.0% renyi_1, Max_30.0% renyi_2, Max_30.0% renyi_inf
Max_60.0% renyi_05, Max_60.0% renyi_1, Max_60.0% renyi_2, Max_60.0% renyi_inf
Max_90.0% renyi_05, Max_90.0% renyi_1, Max_90.0% renyi_2, Max_90.0% renyi_inf
Max_100% renyi_05,  Max_100% renyi_1,  Max_100% renyi_2,  Max_100% renyi_inf
Min_0% renyi_05,    Min_0% renyi_1,    Min_0% renyi_2,    Min_0% renyi_inf
Min_5.0% renyi_05,  Min_5.0% renyi_1,  Min_5.0% renyi_2,  Min_5.0% renyi_inf
Min_10.0% renyi_05, Min_10.0% renyi_1, Min_10.0% renyi_2, Min_10.0% renyi_inf
Min_30.0% renyi_05, Min_30.0% renyi_1, Min_30.0% renyi_2, Min_30.0% renyi_inf
Min_60.0% renyi_05, Min_60.0% renyi_1, Min_60.0% renyi_2, Min_60.0% renyi_inf
Min_90.0% renyi_05, Min_90.0% renyi_1, Min_90.0% renyi_2, Min_90.0% renyi_inf
Min_100% renyi_05,  Min_100% renyi_1,  Min_100% renyi_2,  Min_100% renyi_inf
"""
_VETP = """
Max_0% vetp,    Min_0% vetp
Max_5.0% vetp,  Min_5.0% vetp
Max_10.0% vetp, Min_10.0% vetp
Max_30.0% vetp, Min_30.0% vetp
Max_60.0% vetp, Min_60.0% vetp
Max_90.0% vetp, Min_90.0% vetp
Max_100% vetp,  Min_100% vetp
"""


def _deform(renyi: Any, q: Any, r: Any) -> Any:
    return definitions.sharma_mittal_of_log_power_sum((1.0 - q) * renyi, q, r)


def _named(names: str, scores: list[Score]) -> dict[str, Score]:
    """Pairs names, as they are listed above, with scores in the same order."""
    listed = (name.strip() for name in names.strip().replace("\n", ",").split(","))
    return dict(zip(listed, scores, strict=True))


def _renyi(tail: str, ratio: float, order: str) -> Score:
    family = f"{tail.capitalize()} renyi_{order}"
    text = f"mean of the {tail}imal rows of Renyi-{order}"
    return Score(family, _ORDERS[order], tail, ratio, text)


def _vetp(ratio: float, tail: str) -> Score:
    family, text = f"{tail.capitalize()} vetp", f"{_SME}, {tail}imal rows"
    return Score(family, rows.vid_sme, tail, ratio, text)


def _prob(ratio: float) -> Score:
    text = "minus mean log p of the lowest rows"
    return Score("Min Prob", rows.nll, "max", ratio, text)


def _of_all(statistic: Any, text: str) -> Score:
    return Score(statistic.__name__, statistic, "mean", 1.0, text)


_PRODUCT = itertools.product(("max", "min"), _RATIOS, _ORDERS)
_GAP = "minus the gap of log p of the two largest classes"
OFFICIAL = Profile(
    name="official",
    sign=1.0,
    deform=_deform,
    aliases={"vid_sme": "Min_30.0% vetp"},
    table={
        "ppl": _of_all(rows.perplexity, "perplexity of the argmax"),
        **_named(_PROB, [_prob(ratio) for ratio in _RATIOS[:-1]]),
        "Modified_entropy": _of_all(rows.modified_entropy, "modified entropy"),
        "Modified_renyi_05": _of_all(
            rows.modified_renyi_05, "modified Renyi-1/2 entropy"
        ),
        "Modified_renyi_2": _of_all(rows.modified_renyi_2, "modified Renyi-2 entropy"),
        "Max_Prob_Gap": _of_all(rows.gap, _GAP),
        **_named(_RENYI, [_renyi(*each) for each in _PRODUCT]),
        "Max_vetp": Score("Max_vetp", rows.vid_sme, "max", 0.0, f"{_SME}, one max"),
        "Min_vetp": Score("Min_vetp", rows.vid_sme, "min", 0.0, f"{_SME}, one min"),
        "Mean_vetp": Score("Mean_vetp", rows.vid_sme, "mean", 0.0, f"{_SME}, one mean"),
        **_named(_VETP, [_vetp(x, tail) for x in _RATIOS for tail in ("max", "min")]),
        "sequence_vetp": _of_all(
            rows.vid_sme_sequence_released, f"{_SME}, of the mean distribution"
        ),
    },
)
