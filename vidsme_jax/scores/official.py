"""Profile "official": the release's 85 names, arithmetic and sign, smaller = member.

They are 70 distinct rankings: Min-K% Prob of a row whose target is its own argmax is
Max-K% Renyi-inf, ln ppl is its mean, and K = 100 % is the same from both ends. Names
and order are those of the release of [1] in `scores.statistics`.
"""

import re
from typing import Any

from vidsme_jax.entropy import stored
from vidsme_jax.scores import statistics as rows
from vidsme_jax.scores.profile import Profile, Score

_NAMES = """
ppl, Min_0% Prob, Min_5.0% Prob, Min_10.0% Prob, Min_30.0% Prob, Min_60.0% Prob,
Min_90.0% Prob, Modified_entropy, Modified_renyi_05, Modified_renyi_2, Max_Prob_Gap,
Max_0% renyi_05,    Max_0% renyi_1,    Max_0% renyi_2,    Max_0% renyi_inf,
Max_5.0% renyi_05,  Max_5.0% renyi_1,  Max_5.0% renyi_2,  Max_5.0% renyi_inf,
Max_10.0% renyi_05, Max_10.0% renyi_1, Max_10.0% renyi_2, Max_10.0% renyi_inf,
Max_30.0% renyi_05, Max_30.0% renyi_1, Max_30.0% renyi_2, Max_30.0% renyi_inf,
Max_60.0% renyi_05, Max_60.0% renyi_1, Max_60.0% renyi_2, Max_60.0% renyi_inf,
Max_90.0% renyi_05, Max_90.0% renyi_1, Max_90.0% renyi_2, Max_90.0% renyi_inf,
Max_100% renyi_05,  Max_100% renyi_1,  Max_100% renyi_2,  Max_100% renyi_inf,
Min_0% renyi_05,    Min_0% renyi_1,    Min_0% renyi_2,    Min_0% renyi_inf,
Min_5.0% renyi_05,  Min_5.0% renyi_1,  Min_5.0% renyi_2,  Min_5.0% renyi_inf,
Min_10.0% renyi_05, Min_10.0% renyi_1, Min_10.0% renyi_2, Min_10.0% renyi_inf,
Min_30.0% renyi_05, Min_30.0% renyi_1, Min_30.0% renyi_2, Min_30.0% renyi_inf,
Min_60.0% renyi_05, Min_60.0% renyi_1, Min_60.0% renyi_2, Min_60.0% renyi_inf,
Min_90.0% renyi_05, Min_90.0% renyi_1, Min_90.0% renyi_2, Min_90.0% renyi_inf,
Min_100% renyi_05,  Min_100% renyi_1,  Min_100% renyi_2,  Min_100% renyi_inf,
Max_vetp, Min_vetp, Mean_vetp, Max_0% vetp, Min_0% vetp, Max_5.0% vetp, Min_5.0% vetp,
Max_10.0% vetp, Min_10.0% vetp, Max_30.0% vetp, Min_30.0% vetp, Max_60.0% vetp,
Min_60.0% vetp, Max_90.0% vetp, Min_90.0% vetp, Max_100% vetp, Min_100% vetp,
sequence_vetp
"""
_SME = "SME of natural less reversed frames"
_LOWEST = "minus mean log p of the lowest rows"
_GAP = "minus the gap of log p of the two largest classes"

# By name: the statistic, which rows of it, and the description.
_WHOLE = {
    "ppl": (rows.perplexity, "mean", "perplexity of the argmax"),
    "Modified_entropy": (rows.modified_entropy, "mean", "modified entropy"),
    "Modified_renyi_05": (rows.modified_renyi_05, "mean", "modified Renyi-1/2 entropy"),
    "Modified_renyi_2": (rows.modified_renyi_2, "mean", "modified Renyi-2 entropy"),
    "Max_Prob_Gap": (rows.gap, "mean", _GAP),
    "Max_vetp": (rows.vid_sme, "max", f"{_SME}, one max"),
    "Min_vetp": (rows.vid_sme, "min", f"{_SME}, one min"),
    "Mean_vetp": (rows.vid_sme, "mean", f"{_SME}, one mean"),
    "sequence_vetp": (
        *(rows.vid_sme_sequence_released, "mean"),
        f"{_SME}, of the mean distribution",
    ),
}
# By the text after K: the statistic, and the description of one end of it.
_ENDS = {
    "Prob": (rows.nll, _LOWEST),
    "renyi_05": (rows.renyi_05_clamped, "mean of the {} rows of Renyi-05"),
    "renyi_1": (rows.renyi_1, "mean of the {} rows of Renyi-1"),
    "renyi_2": (rows.renyi_2, "mean of the {} rows of Renyi-2"),
    "renyi_inf": (rows.renyi_inf, "mean of the {} rows of Renyi-inf"),
    "vetp": (rows.vid_sme, f"{_SME}, {{}} rows"),
}


def _score(name: str) -> Score:
    if name in _WHOLE:
        return Score(name, *_WHOLE[name][:2], 0.0, _WHOLE[name][2])
    end, k, kind = re.split("_|% ", name, maxsplit=2)
    statistic, text = _ENDS[kind]
    tail = "max" if kind == "Prob" else end.lower()  # Of minus log p.
    text = text.format(f"{end.lower()}imal")
    return Score(f"{end} {kind}", statistic, tail, float(k) / 100, text)


def _deform(renyi: Any, q: Any, r: Any) -> Any:
    return stored.sharma_mittal_of_log_power_sum((1.0 - q) * renyi, q, r)


OFFICIAL = Profile(
    name="official",
    sign=1.0,
    deform=_deform,
    aliases={"vid_sme": "Min_30.0% vetp"},
    table={name: _score(name) for name in re.split(r",\s+", _NAMES.strip())},
)
