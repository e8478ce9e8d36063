"""Profile "exact": the mathematics, larger = member, each of 77 rankings once."""

from collections.abc import Callable
from typing import Any

from vidsme_jax.entropy import definitions
from vidsme_jax.scores import statistics as rows
from vidsme_jax.scores.profile import Profile, Score


def _deform(renyi: Any, q: Any, r: Any) -> Any:
    return definitions.sharma_mittal_of_renyi(renyi, r)


def _family(
    name: str, statistic: Callable, tail: str, text: str, end: str = ""
) -> Callable[[float], Score]:
    """Returns what makes the scores of a family, given K as a share of the rows.

    Args:
      name: Of the scores, without K.
      statistic: Of the rows; smaller = member.
      tail: The end of the statistic that is averaged.
      text: What is averaged, in words.
      end: The same end of what `text` says, where that has the other sign.
    """
    end = end or {"min": "smallest", "max": "largest"}[tail]

    def at(ratio: float) -> Score:
        several = f"mean of the {100 * ratio:.0f} % {end} rows"
        averaged = several if ratio else f"the {end} row"
        return Score(name, statistic, tail, ratio, f"{text}, {averaged}")

    return at


def _mean(statistic: Callable, text: str, averaged: str = "") -> Score:
    text = f"{text}, {averaged or 'mean over all video rows'}"
    return Score(statistic.__name__, statistic, "mean", 1.0, text)


_SME = "minus SME of natural less reversed frames"
_LOG_P = "log p of the argmax"
_STANDARDISED = f"{_LOG_P}, standardised"
_SEQUENCE = "of the rows' mean distribution"
_MODIFIED = "minus the modified Renyi-{} entropy"
_R05, _R1 = "minus the Renyi-1/2 entropy", "minus the Renyi-1 entropy"
_R2, _R_INF = "minus the Renyi-2 entropy", "minus the Renyi-inf entropy"

_vid_sme = _family("vid_sme", rows.vid_sme, "min", _SME)
_vid_sme_min = _family("vid_sme_min", rows.vid_sme, "min", _SME)
_vid_sme_max = _family("vid_sme_max", rows.vid_sme, "max", _SME)
_min_k_prob = _family("min_k_prob", rows.nll, "max", _LOG_P, "smallest")
_min_k_plus_plus = _family(
    "min_k_plus_plus", rows.min_k_plus_plus, "max", _STANDARDISED, "smallest"
)
_max_renyi_05 = _family("max_renyi_05", rows.renyi_05, "max", _R05)
_min_renyi_05 = _family("min_renyi_05", rows.renyi_05, "min", _R05)
_max_renyi_1 = _family("max_renyi_1", rows.renyi_1, "max", _R1)
_min_renyi_1 = _family("min_renyi_1", rows.renyi_1, "min", _R1)
_max_renyi_2 = _family("max_renyi_2", rows.renyi_2, "max", _R2)
_min_renyi_2 = _family("min_renyi_2", rows.renyi_2, "min", _R2)
_min_renyi_inf = _family("min_renyi_inf", rows.renyi_inf, "min", _R_INF)

EXACT = Profile(
    name="exact",
    sign=-1.0,
    deform=_deform,
    table={
        "vid_sme": _vid_sme(0.3),
        "vid_sme_min_0": _vid_sme_min(0.0),
        "vid_sme_min_5": _vid_sme_min(0.05),
        "vid_sme_min_10": _vid_sme_min(0.1),
        "vid_sme_min_60": _vid_sme_min(0.6),
        "vid_sme_min_90": _vid_sme_min(0.9),
        "vid_sme_max_0": _vid_sme_max(0.0),
        "vid_sme_max_5": _vid_sme_max(0.05),
        "vid_sme_max_10": _vid_sme_max(0.1),
        "vid_sme_max_30": _vid_sme_max(0.3),
        "vid_sme_max_60": _vid_sme_max(0.6),
        "vid_sme_max_90": _vid_sme_max(0.9),
        "vid_sme_mean": _mean(rows.vid_sme, _SME),
        "vid_sme_sequence": _mean(rows.vid_sme_sequence, _SME, _SEQUENCE),
        "perplexity": _mean(rows.nll, _LOG_P),
        "min_k_prob_0": _min_k_prob(0.0),
        "min_k_prob_5": _min_k_prob(0.05),
        "min_k_prob_10": _min_k_prob(0.1),
        "min_k_prob_30": _min_k_prob(0.3),
        "min_k_prob_60": _min_k_prob(0.6),
        "min_k_prob_90": _min_k_prob(0.9),
        "min_k_plus_plus_0": _min_k_plus_plus(0.0),
        "min_k_plus_plus_5": _min_k_plus_plus(0.05),
        "min_k_plus_plus_10": _min_k_plus_plus(0.1),
        "min_k_plus_plus_30": _min_k_plus_plus(0.3),
        "min_k_plus_plus_60": _min_k_plus_plus(0.6),
        "min_k_plus_plus_90": _min_k_plus_plus(0.9),
        "min_k_plus_plus_100": _mean(rows.min_k_plus_plus, _STANDARDISED),
        "modified_entropy": _mean(rows.modified_entropy, "minus the modified entropy"),
        "modified_renyi_05": _mean(rows.modified_renyi_05, _MODIFIED.format("1/2")),
        "modified_renyi_2": _mean(rows.modified_renyi_2, _MODIFIED.format("2")),
        "max_prob_gap": _mean(rows.gap, "log p of the first less the second class"),
        "max_renyi_05_0": _max_renyi_05(0.0),
        "max_renyi_05_5": _max_renyi_05(0.05),
        "max_renyi_05_10": _max_renyi_05(0.1),
        "max_renyi_05_30": _max_renyi_05(0.3),
        "max_renyi_05_60": _max_renyi_05(0.6),
        "max_renyi_05_90": _max_renyi_05(0.9),
        "mean_renyi_05": _mean(rows.renyi_05, _R05),
        "min_renyi_05_0": _min_renyi_05(0.0),
        "min_renyi_05_5": _min_renyi_05(0.05),
        "min_renyi_05_10": _min_renyi_05(0.1),
        "min_renyi_05_30": _min_renyi_05(0.3),
        "min_renyi_05_60": _min_renyi_05(0.6),
        "min_renyi_05_90": _min_renyi_05(0.9),
        "max_renyi_1_0": _max_renyi_1(0.0),
        "max_renyi_1_5": _max_renyi_1(0.05),
        "max_renyi_1_10": _max_renyi_1(0.1),
        "max_renyi_1_30": _max_renyi_1(0.3),
        "max_renyi_1_60": _max_renyi_1(0.6),
        "max_renyi_1_90": _max_renyi_1(0.9),
        "mean_renyi_1": _mean(rows.renyi_1, _R1),
        "min_renyi_1_0": _min_renyi_1(0.0),
        "min_renyi_1_5": _min_renyi_1(0.05),
        "min_renyi_1_10": _min_renyi_1(0.1),
        "min_renyi_1_30": _min_renyi_1(0.3),
        "min_renyi_1_60": _min_renyi_1(0.6),
        "min_renyi_1_90": _min_renyi_1(0.9),
        "max_renyi_2_0": _max_renyi_2(0.0),
        "max_renyi_2_5": _max_renyi_2(0.05),
        "max_renyi_2_10": _max_renyi_2(0.1),
        "max_renyi_2_30": _max_renyi_2(0.3),
        "max_renyi_2_60": _max_renyi_2(0.6),
        "max_renyi_2_90": _max_renyi_2(0.9),
        "mean_renyi_2": _mean(rows.renyi_2, _R2),
        "min_renyi_2_0": _min_renyi_2(0.0),
        "min_renyi_2_5": _min_renyi_2(0.05),
        "min_renyi_2_10": _min_renyi_2(0.1),
        "min_renyi_2_30": _min_renyi_2(0.3),
        "min_renyi_2_60": _min_renyi_2(0.6),
        "min_renyi_2_90": _min_renyi_2(0.9),
        "min_renyi_inf_0": _min_renyi_inf(0.0),
        "min_renyi_inf_5": _min_renyi_inf(0.05),
        "min_renyi_inf_10": _min_renyi_inf(0.1),
        "min_renyi_inf_30": _min_renyi_inf(0.3),
        "min_renyi_inf_60": _min_renyi_inf(0.6),
        "min_renyi_inf_90": _min_renyi_inf(0.9),
    },
)
